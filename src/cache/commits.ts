/**
 * Makes what is cached durable.
 *
 * A commit freezes the tree, writes the nodes that are new to places that the last commit does not name, flushes the backing and the image,
 * and then writes one sector, the header, that names the new root; a second flush makes it the last commit. What the old one alone named is free then.
 * So at every moment the image holds one whole tree. That what it says is cached equals the backing is up to the intents.
 *
 * Shared state: the tree is frozen between awaits; one commit at a time, under a mutex. After one that failed nothing is known for certain, and none follows.
 */
import { Mutex } from 'async-mutex';
import { allDone } from '../all-done.js';
import { pooledSize } from '../device/buffer-pool.js';
import { encodeBlockMapHeader, VCI_BLOCK_SIZE, type VciExtension, type VciHeader } from '../format/vci.js';
import { emptyLinks, encodeNode, NODE_BLOCKS, NODE_SIZE } from '../format/vci-node.js';
import type { Catalog } from './catalog.js';
import type { ImageFile } from './image-file.js';
import type { TreeNode } from './tree-nodes.js';

/** What the backing says of itself, to be recorded with a commit. */
export interface Settled {
  readonly header?: Partial<Pick<VciHeader, 'modificationId'>>;
  readonly extension?: Partial<Pick<VciExtension, 'derivedModification' | 'backingSize' | 'backingName'>>;
}

/** Nodes not written yet from which on a commit is due; their bytes are all in memory then. */
export const DIRTY_NODES_MAX = 1024;
/** Bytes of their images that are kept for the next commit: of more nodes, as changes that have begun go on until it begins. */
const IMAGES_KEPT = 2 * DIRTY_NODES_MAX * NODE_SIZE;
/** Nodes are written in so many requests at once: more would only wait in memory. */
const WRITES_AT_ONCE = 16;
/** Bytes of the bitmap that are written at once. */
const BITMAP_STEP = 65_536;

export class Commits {
  readonly #file: ImageFile;
  readonly #mutex = new Mutex();
  #failure: Error | undefined;
  #begun: Promise<void> | undefined;
  #count = 0;
  /** Nodes as they are written, one behind the other: memory that the next commit uses again. */
  #images = new Uint8Array(0);
  readonly #links = emptyLinks();
  /** Makes durable what the backing was given: what is cached is what it would hold after a power cut. */
  settle: () => Promise<Settled> = async () => ({});

  constructor(file: ImageFile) {
    this.#file = file;
  }

  /** Why nothing can be made durable any more. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** How many there were; each made blocks free that a reader may still be reading. */
  get count(): number {
    return this.#count;
  }

  fail(error: unknown): void {
    this.#failure ??= error instanceof Error ? error : new Error(String(error));
  }

  /** The image is about to change: from now on it was not closed cleanly. Durable with the next flush. */
  begin(): Promise<void> {
    if (this.#file.header.unclean) return DONE;
    this.#begun ??= this.#file.update({ unclean: true }).finally(() => {
      this.#begun = undefined;
    });
    return this.#begun;
  }

  /** Makes all that is cached now durable. @throws DeviceError: then this was the last one */
  commit(catalog: Catalog): Promise<void> {
    return this.#mutex.runExclusive(async () => {
      if (this.#failure !== undefined) throw this.#failure;
      try {
        await this.#commit(catalog);
      } catch (error) {
        this.fail(error);
        throw error;
      }
    });
  }

  async #commit(catalog: Catalog): Promise<void> {
    const { device } = this.#file;
    const generation = this.#file.header.extension.generation + 1;
    // Frozen here, without an await in between.
    const treeRoot = catalog.tree.root;
    const nodes = catalog.nodes.freeze().sort((a, b) => a.address - b.address);
    this.#encode(nodes, generation, catalog);
    const release = catalog.deferred.take();
    catalog.intents.freeze();
    await this.#writeNodes(nodes);
    const settled = await this.settle();
    await device.flush();
    await this.#file.update(
      { treeRoot, unclean: true, ...settled.header },
      { generation, ...settled.extension },
    );
    await device.flush();
    catalog.nodes.written(nodes);
    release(catalog.map);
    this.#count++;
    await catalog.intents.committed();
  }

  /** Puts the nodes into `#images`, in this order. */
  #encode(nodes: readonly TreeNode[], generation: number, { recency }: Catalog): void {
    const length = nodes.length * NODE_SIZE;
    const kept = this.#images.byteLength;
    // What is too much for ever is given up by the next commit that can do with less.
    const isFit = kept >= length && (kept <= IMAGES_KEPT || length > IMAGES_KEPT);
    if (!isFit) this.#images = new Uint8Array(length > IMAGES_KEPT ? length : pooledSize(length));
    nodes.forEach(({ columns }, index) => {
      if (columns.kind === 'leaf') recency.linksOf(columns, this.#links);
      const at = index * NODE_SIZE;
      encodeNode(columns, generation, this.#links, this.#images.subarray(at, at + NODE_SIZE));
    });
  }

  /** Nodes that lie one behind the other in one write. @param nodes as they were encoded, ascending */
  async #writeNodes(nodes: readonly TreeNode[]): Promise<void> {
    const { device } = this.#file;
    const runs: { readonly address: number; readonly from: number; to: number }[] = [];
    for (const [index, { address }] of nodes.entries()) {
      const run = runs.at(-1);
      if (run !== undefined && run.address + (run.to - run.from) * NODE_BLOCKS === address)
        run.to = index + 1;
      else runs.push({ address, from: index, to: index + 1 });
    }
    const left = runs.values();
    const writer = async () => {
      for (const { address, from, to } of left) {
        await this.#file.reach(address + (to - from) * NODE_BLOCKS);
        const bytes = this.#images.subarray(from * NODE_SIZE, to * NODE_SIZE);
        await device.write(address * VCI_BLOCK_SIZE, bytes);
      }
    };
    await allDone(Array.from({ length: WRITES_AT_ONCE }, writer));
  }

  /** The image is whole, with its block map and nothing open. The last commit must be of what there is now. */
  async finish(catalog: Catalog): Promise<void> {
    const { device, header } = this.#file;
    catalog.nodes.dropSpare();
    await this.#file.reach(header.blockMap + header.blockMapSize);
    await device.write(header.blockMap * VCI_BLOCK_SIZE, encodeBlockMapHeader(catalog.map.counts));
    const bytes = (header.blockMapSize - 1) * VCI_BLOCK_SIZE;
    const memory = { wanted: new Uint8Array(BITMAP_STEP), stored: new Uint8Array(BITMAP_STEP) };
    for (let at = 0; at < bytes; at += BITMAP_STEP) {
      const wanted = memory.wanted.subarray(0, bytes - at);
      const stored = memory.stored.subarray(0, bytes - at);
      catalog.map.fillBitmap(8 * at, wanted);
      const offset = (header.blockMap + 1) * VCI_BLOCK_SIZE + at;
      await device.read(offset, stored);
      // Most of a large map stays as it is, and what is a hole of the file stays one.
      if (Buffer.compare(stored, wanted) !== 0) await device.write(offset, wanted);
    }
    const settled = await this.settle();
    await device.flush();
    await this.#file.update({ unclean: false, ...settled.header }, settled.extension);
    await device.flush();
  }
}

const DONE = Promise.resolve();
