/**
 * The checksum of a copy: over its table entry, the epoch of its diff area, and its data.
 *
 * So it tells not only rot, but also a copy that never got to the device, one of another block, and one that an
 * earlier diff area left in the same place.
 *
 * CRCs are linear: the one of the data, plus what each bit of the entry adds, whatever the data are. So whoever computes that of the data
 * need not know where they belong, and the rest is looked up, a byte of the entry's offsets at a time.
 */
import { crc32 } from '../crc32.js';
import { SharedMemory } from '../device/shared-memory.js';
import { viewOf } from '../format/binary.js';
import { ENTRY_CHECKED_SIZE, writeEntryOffsets } from '../format/table-block.js';
import type { Runs } from '../store/runs.js';
import {
  BLOCK_SIZE,
  type BlockNumber,
  type ByteOffset,
  offsetOfBlock,
  offsetOfSlot,
  type Slot,
} from '../units.js';

const ZEROS = new Uint8Array(BLOCK_SIZE);
/** The CRC-32 of a block of zeros. */
export const CRC32_OF_ZEROS: number = crc32(ZEROS);

/** Of the number of a block on a device, which is below 2^40: offsets are safe integers. */
const NUMBER_BYTES = 5;
const VALUES = 256;

/** What numbers add to a checksum: for each of their bytes, lowest first, what each of its values does. */
type Added = Uint32Array;
const ORIGINAL = addedBy((view, offset) => writeEntryOffsets(view, 0, offset, 0, 0));
const RELATIVE = addedBy((view, offset) => writeEntryOffsets(view, 0, 0, offset, 0));
const VOLUME = addedBy((view, offset) => writeEntryOffsets(view, 0, 0, 0, offset));

export class CopyChecksum {
  readonly #runs: Runs;
  /** What neither the data nor the three offsets add. */
  readonly #constant: number;

  constructor(runs: Runs, epoch: bigint) {
    this.#runs = runs;
    const entry = emptyEntry();
    viewOf(entry).setBigUint64(ENTRY_CHECKED_SIZE, epoch, true);
    this.#constant = withZeros(entry) ^ CRC32_OF_ZEROS;
  }

  /** @param data 16 KiB, the content of `block` */
  of(block: BlockNumber, slot: Slot, data: Uint8Array): number {
    return this.from(block, slot, SharedMemory.crc32(data));
  }

  /** @param sum the CRC-32 of the 16 KiB that are the content of `block` */
  from(block: BlockNumber, slot: Slot, sum: number): number {
    const offset = offsetOfSlot(slot);
    const place = this.#runs.locate(offset);
    const entry = added(ORIGINAL, block) ^ added(RELATIVE, slot) ^ added(VOLUME, place / BLOCK_SIZE);
    return (sum ^ this.#constant ^ entry) >>> 0;
  }

  /** The checksum of a copy of `from` as that of a copy of `to`, whose entry would differ in nothing else. */
  rebased(checksum: number, from: BlockNumber, to: BlockNumber): number {
    return (checksum ^ added(ORIGINAL, from) ^ added(ORIGINAL, to)) >>> 0;
  }
}

function added(table: Added, number: number): number {
  let sum = 0;
  for (let at = 0, left = number; left > 0; at += VALUES) {
    sum ^= table[at + (left & (VALUES - 1))] ?? 0;
    left = left < 2 ** 32 ? left >>> 8 : Math.floor(left / VALUES);
  }
  return sum;
}

/** @param write puts an offset where in an entry it counts */
function addedBy(write: (view: DataView, offset: ByteOffset) => void): Added {
  const entry = emptyEntry();
  const none = withZeros(entry);
  const table = new Uint32Array(NUMBER_BYTES * VALUES);
  for (let bit = 0; bit < 8 * NUMBER_BYTES - 1; bit++) {
    write(viewOf(entry), offsetOfBlock(2 ** bit));
    const at = VALUES * (bit >>> 3);
    const value = 1 << (bit & 7);
    const sum = withZeros(entry) ^ none;
    for (let lower = 0; lower < value; lower++) table[at + value + lower] = sum ^ (table[at + lower] ?? 0);
  }
  return table;
}

/** An entry as far as it counts, with flags of zero, then the epoch. */
function emptyEntry(): Uint8Array {
  return new Uint8Array(ENTRY_CHECKED_SIZE + 8);
}

/** The CRC-32 of these bytes and a block of zeros. */
function withZeros(entry: Uint8Array): number {
  return crc32(ZEROS, crc32(entry));
}
