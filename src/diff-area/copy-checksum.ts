/**
 * The checksum of a copy: over its table entry, the epoch of its diff area, and its data.
 *
 * So it tells not only rot, but also a copy that never got to the device, one of another block, and one that an
 * earlier diff area left in the same place.
 */
import { crc32, crc32OfFew } from '../crc32.js';
import { SharedMemory } from '../device/shared-memory.js';
import { viewOf } from '../format/binary.js';
import { ENTRY_CHECKED_SIZE, writeEntryOffsets } from '../format/table-block.js';
import type { Runs } from '../store/runs.js';
import { BLOCK_SIZE, type BlockNumber, offsetOfBlock, offsetOfSlot, type Slot } from '../units.js';

const ZEROS = new Uint8Array(BLOCK_SIZE);

export class CopyChecksum {
  readonly #runs: Runs;
  /** The entry as far as it counts, with flags of zero, then the epoch; its offsets are filled in anew for each checksum. */
  readonly #view = viewOf(new Uint8Array(ENTRY_CHECKED_SIZE + 8));

  constructor(runs: Runs, epoch: bigint) {
    this.#runs = runs;
    this.#view.setBigUint64(ENTRY_CHECKED_SIZE, epoch, true);
  }

  /** @param data 16 KiB, the content of `block` */
  of(block: BlockNumber, slot: Slot, data: Uint8Array): number {
    return SharedMemory.crc32(data, this.seed(block, slot));
  }

  /** The checksum of a copy of `from` as that of a copy of `to`, whose entry would differ in nothing else. */
  rebased(checksum: number, slot: Slot, from: BlockNumber, to: BlockNumber): number {
    // CRCs are linear: what two beginnings make of equal data differs by what they make of zeros.
    return (checksum ^ crc32(ZEROS, this.seed(from, slot)) ^ crc32(ZEROS, this.seed(to, slot))) >>> 0;
  }

  /** The checksum as far as it does not depend on the data, which it is to be continued with. */
  seed(block: BlockNumber, slot: Slot): number {
    const fileOffset = offsetOfSlot(slot);
    writeEntryOffsets(this.#view, 0, offsetOfBlock(block), fileOffset, this.#runs.locate(fileOffset));
    return crc32OfFew(this.#view);
  }
}
