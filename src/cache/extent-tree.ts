/**
 * The extents of a cache image: a B+-tree over the cached blocks.
 *
 * Every operation here is synchronous. It needs the nodes on its way in memory: `missing` names one that is not, for the caller to load
 * and to try again. So no operation is ever seen half done, and nothing protects the tree but that.
 */
import { assert } from '../errors.js';
import { CHILDREN_PER_NODE, EXTENTS_PER_LEAF, type NodeColumns } from '../format/vci-node.js';
import type { TreeNode, TreeNodes } from './tree-nodes.js';

/** A run of cached blocks. */
export interface Extent {
  /** First cached block: of the backing. */
  readonly first: number;
  readonly count: number;
  /** First block of the data: of the image. */
  readonly address: number;
}

/** What is where somebody looked. */
export interface Found {
  /** The extent that holds the block. */
  readonly extent: Extent | undefined;
  /** If none does: the first block above it that is cached; `Infinity`: none is. */
  readonly next: number;
}

/** Blocks of the longest extent: what is evicted at once. */
export const EXTENT_BLOCKS_MAX = 2048;
/** A node with fewer entries than this share of what fits is merged with a neighbour, if both leave room. */
const SPARSE = 0.3;
const COMFORTABLE = 0.75;

/** The way from the root to a leaf: nodes, and the entry taken in each. In the leaf: the last extent that begins at or before the block; -1: none. */
interface Path {
  readonly nodes: TreeNode[];
  readonly indexes: number[];
}

export class ExtentTree {
  readonly #nodes: TreeNodes;
  #root: number;

  /** @param root address of the root */
  constructor(nodes: TreeNodes, root: number) {
    this.#nodes = nodes;
    this.#root = root;
  }

  /** Address of the root. */
  get root(): number {
    return this.#root;
  }

  /** An empty tree. */
  static create(nodes: TreeNodes): ExtentTree {
    return new ExtentTree(nodes, nodes.create('leaf').address);
  }

  /** Address of a node that is needed to look at, or to change, anything from block `first` up to `end`; 0: all are in memory. */
  missing(first: number, end: number): number {
    return this.#missing(this.#root, first - 1, end);
  }

