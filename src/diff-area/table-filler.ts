/**
 * Fills a translation table with the entries of a table chain, which come in the order in which blocks were first written.
 *
 * Entries are gathered, sorted by block and then merged into the leaves of the table, each leaf once a batch. One by one every entry
 * would cost a search and a move within its leaf: for 10 million in random order 10 seconds instead of one. The batches
 * grow with the table, so the whole is read, sorted and merged a few times over at most, with little memory besides.
 */
import type { BlockNumber, Slot } from '../units.js';
import type { BlockTable } from './block-table.js';

const FIRST_BATCH = 2 ** 10;
const LARGEST_BATCH = 2 ** 20;
/** A batch is up to one part in so many of what the table holds already. */
const SHARE = 2;
const DIGIT_BITS = 13;
const DIGITS = 2 ** DIGIT_BITS;

interface Batch {
  readonly blocks: Uint32Array;
  readonly slots: Uint32Array;
}

export class TableFiller {
  readonly #table: BlockTable;
  #batch: Batch;
  /** As large as the batch; sorting goes to and fro between the two. Only made when something has to be sorted. */
  #other: Batch | undefined;
  #count = 0;
  #isAscending = true;

  constructor(table: BlockTable) {
    this.#table = table;
    this.#batch = newBatch(FIRST_BATCH);
  }

  /** Records the copy of `block`; a later one for the same block replaces the earlier. The table has it after `finish`. */
  add(block: BlockNumber, slot: Slot, checksum: number): void {
    const { blocks, slots } = this.#batch;
    if (this.#table.blockCount > 2 ** 32) {
      this.#table.set(block, slot, checksum);
      return;
    }
    this.#table.setChecksum(slot, checksum);
    const count = this.#count;
    if (count > 0 && (blocks[count - 1] ?? 0) >= block) this.#isAscending = false;
    blocks[count] = block;
    slots[count] = slot;
    this.#count = count + 1;
    if (count + 1 === blocks.length) this.#flush();
  }

  finish(): void {
    this.#flush();
    this.#batch = newBatch(0);
    this.#other = undefined;
  }

  #flush(): void {
    if (!this.#isAscending) this.#sort();
    this.#table.setSorted(this.#batch.blocks, this.#batch.slots, this.#count);
    this.#count = 0;
    this.#isAscending = true;
    const { length } = this.#batch.blocks;
    if (length < LARGEST_BATCH && length * SHARE < this.#table.size) {
      this.#batch = newBatch(2 * length);
      this.#other = undefined;
    }
  }

  /** Radix sort, which keeps the order of equals; of these the last one stays. */
  #sort(): void {
    this.#other ??= newBatch(this.#batch.blocks.length);
    const digits = Math.ceil(Math.log2(this.#table.blockCount) / DIGIT_BITS);
    for (let digit = 0; digit < digits; digit++) {
      const other: Batch = this.#other;
      scatter(this.#batch, other, this.#count, digit * DIGIT_BITS);
      this.#other = this.#batch;
      this.#batch = other;
    }
    this.#count = withoutRepeats(this.#batch, this.#count);
  }
}

/** Moves the first `count` copies to where they belong by `DIGIT_BITS` bits of their block number from bit `shift` on. */
function scatter(from: Batch, to: Batch, count: number, shift: number): void {
  const places = new Uint32Array(DIGITS + 1);
  for (let i = 0; i < count; i++) {
    const after = (((from.blocks[i] ?? 0) >>> shift) & (DIGITS - 1)) + 1;
    places[after] = (places[after] ?? 0) + 1;
  }
  for (let digit = 1; digit <= DIGITS; digit++)
    places[digit] = (places[digit] ?? 0) + (places[digit - 1] ?? 0);
  for (let i = 0; i < count; i++) {
    const block = from.blocks[i] ?? 0;
    const digit = (block >>> shift) & (DIGITS - 1);
    const place = places[digit] ?? 0;
    places[digit] = place + 1;
    to.blocks[place] = block;
    to.slots[place] = from.slots[i] ?? 0;
  }
}

/** Drops all but the last of equal blocks; returns how many are left. */
function withoutRepeats({ blocks, slots }: Batch, count: number): number {
  let kept = 0;
  for (let i = 0; i < count; i++) {
    const block = blocks[i] ?? 0;
    if (kept > 0 && blocks[kept - 1] === block) kept--;
    blocks[kept] = block;
    slots[kept] = slots[i] ?? 0;
    kept++;
  }
  return kept;
}

const newBatch = (length: number): Batch => ({
  blocks: new Uint32Array(length),
  slots: new Uint32Array(length),
});
