/**
 * What was written to a snapshot itself: which sectors of which blocks, and the slots that hold them.
 *
 * A block that was written has one slot, for good: every entry of it in the table chain names that slot, and the sectors that are
 * there. Sectors that were written before are written again in place; a device writes a sector whole or not at all. So entries
 * are only needed for sectors that are new, and they are added in groups, when somebody flushes.
 *
 * Entries of overlays have no checksum: readers of the format take that word for the sectors. They are proven by the watermark.
 * Data and entries are flushed, only then a header says that they are durable, and loading drops whatever no header vouches for. See
 * `DiffArea.flushProven`.
 *
 * Shared state: the map changes between awaits only. Whoever reads or writes a slot keeps others off it (`SnapshotWrites`).
 */
import { assert, FormatError } from '../errors.js';
import { EntryFlag, type TableEntry } from '../format/table-block.js';
import type { AreaFile } from '../store/store.js';
import {
  BLOCK_SIZE,
  type BlockNumber,
  type ByteLength,
  type ByteOffset,
  blockOf,
  offsetOfBlock,
  offsetOfSlot,
  SECTOR_SIZE,
  type Slot,
} from '../units.js';
import { BlockTable } from './block-table.js';
import { SlotChecksums } from './slot-checksums.js';

/** Sectors of a block, sector i as bit i. */
export type SectorBits = number;

/** The sectors that bytes `from` up to `to` of a block lie in. */
export function sectorsOfRange(from: number, to: number): SectorBits {
  const first = Math.floor(from / SECTOR_SIZE);
  const count = Math.ceil(to / SECTOR_SIZE) - first;
  return ((0xffff_ffff >>> (BLOCK_SIZE / SECTOR_SIZE - count)) << first) >>> 0;
}

/** Ranges of whole sectors, as bytes of the block, ascending. */
export function* rangesOfSectors(sectors: SectorBits): Generator<{ from: number; to: number }> {
  for (let rest = sectors; rest !== 0; ) {
    const first = 31 - Math.clz32(rest & -rest);
    const beyond = ~(rest >>> first);
    const count = beyond === 0 ? 32 - first : 31 - Math.clz32(beyond & -beyond);
    const range = { from: first * SECTOR_SIZE, to: (first + count) * SECTOR_SIZE };
    rest = (rest & ~sectorsOfRange(range.from, range.to)) >>> 0;
    yield range;
  }
}

/** A part of one block. */
export interface Piece {
  readonly block: BlockNumber;
  /** Bytes of the block. */
  readonly from: number;
  readonly bytes: Uint8Array;
}

export function* piecesOf(offset: ByteOffset, bytes: Uint8Array): Generator<Piece> {
  for (let done: ByteLength = 0; done < bytes.byteLength; ) {
    const block = blockOf(offset + done);
    const from = offset + done - offsetOfBlock(block);
    const length = Math.min(BLOCK_SIZE - from, bytes.byteLength - done);
    yield { block, from, bytes: bytes.subarray(done, done + length) };
    done += length;
  }
}

export class Overlays {
  readonly #file: AreaFile;
  readonly #blockCount: number;
  /** Slots, and in place of checksums the sectors that readers see. Made when something is written. */
  #table: BlockTable | undefined;
  /** By slot, the sectors that entries name. */
  readonly #entered = new SlotChecksums();
  /** Blocks with sectors that no entry names. */
  readonly #due = new Set<BlockNumber>();
  /** Is it certain that headers on the device vouch for all entries? */
  isProven = true;

  /** @param blockCount blocks of the snapshot */
  constructor(file: AreaFile, blockCount: number) {
    this.#file = file;
    this.#blockCount = blockCount;
  }

  get isEmpty(): boolean {
    return this.#table === undefined;
  }

  /** Number of blocks. */
  get size(): number {
    return this.#table?.size ?? 0;
  }

