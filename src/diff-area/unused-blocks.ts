/**
 * Blocks of the volume that a snapshot skips: nothing used them, and nothing older needs them, so they are never copied and
 * read as zeros.
 *
 * A page is a bit for each of 4,096 blocks. What is free lies together mostly, so pages that are all clear or all set
 * take no memory of their own: 1 TiB of which half is free takes some 200 KiB.
 */
import { assert } from '../errors.js';
import type { BlockNumber } from '../units.js';
import { FixedSlot } from './area-slots.js';
import type { PagedBlocks } from './paged-blocks.js';
import { BLOCKS_PER_PAGE, emptyPresence } from './presence.js';

const PAGE_BYTES = BLOCKS_PER_PAGE / 8;

const NO_PAGE = emptyPresence();
const FULL_PAGE = emptyPresence().fill(0xffff_ffff);

export class UnusedBlocks {
  readonly #pages: readonly Uint32Array[];
  /** How many blocks there are in it. */
  readonly count: number;
  readonly memoryBytes: number;

  private constructor(pages: readonly Uint32Array[], count: number) {
    this.#pages = pages;
    this.count = count;
    const own = pages.filter((page) => page !== NO_PAGE && page !== FULL_PAGE).length;
    this.memoryBytes = pages.length * 8 + own * (PAGE_BYTES + 64);
  }

  /** @param bits one a block, least significant first; what is missing is clear */
  static of(bits: Uint8Array): UnusedBlocks {
    const pages: Uint32Array[] = [];
    let count = 0;
    for (let at = 0; at < bits.byteLength; at += PAGE_BYTES) {
      const page = emptyPresence();
      let set = 0;
      for (let word = 0; word < page.length; word++) {
        const value = wordAt(bits, at + word * 4);
        page[word] = value;
        set += bitsIn(value);
      }
      count += set;
      pages.push(set === 0 ? NO_PAGE : set === BLOCKS_PER_PAGE ? FULL_PAGE : page);
    }
    return new UnusedBlocks(pages, count);
  }

  has(block: BlockNumber): boolean {
    const page = this.#pages[Math.floor(block / BLOCKS_PER_PAGE)];
    if (page === undefined || page === NO_PAGE) return false;
    const bit = block % BLOCKS_PER_PAGE;
    return (((page[bit >>> 5] ?? 0) >>> (bit & 31)) & 1) === 1;
  }

  hasPage(page: number): boolean {
    return (this.#pages[page] ?? NO_PAGE) !== NO_PAGE;
  }

  /** The first page from `page` on that has any of them. */
  pageFrom(page: number): number | undefined {
    for (let number = page; number < this.#pages.length; number++) if (this.hasPage(number)) return number;
    return undefined;
  }

  /** Sets, in a bitmap of one page, the bits of the blocks that are in it. */
  addPresence(page: number, bitmap: Uint32Array): void {
    const own = this.#pages[page] ?? NO_PAGE;
    if (own === NO_PAGE) return;
    for (let word = 0; word < bitmap.length; word++) bitmap[word] = (bitmap[word] ?? 0) | (own[word] ?? 0);
  }

  /** As `BlockTable.collect`: what is skipped is found as a copy of zeros. */
  collect(first: BlockNumber, slots: Uint32Array, owners: Uint16Array, owner: number): number {
    let found = 0;
    for (let at = 0; at < slots.length; at++) {
      if (owners[at] !== 0 || !this.has(first + at)) continue;
      owners[at] = owner;
      slots[at] = FixedSlot.zeros;
      found++;
    }
    return found;
  }

  isEqual(other: UnusedBlocks): boolean {
    return (
      this.count === other.count &&
      this.#pages.every((page, number) => {
        const theirs = other.#pages[number] ?? NO_PAGE;
        return page === theirs || page.every((word, at) => word === theirs[at]);
      })
    );
  }
}

const wordAt = (bits: Uint8Array, at: number): number =>
  ((bits[at] ?? 0) |
    ((bits[at + 1] ?? 0) << 8) |
    ((bits[at + 2] ?? 0) << 16) |
    ((bits[at + 3] ?? 0) << 24)) >>>
  0;

function bitsIn(word: number): number {
  let count = word - ((word >>> 1) & 0x5555_5555);
  count = (count & 0x3333_3333) + ((count >>> 2) & 0x3333_3333);
  return Math.imul((count + (count >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}

/** What a reader of this or of an older snapshot finds in a diff area, and looks for no further: copies, and what is skipped. */
export const foundIn = ({
  table,
  unused,
}: {
  readonly table: PagedBlocks;
  readonly unused: UnusedBlocks | undefined;
}): readonly PagedBlocks[] => (unused === undefined ? [table] : [table, unused]);

/** Bits, one a block, of the blocks that are in any of `sources`; and of those from `allFrom` on. */
export function bitsOf(
  sources: readonly PagedBlocks[],
  blockCount: number,
  allFrom: BlockNumber = blockCount,
): Uint8Array {
  const bits = new Uint8Array(Math.ceil(blockCount / 8));
  const page = emptyPresence();
  const view = new DataView(new ArrayBuffer(PAGE_BYTES));
  const bytes = new Uint8Array(view.buffer);
  for (let number = 0; number * BLOCKS_PER_PAGE < Math.min(blockCount, allFrom); number++) {
    page.fill(0);
    for (const source of sources) source.addPresence(number, page);
    for (let word = 0; word < page.length; word++) view.setUint32(word * 4, page[word] ?? 0, true);
    const at = number * PAGE_BYTES;
    bits.set(bytes.subarray(0, Math.min(PAGE_BYTES, bits.byteLength - at)), at);
  }
  for (let block = allFrom; block < blockCount; block++)
    bits[block >>> 3] = (bits[block >>> 3] ?? 0) | (1 << (block & 7));
  return bits;
}

/** The bits that are set in both, below `blockCount`. */
export function bothOf(a: Uint8Array, b: Uint8Array | undefined, blockCount: number): Uint8Array {
  const bits = new Uint8Array(Math.ceil(blockCount / 8));
  bits.set(a.subarray(0, bits.byteLength));
  if (b !== undefined) for (let i = 0; i < bits.byteLength; i++) bits[i] = (bits[i] ?? 0) & (b[i] ?? 0);
  const rest = blockCount % 8;
  const last = bits.byteLength - 1;
  if (rest !== 0) bits[last] = (bits[last] ?? 0) & ((1 << rest) - 1);
  assert(bits.byteLength >= 1, () => `${blockCount} blocks`);
  return bits;
}