  #missing(address: number, first: number, end: number): number {
    const node = this.#nodes.get(address);
    if (node === undefined) return address;
    const { columns } = node;
    if (columns.kind === 'leaf') return 0;
    const last = entryAt(columns, end);
    for (let index = Math.max(0, entryAt(columns, first)); index <= Math.max(0, last); index++) {
      const missing = this.#missing(columns.addresses[index] ?? 0, first, end);
      if (missing !== 0) return missing;
    }
    return 0;
  }

  /** The extent that holds `block`, or where the next one begins. */
  find(block: number): Found {
    let node = this.#node(this.#root);
    let next = Infinity;
    for (;;) {
      const { columns } = node;
      const index = entryAt(columns, block);
      if (index + 1 < columns.size) next = columns.firsts[index + 1] ?? Infinity;
      if (columns.kind === 'leaf') {
        const extent = index < 0 ? undefined : extentAt(columns, index);
        return extent !== undefined && block < extent.first + extent.count
          ? { extent, next: block }
          : { extent: undefined, next };
      }
      if (index < 0) return { extent: undefined, next };
      node = this.#node(columns.addresses[index] ?? 0);
    }
  }

  /**
   * Adds an extent where nothing is cached. One that it touches, in the volume and in the image, becomes one with it.
   * @returns what it became, and the first blocks of the extents that are now a part of it
   */
  insert(added: Extent): { readonly extent: Extent; readonly absorbed: readonly number[] } {
    let { first, count, address } = added;
    const absorbed: number[] = [];
    const before = first > 0 ? this.find(first - 1).extent : undefined;
    const after = this.find(first + count).extent;
    const joinsBefore =
      before !== undefined && touches(before, added) && before.count + count <= EXTENT_BLOCKS_MAX;
    if (joinsBefore) {
      absorbed.push(before.first);
      ({ first, address } = before);
      count += before.count;
    }
    const joinsAfter =
      after !== undefined && touches(added, after) && after.count + count <= EXTENT_BLOCKS_MAX;
    if (joinsAfter) {
      absorbed.push(after.first);
      count += after.count;
    }
    const extent = { first, count, address };
    // Entries are changed where they are: the way to another place would need other nodes.
    if (joinsBefore) {
      this.replace(before.first, extent);
      if (joinsAfter) this.detach(after.first);
    } else if (joinsAfter) this.replace(after.first, extent);
    else this.put(extent);
    return { extent, absorbed };
  }

  /** Puts an extent in the place of the one that begins with block `first`; nothing cached lies between the two. */
  replace(first: number, extent: Extent): void {
    const path = this.#pathTo(first);
    const [leaf, index] = this.#writableLeaf(path);
    assert(leaf.firsts[index] === first, () => `no extent begins with block ${first}`);
    leaf.firsts[index] = extent.first;
    leaf.counts[index] = extent.count;
    leaf.addresses[index] = extent.address;
    this.#settle(path);
  }

  /** Takes the extent out that begins with block `first`; its data is not touched. */
  detach(first: number): Extent {
    const path = this.#pathTo(first);
    const [leaf, index] = this.#writableLeaf(path);
    const extent = index < 0 ? undefined : extentAt(leaf, index);
    assert(extent?.first === first, () => `no extent begins with block ${first}`);
    for (const column of [leaf.firsts, leaf.counts, leaf.addresses])
      column.copyWithin(index, index + 1, leaf.size);
    leaf.size--;
    this.#settle(path);
    return extent;
  }

  /** All extents of the leaf that holds block `first`, or would, from there on; and where the next leaf begins. */
  leafAt(first: number): { readonly extents: readonly Extent[]; readonly next: number } {
    const { nodes, indexes } = this.#pathTo(first);
    const leaf = nodes.at(-1)?.columns;
    assert(leaf !== undefined, () => 'a way ends with a leaf');
    const extents: Extent[] = [];
    for (let index = Math.max(0, indexes.at(-1) ?? 0); index < leaf.size; index++) {
      const extent = extentAt(leaf, index);
      if (extent.first + extent.count > first) extents.push(extent);
    }
    for (let level = nodes.length - 2; level >= 0; level--) {
      const columns = nodes[level]?.columns;
      const index = (indexes[level] ?? 0) + 1;
      if (columns !== undefined && index < columns.size) return { extents, next: columns.firsts[index] ?? 0 };
    }
    return { extents, next: Infinity };
  }

  /** Makes the leaf that holds `first` one to be written by the next commit. */
  rewrite(first: number): void {
    this.#writableLeaf(this.#pathTo(first));
  }

  #node(address: number): TreeNode {
    const node = this.#nodes.get(address);
    assert(node !== undefined, () => `the node at block ${address} was not loaded before it was needed`);
    return node;
  }

  #pathTo(block: number): Path {
    const nodes: TreeNode[] = [];
    const indexes: number[] = [];
    for (let address = this.#root; ; ) {
      const node = this.#node(address);
      const { columns } = node;
      const index = entryAt(columns, block);
      nodes.push(node);
      if (columns.kind === 'leaf') {
        indexes.push(index);
        return { nodes, indexes };
      }
      indexes.push(Math.max(0, index));
      address = columns.addresses[Math.max(0, index)] ?? 0;
    }
  }

  /** Makes all nodes of the way such that may be changed. */
  #writableLeaf({ nodes, indexes }: Path): [NodeColumns, number] {
    for (let level = 0; level < nodes.length; level++) {
      const node = nodes[level];
      assert(node !== undefined, () => 'a way has a node on every level');
      const copy = this.#nodes.writable(node);
      nodes[level] = copy;
      const above = nodes[level - 1];
      if (above === undefined) this.#root = copy.address;
      else above.columns.addresses[indexes[level - 1] ?? 0] = copy.address;
    }
    const leaf = nodes.at(-1);
    assert(leaf !== undefined, () => 'a way ends with a leaf');
    return [leaf.columns, indexes.at(-1) ?? -1];
  }

  /** Adds an extent as it is, where nothing is cached. */
  put({ first, count, address }: Extent): void {
    const path = this.#pathTo(first);
    const [leaf, index] = this.#writableLeaf(path);
    insertEntry(leaf, index + 1, first, count, address);
    this.#settle(path);
  }

  /** After a change of the leaf: splits what is too full, lets go what is empty, merges what is sparse, and tells the nodes above. */
  #settle({ nodes, indexes }: Path): void {
    for (let level = nodes.length - 1; level >= 0; level--) {
      const node = nodes[level];
      const above = nodes[level - 1];
      const index = indexes[level - 1] ?? 0;
      if (node === undefined) continue;
      const capacity = capacityOf(node);
      if (above === undefined) {
        if (node.columns.size > capacity) this.#splitRoot(node);
        else this.#collapseRoot(node);
        return;
      }
      if (node.columns.size === 0) {
        removeEntry(above.columns, index);
        this.#nodes.release(node);
        continue;
      }
      this.#describe(above, index, node);
      if (node.columns.size > capacity) this.#split(above, index, node);
      else if (node.columns.size < SPARSE * capacity) this.#mergeAround(above, index);
    }
  }

  #splitRoot(node: TreeNode): void {
    const root = this.#nodes.create('internal');
    insertEntry(root.columns, 0, 0, 0, node.address);
    this.#describe(root, 0, node);
    this.#split(root, 0, node);
    this.#root = root.address;
  }

  #collapseRoot(root: TreeNode): void {
    const { columns } = root;
    if (columns.kind === 'leaf' || columns.size > 1) return;
    if (columns.size === 0) {
      this.#nodes.release(root);
      this.#root = this.#nodes.create('leaf').address;
      return;
    }
    const only = columns.addresses[0] ?? 0;
    this.#nodes.release(root);
    this.#root = only;
  }

  #split(above: TreeNode, index: number, node: TreeNode): void {
    const { columns } = node;
    // Who appends leaves full nodes behind.
    const isLast = index === above.columns.size - 1;
    const kept = isLast ? Math.floor(0.9 * columns.size) : columns.size >> 1;
    const right = this.#nodes.create(columns.kind);
    moveEntries(columns, kept, right.columns);
    insertEntry(above.columns, index + 1, 0, 0, right.address);
    this.#describe(above, index, node);
    this.#describe(above, index + 1, right);
  }

  /** Merges a sparse child with a neighbour that is in memory anyway. */
  #mergeAround(above: TreeNode, index: number): void {
    for (const left of [index - 1, index]) {
      const a = this.#nodes.get(above.columns.addresses[left] ?? 0);
      const b = this.#nodes.get(above.columns.addresses[left + 1] ?? 0);
      if (left < 0 || left + 1 >= above.columns.size || a === undefined || b === undefined) continue;
      const together = a.columns.size + b.columns.size;
      if (together > COMFORTABLE * capacityOf(a)) continue;
      const merged = this.#nodes.writable(a);
      for (let at = 0; at < b.columns.size; at++) {
        const extent = extentAt(b.columns, at);
        insertEntry(merged.columns, merged.columns.size, extent.first, extent.count, extent.address);
      }
      this.#nodes.release(b);
      removeEntry(above.columns, left + 1);
      above.columns.addresses[left] = merged.address;
      this.#describe(above, left, merged);
      return;
    }
  }

  /** Writes down what a child covers. */
  #describe(above: TreeNode, index: number, { columns }: TreeNode): void {
    const first = columns.firsts[0] ?? 0;
    const last = columns.size - 1;
    above.columns.firsts[index] = first;
    above.columns.counts[index] = (columns.firsts[last] ?? 0) + (columns.counts[last] ?? 0) - first;
  }
}

