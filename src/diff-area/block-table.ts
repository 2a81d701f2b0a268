/**
 * The translation table of one snapshot in memory: block number → slot of its copy, and slot → the copy's checksum.
 *
 * The blocks that have a copy are kept in leaves, in block order. A leaf covers whatever range holds up to 4,096 copies and packs them as
 * densely as that range allows (`table-leaf.ts`), so memory follows the number of copies, not the size of the volume:
 * 7.4 bytes a copy where neighbours are copied, 9 where a million copies lie at random in 1 TiB.
 *
 * A look-up finds the leaf by bisection, or at once if it is the one used last, and then the copy within the leaf. No step moves
 * more than one leaf: a full one is split in two, the rest of the table stays where it is.
 */
import { assert } from '../errors.js';
import type { BlockNumber, Slot } from '../units.js';
import {
  bucketStart,
  largestSlotOf,
  leafOf,
  MUCH_ROOM,
  NO_ROOM,
  planOf,
  SOME_ROOM,
  type SortedCopies,
} from './leaf-plan.js';
import { BLOCKS_PER_PAGE, emptyPresence, setBits } from './presence.js';
import { SlotChecksums } from './slot-checksums.js';
import {
  FINE_BUCKET,
  LEAF_ENTRIES_MAX,
  LEAF_RANGE_MAX,
  leafBytes,
  SPARE_BYTES,
  SPARE_LEAF_MIN,
  TableLeaf,
} from './table-leaf.js';

/** Copies of a sorted batch that go into one leaf in one step. */
const BATCH_MAX = 2 * LEAF_ENTRIES_MAX;
/** From this many copies on it is cheaper to build a leaf anew than to insert them one by one. */
const BATCH_MIN = 32;

// Filled and read within one call, none of which waits for anything.
const leafBlocks = new Float64Array(LEAF_ENTRIES_MAX);
const leafSlots = new Uint32Array(LEAF_ENTRIES_MAX);
const merged: SortedCopies = {
  blocks: new Float64Array(LEAF_ENTRIES_MAX + BATCH_MAX),
  slots: new Uint32Array(LEAF_ENTRIES_MAX + BATCH_MAX),
};
const oneBlock = new Float64Array(1);
const oneSlot = new Uint32Array(1);

/** Numbers in an array of any kind that holds them. */
type Numbers = Float64Array | Uint32Array;

export class BlockTable {
  /** Blocks of the volume; block numbers are below it. */
  readonly blockCount: number;
  /** Leaf i has the blocks from `#starts[i]` up to the start of the next leaf. The first starts at 0. */
  readonly #starts: BlockNumber[] = [];
  readonly #leaves: TableLeaf[] = [];
  readonly #checksums = new SlotChecksums();
  #size = 0;
  #leafBytes = 0;
  /** Number of the leaf found last. */
  #recent = 0;

  /** @param blockCount number of blocks of the volume; block numbers are below it. */
  constructor(blockCount: number) {
    this.blockCount = blockCount;
    for (let first = 0; first === 0 || first < blockCount; first += LEAF_RANGE_MAX) {
      this.#starts.push(first);
      this.#leaves.push(NO_LEAF);
    }
  }

  /** Number of blocks that have a copy. */
  get size(): number {
    return this.#size;
  }

  /** Bytes of memory held. */
  get memoryBytes(): number {
    return this.#leafBytes + this.#leaves.length * 16 + this.#checksums.memoryBytes;
  }

  has(block: BlockNumber): boolean {
    return this.#leafAt(this.#find(block)).has(block);
  }

  /** Slot of the copy of `block`, or -1. */
  slotOf(block: BlockNumber): Slot | -1 {
    const leaf = this.#leafAt(this.#find(block));
    const index = leaf.indexOf(block);
    return index === -1 ? -1 : leaf.slotAt(index);
  }

  /** Checksum of the copy in `slot`; meaningful only for a slot that holds the copy of a single block. */
  checksumAt(slot: Slot): number {
    return this.#checksums.get(slot);
  }

