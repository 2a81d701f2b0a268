/**
 * Entries of a table block that say no more than where copies are: in a table of millions nearly all.
 *
 * They are taken a block at a time, as columns, with nothing allocated. What is not sound is left to whoever goes through entries one by one,
 * and knows what to say about it.
 */
import { ENTRIES_PER_TABLE_BLOCK } from '../format/constants.js';
import { type CopyColumns, copyColumns, readCopies } from '../format/table-block.js';
import type { Runs } from '../store/runs.js';
import { BLOCK_SIZE, offsetOfSlot, type Slot } from '../units.js';
import { FixedSlot } from './area-slots.js';

export class PlainCopies {
  readonly #runs: Runs;
  readonly #slotCount: number;
  readonly #blockCount: number;
  /** What was read last. */
  readonly columns: CopyColumns = copyColumns(ENTRIES_PER_TABLE_BLOCK);
  /** The slots of one run that a copy can be in, and how far from them it is on the device. Neighbours mostly are in the same one. */
  #first: Slot = 0;
  #end: Slot = 0;
  #distance = 0;

  /** @param runs of the diff-area file; `blockCount`: of the volume */
  constructor(runs: Runs, blockCount: number) {
    this.#runs = runs;
    this.#slotCount = runs.size / BLOCK_SIZE;
    this.#blockCount = blockCount;
  }

  /**
   * Reads into `columns` the entries at the start of a table block, up to the first that is no plain copy, or not a sound one.
   * @param count entries of the block that may be read
   * @returns how many were read
   */
  read(view: DataView, count: number): number {
    const read = readCopies(view, count, this.columns);
    const { blocks, slots, places } = this.columns;
    const blockCount = this.#blockCount;
    for (let i = 0; i < read; i++) {
      const slot = slots[i] ?? 0;
      if ((slot < this.#first || slot >= this.#end) && !this.#findRun(slot)) return i;
      if ((blocks[i] ?? 0) >= blockCount || (places[i] ?? 0) - slot !== this.#distance) return i;
    }
    return read;
  }

  #findRun(slot: Slot): boolean {
    if (slot < FixedSlot.zeros || slot >= this.#slotCount) return false;
    const { fileOffset, volumeOffset, length } = this.#runs.runAt(offsetOfSlot(slot));
    this.#first = Math.max(FixedSlot.zeros, fileOffset / BLOCK_SIZE);
    this.#end = (fileOffset + length) / BLOCK_SIZE;
    this.#distance = (volumeOffset - fileOffset) / BLOCK_SIZE;
    return true;
  }
}
