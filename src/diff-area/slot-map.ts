/** Which slots of a diff-area file are in use, found out while it is opened. */
import { FormatError } from '../errors.js';
import type { Extent } from '../store/extents.js';
import type { Runs } from '../store/runs.js';
import { BLOCK_SIZE, type ByteOffset, type Slot } from '../units.js';

export class SlotMap {
  readonly #runs: Runs;
  readonly #used: Uint8Array;
  /** Slots of the file. */
  readonly count: number;

  constructor(runs: Runs) {
    this.#runs = runs;
    this.count = runs.size / BLOCK_SIZE;
    this.#used = new Uint8Array(Math.ceil(this.count / 8));
  }

  use(slot: Slot): void {
    const byte = slot >>> 3;
    this.#used[byte] = (this.#used[byte] ?? 0) | (1 << (slot & 7));
  }

  /** The same for the first `count` of `slots`. */
  useAll(slots: Uint32Array, count: number): void {
    const used = this.#used;
    for (let i = 0; i < count; i++) {
      const slot = slots[i] ?? 0;
      used[slot >>> 3] = (used[slot >>> 3] ?? 0) | (1 << (slot & 7));
    }
  }

  isUsed(slot: Slot): boolean {
    return (((this.#used[slot >>> 3] ?? 0) >>> (slot & 7)) & 1) === 1;
  }

  /** The slot at an offset of the device. @throws FormatError, naming `what`, if it is not one of this file */
  at(volumeOffset: ByteOffset, what: string): Slot {
    for (const run of this.#runs.list) {
      const inside = volumeOffset - run.volumeOffset;
      if (inside >= 0 && inside < run.length && inside % BLOCK_SIZE === 0)
        return (run.fileOffset + inside) / BLOCK_SIZE;
    }
    throw new FormatError(`the ${what} at ${volumeOffset} lies outside its diff-area file`);
  }

  *free(): Generator<Extent> {
    for (let slot = 0; slot < this.count; ) {
      const start = slot;
      while (slot < this.count && !this.isUsed(slot)) slot++;
      if (slot > start) yield { start, length: slot - start };
      // Most of a file that has been in use for a while: eight at a time.
      while (slot < this.count && this.isUsed(slot)) {
        if ((slot & 7) === 0) slot = 8 * pastFull(this.#used, slot >>> 3);
        if (this.isUsed(slot)) slot++;
      }
    }
  }
}

/** The first of `bytes`, from `at` on, that is not all ones; or their number. */
function pastFull(bytes: Uint8Array, at: number): number {
  let byte = at;
  while (bytes[byte] === 0xff) byte++;
  return byte;
}