  /**
   * For blocks from `first` on, one for each place of `slots`: fills in the slots of those that have a copy here, and
   * `owner` as where it was found. What has another owner than 0 already is left alone.
   * @returns how many were filled in
   */
  collect(first: BlockNumber, slots: Uint32Array, owners: Uint16Array, owner: number): number {
    const end = first + slots.length;
    let found = 0;
    for (let number = this.#find(first); start(this.#starts, number) < end; number++) {
      const leaf = this.#leafAt(number);
      const index = leaf.rank(first);
      const count = leaf.blocksBetween(first, end, index, leafBlocks);
      for (let i = 0; i < count; i++) {
        const at = (leafBlocks[i] ?? 0) - first;
        if (owners[at] !== 0) continue;
        owners[at] = owner;
        slots[at] = leaf.slotAt(index + i);
        found++;
      }
    }
    return found;
  }

  /** Records the copy of `block`; a later one for the same block replaces the earlier. */
  set(block: BlockNumber, slot: Slot, checksum: number): void {
    assert(block >= 0 && block < this.blockCount, () => `block ${block} of a table of ${this.blockCount}`);
    this.#checksums.set(slot, checksum);
    this.#set(this.#find(block), block, slot);
  }

  #set(number: number, block: BlockNumber, slot: Slot): void {
    const leaf = this.#leafAt(number);
    const index = leaf.indexOf(block);
    if (index !== -1 && leaf.fitsSlot(slot)) {
      leaf.setSlot(index, slot);
    } else if (index === -1 && leaf.fits(block, slot)) {
      leaf.insert(block, slot);
      this.#size++;
    } else {
      oneBlock[0] = block;
      oneSlot[0] = slot;
      this.#merge(number, oneBlock, oneSlot, 0, 1);
    }
  }

  /** Records the first `count` of `checksums` by themselves: of copies that `setSorted` or `appendLeaves` follows for. */
  setChecksums(slots: Uint32Array, checksums: Uint32Array, count: number): void {
    this.#checksums.setAll(slots, checksums, count);
  }

  /**
   * Records many copies, of which the checksums are recorded already. Far cheaper than one by one.
   * @param blocks the first `count` are ascending, no two of them equal, and blocks of the volume
   */
  setSorted(blocks: Numbers, slots: Uint32Array, count: number): void {
    for (let from = 0; from < count; ) {
      const number = this.#find(blocks[from] ?? 0);
      const end = start(this.#starts, number + 1);
      let to = from + 1;
      while (to < count && to < from + BATCH_MAX && (blocks[to] ?? 0) < end) to++;
      if (to - from >= BATCH_MIN) this.#merge(number, blocks, slots, from, to);
      else
        for (let i = from; i < to; i++) this.#set(this.#find(blocks[i] ?? 0), blocks[i] ?? 0, slots[i] ?? 0);
      from = to;
    }
  }

  /** Above every block that has a copy. */
  get end(): BlockNumber {
    const leaf = this.#leaves.findLast(({ size }) => size > 0);
    return leaf === undefined ? 0 : leaf.lastBlock + 1;
  }

  /**
   * Records copies past `end`, as `setSorted` does, but only as many as fill whole leaves, so that each leaf is built once.
   * @param spare buffers of `SPARE_BYTES` that leaves may be made of; those that are, are taken out
   * @returns how many were recorded; the rest is for the caller to try again with more
   */
  appendLeaves(blocks: Uint32Array, slots: Uint32Array, count: number, spare: ArrayBuffer[]): number {
    for (let from = 0; ; ) {
      const number = this.#find(blocks[from] ?? 0);
      const bound = start(this.#starts, number + 1);
      let to = Math.min(count, from + LEAF_ENTRIES_MAX);
      // One that ends where leaves must end, for what they may span, is as large as it gets.
      const isCut = to > from && (blocks[to - 1] ?? 0) >= bound;
      if (to - from < LEAF_ENTRIES_MAX && !isCut) return from;
      while ((blocks[to - 1] ?? 0) >= bound) to--;
      merged.blocks.set(blocks.subarray(from, to));
      merged.slots.set(slots.subarray(from, to));
      from += this.#appendLeaf(number, to - from, spare);
    }
  }

  /** Makes a leaf of the first of `count` merged copies, which are past all those in leaf `number`; returns of how many. */
  #appendLeaf(number: number, count: number, spare: ArrayBuffer[]): number {
    const before = this.#leafAt(number);
    const first = merged.blocks[0] ?? 0;
    const lower =
      before.size === 0 ? start(this.#starts, number) : Math.max(before.lastBlock + 1, bucketStart(first));
    const upper = Math.min(this.blockCount, start(this.#starts, number + 1));
    const largestSlot = largestSlotOf(merged, 0, count);
    const bounds = { lower, upper, room: NO_ROOM, largestSlot };
    let taken = count;
    let buffer: ArrayBuffer | undefined;
    for (let size = count; spare.length > 0 && size >= SPARE_LEAF_MIN; size -= FINE_BUCKET) {
      const bytes = leafBytes(planOf(merged, 0, size, bounds));
      if (bytes > SPARE_BYTES) continue;
      if (bytes < SPARE_BYTES - SPARE_BYTES / 16) break;
      taken = size;
      buffer = spare.pop();
      break;
    }
    const leaf = this.#counted(leafOf(merged, 0, taken, bounds, buffer));
    this.#size += taken;
    if (before.size === 0) this.#leaves[number] = leaf;
    else {
      this.#starts.splice(number + 1, 0, lower);
      this.#leaves.splice(number + 1, 0, leaf);
    }
    return taken;
  }

  /** Builds leaf `number` anew, with copies `from` up to `to` of a sorted batch; all belong into it. */
  #merge(number: number, blocks: Numbers, slots: Uint32Array, from: number, to: number): void {
    const { blocks: mergedBlocks, slots: mergedSlots } = merged;
    const leaf = this.#leafAt(number);
    const leafStart = start(this.#starts, number);
    const oldCount = leaf.blocksBetween(leafStart, leafStart + 2 * LEAF_RANGE_MAX, 0, leafBlocks);
    leaf.slotsInto(leafSlots);
    let count = 0;
    let old = 0;
    let next = oldCount > 0 ? (leafBlocks[0] ?? 0) : Number.POSITIVE_INFINITY;
    for (let i = from; i < to; i++) {
      const block = blocks[i] ?? 0;
      while (next < block) {
        mergedBlocks[count] = next;
        mergedSlots[count++] = leafSlots[old++] ?? 0;
        next = old < oldCount ? (leafBlocks[old] ?? 0) : Number.POSITIVE_INFINITY;
      }
      if (next === block) {
        old++;
        next = old < oldCount ? (leafBlocks[old] ?? 0) : Number.POSITIVE_INFINITY;
      }
      mergedBlocks[count] = block;
      mergedSlots[count++] = slots[i] ?? 0;
    }
    // Written in ascending order the leaves are filled; otherwise each is left room to grow.
    const isAppended = old === oldCount && (blocks[from] ?? 0) > (leafBlocks[oldCount - 1] ?? -1);
    mergedBlocks.set(leafBlocks.subarray(old, oldCount), count);
    mergedSlots.set(leafSlots.subarray(old, oldCount), count);
    count += oldCount - old;
    this.#size += count - oldCount;
    this.#replace(number, count, isAppended);
  }

  /** Puts the first `count` merged copies in the place of leaf `number`. */
  #replace(number: number, count: number, isAppended: boolean): void {
    const parts = Math.ceil(count / LEAF_ENTRIES_MAX);
    const even = isAppended ? LEAF_ENTRIES_MAX : Math.ceil(count / parts);
    const bound = Math.min(this.blockCount, start(this.#starts, number + 1));
    const starts: BlockNumber[] = [];
    const leaves: TableLeaf[] = [];
    let lower: BlockNumber = start(this.#starts, number);
    for (let from = 0; from < count; from += even) {
      const to = Math.min(count, from + even);
      const isLast = to === count;
      // Between the last block of this leaf and the first of the next one, as close to the latter as a bucket allows.
      const upper = isLast
        ? bound
        : Math.max((merged.blocks[to - 1] ?? 0) + 1, bucketStart(merged.blocks[to] ?? 0));
      starts.push(lower);
      const room = !isAppended ? SOME_ROOM : isLast ? MUCH_ROOM : NO_ROOM;
      const largestSlot = largestSlotOf(merged, from, to);
      leaves.push(this.#counted(leafOf(merged, from, to, { lower, upper, room, largestSlot })));
      lower = upper;
    }
    const old = this.#leafAt(number);
    if (old !== NO_LEAF) this.#leafBytes -= old.memoryBytes;
    if (leaves.length === 1) [this.#leaves[number]] = leaves as [TableLeaf];
    else {
      this.#starts.splice(number, 1, ...starts);
      this.#leaves.splice(number, 1, ...leaves);
    }
  }

  #counted(leaf: TableLeaf): TableLeaf {
    this.#leafBytes += leaf.memoryBytes;
    return leaf;
  }

  /** Number of the leaf that `block` belongs to. */
  #find(block: BlockNumber): number {
    const starts = this.#starts;
    const recent = this.#recent;
    if (start(starts, recent) <= block && block < start(starts, recent + 1)) return recent;
    let low = 0;
    let high = starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (start(starts, middle) <= block) low = middle;
      else high = middle - 1;
    }
    this.#recent = low;
    return low;
  }

  #leafAt(number: number): TableLeaf {
    return this.#leaves[number] ?? NO_LEAF;
  }

  /** Blocks that have a copy, in ascending order. */
  *blocks(): Generator<BlockNumber> {
    const presence = emptyPresence();
    for (let page = this.pageFrom(0); page !== undefined; page = this.pageFrom(page + 1)) {
      presence.fill(0);
      this.addPresence(page, presence);
      yield* setBits(presence, page * BLOCKS_PER_PAGE);
    }
  }

  /** The first page from `page` on that holds any copy. */
  pageFrom(page: number): number | undefined {
    const first = page * BLOCKS_PER_PAGE;
    for (let number = this.#find(first); number < this.#leaves.length; number++) {
      const block = this.#leafAt(number).blockFrom(first);
      if (block !== undefined) return Math.floor(block / BLOCKS_PER_PAGE);
    }
    return undefined;
  }

  /** Does page `page` (blocks from `page * BLOCKS_PER_PAGE`) hold any copy? */
  hasPage(page: number): boolean {
    const first = page * BLOCKS_PER_PAGE;
    const end = first + BLOCKS_PER_PAGE;
    for (let number = this.#find(first); start(this.#starts, number) < end; number++) {
      const leaf = this.#leafAt(number);
      if (leaf.rank(end) > leaf.rank(first)) return true;
    }
    return false;
  }

  /** Sets, in a bitmap of one page, the bits of the blocks that have a copy. */
  addPresence(page: number, bitmap: Uint32Array): void {
    const first = page * BLOCKS_PER_PAGE;
    const end = first + BLOCKS_PER_PAGE;
    for (let number = this.#find(first); start(this.#starts, number) < end; number++) {
      const leaf = this.#leafAt(number);
      const count = leaf.blocksBetween(first, end, leaf.rank(first), leafBlocks);
      for (let i = 0; i < count; i++) {
        const bit = (leafBlocks[i] ?? 0) - first;
        bitmap[bit >>> 5] = (bitmap[bit >>> 5] ?? 0) | (1 << (bit & 31));
      }
    }
  }
}

/** Stands for leaves that have no copy yet. */
const NO_LEAF = new TableLeaf({ base: 0, limit: 0, capacity: 0, largestSlot: 0 });

const start = (starts: readonly BlockNumber[], number: number): BlockNumber =>
  starts[number] ?? Number.POSITIVE_INFINITY;
