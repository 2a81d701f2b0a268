/**
 * One leaf of a translation table: the copies of a range of blocks, at most 4,096, in block order.
 *
 * Where the copies of a leaf are is an ordered set of keys (block number less `base`), cut into buckets of 256 or 65,536 keys.
 * `starts[b]` counts the copies before bucket b. Inside the buckets the keys are kept in whichever way is the smallest:
 *
 *     bits    one bit for every key of the range          dense: more than one block in eight has a copy
 *     bytes   the low 8 bits of each key, sorted          sparse: buckets of 256
 *     words   the low 16 bits of each key, sorted         very sparse: buckets of 65,536
 *
 * The rank of a key is the number of keys below it, so it is the position of its copy in the slot arrays. Slots are
 * kept as 16 low bits and 8 or, when one needs them, 16 high bits. All arrays of a leaf share one buffer: an array of its own costs
 * about 300 bytes besides its content.
 *
 * Left out: removing a key. Copies stay for as long as their snapshot.
 */
import { assert } from '../errors.js';
import type { BlockNumber, Slot } from '../units.js';

/** Copies in one leaf; also the bound of what one insertion moves. */
export const LEAF_ENTRIES_MAX = 4096;
/** Blocks that one leaf may span: bounds the size of `starts`. */
export const LEAF_RANGE_MAX = 2 ** 28;
/** Bases of leaves are multiples of this. */
export const FINE_BUCKET = 256;

const FINE_SHIFT = 8;
const COARSE_SHIFT = 16;
const NARROW_SLOTS = 2 ** 24;
/** What the objects of a leaf take on the heap, besides its buffer; measured with Node.js 20. */
const OBJECT_BYTES = 800;

/** What a leaf has to hold. */
export interface LeafPlan {
  /** Blocks from `base`, a multiple of 256, up to `limit` will fit. */
  readonly base: BlockNumber;
  readonly limit: BlockNumber;
  /** Copies that will fit. */
  readonly capacity: number;
  /** The largest slot that will fit is at least this one. */
  readonly largestSlot: Slot;
}

/** The smallest form for what a leaf has to hold. */
function formOf({ base, limit, capacity, largestSlot }: LeafPlan) {
  const range = limit - base;
  const bitsCost = 4 * Math.ceil(range / 32) + 2 * bucketsIn(range, FINE_SHIFT);
  const bytesCost = capacity + 2 * bucketsIn(range, FINE_SHIFT);
  const wordsCost = 2 * capacity + 2 * bucketsIn(range, COARSE_SHIFT);
  const least = Math.min(bitsCost, bytesCost, wordsCost);
  const wide = largestSlot >= NARROW_SLOTS;
  return {
    useBits: bitsCost === least,
    useWords: bitsCost !== least && bytesCost !== least,
    wide,
    byteLength: least + 2 + (wide ? 4 : 3) * capacity,
  };
}

/** Bytes of the buffer of a leaf. */
export const leafBytes = (plan: LeafPlan): number => formOf(plan).byteLength;

/** Size of the buffers that `appendLeaves` makes leaves of: a full one where one block in 16 has a copy, or more, takes hardly less. */
export const SPARE_BYTES = 16.5 * 2 ** 10;
/** Where copies are further apart a leaf made of one may be smaller, but not below this. */
export const SPARE_LEAF_MIN = 3072;

export class TableLeaf {
  readonly #base: BlockNumber;
  readonly #range: number;
  readonly #capacity: number;
  readonly #shift: number;
  /** One more than there are buckets. */
  readonly #starts: Uint16Array;
  /** `undefined`: keys are in `#lows`. */
  readonly #bits: Uint32Array | undefined;
  readonly #lows: Uint8Array | Uint16Array;
  readonly #slotLows: Uint16Array;
  readonly #slotHighs: Uint8Array | Uint16Array;
  readonly #slotLimit: number;
  #size = 0;

