/**
 * Appends entries to the table chain of a diff-area file on the device.
 *
 * A write covers the sectors that changed, never the whole block, and now and then the first one: its header carries the
 * watermark, the number of places of the chain known durable, and a checksum over the entries below it. After a crash
 * only places from the watermark on need their data looked at. A new block is written whole in the same step that links it:
 * if only the link survives a crash, the block behind it has the wrong epoch and the chain ends before it. The header
 * of a full block is written once more when all of its entries are durable, so that the checksum covers them all.
 *
 * Not safe for parallel use: the commit pool appends and writes one group at a time.
 */
import { assert } from '../errors.js';
import { viewOf } from '../format/binary.js';
import { setNextOffset } from '../format/block-header.js';
import { ENTRIES_PER_TABLE_BLOCK, ENTRY_SIZE } from '../format/constants.js';
import { setWatermark } from '../format/extension.js';
import { type RevertMark, writeRevertMark } from '../format/revert-mark.js';
import {
  encodeEntry,
  encodeTableBlock,
  entriesChecksum,
  entryPosition,
  type TableEntry,
  writeOrdinaryEntry,
} from '../format/table-block.js';
import type { AreaFile } from '../store/store.js';
import {
  BLOCK_SIZE,
  type BlockNumber,
  offsetOfBlock,
  offsetOfSlot,
  roundUp,
  SECTOR_SIZE,
  type Slot,
} from '../units.js';

/** Copies of blocks, as parallel arrays: nothing is allocated per copy. */
export interface Copies {
  readonly blocks: readonly BlockNumber[];
  readonly slots: readonly Slot[];
  readonly checksums: ArrayLike<number>;
}

/** A block at the end of a table chain. */
export interface TableTail {
  readonly slot: Slot;
  readonly image: Uint8Array;
  /** Places used in this block. */
  readonly used: number;
  /** Places in the blocks before it. */
  readonly before: number;
}

/** A table block whose entries are not all durable yet, or not all covered by its checksum. */
interface OpenBlock {
  readonly slot: Slot;
  readonly image: Uint8Array;
  readonly view: DataView;
  readonly before: number;
  used: number;
  /** Entries that `checksum` covers. */
  covered: number;
  checksum: number;
  /** Bytes `[from, to)` are not on the device yet; none if `from` is above `to`. */
  from: number;
  to: number;
  /** The watermark that the header on the device has. */
  written: number;
}

const CLEAN = { from: BLOCK_SIZE, to: 0 };
/** Durable places from which on a header lags too far behind: it saves small commits a system call and a sector, and costs reading their data after a crash. */
const LAG_MAX = Math.ceil(ENTRIES_PER_TABLE_BLOCK / 16);

/** The empty first block of a chain. */
export function newTableBlock(file: AreaFile, slot: Slot, epoch: bigint): Uint8Array {
  const volumeOffset = file.runs.locate(offsetOfSlot(slot));
  return encodeTableBlock({ fileOffset: offsetOfSlot(slot), volumeOffset, nextOffset: 0, epoch }, []);
}

export class TableWriter {
  readonly #file: AreaFile;
  readonly #epoch: bigint;
  /** Oldest first; the last one takes new entries. */
  #open: OpenBlock[];
  /** Places of the chain known durable; the owner raises it after a flush. */
  durable: number;