  /** Bytes of memory held. */
  get memoryBytes(): number {
    return (this.#table?.memoryBytes ?? 0) + this.#entered.memoryBytes;
  }

  slotOf(block: BlockNumber): Slot | -1 {
    return this.#table?.slotOf(block) ?? -1;
  }

  /** The sectors of `block` that were written. */
  sectorsOf(block: BlockNumber): SectorBits {
    const slot = this.slotOf(block);
    return slot === -1 ? 0 : (this.#table?.checksumAt(slot) ?? 0);
  }

  /** Those of them that entries name. */
  enteredOf(block: BlockNumber): SectorBits {
    const slot = this.slotOf(block);
    return slot === -1 ? 0 : this.#entered.get(slot);
  }

  /** Blocks that were written, in ascending order. */
  *blocks(): Generator<BlockNumber> {
    if (this.#table !== undefined) yield* this.#table.blocks();
  }

  /** As `BlockTable` has it. */
  hasPage(page: number): boolean {
    return this.#table?.hasPage(page) ?? false;
  }

  /** As `BlockTable` has it. */
  pageFrom(page: number): number | undefined {
    return this.#table?.pageFrom(page);
  }

  /** As `BlockTable` has it. */
  addPresence(page: number, bitmap: Uint32Array): void {
    this.#table?.addPresence(page, bitmap);
  }

  /**
   * Lets readers see sectors whose data is in `slot`.
   * @returns whether the block needs an entry and did not before
   */
  show(block: BlockNumber, slot: Slot, sectors: SectorBits): boolean {
    const before = this.slotOf(block);
    assert(before === -1 || before === slot, () => `block ${block} was written to ${before}, not ${slot}`);
    this.#table ??= new BlockTable(this.#blockCount);
    this.#table.set(block, slot, (this.sectorsOf(block) | sectors) >>> 0);
    if (this.#due.has(block) || (this.sectorsOf(block) & ~this.#entered.get(slot)) === 0) return false;
    this.#due.add(block);
    return true;
  }

  /** Entries for all sectors that none names yet; from here on they count as named. */
  enter(): TableEntry[] {
    const entries = [...this.#due].map((block): TableEntry => {
      const slot = this.slotOf(block);
      const fileOffset = offsetOfSlot(slot);
      const fresh = this.sectorsOf(block) & ~this.#entered.get(slot);
      this.#entered.set(slot, this.sectorsOf(block));
      return {
        originalOffset: offsetOfBlock(block),
        relativeOffset: fileOffset,
        volumeOffset: this.#file.runs.locate(fileOffset),
        flags: EntryFlag.overlay,
        bitmap: fresh >>> 0,
      };
    });
    this.#due.clear();
    return entries;
  }

  /** Takes an entry that was read. @throws FormatError if an earlier one of the block names another slot */
  load(block: BlockNumber, slot: Slot, sectors: SectorBits): void {
    const before = this.slotOf(block);
    if (before !== -1 && before !== slot)
      throw new FormatError(
        `what was written to block ${block} is said to lie in slots ${before} and ${slot}`,
      );
    this.#table ??= new BlockTable(this.#blockCount);
    const all = (this.sectorsOf(block) | sectors) >>> 0;
    this.#table.set(block, slot, all);
    this.#entered.set(slot, all);
    this.isProven = false;
  }

  /** Writes whole sectors to a slot. @throws DeviceError */
  async write(slot: Slot, from: number, data: Uint8Array): Promise<void> {
    await this.#file.device.write(this.#file.runs.locate(offsetOfSlot(slot)) + from, data);
  }

  /** Lays what was written over `target`, which holds the snapshot from `offset` on. Nobody writes meanwhile. @throws DeviceError */
  async layOverRange(offset: ByteOffset, target: Uint8Array): Promise<void> {
    if (this.isEmpty) return;
    for (const { block, from, bytes } of piecesOf(offset, target)) await this.layOver(block, from, bytes);
  }

  /** Lays the sectors of `block` over `target`, which holds its bytes from `from` on. @throws DeviceError */
  async layOver(block: BlockNumber, from: number, target: Uint8Array): Promise<void> {
    const slot = this.slotOf(block);
    if (slot === -1) return;
    const base: ByteOffset = this.#file.runs.locate(offsetOfSlot(slot));
    for (const range of rangesOfSectors(this.sectorsOf(block))) {
      const start = Math.max(from, range.from);
      const end = Math.min(from + target.byteLength, range.to);
      if (start < end) await this.#file.device.read(base + start, target.subarray(start - from, end - from));
    }
  }
}
