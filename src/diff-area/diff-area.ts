/**
 * The diff area of one snapshot: where the copies of overwritten blocks are kept, and the table that finds them.
 *
 *     slot 0  application information      slot 3  location list, second place
 *     slot 1  first table block            slot 4  a block of zeros, shared by all copies of zero blocks
 *     slot 2  location list                slot 5… copies and further table blocks, as they were needed
 *
 * Protocol of one group of copies: `reserve` → `writeData` → `append`, `writeEntries` → `flush` → `publish`. An entry carries a
 * checksum over itself and its data, so that the one flush makes both count; only after it may the volume be written.
 *
 * Shared state: free slots and promised entries change between awaits only. The table chain is changed by one caller at
 * a time (the commit pool), runs and location list by one caller at a time (the background pool).
 */
import { crc32 } from 'node:zlib';
import { writeAll } from '../device/block-device.js';
import { assert, IntegrityError, NoSpaceError } from '../errors.js';
import type { ApplicationInformation } from '../format/application-information.js';
import { viewOf } from '../format/binary.js';
import { ENTRIES_PER_TABLE_BLOCK } from '../format/constants.js';
import type { DiffAreaItem } from '../format/control-block.js';
import type { Guid } from '../format/guid.js';
import { ENTRY_CHECKED_SIZE, writeOrdinaryEntry } from '../format/table-block.js';
import type { Extent, Extents } from '../store/extents.js';
import { locationBlocksFor, writeLocationList } from '../store/location-list.js';
import { type Piece, Runs } from '../store/runs.js';
import type { AreaFile } from '../store/store.js';
import {
  BLOCK_SIZE,
  type BlockNumber,
  type ByteLength,
  type ByteOffset,
  offsetOfBlock,
  offsetOfSlot,
  type Slot,
} from '../units.js';
import type { BlockTable } from './block-table.js';
import type { Copies, TableWriter } from './table-writer.js';

/** Slots with a fixed use at the start of every diff-area file of ours. */
export const FixedSlot = {
  information: 0,
  table: 1,
  location: 2,
  otherLocation: 3,
  zeros: 4,
  count: 5,
} as const;

/** Changes the diff-area item of the control file, durably. */
export type RecordChange = (change: {
  locationOffset: ByteOffset;
  allocatedSize: ByteLength;
}) => Promise<void>;

export interface DiffAreaState {
  readonly storeId: Guid;
  readonly epoch: bigint;
  readonly file: AreaFile;
  readonly information: ApplicationInformation;
  readonly table: BlockTable;
  readonly writer: TableWriter;
  readonly freeSlots: Extents;
  /** Slots of the location list in force, in chain order. */
  readonly locationSlots: readonly Slot[];
}

export class DiffArea {
  readonly storeId: Guid;
  readonly epoch: bigint;
  readonly information: ApplicationInformation;
  /** What has a copy here. Changed only by `publish`. */
  readonly table: BlockTable;
  readonly #file: AreaFile;
  readonly #writer: TableWriter;
  readonly #freeSlots: Extents;
  /** Slots of the location list in force; empty if that is not known. */
  #locationSlots: readonly Slot[];
  #replacedSlots: readonly Slot[] = [];
  /** Entries whose slots are reserved but which are not in the table chain yet: they may need further table blocks. */
  #promisedEntries = 0;
  /** An entry as far as its checksum covers it, then the epoch; filled anew for each checksum. */
  readonly #checked = new Uint8Array(ENTRY_CHECKED_SIZE + 8 + 4);
  readonly #checkedView = viewOf(this.#checked);
  readonly #checkedPart = this.#checked.subarray(0, ENTRY_CHECKED_SIZE + 8);

  constructor(state: DiffAreaState) {
    this.storeId = state.storeId;
    this.epoch = state.epoch;
    this.information = state.information;
    this.table = state.table;
    this.#file = state.file;
    this.#writer = state.writer;
    this.#freeSlots = state.freeSlots;
    this.#locationSlots = state.locationSlots;
  }

