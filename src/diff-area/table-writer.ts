/**
 * Appends entries to the table chain of a diff-area file on the device.
 *
 * A write covers the sectors that changed, never the whole block, and always the first one: its header carries the
 * watermark, the number of places of the chain known durable. After a crash only places from the watermark on need
 * their data looked at. A new block is written whole in the same step that links it: if only the link survives a crash,
 * the block behind it has the wrong epoch and the chain ends before it.
 *
 * Not safe for parallel use: the commit pool appends and writes one group at a time.
 */
import { assert } from '../errors.js';
import { viewOf } from '../format/binary.js';
import { setNextOffset } from '../format/block-header.js';
import { ENTRIES_PER_TABLE_BLOCK, ENTRY_SIZE } from '../format/constants.js';
import { setWatermark } from '../format/extension.js';
import { encodeTableBlock, entryPosition, writeOrdinaryEntry } from '../format/table-block.js';
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
  readonly checksums: readonly number[];
}

/** The last block of a table chain. */
export interface TableTail {
  readonly slot: Slot;
  readonly image: Uint8Array;
  /** Places used in this block. */
  readonly used: number;
  /** Places in the blocks before it. */
  readonly before: number;
}

/** A table block with bytes that are not on the device yet. */
interface DirtyBlock {
  readonly slot: Slot;
  readonly image: Uint8Array;
  /** Bytes `[from, to)` changed, besides the first sector. */
  from: number;
  to: number;
}

/** The empty first block of a chain. */
export function newTableBlock(file: AreaFile, slot: Slot, epoch: bigint, watermark: number): Uint8Array {
  const volumeOffset = file.runs.locate(offsetOfSlot(slot));
  return encodeTableBlock(
    { fileOffset: offsetOfSlot(slot), volumeOffset, nextOffset: 0, epoch, watermark },
    [],
  );
}

export class TableWriter {
  readonly #file: AreaFile;
  readonly #epoch: bigint;
  #tail: TableTail;
  #dirty: DirtyBlock[] = [];
  /** Places of the chain known durable; the owner raises it after a flush. */
  durable: number;

  constructor(file: AreaFile, epoch: bigint, tail: TableTail, durable: number) {
    this.#file = file;
    this.#epoch = epoch;
    this.#tail = tail;
    this.durable = durable;
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
        this.#append(block, at(copies, index), at(checksums, index));
      }
    }
  }

  #append(block: BlockNumber, copy: Slot, checksum: number): void {
    const { slot, image, used, before } = this.#tail;
    const position = entryPosition(used);
    const fileOffset = offsetOfSlot(copy);
    const volumeOffset = this.#file.runs.locate(fileOffset);
    writeOrdinaryEntry(viewOf(image), position, offsetOfBlock(block), fileOffset, volumeOffset, 0, checksum);
    this.#tail = { slot, image, used: used + 1, before };
    this.#touch(position, position + ENTRY_SIZE);
  }

  #startBlock(slot: Slot): void {
    const full = this.#tail;
    setNextOffset(full.image, this.#file.runs.locate(offsetOfSlot(slot)));
    this.#touch(0, 0);
    const image = newTableBlock(this.#file, slot, this.#epoch, this.durable);
    this.#tail = { slot, image, used: 0, before: full.before + full.used };
    this.#touch(0, BLOCK_SIZE);
  }

  #touch(from: number, to: number): void {
    const { slot, image } = this.#tail;
    const last = this.#dirty.at(-1);
    if (last?.slot !== slot) this.#dirty.push({ slot, image, from, to });
    else if (last.from === last.to) Object.assign(last, { from, to });
    else Object.assign(last, { from: Math.min(last.from, from), to: Math.max(last.to, to) });
  }

  /** Marks the header for writing even if no entry was added, so that it carries the present watermark. */
  touchHeader(): void {
    this.#touch(0, 0);
  }

  /** Writes what was added, without a flush. After a failure it may be called again and writes the same. */
  async write(): Promise<void> {
    for (const { slot, image, from, to } of this.#dirty) {
      setWatermark(image, this.durable);
      const base = this.#file.runs.locate(offsetOfSlot(slot));
      const first = Math.floor(from / SECTOR_SIZE) * SECTOR_SIZE;
      const end = roundUp(to, SECTOR_SIZE);
      if (first <= SECTOR_SIZE) {
        await this.#file.device.write(base, image.subarray(0, Math.max(end, SECTOR_SIZE)));
      } else {
        await this.#file.device.write(base, image.subarray(0, SECTOR_SIZE));
        await this.#file.device.write(base + first, image.subarray(first, end));
      }
    }
    this.#dirty = [];
  }
}

function at(numbers: readonly number[], index: number): number {
  const number = numbers[index];
  assert(number !== undefined, () => `no number ${index} among ${numbers.length}`);
  return number;
}
