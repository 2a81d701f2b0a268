/**
 * Which parts of a device surely read as zeros, in units of 4 KiB.
 *
 * Three levels. A group has a page for every 64 MiB of its 256 GiB; a page is a bitmap, a set bit is a unit that may hold data. Pages
 * of one kind throughout share one of two bitmaps, and groups of such pages one of two groups: an empty image of 1 PiB takes
 * 32 KiB, and a walk over it looks at 4,096 references; the worst image of 1 TiB takes 32 MiB. To mark or look up a range costs
 * the same at any fill.
 */
import { assert } from '../errors.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { AllocationExtent } from './allocation.js';

/** Bytes that one bit stands for: the block of most file systems. */
const UNIT = 4096;
const UNITS_PER_PAGE = 16_384;
const WORDS_PER_PAGE = UNITS_PER_PAGE / 32;
const PAGES_PER_GROUP = 4096;
const UNITS_PER_GROUP = PAGES_PER_GROUP * UNITS_PER_PAGE;
const ALL = 0xffff_ffff;

type Page = Uint32Array;
type Group = Page[];

/** Shared by all pages, and all groups, of their kind, and never written to. */
const ZEROS = new Uint32Array(WORDS_PER_PAGE);
const DATA = new Uint32Array(WORDS_PER_PAGE).fill(ALL);
const ZERO_GROUP: Group = new Array<Page>(PAGES_PER_GROUP).fill(ZEROS);
const DATA_GROUP: Group = new Array<Page>(PAGES_PER_GROUP).fill(DATA);

type Kind = 'zero' | 'data';

export class ZeroMap {
  readonly #size: ByteLength;
  readonly #groups: Group[];

  /** @param size of the device, in bytes */
  constructor(size: ByteLength, kind: Kind) {
    this.#size = size;
    this.#groups = new Array<Group>(Math.ceil(size / UNIT / UNITS_PER_GROUP)).fill(groupOf(kind));
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
    const sameGroup = zero ? ZERO_GROUP : DATA_GROUP;
    for (let unit = first; unit < limit; ) {
      if (unit % UNITS_PER_GROUP === 0 && this.#groupAt(unit) === sameGroup) {
        unit += UNITS_PER_GROUP;
        continue;
      }
      if (unit % UNITS_PER_PAGE === 0 && this.#pageAt(unit) === same) {
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
      const inGroup = unit % UNITS_PER_GROUP;
      const count = Math.min(end - unit, UNITS_PER_GROUP - inGroup);
      this.#markInGroup(Math.floor(unit / UNITS_PER_GROUP), inGroup, inGroup + count, kind);
      unit += count;
    }
  }

  #markInGroup(number: number, first: number, end: number, kind: Kind): void {
    const before = this.#groups[number] ?? ZERO_GROUP;
    const wanted = groupOf(kind);
    if (before === wanted) return;
    if (end - first === UNITS_PER_GROUP) {
      this.#groups[number] = wanted;
      return;
    }
    let group = before;
    let isAnotherOfKind = false;
    for (let unit = first; unit < end; ) {
      const at = Math.floor(unit / UNITS_PER_PAGE);
      const inPage = unit % UNITS_PER_PAGE;
      const count = Math.min(end - unit, UNITS_PER_PAGE - inPage);
      unit += count;
      const page = group[at] ?? ZEROS;
      const marked = markedIn(page, inPage, inPage + count, kind);
      if (marked === page) continue;
      if (group === ZERO_GROUP || group === DATA_GROUP) group = group.slice();
      group[at] = marked;
      isAnotherOfKind ||= marked === pageOf(kind);
    }
    this.#groups[number] = isAnotherOfKind && group.every((page) => page === pageOf(kind)) ? wanted : group;
  }

  #groupAt(unit: number): Group {
    return this.#groups[Math.floor(unit / UNITS_PER_GROUP)] ?? ZERO_GROUP;
  }

  #pageAt(unit: number): Page {
    return this.#groupAt(unit)[Math.floor((unit % UNITS_PER_GROUP) / UNITS_PER_PAGE)] ?? ZEROS;
  }

  #word(unit: number): number {
    return this.#pageAt(unit)[(unit % UNITS_PER_PAGE) >>> 5] ?? 0;
  }
}

/** Marks units `[first, end)` of a page. @returns the page, or the one that is to take its place */
function markedIn(before: Page, first: number, end: number, kind: Kind): Page {
  const wanted = pageOf(kind);
  if (before === wanted || end - first === UNITS_PER_PAGE) return wanted;
  let page = before;
  let isChanged = false;
  for (let unit = first; unit < end; ) {
    const bits = Math.min(end - unit, 32 - (unit % 32));
    const mask = (ALL >>> (32 - bits)) << (unit % 32);
    const old = page[unit >>> 5] ?? 0;
    const word = kind === 'data' ? old | mask : old & ~mask;
    unit += bits;
    if (word === (old | 0)) continue;
    if (page === ZEROS || page === DATA) page = page.slice();
    page[(unit - 1) >>> 5] = word;
    isChanged = true;
  }
  return isChanged && page.every((word, at) => word === wanted[at]) ? wanted : page;
}

const pageOf = (kind: Kind): Page => (kind === 'zero' ? ZEROS : DATA);
const groupOf = (kind: Kind): Group => (kind === 'zero' ? ZERO_GROUP : DATA_GROUP);
const bitOf = (unit: number): number => 1 << (unit % 32);
/** Number of the lowest set bit of a word that has one. */
const lowestBit = (word: number): number => 31 - Math.clz32(word & -word);
