/** The blocks that a revert has still to put back: a bit for each, in pages of 4,096, of which only those with a bit set exist. */
import type { DiffArea } from '../diff-area/diff-area.js';
import { type PagedBlocks, pagesOf } from '../diff-area/paged-blocks.js';
import { BLOCKS_PER_PAGE, emptyPresence, setBits } from '../diff-area/presence.js';
import { type BlockNumber, type ByteLength, blocksIn } from '../units.js';

export class PendingBlocks {
  readonly #pages = new Map<number, Uint32Array>();
  #count = 0;

  /** Number of blocks. */
  get count(): number {
    return this.#count;
  }

  /**
   * Adds every block that has a copy in the diff area, or whose content moved away. A copy that was not committed counts too: the
   * next opening may find it, and must find nothing that is not known now.
   */
  addArea({ table, moves, uncommitted }: DiffArea): void {
    this.add(table, table.blockCount);
    this.add(moves, table.blockCount);
    for (const block of uncommitted.blocks) {
      this.#addBlock(block);
      this.#addBlock(moves.sourceOf(block) ?? block);
    }
  }

  /** Adds all of the blocks below `end`. */
  add(blocks: PagedBlocks, end: BlockNumber): void {
    for (const page of pagesOf([blocks], 0, Math.ceil(end / BLOCKS_PER_PAGE))) {
      const bits = this.#pages.get(page) ?? emptyPresence();
      this.#count -= countOf(bits);
      blocks.addPresence(page, bits);
      this.#count += countOf(bits);
      this.#pages.set(page, bits);
    }
  }

  #addBlock(block: BlockNumber): void {
    if (this.has(block)) return;
    const page = Math.floor(block / BLOCKS_PER_PAGE);
    const bits = this.#pages.get(page) ?? emptyPresence();
    const word = (block % BLOCKS_PER_PAGE) >>> 5;
    bits[word] = (bits[word] ?? 0) | (1 << (block & 31));
    this.#count++;
    this.#pages.set(page, bits);
  }

  /** Adds every block of a volume of so many bytes. */
  addAll(volumeSize: ByteLength): void {
    for (let page = 0; page * BLOCKS_PER_PAGE < blocksIn(volumeSize); page++)
      this.#pages.set(page, emptyPresence().fill(-1));
    this.#count = this.#pages.size * BLOCKS_PER_PAGE;
  }

  has(block: BlockNumber): boolean {
    const bits = this.#pages.get(Math.floor(block / BLOCKS_PER_PAGE));
    if (bits === undefined) return false;
    const inside = block % BLOCKS_PER_PAGE;
    return (((bits[inside >>> 5] ?? 0) >>> (inside & 31)) & 1) === 1;
  }

  /** Is there one in `[first, end)`? */
  hasAnyIn(first: BlockNumber, end: BlockNumber): boolean {
    return this.#count > 0 && this.next(first, end) !== undefined;
  }

  /** The first one in `[from, end)`. */
  next(from: BlockNumber, end: BlockNumber): BlockNumber | undefined {
    for (let block: number = from; block < end; ) {
      const page = Math.floor(block / BLOCKS_PER_PAGE);
      const bits = this.#pages.get(page);
      const pageEnd = Math.min(end, (page + 1) * BLOCKS_PER_PAGE);
      while (bits !== undefined && block < pageEnd) {
        const inside = block % BLOCKS_PER_PAGE;
        const rest = (bits[inside >>> 5] ?? 0) >>> (inside & 31);
        if (rest === 0) {
          block += 32 - (inside & 31);
          continue;
        }
        const found = block + (31 - Math.clz32(rest & -rest));
        return found < end ? found : undefined;
      }
      block = pageEnd;
    }
    return undefined;
  }

  /** Takes out those of `count` blocks from `first` on that are in. */
  delete(first: BlockNumber, count: number): void {
    const end = first + count;
    for (let block = this.next(first, end); block !== undefined; block = this.next(block + 1, end)) {
      const page = Math.floor(block / BLOCKS_PER_PAGE);
      const bits = this.#pages.get(page);
      if (bits === undefined) continue;
      const word = (block % BLOCKS_PER_PAGE) >>> 5;
      bits[word] = (bits[word] ?? 0) & ~(1 << (block & 31));
      this.#count--;
      if (bits.every((each) => each === 0)) this.#pages.delete(page);
    }
  }
}

function countOf(bits: Uint32Array): number {
  let count = 0;
  for (const _ of setBits(bits, 0)) count++;
  return count;
}
