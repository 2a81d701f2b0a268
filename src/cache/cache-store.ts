/**
 * Extents in an image: looking them up, adding them, taking them out, and room for them.
 *
 * Numbers here are blocks. Data goes to free blocks only, and is in the tree once it is written; what is in the tree is never overwritten. So a reader
 * who finds an extent may read it without a lock, as long as no commit is done meanwhile, which alone makes its blocks free.
 *
 * Shared state: the catalog, changed between awaits only; room is made by one at a time (`#reclaiming`).
 */
import { allDone } from '../all-done.js';
import type { Environment } from '../environment.js';
import { DeviceError, NoSpaceError } from '../errors.js';
import { VCI_BLOCK_SIZE } from '../format/vci.js';
import type { Catalog } from './catalog.js';
import { Commits, DIRTY_NODES_MAX } from './commits.js';
import type { Extent, Found } from './extent-tree.js';
import type { ImageFile } from './image-file.js';

/** Milliseconds between a change and the commit that makes it durable, if nothing else asks for one. */
const COMMIT_AFTER_MS = 5000;
/** Ranges that wait for a commit to be free, from which on one is due. */
const DEFERRED_MAX = 32_768;
/** Rounds of making room after which whoever waits for it gives up. */
const ROUNDS_MAX = 8;

/** What it did since it was opened. */
export interface CacheFigures {
  readonly extents: number;
  readonly dataBytes: number;
  readonly metadataBytes: number;
  readonly freeBytes: number;
  readonly commits: number;
  readonly evictedExtents: number;
}

export class CacheStore {
  readonly file: ImageFile;
  readonly commits: Commits;
  readonly #environment: Environment;
  #catalog: Catalog;
  #reclaiming: Promise<void> | undefined;
  /** A commit because much changed. */
  #due: Promise<void> | undefined;
  #cancelTimer: (() => void) | undefined;
  #evicted = 0;
  /** Told once why the image is not used any more. */
  onFailure: (error: Error) => void = () => undefined;

  constructor(file: ImageFile, catalog: Catalog, environment: Environment) {
    this.file = file;
    this.commits = new Commits(file);
    this.#catalog = catalog;
    this.#environment = environment;
  }

  get catalog(): Catalog {
    return this.#catalog;
  }

  get failure(): Error | undefined {
    return this.commits.failure;
  }

  get figures(): CacheFigures {
    const { map, recency, nodes, deferred } = this.#catalog;
    const { free, metadata, data } = map.counts;
    return {
      extents: recency.size,
      dataBytes: (data - deferred.blocksOf.data) * VCI_BLOCK_SIZE,
      metadataBytes: (metadata - deferred.blocksOf.metadata - nodes.spareBlocks) * VCI_BLOCK_SIZE,
      freeBytes: (free + nodes.spareBlocks + deferred.blocks) * VCI_BLOCK_SIZE,
      commits: this.commits.count,
      evictedExtents: this.#evicted,
    };
  }

  /** What is at `block`, if the nodes on the way are in memory. */
  findNow(block: number): Found | undefined {
    return this.#catalog.missing(block, block) === 0 ? this.#catalog.find(block) : undefined;
  }

  /** @throws DeviceError, FormatError: then the image is not to be used any more */
  async find(block: number): Promise<Found> {
    await this.#load(block, block);
    return this.#catalog.find(block);
  }

  /** The extent was used. */
  touch(extent: Extent): void {
    this.#catalog.touch(extent);
  }

  /** Reads cached blocks, from byte `offset` of the extent on. */
  readExtent({ address }: Extent, offset: number, target: Uint8Array): Promise<void> {
    return this.file.device.read(address * VCI_BLOCK_SIZE + offset, target);
  }

