/**
 * What is cached: the tree of extents, their order of use, and the blocks that they take.
 *
 * Everything here is synchronous; `missing` says which node has to be loaded first. What leaves the tree is told to the intents, and its blocks are
 * free after the next commit.
 */
import type { BlockMap } from './block-map.js';
import type { Deferred } from './deferred.js';
import { EXTENT_BLOCKS_MAX, type Extent, type ExtentTree, type Found } from './extent-tree.js';
import type { Intents } from './intents.js';
import type { Recency } from './recency.js';
import { SPARE_NEEDED, SPARE_NEEDED_TO_EVICT, type TreeNodes } from './tree-nodes.js';

/** Free ranges from which on it is not worth while to put one extent into several. */
const PIECES_MAX = 8;
/** Blocks of the smallest piece of an extent that has to be put into several: 4 KiB, what a node takes. */
const PIECE_BLOCKS = 8;

export interface CatalogParts {
  readonly map: BlockMap;
  readonly nodes: TreeNodes;
  readonly deferred: Deferred;
  readonly tree: ExtentTree;
  readonly recency: Recency;
  readonly intents: Intents;
}

export class Catalog {
  readonly map: BlockMap;
  readonly nodes: TreeNodes;
  readonly deferred: Deferred;
  readonly recency: Recency;
  readonly intents: Intents;
  readonly tree: ExtentTree;
  /** Free blocks that are left to the tree. */
  readonly reserve: number;

  constructor({ map, nodes, deferred, tree, recency, intents }: CatalogParts) {
    this.map = map;
    this.nodes = nodes;
    this.deferred = deferred;
    this.tree = tree;
    this.recency = recency;
    this.intents = intents;
    this.reserve = Math.max(256, Math.floor(map.blocks / 256));
  }

  /** Address of a node that has to be loaded before anything from block `first` up to `end` is looked at or changed; 0: none. */
  missing(first: number, end: number): number {
    return this.tree.missing(first, end);
  }

  find(block: number): Found {
    return this.tree.find(block);
  }

  /** The extent that begins there was used. */
  touch({ first }: Extent): void {
    this.recency.touch(first);
  }

  /** Can the tree be changed: are there places for its nodes, and may there be more extents? */
  isReady(): boolean {
    return this.nodes.fillSpare() >= SPARE_NEEDED && this.recency.size + 2 <= this.recency.limit;
  }

  /** Can extents be taken out? That takes less. */
  isReadyToEvict(): boolean {
    return this.nodes.fillSpare() >= SPARE_NEEDED_TO_EVICT;
  }

  /**
   * Blocks for data that is to be cached from block `first` on, behind that of its neighbour if there is room.
   * @returns runs in the image that make up `count` blocks; `undefined`: there is no room
   */
  allocate(
    first: number,
    count: number,
  ): readonly { readonly address: number; readonly count: number }[] | undefined {
    this.nodes.fillSpare();
    if (this.map.free - count < this.reserve) return undefined;
    if (first > 0 && this.missing(first, first) === 0) {
      const { extent } = this.find(first - 1);
      if (extent !== undefined && extent.count + count <= EXTENT_BLOCKS_MAX) {
        const address = extent.address + extent.count;
        if (this.map.allocateAt(address, count, 'data')) return [{ address, count }];
      }
    }
    const pieces: { address: number; count: number }[] = [];
    for (let left = count; left > 0; ) {
      const longest = this.map.longestFree;
      const length = longest >= left ? left : longest - (longest % PIECE_BLOCKS);
      const address =
        length === 0 || pieces.length === PIECES_MAX ? undefined : this.map.allocate(length, 'data');
      if (address === undefined) {
        this.giveBack(pieces);
        return undefined;
      }
      pieces.push({ address, count: length });
      left -= length;
    }
    return pieces;
  }

  /** Frees blocks that no extent ever had. */
  giveBack(pieces: readonly { readonly address: number; readonly count: number }[]): void {
    for (const { address, count } of pieces) this.map.release(address, count, 'data');
  }

  /** Adds an extent where nothing is cached, as the one used last. The tree must be ready. */
  insert(added: Extent): void {
    const { extent, absorbed } = this.tree.insert(added);
    for (const first of absorbed) this.recency.remove(first);
    this.recency.add(extent.first, extent.address);
  }

  /** Takes a whole extent out. */
  evict(first: number): Extent {
    const extent = this.tree.detach(first);
    this.recency.remove(first);
    this.#leave(extent);
    return extent;
  }

  /** Takes out of an extent what lies from block `first` up to `end`. */
  cut(extent: Extent, first: number, end: number): void {
    const extentEnd = extent.first + extent.count;
    const from = Math.max(first, extent.first);
    const to = Math.min(end, extentEnd);
    const head: Extent = { first: extent.first, count: from - extent.first, address: extent.address };
    const tail: Extent = { first: to, count: extentEnd - to, address: extent.address + to - extent.first };
    // What is left was used when the whole was.
    if (head.count > 0) {
      this.tree.replace(extent.first, head);
      if (tail.count > 0) {
        this.tree.put(tail);
        this.recency.add(tail.first, tail.address, head.first);
      }
    } else if (tail.count > 0) {
      this.tree.replace(extent.first, tail);
      this.recency.rename(extent.first, tail.first, tail.address);
    } else {
      this.tree.detach(extent.first);
      this.recency.remove(extent.first);
    }
    this.#leave({ first: from, count: to - from, address: extent.address + from - extent.first });
  }

  /** The data of the extent lies elsewhere now; where it was is free after the next commit. */
  move({ first, count, address }: Extent, to: number): void {
    this.tree.replace(first, { first, count, address: to });
    this.recency.rename(first, first, to);
    this.deferred.add(address, count, 'data');
  }

  #leave({ first, count, address }: Extent): void {
    this.intents.left(first, count);
    this.deferred.add(address, count, 'data');
  }
}
