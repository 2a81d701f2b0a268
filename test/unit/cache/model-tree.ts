/** The tree of extents, the order of use and the block map together, against plain lists. `npx tsx test/unit/cache/million.ts` does it a million times. */
import { BlockMap } from '../../../src/cache/block-map.js';
import { Catalog } from '../../../src/cache/catalog.js';
import { Deferred } from '../../../src/cache/deferred.js';
import { ExtentTree } from '../../../src/cache/extent-tree.js';
import { Intents } from '../../../src/cache/intents.js';
import { Recency } from '../../../src/cache/recency.js';
import { TreeNodes } from '../../../src/cache/tree-nodes.js';
import { MemoryDevice } from '../../../src/device/memory-device.js';
import { emptyLinks, encodeNode } from '../../../src/format/vci-node.js';
import type { SeededRandom } from '../../../src/testing/index.js';

const IMAGE_BLOCKS = 65_536;
const VOLUME_BLOCKS = 16_384;
const BLOCK = 512;

export class ModelTree {
  readonly #random: SeededRandom;
  readonly #device: MemoryDevice;
  readonly #catalog: Catalog;
  /** Of each block of the volume, where its data lies; 0: not cached. */
  readonly #addresses = new Uint32Array(VOLUME_BLOCKS);
  #commits = 0;

  private constructor(random: SeededRandom, device: MemoryDevice, catalog: Catalog) {
    this.#random = random;
    this.#device = device;
    this.#catalog = catalog;
  }

  static async make(random: SeededRandom, nodesMax = 4096): Promise<ModelTree> {
    const device = new MemoryDevice(IMAGE_BLOCKS * BLOCK);
    const map = new BlockMap(IMAGE_BLOCKS);
    map.allocateAt(0, 16, 'metadata');
    const deferred = new Deferred();
    const nodes = new TreeNodes(device, map, deferred, nodesMax, true);
    nodes.fillSpare();
    const tree = ExtentTree.create(nodes);
    const intents = new Intents(device, 8, new Uint8Array(BLOCK));
    return new ModelTree(
      random,
      device,
      new Catalog({ map, nodes, deferred, tree, recency: new Recency(100_000), intents }),
    );
  }

  /** Levels of nodes. */
  get levels(): number {
    let levels = 1;
    for (
      let node = this.#catalog.nodes.get(this.#catalog.tree.root);
      node?.columns.kind === 'internal';
      levels++
    )
      node = this.#catalog.nodes.get(node.columns.addresses[0] ?? 0);
    return levels;
  }

  async compare(operations: number): Promise<void> {
    for (let done = 0; done < operations; done++) {
      await this.#operate();
      if (done % 500 === 0) await this.#commit();
      if (done % 5000 === 0 || done === operations - 1) await this.#compareAll();
    }
  }

  async #load(first: number, end: number): Promise<void> {
    for (
      let missing = this.#catalog.missing(first, end);
      missing !== 0;
      missing = this.#catalog.missing(first, end)
    )
      await this.#catalog.nodes.load(missing);
  }

  async #operate(): Promise<void> {
    const random = this.#random;
    const count = random.pick([1, 1, 1, 2, 8, 64]);
    const first = random.below(VOLUME_BLOCKS - count);
    await this.#load(first, first + count);
    if (!this.#catalog.isReady()) await this.#commit();
    switch (random.below(4)) {
      case 0:
      case 1:
        return this.#insert(first, count);
      case 2:
        return this.#cut(first, first + count);
      default: {
        await this.#load(first, first);
        const { extent, next } = this.#catalog.find(first);
        const at = extent === undefined ? 0 : extent.address + first - extent.first;
        same(at, this.#addresses[first] ?? 0, `block ${first}`);
        if (extent !== undefined) this.#catalog.touch(extent);
        else same(next, this.#nextAfter(first), `the next extent after ${first}`);
      }
    }
  }

  async #insert(first: number, count: number): Promise<void> {
    await this.#cut(first, first + count);
    const pieces = this.#catalog.allocate(first, count);
    let at = first;
    for (const piece of pieces ?? []) {
      await this.#load(at, at + piece.count);
      this.#catalog.insert({ first: at, count: piece.count, address: piece.address });
      for (let block = 0; block < piece.count; block++) this.#addresses[at + block] = piece.address + block;
      at += piece.count;
    }
  }

  async #cut(first: number, end: number): Promise<void> {
    for (let at = first; at < end; ) {
      await this.#load(at, at);
      const { extents, next } = this.#catalog.tree.leafAt(at);
      const extent = extents.find((each) => each.first < end);
      if (extent !== undefined) this.#catalog.cut(extent, first, end);
      at = extent === undefined ? next : Math.max(at, extent.first + extent.count);
    }
    this.#addresses.fill(0, first, end);
  }

  #nextAfter(block: number): number {
    for (let at = block; at < VOLUME_BLOCKS; at++) if (this.#addresses[at] !== 0) return at;
    return Number.POSITIVE_INFINITY;
  }

  /** What a commit does, without its order and its flushes. */
  async #commit(): Promise<void> {
    const { nodes, deferred, map, recency } = this.#catalog;
    const frozen = nodes.freeze();
    for (const { columns, address } of frozen) {
      const links = emptyLinks();
      if (columns.kind === 'leaf') recency.linksOf(columns, links);
      await this.#device.write(address * BLOCK, encodeNode(columns, this.#commits, links));
    }
    nodes.written(frozen);
    deferred.take()(map);
    this.#commits++;
  }

  async #compareAll(): Promise<void> {
    const { map, deferred, recency, tree } = this.#catalog;
    let extents = 0;
    let blocks = 0;
    for (let at = 0; at !== Number.POSITIVE_INFINITY; ) {
      await this.#load(at, at);
      const leaf = tree.leafAt(at);
      for (const { first, count, address } of leaf.extents) {
        extents++;
        blocks += count;
        for (let block = 0; block < count; block++)
          same(address + block, this.#addresses[first + block] ?? 0, `block ${first + block}`);
        same(recency.has(first), true, `extent ${first} in the order of use`);
      }
      at = leaf.next;
    }
    same(blocks, this.#addresses.filter((address) => address !== 0).length, 'blocks cached');
    same(extents, recency.size, 'extents in the order of use');
    same(recency.firsts().length, extents, 'extents in the chain');
    const { free, metadata, data } = map.counts;
    same(free + metadata + data, IMAGE_BLOCKS, 'all blocks');
    same(data - deferred.blocksOf.data, blocks, 'data blocks');
  }
}

/** Far faster than `expect`, a million times. */
function same(actual: unknown, expected: unknown, what: string): void {
  if (actual !== expected) throw new Error(`${what}: ${actual}, not ${expected}`);
}