  /** Bytes that the diff-area file has on its device. */
  get allocatedBytes(): ByteLength {
    return this.#file.runs.size;
  }

  /** Bytes in use: copies and metadata. */
  get usedBytes(): ByteLength {
    return this.allocatedBytes - this.freeBytes;
  }

  get freeBytes(): ByteLength {
    return this.#freeSlots.total * BLOCK_SIZE;
  }

  /** Slots that hold nothing, in extents. */
  get freeSlots(): Iterable<Extent> {
    return this.#freeSlots;
  }

  /** The item that describes this diff area in the control file. */
  get item(): DiffAreaItem {
    const { runs } = this.#file;
    return {
      kind: 'diff-area',
      storeId: this.storeId,
      tableOffset: runs.locate(offsetOfSlot(FixedSlot.table)),
      applicationInformationOffset: runs.locate(offsetOfSlot(FixedSlot.information)),
      locationOffset: runs.locate(offsetOfSlot(this.#locationSlots[0] ?? FixedSlot.location)),
      bitmapOffset: 0,
      fileReference: 0n,
      allocatedSize: runs.size,
      previousBitmapOffset: 0,
      unknown: 0n,
    };
  }

  /** Free slots that are spoken for: table blocks for the entries promised, and one to go on with. */
  #slotsForTable(entries: number): number {
    return Math.ceil(entries / ENTRIES_PER_TABLE_BLOCK) + 1;
  }

  /**
   * Bytes by which the file has to grow before `slots` slots can be reserved for `entries` entries; 0: not at all.
   * Room for a longer location list is in it.
   */
  growthNeeded(slots: number, entries: number): ByteLength {
    const wanted = slots + this.#slotsForTable(this.#promisedEntries + entries);
    const missing = wanted - this.#freeSlots.total;
    if (missing <= 0) return 0;
    const runs = this.#file.runs.list.length;
    return (missing + locationBlocksFor(runs + missing) - 1) * BLOCK_SIZE;
  }

  /**
   * Sets slots aside for copies, contiguous as far as possible, and room in the table for their entries.
   * @returns `undefined`, reserving nothing, if the file has to grow first
   */
  reserve(slots: number, entries: number): Slot[] | undefined {
    if (this.growthNeeded(slots, entries) > 0) return undefined;
    const taken = (this.#freeSlots.take(slots) ?? []).flatMap(slotsOf);
    this.#promisedEntries += entries;
    return taken;
  }

  /** Takes back a reservation whose copies will not be appended. */
  cancel(slots: readonly Slot[], entries: number): void {
    for (const slot of slots) this.#freeSlots.add(slot, 1);
    this.#promisedEntries -= entries;
  }

  /** Checksum that ties the data of a copy to its block, its slot and this diff area. */
  checksum(block: BlockNumber, slot: Slot, data: Uint8Array): number {
    const fileOffset = offsetOfSlot(slot);
    writeOrdinaryEntry(
      this.#checkedView,
      0,
      offsetOfBlock(block),
      fileOffset,
      this.#file.runs.locate(fileOffset),
      0,
      0,
    );
    this.#checkedView.setBigUint64(ENTRY_CHECKED_SIZE, this.epoch, true);
    return crc32(data, crc32(this.#checkedPart));
  }

  /** Writes copies: `data[i]` is 16 KiB for `slots[i]`. Contiguous slots go in one vectored write. */
  async writeData(slots: readonly Slot[], data: readonly Uint8Array[]): Promise<void> {
    assert(slots.length === data.length, () => `${data.length} blocks for ${slots.length} slots`);
    const writes: Promise<void>[] = [];
    for (let start = 0; start < slots.length; ) {
      const first = slots[start] ?? 0;
      let end = start + 1;
      while (end < slots.length && slots[end] === first + (end - start)) end++;
      for (const piece of this.#file.runs.pieces(offsetOfSlot(first), (end - start) * BLOCK_SIZE)) {
        const count = piece.length / BLOCK_SIZE;
        writes.push(
          writeAll(this.#file.device, piece.volumeOffset, joined(data.slice(start, start + count))),
        );
        start += count;
      }
    }
    await allSettled(writes);
  }

  /** Adds the entries of copies whose slots were reserved here to the table chain: all or, on an assertion, none. */
  append(groups: readonly Copies[]): void {
    const entries = groups.reduce((sum, { blocks }) => sum + blocks.length, 0);
    assert(entries <= this.#promisedEntries, () => `${entries} entries, ${this.#promisedEntries} promised`);
    const blocks = this.#writer.blocksNeeded(entries);
    const slots = this.#freeSlots.take(blocks)?.flatMap(slotsOf);
    assert(
      slots !== undefined,
      () => `no slots left for ${blocks} table blocks, ${this.#promisedEntries} entries promised`,
    );
    this.#writer.append(groups, slots);
    this.#promisedEntries -= entries;
  }

  /** Writes entries that were appended. After a failure it may be called again. @throws DeviceError */
  async writeEntries(): Promise<void> {
    await this.#writer.write();
  }

  /** Makes everything written before it durable. One caller at a time, none of whose `writeEntries` is under way. */
  async flush(): Promise<void> {
    const { places } = this.#writer;
    await this.#file.device.flush();
    this.#writer.durable = places;
  }

  /** Lets readers and the filter see copies that are durable. */
  publish(copies: Copies): void {
    for (const [index, block] of copies.blocks.entries()) {
      this.table.set(block, copies.slots[index] ?? 0, copies.checksums[index] ?? 0);
    }
  }

  /** Records in the table that everything in it is durable, so that opening need not look at the data. Not flushed. */
  async writeWatermark(): Promise<void> {
    this.#writer.touchHeader();
    await this.#writer.write();
  }

  /** Reads and verifies the copies of consecutive blocks that lie in consecutive slots. @throws IntegrityError, DeviceError */
  async readCopies(block: BlockNumber, slot: Slot, target: Uint8Array): Promise<void> {
    let at = 0;
    for (const piece of this.#file.runs.pieces(offsetOfSlot(slot), target.byteLength)) {
      await this.#file.device.read(piece.volumeOffset, target.subarray(at, at + piece.length));
      at += piece.length;
    }
    for (let i = 0; i * BLOCK_SIZE < target.byteLength; i++) {
      const data = target.subarray(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE);
      if (this.checksum(block + i, slot + i, data) !== this.table.checksumOf(block + i)) {
        throw new IntegrityError(
          `snapshot ${this.storeId}: the copy of block ${block + i} (offset ${offsetOfBlock(block + i)}) in slot ${slot + i} fails its checksum`,
        );
      }
    }
  }

  /**
   * Makes the file longer by `length` bytes.
   * @throws NoSpaceError, DeviceError; then nothing was added (and what was taken may be unusable until the next opening)
   */
  async grow(length: ByteLength, record: RecordChange): Promise<void> {
    this.#checkResizable();
    const pieces = await this.#file.take(length);
    const grown = new Runs(this.#file.runs.list);
    grown.append(pieces);
    const first = this.#file.runs.size / BLOCK_SIZE;
    // Blocks of a longer list come out of what is new, then out of free slots that are not spoken for.
    const forList = locationBlocksFor(grown.list.length) - 1;
    const added = length / BLOCK_SIZE;
    const fromNew = Math.min(forList, added);
    if (forList - fromNew > this.#freeSlots.total - this.#slotsForTable(this.#promisedEntries)) {
      await this.#file.giveBack(pieces);
      throw new NoSpaceError(
        `${length} bytes more do not hold the location list of ${grown.list.length} runs`,
      );
    }
    const fromFree = (this.#freeSlots.take(forList - fromNew) ?? []).flatMap(slotsOf);
    const listSlots = [...slotsOf({ start: first, length: fromNew }), ...fromFree];
    await this.#replaceLocationList(grown, listSlots, record, async () => {
      for (const slot of fromFree) this.#freeSlots.add(slot, 1);
      await this.#file.giveBack(pieces);
    });
    this.#file.runs.append(pieces);
    this.#freeSlots.add(first + fromNew, added - fromNew);
    this.#freeReplaced();
  }

  /** Gives the unused end of the file back, as far as it is not spoken for: few copies come here any more, or none. */
  async trim(record: RecordChange): Promise<void> {
    if (this.#locationSlots.length === 0) return;
    const last = [...this.#freeSlots].at(-1);
    if (last === undefined || last.start + last.length !== this.allocatedBytes / BLOCK_SIZE) return;
    const forTable = this.#slotsForTable(this.#promisedEntries);
    const cut = Math.min(last.length, this.#freeSlots.total - forTable - this.#locationSlots.length);
    if (cut <= 0) return;
    const end = last.start + last.length - cut;
    this.#freeSlots.remove(end, cut);
    const shorter = new Runs(this.#file.runs.list);
    shorter.truncate(end * BLOCK_SIZE);
    const listSlots = (this.#freeSlots.take(locationBlocksFor(shorter.list.length) - 1) ?? []).flatMap(
      slotsOf,
    );
    await this.#replaceLocationList(shorter, listSlots, record, async () => {
      for (const slot of listSlots) this.#freeSlots.add(slot, 1);
      this.#freeSlots.add(end, cut);
    });
    this.#freeReplaced();
    await this.#file.giveBack(this.#file.runs.truncate(shorter.size));
  }

  #checkResizable(): void {
    if (this.#locationSlots.length > 0) return;
    throw new NoSpaceError(
      `the diff area of snapshot ${this.storeId} cannot change its size after a failed attempt`,
    );
  }

  /**
   * Writes `runs` as a new list beside the one in force, then puts it in force.
   * @param further slots for the list besides its first block, which has two places of its own
   * @param undo called if the list in force is the old one for certain
   */
  async #replaceLocationList(
    runs: Runs,
    further: readonly Slot[],
    record: RecordChange,
    undo: () => Promise<void>,
  ): Promise<void> {
    const inForce = this.#locationSlots;
    const first = inForce[0] === FixedSlot.location ? FixedSlot.otherLocation : FixedSlot.location;
    const slots = [first, ...further];
    try {
      await writeLocationList(this.#file.device, this.epoch, runs, slots.map(offsetOfSlot));
      await this.#file.device.flush();
    } catch (error) {
      await undo();
      throw error;
    }
    // If this fails either list may be in force: neither is written again, nor what only one of them names used.
    this.#locationSlots = [];
    await record({ locationOffset: runs.locate(offsetOfSlot(first)), allocatedSize: runs.size });
    this.#locationSlots = slots;
    this.#replacedSlots = inForce.slice(1);
  }

  /** Slots of the list before are free once the runs are those of the new one. */
  #freeReplaced(): void {
    for (const slot of this.#replacedSlots) this.#freeSlots.add(slot, 1);
    this.#replacedSlots = [];
  }

  /** Pieces of the device that the file occupies. */
  get pieces(): readonly Piece[] {
    return this.#file.runs.list;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  /** Gives all space back; the control file no longer names this diff area. */
  async remove(): Promise<void> {
    await this.#file.remove();
  }
}

const slotsOf = ({ start, length }: Extent): Slot[] => Array.from({ length }, (_, i) => start + i);

/** Neighbouring views of one buffer as one view: fewer vectors for the operating system. */
function joined(views: readonly Uint8Array[]): Uint8Array[] {
  const result: Uint8Array[] = [];
  for (const view of views) {
    const last = result.at(-1);
    if (
      last !== undefined &&
      last.buffer === view.buffer &&
      last.byteOffset + last.byteLength === view.byteOffset
    ) {
      result[result.length - 1] = new Uint8Array(
        last.buffer,
        last.byteOffset,
        last.byteLength + view.byteLength,
      );
    } else {
      result.push(view);
    }
  }
  return result;
}

/** Like `Promise.all`, but settles only when every promise has: the buffers are in use until then. */
async function allSettled(promises: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(promises))
    if (result.status === 'rejected') throw result.reason;
}
