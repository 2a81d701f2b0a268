/**
 * Fills a translation table with the entries of a table chain, which come in the order in which blocks were first written.
 *
 * Entries are gathered in batches. One that goes on past everything before it fills leaves of the table at once. From the first that does
 * not, batches are put by as runs: grouped by window of 65,536 blocks, in 5 bytes an entry. At the end the windows are gone
 * through in order: all entries of one are laid out by block, the later over the earlier, and so are sorted; each leaf is built once.
 * The buffers of runs become those of leaves as they are used up, so that never much more is held than the table and its entries once. (Merging
 * each batch into the leaves took twice as long, and left as much again for the garbage collector.)
 */
import type { CopyColumns } from '../format/table-block.js';
import type { BlockNumber, Slot } from '../units.js';
import type { BlockTable } from './block-table.js';
import { SortingRoom, TableRun, WINDOW_BLOCKS } from './table-run.js';

const FIRST_BATCH = 2 ** 10;
const LARGEST_BATCH = 2 ** 17;
/** Sorted copies that are gathered before leaves are made of them: at least one leaf and what is over. */
const SORTED_MIN = 2 ** 13;
/** Copies merged in one turn of the event loop: a few milliseconds. */
const TURN = 2 ** 17;

export class TableFiller {
  readonly #table: BlockTable;
  #blocks = new Uint32Array(FIRST_BATCH);
  #slots = new Uint32Array(FIRST_BATCH);
  #sortingRoom = new SortingRoom(0, 0);
  #count = 0;
  #isAscending = true;
  /** What the batch has to go past to be added at once. */
  #end: BlockNumber;
  readonly #runs: TableRun[] = [];
  /** For `add`. */
  readonly #one: Copies = {
    blocks: new Uint32Array(1),
    slots: new Uint32Array(1),
    checksums: new Uint32Array(1),
  };
  /** Blocks beyond 64 TiB, which no window can name: such tables are filled one by one. */
  readonly #isHuge: boolean;

  constructor(table: BlockTable) {
    this.#table = table;
    this.#end = table.end;
    this.#isHuge = table.blockCount > 2 ** 32;
  }

  /** Records the copy of `block`; a later one for the same block replaces the earlier. The table has it after `finish`. */
  add(block: BlockNumber, slot: Slot, checksum: number): void {
    if (this.#isHuge) {
      this.#table.set(block, slot, checksum);
      return;
    }
    const { blocks, slots, checksums } = this.#one;
    blocks[0] = block;
    slots[0] = slot;
    checksums[0] = checksum;
    this.addAll(this.#one, 1);
  }

  /** The same for the first `count` of many copies. */
  addAll({ blocks, slots, checksums }: Copies, count: number): void {
    if (this.#isHuge) {
      for (let i = 0; i < count; i++) this.#table.set(blocks[i] ?? 0, slots[i] ?? 0, checksums[i] ?? 0);
      return;
    }
    this.#table.setChecksums(slots, checksums, count);
    for (let from = 0; from < count; ) {
      const to = Math.min(count, from + this.#blocks.length - this.#count);
      this.#blocks.set(blocks.subarray(from, to), this.#count);
      this.#slots.set(slots.subarray(from, to), this.#count);
      this.#isAscending &&= isAscending(this.#blocks, Math.max(1, this.#count), this.#count + to - from);
      this.#count += to - from;
      if (this.#count === this.#blocks.length) this.#flush();
      from = to;
    }
  }

  /** Nothing more will be added. @param turn called and awaited now and then, for others to have their turn */
  async finish(turn: () => Promise<void>): Promise<void> {
    if (this.#runs.length === 0 && this.#isPast()) {
      this.#table.setSorted(this.#blocks, this.#slots, this.#count);
    } else {
      this.#putBy();
      await this.#merge(turn);
    }
    this.#count = 0;
    this.#runs.length = 0;
  }

  #isPast(): boolean {
    return this.#isAscending && (this.#count === 0 || (this.#blocks[0] ?? 0) >= this.#end);
  }

  #flush(): void {
    if (this.#runs.length === 0 && this.#isPast()) this.#append([]);
    else this.#putBy();
    const { length } = this.#blocks;
    if (length === LARGEST_BATCH) return;
    const [blocks, slots] = [new Uint32Array(2 * length), new Uint32Array(2 * length)];
    blocks.set(this.#blocks.subarray(0, this.#count));
    slots.set(this.#slots.subarray(0, this.#count));
    this.#blocks = blocks;
    this.#slots = slots;
  }

  /** Fills leaves; what is left over stays in the batch. */
  #append(spare: ArrayBuffer[]): void {
    const taken = this.#table.appendLeaves(this.#blocks, this.#slots, this.#count, spare);
    if (taken > 0) this.#end = (this.#blocks[taken - 1] ?? 0) + 1;
    this.#blocks.copyWithin(0, taken, this.#count);
    this.#slots.copyWithin(0, taken, this.#count);
    this.#count -= taken;
  }

  #putBy(): void {
    const [count, { length }] = [this.#count, this.#blocks];
    if (count > 0) {
      if (length > this.#sortingRoom.length)
        this.#sortingRoom = new SortingRoom(this.#table.blockCount, length);
      this.#runs.push(new TableRun(this.#blocks, this.#slots, count, this.#sortingRoom));
    }
    this.#count = 0;
    this.#isAscending = true;
  }

  async #merge(turn: () => Promise<void>): Promise<void> {
    const spare: ArrayBuffer[] = [];
    // Of a small volume the only window is not needed whole.
    const words = Math.ceil(Math.min(this.#table.blockCount, WINDOW_BLOCKS) / 32);
    const window: Window = { slots: new Uint32Array(32 * words), presence: new Uint32Array(words) };
    if (this.#blocks.length < SORTED_MIN) {
      this.#blocks = new Uint32Array(SORTED_MIN);
      this.#slots = new Uint32Array(SORTED_MIN);
    }
    const windows = Math.ceil(this.#table.blockCount / WINDOW_BLOCKS);
    let sinceTurn = 0;
    for (let number = 0; number < windows; number++) {
      sinceTurn += this.#mergeWindow(number, window, spare);
      if (sinceTurn < TURN) continue;
      sinceTurn = 0;
      await turn();
    }
    this.#table.setSorted(this.#blocks, this.#slots, this.#count);
  }

  /** Returns how many entries were taken. */
  #mergeWindow(number: number, window: Window, spare: ArrayBuffer[]): number {
    let taken = 0;
    for (const run of this.#runs) taken += run.take(number, window.slots, window.presence, spare);
    if (taken > 0) this.#addWindow(number, window, spare);
    return taken;
  }

  /** Adds the copies of a window, in order of blocks, to the batch, and that to the table whenever it is full. */
  #addWindow(number: number, { slots, presence }: Window, spare: ArrayBuffer[]): void {
    const first = number * WINDOW_BLOCKS;
    for (let word = 0; word < presence.length; word++) {
      let rest = presence[word] ?? 0;
      if (rest === 0) continue;
      presence[word] = 0;
      if (this.#count + 32 > this.#blocks.length) this.#addSorted(spare);
      const blocks = this.#blocks;
      const sorted = this.#slots;
      let count = this.#count;
      for (; rest !== 0; rest &= rest - 1) {
        const key = word * 32 + 31 - Math.clz32(rest & -rest);
        blocks[count] = first + key;
        sorted[count++] = slots[key] ?? 0;
      }
      this.#count = count;
    }
  }

  #addSorted(spare: ArrayBuffer[]): void {
    if ((this.#blocks[0] ?? 0) >= this.#end) {
      this.#append(spare);
    } else {
      this.#table.setSorted(this.#blocks, this.#slots, this.#count);
      this.#count = 0;
    }
  }
}

/** Copies in no order. */
type Copies = Pick<CopyColumns, 'blocks' | 'slots' | 'checksums'>;

/** Is each of `numbers` from `from` up to `to` larger than the one before it? */
function isAscending(numbers: Uint32Array, from: number, to: number): boolean {
  for (let i = from; i < to; i++) if ((numbers[i - 1] ?? 0) >= (numbers[i] ?? 0)) return false;
  return true;
}

/** The copies of one window, laid out by block. */
interface Window {
  readonly slots: Uint32Array;
  /** One bit for each block that has a copy; all clear between two windows. */
  readonly presence: Uint32Array;
}
