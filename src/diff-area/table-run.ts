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

/** Entries of each window, while a run is made; all 0 in between. */
let counts = new Uint32Array(0);

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
   * @param order for use while this is made: as long as they are
   */
  constructor(blocks: Uint32Array, slots: Uint32Array, count: number, order: Uint32Array) {
    assert(count > 0, () => 'a run without entries');
    let windowCount = 0;
    let largestSlot = 0;
    for (let i = 0; i < count; i++) {
      const window = (blocks[i] ?? 0) >>> WINDOW_SHIFT;
      if (window >= counts.length) lengthen(window);
      const before = counts[window] ?? 0;
      if (before === 0) windowCount++;
      counts[window] = before + 1;
      largestSlot = Math.max(largestSlot, slots[i] ?? 0);
    }
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
    for (let i = 0; i < count; i++) {
      const window = (blocks[i] ?? 0) >>> WINDOW_SHIFT;
      const place = counts[window] ?? 0;
      counts[window] = place + 1;
      order[place] = i;
    }
    for (const window of this.#windows) counts[window] = 0;
    const isWide = largestSlot >= NARROW_SLOTS;
    this.#partLength = Math.floor(SPARE_BYTES / (isWide ? 6 : 5));
    for (let from = 0; from < count; from += this.#partLength) {
      const part = newPart(this.#partLength, isWide);
      const { keys, slotLows, slotHighs } = part;
      const length = Math.min(this.#partLength, count - from);
      for (let i = 0; i < length; i++) {
        const index = order[from + i] ?? 0;
        const slot = slots[index] ?? 0;
        keys[i] = blocks[index] ?? 0;
        slotLows[i] = slot;
        slotHighs[i] = slot >>> 16;
      }
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
      const part = this.#parts[number];
      assert(part !== undefined, () => `part ${number} of a run was handed out before its time`);
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

function lengthen(window: number): void {
  const longer = new Uint32Array(2 ** Math.ceil(Math.log2(window + 1)));
  longer.set(counts);
  counts = longer;
}