  /** An empty leaf. @param buffer takes the place of a new one; it must be large enough, whatever is in it is cleared */
  constructor(plan: LeafPlan, buffer?: ArrayBuffer) {
    const { base, limit, capacity } = plan;
    const range = limit - base;
    const { useBits, useWords, wide, byteLength } = formOf(plan);
    assert(
      range <= LEAF_RANGE_MAX + FINE_BUCKET &&
        capacity <= LEAF_ENTRIES_MAX &&
        (buffer === undefined || buffer.byteLength >= byteLength),
      () => `leaf of ${range} in ${buffer?.byteLength} bytes`,
    );
    const shift = useWords ? COARSE_SHIFT : FINE_SHIFT;
    const bits = useBits ? Math.ceil(range / 32) : 0;
    const starts = bucketsIn(range, shift) + 1;
    const words = useWords ? capacity : 0;
    const bytes = useBits || useWords ? 0 : capacity;
    const atStarts = 4 * bits;
    const atSlotLows = atStarts + 2 * starts;
    const atWords = atSlotLows + 2 * capacity;
    const atSlotHighs = atWords + 2 * words;
    const atBytes = atSlotHighs + (wide ? 2 : 1) * capacity;
    const whole = buffer ?? new ArrayBuffer(byteLength);
    if (buffer !== undefined) new Uint8Array(buffer).fill(0);
    this.#bits = useBits ? new Uint32Array(whole, 0, bits) : undefined;
    this.#starts = new Uint16Array(whole, atStarts, starts);
    this.#slotLows = new Uint16Array(whole, atSlotLows, capacity);
    this.#slotHighs = wide
      ? new Uint16Array(whole, atSlotHighs, capacity)
      : new Uint8Array(whole, atSlotHighs, capacity);
    this.#lows = useWords ? new Uint16Array(whole, atWords, words) : new Uint8Array(whole, atBytes, bytes);
    this.#base = base;
    this.#range = range;
    this.#capacity = capacity;
    this.#shift = shift;
    this.#slotLimit = wide ? 2 ** 32 : NARROW_SLOTS;
  }

  /** Number of copies. */
  get size(): number {
    return this.#size;
  }

