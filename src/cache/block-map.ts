/**
 * Which blocks of a cache image are free, which hold metadata, which data.
 *
 * Ranges of free blocks are kept, twice in order: by address, to merge neighbours, and by length, for the best fit. What is not free is in use.
 * Invariant: free, metadata and data blocks add up to all; no two free ranges touch.
 *
 * Shared state: changed between awaits only, as nothing here waits.
 */
import { assert } from '../errors.js';
import type { BlockCounts } from '../format/vci.js';
import { grown, Treap } from './treap.js';

export type BlockKind = 'metadata' | 'data';

export interface BlockRange {
  readonly start: number;
  readonly count: number;
}

const FIRST_CAPACITY = 64;

export class BlockMap {
  readonly blocks: number;
  #starts: Uint32Array = new Uint32Array(FIRST_CAPACITY);
  #lengths: Uint32Array = new Uint32Array(FIRST_CAPACITY);
  /** The first element of the two arrays above that is not used any more; the others follow as `#starts` says, to 0, which never is used. */
  #spare = 0;
  #elements = 1;
  #ranges = 0;
  readonly #byAddress = new Treap((a, b) => this.#start(a) - this.#start(b));
  readonly #byLength = new Treap(
    (a, b) => this.#length(a) - this.#length(b) || this.#start(a) - this.#start(b),
  );
  #free = 0;
  readonly #used = { metadata: 0, data: 0 };

  /** All free. @param blocks of the image */
  constructor(blocks: number) {
    this.blocks = blocks;
    this.#byAddress.grow(FIRST_CAPACITY);
    this.#byLength.grow(FIRST_CAPACITY);
    if (blocks > 0) this.#add(0, blocks);
    this.#free = blocks;
  }

  get counts(): BlockCounts {
    return { blocks: this.blocks, free: this.#free, ...this.#used };
  }

  get free(): number {
    return this.#free;
  }

  /** How many ranges the free blocks make up. */
  get freeRangeCount(): number {
    return this.#ranges;
  }

  /** Blocks of the longest free range. */
  get longestFree(): number {
    return this.#length(this.#byLength.last(() => true));
  }

  /** Where the last block in use ends. */
  get usedEnd(): number {
    const last = this.#byAddress.last(() => true);
    return last !== 0 && this.#start(last) + this.#length(last) === this.blocks
      ? this.#start(last)
      : this.blocks;
  }

  /**
   * The shortest free range that is long enough gives its beginning, the lowest of several.
   * @param end where the blocks have to end, at the latest @returns `undefined`: there is none
   */
  allocate(count: number, kind: BlockKind, end = this.blocks): number | undefined {
    assert(count > 0, () => `${count} blocks cannot be allocated`);
    let range = this.#byLength.first((element) => this.#length(element) >= count);
    while (range !== 0 && this.#start(range) + count > end) range = this.#nextLonger(range);
    if (range === 0) return undefined;
    const start = this.#start(range);
    this.#take(range, start, count, kind);
    return start;
  }

  /** Allocates just these blocks. @returns `false`: not all of them are free, and nothing was done */
  allocateAt(start: number, count: number, kind: BlockKind): boolean {
    const range = this.#rangeAt(start);
    if (range === 0 || count === 0 || start + count > this.#start(range) + this.#length(range)) return false;
    this.#take(range, start, count, kind);
    return true;
  }

  /**
   * Makes a run of blocks longer or shorter, in place if it can be, else somewhere else: then it is for the caller to move the bytes.
   * @returns where it is now; `undefined`: there is no room, and nothing was done
   */
  reallocate(start: number, count: number, wanted: number, kind: BlockKind): number | undefined {
    if (wanted < count) this.release(start + wanted, count - wanted, kind);
    if (wanted <= count || this.allocateAt(start + count, wanted - count, kind)) return start;
    const moved = this.allocate(wanted, kind);
    if (moved !== undefined) this.release(start, count, kind);
    return moved;
  }

  /** Frees blocks, all of a run or a part of it. They must be in use. */
  release(start: number, count: number, kind: BlockKind): void {
    const end = start + count;
    assert(
      count > 0 && end <= this.blocks,
      () => `blocks ${start} to ${end} of ${this.blocks} are to be freed`,
    );
    const before = this.#byAddress.last((element) => this.#start(element) <= start);
    const after = this.#byAddress.first((element) => this.#start(element) > start);
    const beforeEnd = before === 0 ? 0 : this.#start(before) + this.#length(before);
    assert(beforeEnd <= start && (after === 0 || this.#start(after) >= end), () => {
      return `some of the blocks ${start} to ${end} are free already`;
    });
    let [from, to] = [start, end];
    if (before !== 0 && beforeEnd === start) {
      from = this.#start(before);
      this.#drop(before);
    }
    if (after !== 0 && this.#start(after) === end) {
      to = end + this.#length(after);
      this.#drop(after);
    }
    this.#add(from, to - from);
    this.#free += count;
    this.#used[kind] -= count;
    assert(this.#used[kind] >= 0, () => `more ${kind} blocks were freed than there were`);
  }

  /** All data counts as metadata from now on: what is in use is to be given up whole, whatever it is. */
  forgetKinds(): void {
    this.#used.metadata += this.#used.data;
    this.#used.data = 0;
  }

  /** The ranges in use, ascending, but for those of `kept`, which are in use; the map must not change meanwhile. */
  *usedRanges(kept: readonly BlockRange[] = []): Generator<BlockRange> {
    let at = 0;
    for (const { start, count } of this.#gaps(kept)) {
      if (at < start) yield { start: at, count: start - at };
      at = start + count;
    }
  }

  /** The free ranges and others, ascending; the last one is the end. There may be too many for a list of them. */
  *#gaps(others: readonly BlockRange[]): Generator<BlockRange> {
    const left = [...others, { start: this.blocks, count: 0 }].sort((a, b) => b.start - a.start);
    for (const free of this.freeRanges()) {
      for (let next = left.at(-1); next !== undefined && next.start < free.start; next = left.at(-1)) {
        yield next;
        left.pop();
      }
      yield free;
    }
    yield* left.reverse();
  }

  /** Are all of these blocks free? */
  isFree(start: number, count: number): boolean {
    const range = this.#rangeAt(start);
    return range !== 0 && start + count <= this.#start(range) + this.#length(range);
  }

  /** The free ranges from `from` on, ascending; the map must not change meanwhile. */
  *freeRanges(from = 0): Generator<BlockRange> {
    let at = this.#rangeAt(from) || this.#byAddress.first((element) => this.#start(element) >= from);
    while (at !== 0) {
      const start = this.#start(at);
      yield { start, count: this.#length(at) };
      at = this.#byAddress.first((element) => this.#start(element) > start);
    }
  }

  /** Fills `bits` with a part of the bitmap: from block `first` on, 1 = in use, lowest bit first; bits beyond the last block are 0. */
  fillBitmap(first: number, bits: Uint8Array): void {
    const end = Math.min(this.blocks, first + 8 * bits.byteLength);
    bits.fill(0);
    let at = first;
    for (const { start, count } of this.freeRanges(first)) {
      if (start >= end) break;
      setBits(bits, at - first, Math.max(start, at) - first);
      at = start + count;
    }
    if (at < end) setBits(bits, at - first, end - first);
  }

  #start(element: number): number {
    return this.#starts[element] ?? 0;
  }

  #length(element: number): number {
    return this.#lengths[element] ?? 0;
  }

  /** The free range that holds block `start`; 0: none. */
  #rangeAt(start: number): number {
    const range = this.#byAddress.last((element) => this.#start(element) <= start);
    return range !== 0 && start < this.#start(range) + this.#length(range) ? range : 0;
  }

  /** The free range that follows in the order of lengths; 0: none. */
  #nextLonger(range: number): number {
    const [start, length] = [this.#start(range), this.#length(range)];
    return this.#byLength.first((element) => {
      const longer = this.#length(element) - length;
      return longer > 0 || (longer === 0 && this.#start(element) > start);
    });
  }

  #take(range: number, start: number, count: number, kind: BlockKind): void {
    const from = this.#start(range);
    const end = from + this.#length(range);
    this.#drop(range);
    if (from < start) this.#add(from, start - from);
    if (start + count < end) this.#add(start + count, end - start - count);
    this.#free -= count;
    this.#used[kind] += count;
  }

  #add(start: number, count: number): void {
    const element = this.#takeElement();
    this.#starts[element] = start;
    this.#lengths[element] = count;
    this.#byAddress.insert(element);
    this.#byLength.insert(element);
  }

  #takeElement(): number {
    this.#ranges++;
    const element = this.#spare;
    if (element !== 0) {
      this.#spare = this.#starts[element] ?? 0;
      return element;
    }
    if (this.#elements === this.#starts.length) {
      const capacity = 2 * this.#starts.length;
      this.#starts = grown(this.#starts, capacity);
      this.#lengths = grown(this.#lengths, capacity);
      this.#byAddress.grow(capacity);
      this.#byLength.grow(capacity);
    }
    return this.#elements++;
  }

  #drop(element: number): void {
    this.#byAddress.remove(element);
    this.#byLength.remove(element);
    this.#starts[element] = this.#spare;
    this.#spare = element;
    this.#ranges--;
  }
}

/** Sets the bits from `from` up to `to`, lowest first. */
export function setBits(bits: Uint8Array, from: number, to: number): void {
  let at = from;
  for (; at < to && at % 8 !== 0; at++) bits[at >> 3] = (bits[at >> 3] ?? 0) | (1 << (at & 7));
  if (to - at >= 8) {
    bits.fill(0xff, at >> 3, to >> 3);
    at = to - (to % 8);
  }
  for (; at < to; at++) bits[at >> 3] = (bits[at >> 3] ?? 0) | (1 << (at & 7));
}