/** Does the second extent follow the first, in the volume and in the image? */
const touches = (a: Extent, b: Extent): boolean =>
  a.first + a.count === b.first && a.address + a.count === b.address;

const capacityOf = ({ columns }: TreeNode): number =>
  columns.kind === 'leaf' ? EXTENTS_PER_LEAF : CHILDREN_PER_NODE;

/** Index of the last entry that begins at or before `block`; -1: none. */
function entryAt({ firsts, size }: NodeColumns, block: number): number {
  let low = 0;
  let high = size;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((firsts[middle] ?? 0) <= block) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

const extentAt = ({ firsts, counts, addresses }: NodeColumns, index: number): Extent => ({
  first: firsts[index] ?? 0,
  count: counts[index] ?? 0,
  address: addresses[index] ?? 0,
});

function insertEntry(
  columns: NodeColumns,
  index: number,
  first: number,
  count: number,
  address: number,
): void {
  for (const column of [columns.firsts, columns.counts, columns.addresses])
    column.copyWithin(index + 1, index, columns.size);
  columns.firsts[index] = first;
  columns.counts[index] = count;
  columns.addresses[index] = address;
  columns.size++;
}

function removeEntry(columns: NodeColumns, index: number): void {
  for (const column of [columns.firsts, columns.counts, columns.addresses])
    column.copyWithin(index, index + 1, columns.size);
  columns.size--;
}

/** Moves the entries from `from` on to an empty node. */
function moveEntries(columns: NodeColumns, from: number, to: NodeColumns): void {
  to.firsts.set(columns.firsts.subarray(from, columns.size));
  to.counts.set(columns.counts.subarray(from, columns.size));
  to.addresses.set(columns.addresses.subarray(from, columns.size));
  to.size = columns.size - from;
  columns.size = from;
}
