/**
 * The translation table of one snapshot in memory: block number → slot of its copy, and the copy's checksum.
 *
 * Two levels. A directory holds one page for every 4,096 blocks (64 MiB) of the volume that has at least one copy.
 * A page is one `Uint32Array`:
 *
 *     words 0..127     presence bitmap: bit b of the page is set if block b has a copy
 *     words 128..143   rank: number of set bits before each group of 256 bits
 *     word  144        number of copies in the page
 *     words 145..      (slot, checksum) pairs, in block order, with room to grow
 *
 * A look-up tests one bit, then counts at most 255 bits to find the pair: it costs the same at any fill. A full page
 * takes 8.14 bytes a copy, a page that is 15 % full about 9.5; nothing is allocated per copy. The bitmaps
 * also answer what changed between two snapshots without touching the pairs.
 *
 * Left out: removing a block. Copies stay for as long as their snapshot.
 */
import { assert } from '../errors.js';
import type { BlockNumber, Slot } from '../units.js';

/** Blocks described by one page. */
export const BLOCKS_PER_PAGE = 4096;
const PRESENCE_WORDS = BLOCKS_PER_PAGE / 32;
const GROUP_BITS = 256;
const GROUP_WORDS = GROUP_BITS / 32;
const GROUPS = BLOCKS_PER_PAGE / GROUP_BITS;
const COUNT_WORD = PRESENCE_WORDS + GROUPS;
const PAIRS_START = COUNT_WORD + 1;
const FIRST_CAPACITY = 8;

export class BlockTable {
  /** Blocks of the volume; block numbers are below it. */
  readonly blockCount: number;
  readonly #pages: (Uint32Array | undefined)[];
  #size = 0;
  #words = 0;

  /** @param blockCount number of blocks of the volume; block numbers are below it. */
  constructor(blockCount: number) {
    this.blockCount = blockCount;
    this.#pages = new Array<Uint32Array | undefined>(Math.ceil(blockCount / BLOCKS_PER_PAGE));
  }

  /** Number of blocks that have a copy. */
  get size(): number {
    return this.#size;
  }

  /** Bytes of memory held by pages. */
  get memoryBytes(): number {
    return this.#words * 4 + this.#pages.length * 8;
  }

  has(block: BlockNumber): boolean {
    const page = this.#pages[Math.floor(block / BLOCKS_PER_PAGE)];
    return page !== undefined && isPresent(page, block % BLOCKS_PER_PAGE);
  }

  /** Slot of the copy of `block`, or -1. */
  slotOf(block: BlockNumber): Slot | -1 {
    return this.#pairWord(block, 0);
  }

  /** Checksum of the copy of `block`; meaningful only if it has one. */
  checksumOf(block: BlockNumber): number {
    return this.#pairWord(block, 1);
  }

  #pairWord(block: BlockNumber, which: 0 | 1): number {
    const page = this.#pages[Math.floor(block / BLOCKS_PER_PAGE)];
    const bit = block % BLOCKS_PER_PAGE;
    if (page === undefined || !isPresent(page, bit)) return -1;
    return word(page, PAIRS_START + rankOf(page, bit) * 2 + which);
  }

  /** Records the copy of `block`; a later one for the same block replaces the earlier. */
  set(block: BlockNumber, slot: Slot, checksum: number): void {
    assert(block >= 0 && block < this.blockCount, () => `block ${block} of a table of ${this.blockCount}`);
    const pageNumber = Math.floor(block / BLOCKS_PER_PAGE);
    const bit = block % BLOCKS_PER_PAGE;
    let page = this.#pages[pageNumber] ?? this.#replacePage(pageNumber, undefined, FIRST_CAPACITY);
    const at = PAIRS_START + rankOf(page, bit) * 2;
    if (!isPresent(page, bit)) {
      const count = word(page, COUNT_WORD);
      if (PAIRS_START + count * 2 === page.length) {
        const capacity = Math.min(BLOCKS_PER_PAGE, count + Math.max(FIRST_CAPACITY, count >> 3));
        page = this.#replacePage(pageNumber, page, capacity);
      }
      page.copyWithin(at + 2, at, PAIRS_START + count * 2);
      page[bit >>> 5] = word(page, bit >>> 5) | (1 << (bit & 31));
      for (let group = Math.floor(bit / GROUP_BITS) + 1; group < GROUPS; group++) {
        page[PRESENCE_WORDS + group] = word(page, PRESENCE_WORDS + group) + 1;
      }
      page[COUNT_WORD] = count + 1;
      this.#size++;
    }
    page[at] = slot;
    page[at + 1] = checksum;
  }

  #replacePage(pageNumber: number, old: Uint32Array | undefined, capacity: number): Uint32Array {
    const page = new Uint32Array(PAIRS_START + capacity * 2);
    if (old !== undefined) page.set(old);
    this.#pages[pageNumber] = page;
    this.#words += page.length - (old?.length ?? 0);
    return page;
  }

  /** Blocks that have a copy, in ascending order. */
  *blocks(): Generator<BlockNumber> {
    const presence = new Uint32Array(PRESENCE_WORDS);
    for (let pageNumber = 0; pageNumber < this.#pages.length; pageNumber++) {
      if (!this.hasPage(pageNumber)) continue;
      presence.fill(0);
      this.addPresence(pageNumber, presence);
      yield* setBits(presence, pageNumber * BLOCKS_PER_PAGE);
    }
  }

  /** Does page `pageNumber` (blocks from `pageNumber * BLOCKS_PER_PAGE`) hold any copy? */
  hasPage(pageNumber: number): boolean {
    return this.#pages[pageNumber] !== undefined;
  }

  /** Sets, in a bitmap of one page, the bits of the blocks that have a copy. */
  addPresence(pageNumber: number, bitmap: Uint32Array): void {
    const page = this.#pages[pageNumber];
    if (page === undefined) return;
    for (let i = 0; i < PRESENCE_WORDS; i++) bitmap[i] = word(bitmap, i) | word(page, i);
  }
}

/** A bitmap with one bit for every block of a page, all clear. */
export const emptyPresence = (): Uint32Array => new Uint32Array(PRESENCE_WORDS);

/** Numbers of the set bits of `bitmap` plus `base`, ascending. */
export function* setBits(bitmap: Uint32Array, base: BlockNumber): Generator<BlockNumber> {
  for (let i = 0; i < bitmap.length; i++) {
    let rest = word(bitmap, i);
    while (rest !== 0) {
      const lowest = 31 - Math.clz32(rest & -rest);
      yield base + i * 32 + lowest;
      rest &= rest - 1;
    }
  }
}

// An index computed inside a page is always within it; the fallback only satisfies the type checker.
const word = (array: Uint32Array, index: number): number => array[index] ?? 0;

const isPresent = (page: Uint32Array, bit: number): boolean =>
  ((word(page, bit >>> 5) >>> (bit & 31)) & 1) === 1;

/** Number of present blocks of the page below `bit`. */
function rankOf(page: Uint32Array, bit: number): number {
  const group = Math.floor(bit / GROUP_BITS);
  const last = bit >>> 5;
  let rank = word(page, PRESENCE_WORDS + group);
  for (let i = group * GROUP_WORDS; i < last; i++) rank += popcount(word(page, i));
  return rank + popcount(word(page, last) & ((1 << (bit & 31)) - 1));
}

function popcount(value: number): number {
  let bits = value - ((value >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return (((bits + (bits >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
}