  /** The last block that has a copy; the leaf must have one. */
  get lastBlock(): BlockNumber {
    let bucket = this.#starts.length - 2;
    while (word16(this.#starts, bucket) === this.#size) bucket--;
    if (this.#bits === undefined)
      return this.#base + bucket * 2 ** this.#shift + keyPart(this.#lows, this.#size - 1);
    let word = this.#bits.length - 1;
    while (word32(this.#bits, word) === 0) word--;
    return this.#base + word * 32 + (31 - Math.clz32(word32(this.#bits, word)));
  }

  /** Bytes of memory, objects included. */
  get memoryBytes(): number {
    return this.#starts.buffer.byteLength + OBJECT_BYTES;
  }

  /** Position of the copy of `block`, or -1. */
  indexOf(block: BlockNumber): number {
    const key = block - this.#base;
    if (key < 0 || key >= this.#range) return -1;
    if (this.#bits !== undefined) {
      return ((word32(this.#bits, key >>> 5) >>> (key & 31)) & 1) === 1 ? this.#rank(key) : -1;
    }
    const index = this.#rank(key);
    const end = word16(this.#starts, (key >>> this.#shift) + 1);
    const low = key & ((1 << this.#shift) - 1);
    return index < end && keyPart(this.#lows, index) === low ? index : -1;
  }

  has(block: BlockNumber): boolean {
    if (this.#bits === undefined) return this.indexOf(block) !== -1;
    const key = block - this.#base;
    return key >= 0 && key < this.#range && ((word32(this.#bits, key >>> 5) >>> (key & 31)) & 1) === 1;
  }

  /** Number of copies of blocks below `block`. */
  rank(block: BlockNumber): number {
    const key = block - this.#base;
    if (key <= 0) return 0;
    return key >= this.#range ? this.#size : this.#rank(key);
  }

  #rank(key: number): number {
    const bucket = key >>> this.#shift;
    const from = word16(this.#starts, bucket);
    if (this.#bits !== undefined) {
      const last = key >>> 5;
      let rank = from + popcount(word32(this.#bits, last) & ((1 << (key & 31)) - 1));
      for (let i = bucket << (FINE_SHIFT - 5); i < last; i++) rank += popcount(word32(this.#bits, i));
      return rank;
    }
    const to = word16(this.#starts, bucket + 1);
    const width = 1 << this.#shift;
    const low = key & (width - 1);
    // Of sorted distinct numbers below `width`, at most `low` are below `low`, and at most `width - low` are not.
    let least = Math.max(from, to - (width - low));
    let most = Math.min(to, from + low);
    while (least < most) {
      const middle = (least + most) >>> 1;
      if (keyPart(this.#lows, middle) < low) least = middle + 1;
      else most = middle;
    }
    return least;
  }

  /** The first block from `block` on that has a copy. */
  blockFrom(block: BlockNumber): BlockNumber | undefined {
    const index = this.rank(block);
    if (index === this.#size) return undefined;
    const key = Math.max(0, block - this.#base);
    if (this.#bits === undefined) {
      let bucket = key >>> this.#shift;
      while (word16(this.#starts, bucket + 1) <= index) bucket++;
      return this.#base + bucket * 2 ** this.#shift + keyPart(this.#lows, index);
    }
    let word = key >>> 5;
    let rest = word32(this.#bits, word) & (-1 << (key & 31));
    while (rest === 0) rest = word32(this.#bits, ++word);
    return this.#base + word * 32 + (31 - Math.clz32(rest & -rest));
  }

  slotAt(index: number): Slot {
    return highPart(this.#slotHighs, index) * 65_536 + word16(this.#slotLows, index);
  }

  /** Can another copy be inserted, of `block` in `slot`? */
  fits(block: BlockNumber, slot: Slot): boolean {
    const key = block - this.#base;
    return this.#size < this.#capacity && key >= 0 && key < this.#range && this.fitsSlot(slot);
  }

  fitsSlot(slot: Slot): boolean {
    return slot < this.#slotLimit;
  }

  setSlot(index: number, slot: Slot): void {
    this.#slotLows[index] = slot;
    this.#slotHighs[index] = slot >>> 16;
  }

  /** Adds a copy that `fits`, of a block that has none. */
  insert(block: BlockNumber, slot: Slot): void {
    const key = block - this.#base;
    const index = this.#rank(key);
    const end = this.#size;
    if (index < end) {
      this.#slotLows.copyWithin(index + 1, index, end);
      this.#slotHighs.copyWithin(index + 1, index, end);
      if (this.#bits === undefined) this.#lows.copyWithin(index + 1, index, end);
    }
    if (this.#bits === undefined) this.#lows[index] = key;
    else this.#bits[key >>> 5] = word32(this.#bits, key >>> 5) | (1 << (key & 31));
    this.setSlot(index, slot);
    const starts = this.#starts;
    for (let bucket = (key >>> this.#shift) + 1; bucket < starts.length; bucket++) {
      starts[bucket] = word16(starts, bucket) + 1;
    }
    this.#size = end + 1;
  }

  /** Fills an empty leaf with copies `from` up to `to` of ascending ones, all of which fit. */
  fill(blocks: Float64Array, slots: Uint32Array, from: number, to: number): void {
    const base = this.#base;
    countKeys(this.#starts, this.#shift, blocks, base, from, to);
    if (this.#bits === undefined) setLows(this.#lows, blocks, base, from, to);
    else setBits(this.#bits, blocks, base, from, to);
    setSlots(this.#slotLows, this.#slotHighs, slots, from, to);
    this.#size = to - from;
  }

  /** Writes the slots of all copies, in block order, to `out`. */
  slotsInto(out: Uint32Array): void {
    const lows = this.#slotLows;
    const highs = this.#slotHighs;
    for (let i = 0; i < this.#size; i++) out[i] = highPart(highs, i) * 65_536 + word16(lows, i);
  }

  /**
   * Writes the blocks from `from` up to `to` that have a copy to `out`, ascending; returns how many they are.
   * @param index `rank(from)`: the position of the copy of the first one, if there is any; the others follow
   */
  blocksBetween(from: BlockNumber, to: BlockNumber, index: number, out: Float64Array): number {
    const first = Math.max(0, from - this.#base);
    const end = Math.min(this.#range, to - this.#base);
    if (first >= end || index === this.#size) return 0;
    if (this.#bits !== undefined) return bitsBetween(this.#bits, first, end, this.#base, out);
    const shift = this.#shift;
    const lastBucket = (end - 1) >>> shift;
    let count = 0;
    for (let bucket = first >>> shift, at = index; bucket <= lastBucket; bucket++) {
      const stop = word16(this.#starts, bucket + 1);
      const bucketKey = bucket * (1 << shift);
      for (; at < stop; at++) {
        const key = bucketKey + keyPart(this.#lows, at);
        if (key >= end) return count;
        out[count++] = this.#base + key;
      }
    }
    return count;
  }
}

// Loops of `fill`, a function each: those are compiled once, where a function of many loops is again and again.

/** Makes of a `starts` of zeros that of the keys of `blocks`. */
function countKeys(
  starts: Uint16Array,
  shift: number,
  blocks: Float64Array,
  base: BlockNumber,
  from: number,
  to: number,
): void {
  for (let i = from; i < to; i++) {
    const after = (((blocks[i] ?? 0) - base) >>> shift) + 1;
    starts[after] = word16(starts, after) + 1;
  }
  for (let i = 1; i < starts.length; i++) starts[i] = word16(starts, i) + word16(starts, i - 1);
}

function setLows(
  lows: Uint8Array | Uint16Array,
  blocks: Float64Array,
  base: BlockNumber,
  from: number,
  to: number,
): void {
  for (let i = from; i < to; i++) lows[i - from] = (blocks[i] ?? 0) - base;
}

function setBits(bits: Uint32Array, blocks: Float64Array, base: BlockNumber, from: number, to: number): void {
  for (let i = from; i < to; i++) {
    const key = (blocks[i] ?? 0) - base;
    bits[key >>> 5] = word32(bits, key >>> 5) | (1 << (key & 31));
  }
}

function setSlots(
  lows: Uint16Array,
  highs: Uint8Array | Uint16Array,
  slots: Uint32Array,
  from: number,
  to: number,
): void {
  for (let i = from; i < to; i++) {
    const slot = slots[i] ?? 0;
    lows[i - from] = slot;
    highs[i - from] = slot >>> 16;
  }
}

function bitsBetween(
  bits: Uint32Array,
  first: number,
  end: number,
  base: BlockNumber,
  out: Float64Array,
): number {
  let count = 0;
  const lastWord = (end - 1) >>> 5;
  for (let i = first >>> 5; i <= lastWord; i++) {
    let rest = word32(bits, i);
    if (i === first >>> 5) rest &= -1 << (first & 31);
    if (i === lastWord && (end & 31) !== 0) rest &= (1 << (end & 31)) - 1;
    while (rest !== 0) {
      out[count++] = base + i * 32 + (31 - Math.clz32(rest & -rest));
      rest &= rest - 1;
    }
  }
  return count;
}

const bucketsIn = (range: number, shift: number): number => Math.ceil(range / 2 ** shift);

// An index computed here is always within the array; the fallback only satisfies the type checker. One function for each
// type of array: shared by all, each access would have to find out which it is.
const word32 = (array: Uint32Array, index: number): number => array[index] ?? 0;
const word16 = (array: Uint16Array, index: number): number => array[index] ?? 0;
const keyPart = (array: Uint8Array | Uint16Array, index: number): number => array[index] ?? 0;
const highPart = (array: Uint8Array | Uint16Array, index: number): number => array[index] ?? 0;

function popcount(value: number): number {
  let bits = value - ((value >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return (((bits + (bits >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
}