  /** @param open the blocks at the end of the chain that may have entries at or above `durable`; the last one at least */
  constructor(file: AreaFile, epoch: bigint, open: readonly TableTail[], durable: number) {
    this.#file = file;
    this.#epoch = epoch;
    this.#open = open.map((tail) => ({
      ...tail,
      ...CLEAN,
      view: viewOf(tail.image),
      covered: 0,
      checksum: 0,
      written: 0,
    }));
    this.durable = durable;
  }

  get #tail(): OpenBlock {
    const tail = this.#open.at(-1);
    assert(tail !== undefined, () => 'a table chain without an end');
    return tail;
  }

  /** Places of the chain in use, entries not yet written included. */
  get places(): number {
    return this.#tail.before + this.#tail.used;
  }

  /** Further table blocks that `entries` more entries take. */
  blocksNeeded(entries: number): number {
    return Math.max(0, Math.ceil((this.#tail.used + entries) / ENTRIES_PER_TABLE_BLOCK) - 1);
  }

  /** Adds entries in memory. @param slots for as many further table blocks as `blocksNeeded` says */
  append(groups: readonly Copies[], slots: readonly Slot[]): void {
    let nextSlot = 0;
    for (const { blocks, slots: copies, checksums } of groups) {
      for (const [index, block] of blocks.entries()) {
        if (this.#tail.used === ENTRIES_PER_TABLE_BLOCK) this.#startBlock(at(slots, nextSlot++));
        this.#append(this.#tail, block, at(copies, index), at(checksums, index));
      }
    }
  }

  /** The same for marks of a revert. */
  appendMarks(marks: readonly RevertMark[], slots: readonly Slot[]): void {
    let nextSlot = 0;
    for (const mark of marks) {
      if (this.#tail.used === ENTRIES_PER_TABLE_BLOCK) this.#startBlock(at(slots, nextSlot++));
      const tail = this.#tail;
      const position = entryPosition(tail.used++);
      writeRevertMark(tail.image, position, mark, this.#epoch);
      touch(tail, position, position + ENTRY_SIZE);
    }
  }

  /** The same for entries of other kinds. */
  appendEntries(entries: readonly TableEntry[], slots: readonly Slot[]): void {
    let nextSlot = 0;
    for (const entry of entries) {
      if (this.#tail.used === ENTRIES_PER_TABLE_BLOCK) this.#startBlock(at(slots, nextSlot++));
      const tail = this.#tail;
      const position = entryPosition(tail.used++);
      encodeEntry(tail.image, position, entry);
      touch(tail, position, position + ENTRY_SIZE);
    }
  }

  #append(tail: OpenBlock, block: BlockNumber, copy: Slot, checksum: number): void {
    const position = entryPosition(tail.used);
    const fileOffset = offsetOfSlot(copy);
    const volumeOffset = this.#file.runs.locate(fileOffset);
    writeOrdinaryEntry(tail.view, position, offsetOfBlock(block), fileOffset, volumeOffset, 0, checksum);
    tail.used++;
    touch(tail, position, position + ENTRY_SIZE);
  }

  #startBlock(slot: Slot): void {
    const full = this.#tail;
    setNextOffset(full.image, this.#file.runs.locate(offsetOfSlot(slot)));
    touch(full, 0, SECTOR_SIZE);
    const image = newTableBlock(this.#file, slot, this.#epoch);
    const before = full.before + full.used;
    this.#open.push({
      slot,
      image,
      view: viewOf(image),
      before,
      used: 0,
      covered: 0,
      checksum: 0,
      from: 0,
      to: BLOCK_SIZE,
      written: 0,
    });
  }

  /** Marks all headers for writing even if no entry was added, so that they carry the present watermark. */
  touchHeaders(): void {
    for (const block of this.#open) touch(block, 0, SECTOR_SIZE);
  }

  /** Marks all open blocks for writing whole: their images were changed by recovery. */
  touchBlocks(): void {
    for (const block of this.#open) touch(block, 0, BLOCK_SIZE);
  }

  /** Writes what was added, without a flush. After a failure it may be called again and writes the same. */
  async write(): Promise<void> {
    for (const block of this.#open) {
      if (canBeComplete(block, this.durable) && cover(block, this.durable)) touch(block, 0, SECTOR_SIZE);
      if (block.from < block.to) await this.#writeBlock(block);
    }
    const tail = this.#tail;
    this.#open = this.#open.filter((block) => block === tail || !isComplete(block));
  }

  async #writeBlock(block: OpenBlock): Promise<void> {
    const { slot, image } = block;
    const { device, runs } = this.#file;
    const base = runs.locate(offsetOfSlot(slot));
    const first = Math.floor(block.from / SECTOR_SIZE) * SECTOR_SIZE;
    const end = roundUp(block.to, SECTOR_SIZE);
    const hasHeader = first <= SECTOR_SIZE || this.durable - block.written >= LAG_MAX;
    if (hasHeader) {
      cover(block, this.durable);
      setWatermark(image, this.durable, block.checksum);
    }
    if (hasHeader && first > SECTOR_SIZE) await device.write(base, image.subarray(0, SECTOR_SIZE));
    const start = first <= SECTOR_SIZE ? 0 : first;
    const entries = image.subarray(start, end);
    if (device.writeNow?.(base + start, [entries]) !== true) await device.write(base + start, entries);
    if (hasHeader) block.written = this.durable;
    block.from = CLEAN.from;
    block.to = CLEAN.to;
  }
}

function touch(block: OpenBlock, from: number, to: number): void {
  block.from = Math.min(block.from, from);
  block.to = Math.max(block.to, to);
}

/** Extends the checksum over entries that have become durable, if any: nothing changes them any more. */
function cover(block: OpenBlock, durable: number): boolean {
  const end = Math.min(block.used, Math.max(0, durable - block.before));
  if (end <= block.covered) return false;
  block.checksum = entriesChecksum(block.image, block.covered, end, block.checksum);
  block.covered = end;
  return true;
}

/** Are all entries that the block has room for durable? */
const canBeComplete = ({ before }: OpenBlock, durable: number): boolean =>
  durable - before >= ENTRIES_PER_TABLE_BLOCK;

/** Is the block full, and all of it covered? */
const isComplete = (block: OpenBlock): boolean => block.covered === ENTRIES_PER_TABLE_BLOCK;

function at(numbers: ArrayLike<number>, index: number): number {
  const number = numbers[index];
  assert(number !== undefined, () => `no number ${index} among ${numbers.length}`);
  return number;
}
