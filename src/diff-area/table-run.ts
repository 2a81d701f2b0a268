/**
 * Entries of a table chain put by, grouped by window of 65,536 blocks: within a window in the order in which they came.
 *
 * Only windows that have entries are listed. The entries are kept one after the other in buffers of one size, as the low 16 bits of the
 * block and 16 low and 8 or, when one of them needs it, 16 high bits of the slot. They can be taken once, window after window; a buffer from
 * which all have been is handed out.
 */
import { assert } from '../errors.js';
import { SPARE_BYTES } from './table-leaf.js';

const WINDOW_SHIFT = 16;
/** Blocks of one window. */
export const WINDOW_BLOCKS: number = 2 ** WINDOW_SHIFT;
const NARROW_SLOTS = 2 ** 24;

interface Part {
  readonly buffer: ArrayBuffer;
  readonly keys: Uint16Array;
  readonly slotLows: Uint16Array;
  readonly slotHighs: Uint8Array | Uint16Array;
}

/** Where entries are sorted while a run is made. One serves for many runs. */
export class SortingRoom {
  /** Entries of each window; all 0 between two runs. */
  readonly counts: Uint32Array;
  readonly keys: Uint16Array;
  readonly slotLows: Uint16Array;
  readonly slotHighs: Uint16Array;
  /** Entries of a run, at the most. */
  readonly length: number;

  /** @param blockCount blocks are below it; `length`: entries of a run, at the most */
  constructor(blockCount: number, length: number) {
    this.counts = new Uint32Array(Math.ceil(blockCount / WINDOW_BLOCKS));
    this.length = length;
    this.keys = new Uint16Array(length);
    this.slotLows = new Uint16Array(length);
    this.slotHighs = new Uint16Array(length);
  }
}

export class TableRun {
  /** Windows that have entries, ascending, and where those of each end. */
  readonly #windows: Uint32Array;
  readonly #ends: Uint32Array;
  readonly #parts: (Part | undefined)[] = [];
  readonly #partLength: number;
  /** Windows and entries taken so far. */
  #windowsTaken = 0;
  #taken = 0;

  /**
   * @param blocks the first `count` are meant, of `slots` too; below 2^32
   */
  constructor(blocks: Uint32Array, slots: Uint32Array, count: number, room: SortingRoom) {
    assert(count > 0 && count <= room.length, () => `a run of ${count} entries`);
    const { counts } = room;
    const windowCount = countByWindow(blocks, count, counts);
    this.#windows = new Uint32Array(windowCount);
    this.#ends = new Uint32Array(windowCount);
    for (let window = 0, at = 0, end = 0; at < windowCount; window++) {
      const entries = counts[window] ?? 0;
      if (entries === 0) continue;
      counts[window] = end; // where its next entry goes
      end += entries;
      this.#windows[at] = window;
      this.#ends[at++] = end;
    }
    const isWide = sortByWindow(blocks, slots, count, room) >= NARROW_SLOTS;
    for (const window of this.#windows) counts[window] = 0;
    this.#partLength = Math.floor(SPARE_BYTES / (isWide ? 6 : 5));
    for (let from = 0; from < count; from += this.#partLength) {
      const part = newPart(this.#partLength, isWide);
      const to = Math.min(from + this.#partLength, count);
      part.keys.set(room.keys.subarray(from, to));
      part.slotLows.set(room.slotLows.subarray(from, to));
      part.slotHighs.set(room.slotHighs.subarray(from, to));
      this.#parts.push(part);
    }
  }

  /**
   * Takes the entries of `window`, if it is the next one that has any: writes the slot of each to the place of its block in `slots`, later
   * ones over earlier, and sets the block's bit in `presence`.
   * @param spare gets the buffers of which the last entry is taken with this
   * @returns how many entries were taken
   */
  take(window: number, slots: Uint32Array, presence: Uint32Array, spare: ArrayBuffer[]): number {
    if (this.#windows[this.#windowsTaken] !== window) return 0;
    const from = this.#taken;
    const end = this.#ends[this.#windowsTaken] ?? 0;
    const length = this.#partLength;
    for (let at = from; at < end; ) {
      const number = Math.floor(at / length);
      const part = this.#part(number);
      const stop = Math.min(end - number * length, length);
      layOut(part, at - number * length, stop, slots, presence);
      at = number * length + stop;
      if (stop < length && end !== this.#ends.at(-1)) break;
      this.#parts[number] = undefined;
      spare.push(part.buffer);
    }
    this.#windowsTaken++;
    this.#taken = end;
    return end - from;
  }

  #part(number: number): Part {
    const part = this.#parts[number];
    assert(part !== undefined, () => `part ${number} of a run was handed out before its time`);
    return part;
  }
}

// The loops that all entries go through are functions of their own: those are compiled after the first run.

/** Adds to `counts` the entries of each window; returns how many windows have any. */
function countByWindow(blocks: Uint32Array, count: number, counts: Uint32Array): number {
  let windows = 0;
  for (let i = 0; i < count; i++) {
    const window = (blocks[i] ?? 0) >>> WINDOW_SHIFT;
    const before = counts[window] ?? 0;
    if (before === 0) windows++;
    counts[window] = before + 1;
  }
  return windows;
}

/** Puts each entry to the place that the room counts for its window, and counts on; returns a number that no slot is above. */
function sortByWindow(
  blocks: Uint32Array,
  slots: Uint32Array,
  count: number,
  { counts, keys, slotLows, slotHighs }: SortingRoom,
): number {
  let bits = 0;
  for (let i = 0; i < count; i++) {
    const block = blocks[i] ?? 0;
    const slot = slots[i] ?? 0;
    const window = block >>> WINDOW_SHIFT;
    const place = counts[window] ?? 0;
    counts[window] = place + 1;
    keys[place] = block;
    slotLows[place] = slot;
    slotHighs[place] = slot >>> 16;
    bits |= slot;
  }
  return bits >>> 0;
}

function layOut(
  { keys, slotLows, slotHighs }: Part,
  from: number,
  to: number,
  slots: Uint32Array,
  presence: Uint32Array,
): void {
  for (let i = from; i < to; i++) {
    const key = keys[i] ?? 0;
    slots[key] = (slotHighs[i] ?? 0) * 65_536 + (slotLows[i] ?? 0);
    presence[key >>> 5] = (presence[key >>> 5] ?? 0) | (1 << (key & 31));
  }
}

function newPart(length: number, isWide: boolean): Part {
  const buffer = new ArrayBuffer(SPARE_BYTES);
  const atHighs = 4 * length;
  return {
    buffer,
    keys: new Uint16Array(buffer, 0, length),
    slotLows: new Uint16Array(buffer, 2 * length, length),
    slotHighs: isWide ? new Uint16Array(buffer, atHighs, length) : new Uint8Array(buffer, atHighs, length),
  };
}
