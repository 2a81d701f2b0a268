/**
 * Which parts of a device surely read as zeros, in units of 4 KiB.
 *
 * Two levels. A directory holds one page for every 64 MiB; a page is a bitmap, a set bit is a unit that may hold data. Pages
 * of one kind throughout share one of two bitmaps, so an empty image of 1 TiB takes 128 KiB, and a walk over it looks
 * at 16,384 references; the worst image of that size takes 32 MiB. To mark or look up a range costs the same at any fill.
 */
import { assert } from '../errors.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { AllocationExtent } from './allocation.js';

/** Bytes that one bit stands for: the block of most file systems. */
const UNIT = 4096;
const UNITS_PER_PAGE = 16_384;
const WORDS_PER_PAGE = UNITS_PER_PAGE / 32;
const ALL = 0xffff_ffff;

/** Shared by all pages of their kind, and never written to. */
const ZEROS = new Uint32Array(WORDS_PER_PAGE);
const DATA = new Uint32Array(WORDS_PER_PAGE).fill(ALL);

type Kind = 'zero' | 'data';

export class ZeroMap {
  /** The largest size that makes sense, in bytes: its directory takes 8 MiB. */
  static readonly sizeLimit = 2 ** 46;

  readonly #size: ByteLength;
  readonly #pages: Uint32Array[];

  /** @param size of the device, in bytes, up to `sizeLimit` */
  constructor(size: ByteLength, kind: Kind) {
    assert(size <= ZeroMap.sizeLimit, () => `a zero map of ${size} bytes`);
    this.#size = size;
    this.#pages = new Array<Uint32Array>(Math.ceil(size / UNIT / UNITS_PER_PAGE)).fill(pageOf(kind));
  }

  /** The range may hold data from now on. */
  markData(offset: ByteOffset, length: ByteLength): void {
    if (length > 0) this.#mark(Math.floor(offset / UNIT), Math.ceil((offset + length) / UNIT), 'data');
  }

  /** The range reads as zeros now. Units of which it covers only a part stay as they are. */
  markZero(offset: ByteOffset, length: ByteLength): void {
    const end = offset + length;
    this.#mark(
      Math.ceil(offset / UNIT),
      Math.floor((end < this.#size ? end : end + UNIT - 1) / UNIT),
      'zero',
    );
  }

  /** What may be data in `other`, a map of the same size, may be data here too. */
  addData(other: ZeroMap): void {
    assert(other.#size === this.#size, () => `maps of ${this.#size} and ${other.#size} bytes`);
    for (let at = 0; at < this.#size; ) {
      const { length, zero } = other.extentAt(at, this.#size);
      if (!zero) this.markData(at, length);
      at += length;
    }
  }

  /** The longest run of one kind from `offset` on that ends at `end` or before; not empty, if `offset` is below `end`. */
  extentAt(offset: ByteOffset, end: ByteOffset): AllocationExtent {
    const first = Math.floor(offset / UNIT);
    const zero = (this.#word(first) & bitOf(first)) === 0;
    const until = this.#endOfRun(first, Math.ceil(end / UNIT), zero) * UNIT;
    return { length: Math.min(until, end) - offset, zero };
  }

  #endOfRun(first: number, limit: number, zero: boolean): number {
    const same = zero ? ZEROS : DATA;
    for (let unit = first; unit < limit; ) {
      if (unit % UNITS_PER_PAGE === 0 && this.#pageOf(unit) === same) {
        unit += UNITS_PER_PAGE;
        continue;
      }
      const word = this.#word(unit);
      const others = (zero ? word : ~word) >>> (unit % 32);
      if (others !== 0) return Math.min(limit, unit + lowestBit(others));
      unit += 32 - (unit % 32);
    }
    return limit;
  }

  #mark(first: number, end: number, kind: Kind): void {
    for (let unit = first; unit < end; ) {
      const inPage = unit % UNITS_PER_PAGE;
      const count = Math.min(end - unit, UNITS_PER_PAGE - inPage);
      this.#markInPage(Math.floor(unit / UNITS_PER_PAGE), inPage, inPage + count, kind);
      unit += count;
    }
  }

  #markInPage(number: number, first: number, end: number, kind: Kind): void {
    const before = this.#pages[number] ?? ZEROS;
    const wanted = pageOf(kind);
    if (before === wanted) return;
    if (end - first === UNITS_PER_PAGE) {
      this.#pages[number] = wanted;
      return;
    }
    let page = before;
    let changed = false;
    for (let unit = first; unit < end; ) {
      const bits = Math.min(end - unit, 32 - (unit % 32));
      const mask = (ALL >>> (32 - bits)) << (unit % 32);
      const old = page[unit >>> 5] ?? 0;
      const word = kind === 'data' ? old | mask : old & ~mask;
      unit += bits;
      if (word === (old | 0)) continue;
      if (page === ZEROS || page === DATA) page = page.slice();
      page[(unit - 1) >>> 5] = word;
      changed = true;
    }
    if (changed) this.#pages[number] = page.every((word, at) => word === wanted[at]) ? wanted : page;
  }

  #pageOf(unit: number): Uint32Array {
    return this.#pages[Math.floor(unit / UNITS_PER_PAGE)] ?? ZEROS;
  }

  #word(unit: number): number {
    return this.#pageOf(unit)[(unit % UNITS_PER_PAGE) >>> 5] ?? 0;
  }
}

const pageOf = (kind: Kind): Uint32Array => (kind === 'zero' ? ZEROS : DATA);
const bitOf = (unit: number): number => 1 << (unit % 32);
/** Number of the lowest set bit of a word that has one. */
const lowestBit = (word: number): number => 31 - Math.clz32(word & -word);
