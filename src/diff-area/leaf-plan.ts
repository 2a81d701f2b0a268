/** How large a leaf of the translation table is made for the copies that are put into it. */
import type { BlockNumber, Slot } from '../units.js';
import { FINE_BUCKET, LEAF_ENTRIES_MAX, type LeafPlan, TableLeaf } from './table-leaf.js';

// How much a leaf may grow before it is built anew, as a share of its copies: nothing where blocks come in ascending order and
// have gone past it, much for the one that such an order has come to.
export const NO_ROOM = 0;
export const SOME_ROOM: number = 1 / 16;
export const MUCH_ROOM: number = 1 / 4;

/** Copies in the order of their blocks. */
export interface SortedCopies {
  readonly blocks: Float64Array;
  readonly slots: Uint32Array;
}

/** Where a leaf may lie. */
export interface LeafBounds {
  /** Its blocks are from `lower` up to `upper`. */
  readonly lower: BlockNumber;
  readonly upper: BlockNumber;
  /** For how many more copies there is to be room, as a share of those there are. */
  readonly room: number;
  /** The largest slot of the copies, or one above it. */
  readonly largestSlot: Slot;
}

/** For a leaf of copies `from` up to `to`. */
export function planOf(
  { blocks }: SortedCopies,
  from: number,
  to: number,
  { lower, upper, room, largestSlot }: LeafBounds,
): LeafPlan {
  const count = to - from;
  const first = blocks[from] ?? 0;
  const last = blocks[to - 1] ?? 0;
  // On both sides, so that growth outwards is as rare as growth in number.
  const margin = room === NO_ROOM ? 0 : Math.ceil((last - first) / 4);
  return {
    base: bucketStart(Math.max(lower, first - margin)),
    limit: Math.min(upper, bucketStart(last + margin) + FINE_BUCKET),
    capacity:
      room === NO_ROOM ? count : Math.min(LEAF_ENTRIES_MAX, count + Math.max(8, Math.floor(count * room))),
    largestSlot,
  };
}

/** The leaf. @param buffer as of `TableLeaf` */
export function leafOf(
  copies: SortedCopies,
  from: number,
  to: number,
  bounds: LeafBounds,
  buffer?: ArrayBuffer,
): TableLeaf {
  const leaf = new TableLeaf(planOf(copies, from, to, bounds), buffer);
  leaf.fill(copies.blocks, copies.slots, from, to);
  return leaf;
}

export function largestSlotOf({ slots }: SortedCopies, from: number, to: number): Slot {
  let largest = 0;
  for (let i = from; i < to; i++) largest = Math.max(largest, slots[i] ?? 0);
  return largest;
}

/** A multiple of 256, at most `block`. */
export const bucketStart = (block: BlockNumber): BlockNumber => Math.floor(block / FINE_BUCKET) * FINE_BUCKET;