  /**
   * Caches blocks where nothing is cached; where something is, that stays.
   * @param bytes whole blocks, at most `EXTENT_BLOCKS_MAX` of them; they belong to the store until the promise settles
   * @param isVoid asked just before it counts: is it known by now that these bytes may be wrong?
   * @param waits for room, instead of leaving it
   * @returns whether they are cached
   */
  async put(first: number, bytes: Uint8Array, isVoid: () => boolean, waits: boolean): Promise<boolean> {
    if (this.failure !== undefined) return false;
    await this.#begin();
    const count = bytes.byteLength / VCI_BLOCK_SIZE;
    const pieces = await this.#allocate(first, count, waits);
    if (pieces === undefined) return false;
    let at = 0;
    try {
      await allDone(this.#write(pieces, bytes));
      for (const { address, count: length } of pieces) {
        const from = first + at;
        if (!(await this.#prepare(from, from + length, waits)) || isVoid()) return false;
        // Not a moment may pass from here to the end of it.
        at += length;
        this.#insertUncovered({ first: from, count: length, address });
      }
    } finally {
      this.#giveBack(pieces, at);
    }
    return true;
  }

  #write(
    pieces: readonly { readonly address: number; readonly count: number }[],
    bytes: Uint8Array,
  ): Promise<void>[] {
    let at = 0;
    return pieces.map(async ({ address, count }) => {
      const from = at;
      at += count * VCI_BLOCK_SIZE;
      const part = bytes.subarray(from, at);
      await this.file.reach(address + count);
      await this.file.device.write(address * VCI_BLOCK_SIZE, part);
    });
  }

  #giveBack(pieces: readonly { readonly address: number; readonly count: number }[], done: number): void {
    let at = 0;
    for (const piece of pieces) {
      if (at >= done) this.#catalog.giveBack([piece]);
      at += piece.count;
    }
  }

  /** What is cached by now stays; its blocks of the new extent go back. */
  #insertUncovered({ first, count, address }: Extent): void {
    for (let at = first; at < first + count; ) {
      const { extent, next } = this.#catalog.find(at);
      const end = Math.min(first + count, extent === undefined ? next : extent.first + extent.count);
      const part = { first: at, count: end - at, address: address + at - first };
      if (extent === undefined && this.#catalog.isReady()) this.#catalog.insert(part);
      else this.#catalog.giveBack([part]);
      at = end;
    }
  }

  /**
   * Nothing from block `first` up to `end` is cached any more, and no crash brings it back once this has returned: the backing may change there then.
   * @throws DeviceError if that cannot be made durable: then the backing must not change
   */
  async forget(first: number, end: number): Promise<void> {
    const { intents } = this.#catalog;
    let isNamed = this.failure !== undefined;
    if (!isNamed) {
      await this.#begin();
      isNamed = await this.drop(first, end).catch((error: unknown) => {
        this.fail(error);
        return true;
      });
    }
    if (isNamed || intents.hasLeft(first, end)) await intents.mark(first, end);
  }

  /** Nothing from block `first` up to `end` is cached any more; a crash may bring it back. @returns whether there was anything */
  async drop(first: number, end: number): Promise<boolean> {
    let found = false;
    for (let at = first; at < end; ) {
      if (!(await this.#prepare(at, at, true))) throw new NoSpaceError('the cache has no room for its tree');
      // Not a moment may pass from here to the cut.
      const { extents, next } = this.#catalog.tree.leafAt(at);
      const extent = extents.find((each) => each.first < end);
      if (extent === undefined) {
        at = next;
        continue;
      }
      this.#catalog.cut(extent, first, end);
      found = true;
      at = Math.max(at, extent.first + extent.count);
    }
    return found;
  }

  /** Moves the data of an extent to free blocks before it. @returns whether it could be done */
  async move(extent: Extent): Promise<boolean> {
    const { map, reserve } = this.#catalog;
    const { first, count } = extent;
    if (map.free - count < reserve) return false;
    const commits = this.commits.count;
    await this.#begin();
    const address = map.allocate(count, 'data');
    if (address === undefined) return false;
    let isMoved = false;
    try {
      if (address > extent.address) return false;
      const bytes = new Uint8Array(count * VCI_BLOCK_SIZE);
      await this.readExtent(extent, 0, bytes);
      await this.file.device.write(address * VCI_BLOCK_SIZE, bytes);
      if (!(await this.#prepare(first, first, true))) return false;
      const now = this.#catalog.find(first).extent;
      // Cut, or taken out, and maybe overwritten after a commit, meanwhile.
      if (commits !== this.commits.count) return false;
      if (now?.first !== first || now.count !== count || now.address !== extent.address) return false;
      this.#catalog.move(now, address);
      isMoved = true;
    } finally {
      if (!isMoved) map.release(address, count, 'data');
    }
    return true;
  }

  /** Loads the nodes of a range and sees to it that the tree can be changed. @returns `false`: it cannot, for now */
  async #prepare(first: number, end: number, waits: boolean): Promise<boolean> {
    for (let round = 0; ; round++) {
      await this.#load(first, end);
      if (this.#catalog.isReady()) return true;
      const reclaimed = this.#reclaim(0);
      if (!waits || round >= ROUNDS_MAX) return false;
      await reclaimed;
    }
  }

  async #load(first: number, end: number): Promise<void> {
    for (
      let missing = this.#catalog.missing(first, end);
      missing !== 0;
      missing = this.#catalog.missing(first, end)
    ) {
      try {
        await this.#catalog.nodes.load(missing);
      } catch (error) {
        this.fail(error);
        throw error;
      }
    }
  }

  async #begin(): Promise<void> {
    await this.commits.begin();
    this.#cancelTimer ??= this.#environment.clock.after(COMMIT_AFTER_MS, () => {
      this.#cancelTimer = undefined;
      this.#inBackground(this.commit());
    });
    const { nodes, deferred } = this.#catalog;
    if (nodes.dirtyCount < DIRTY_NODES_MAX && deferred.size < DEFERRED_MAX) return;
    // One for all who notice it.
    this.#due ??= this.commit().finally(() => {
      this.#due = undefined;
    });
    await this.#due;
  }

  async #allocate(first: number, count: number, waits: boolean) {
    const { map, reserve } = this.#catalog;
    for (let round = 0; ; round++) {
      const pieces = this.#catalog.allocate(first, count);
      const isLow = map.free < reserve + count + Math.floor(map.blocks / 32);
      if (pieces !== undefined) {
        if (isLow) this.#inBackground(this.#reclaim(count));
        return pieces;
      }
      const reclaimed = this.#reclaim(count);
      if (!waits || round >= ROUNDS_MAX) {
        this.#inBackground(reclaimed);
        return undefined;
      }
      await reclaimed;
    }
  }

  /** Makes room for `count` blocks and more: what was not used for the longest time goes, and a commit makes its blocks free. */
  #reclaim(count: number): Promise<void> {
    this.#reclaiming ??= this.#evictAndCommit(count).finally(() => {
      this.#reclaiming = undefined;
    });
    return this.#reclaiming;
  }

  async #evictAndCommit(count: number): Promise<void> {
    const { map, recency, deferred, nodes, reserve } = this.#catalog;
    const wanted = Math.min(map.blocks, reserve + 2 * count + Math.floor(map.blocks / 16));
    const extentsMax = Math.floor(recency.limit * 0.95) - 2;
    const isEnough = () => map.free + deferred.blocks >= wanted && recency.size <= extentsMax;
    for (let oldest = recency.oldest; oldest !== undefined && !isEnough(); oldest = recency.oldest) {
      if (this.#catalog.missing(oldest, oldest) !== 0) {
        await this.#load(oldest, oldest);
        continue;
      }
      // What is evicted lies all over the tree: without this nearly every node would be in memory, changed.
      if (nodes.dirtyCount >= DIRTY_NODES_MAX) {
        await this.commit();
        continue;
      }
      if (!this.#catalog.isReadyToEvict()) {
        await this.commit();
        if (this.#catalog.isReadyToEvict()) continue;
        throw new NoSpaceError(`${this.file.device.name} has no room left for the tree of its extents`);
      }
      this.#catalog.evict(oldest);
      this.#evicted++;
    }
    await this.commit();
  }

  /** Makes what is cached now survive a crash. */
  async commit(): Promise<void> {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    await this.commits.commit(this.#catalog);
  }

  /** Nothing is cached any more, durably. @param catalog an empty one, of the same parts */
  async replace(catalog: Catalog): Promise<void> {
    this.#catalog = catalog;
    await this.commits.commit(catalog);
  }

  /** Something that nobody waits for: if it fails the image is not used any more, and `onFailure` is told. */
  #inBackground(work: Promise<void>): void {
    work.catch((error: unknown) => this.fail(error));
  }

  fail(error: unknown): void {
    const isFirst = this.failure === undefined;
    this.commits.fail(error);
    if (this.failure !== undefined && (isFirst || this.failure === error)) this.onFailure(this.failure);
  }

  /** Writes everything, the order of use too, and marks the image as closed cleanly. No call may be under way. */
  async finish(): Promise<void> {
    this.#cancelTimer?.();
    await this.#reclaiming?.catch(() => undefined); // What failed is in `failure`.
    if (this.failure !== undefined) {
      throw new DeviceError(`${this.file.device.name} could not be closed cleanly: ${this.failure.message}`, {
        cause: this.failure,
      });
    }
    const { recency } = this.#catalog;
    if (!this.file.header.unclean && recency.isStored) return;
    await this.commits.begin();
    if (!recency.isStored) await this.rewriteTree();
    await this.commit();
    await this.commits.finish(this.#catalog);
    await this.file.shorten(() => this.#catalog.map.usedEnd);
  }

  /** Every leaf will be written once more: where nodes fit first, and with the order of use, which has changed everywhere. */
  async rewriteTree(): Promise<void> {
    const { tree, nodes, recency } = this.#catalog;
    // What changes meanwhile may concern a leaf that has been written.
    recency.store();
    for (let at = 0; at !== Infinity; ) {
      await this.#load(at, at);
      if (nodes.dirtyCount >= DIRTY_NODES_MAX || !this.#catalog.isReadyToEvict()) {
        await this.commit();
        continue;
      }
      const { next } = tree.leafAt(at);
      tree.rewrite(at);
      at = next;
    }
  }
}
