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
 * Shared state: the table chain is changed by one caller at a time, the commit pool. For slots and the length of the file see `AreaSlots`, for promises `PromisedRoom`.
 */
import { assert, NoSpaceError } from '../errors.js';
import type { ApplicationInformation } from '../format/application-information.js';
import type { DiffAreaItem } from '../format/control-block.js';
import type { Guid } from '../format/guid.js';
import type { RevertMark } from '../format/revert-mark.js';
import type { TableEntry } from '../format/table-block.js';
import type { AreaFile } from '../store/store.js';
import {
  BLOCK_SIZE,
  type BlockNumber,
  type ByteLength,
  type ByteOffset,
  offsetOfSlot,
  type Slot,
} from '../units.js';
import { type AreaSlots, FixedSlot, type RecordChange } from './area-slots.js';
import { type AreaBitmaps, type BitmapOffsets, offsetsOf, writeBitmaps } from './bitmap-chain.js';
import type { BlockTable } from './block-table.js';
import { CopyChecksum } from './copy-checksum.js';
import { CopyReader } from './copy-reader.js';
import type { Moves } from './moves.js';
import type { Overlays } from './overlays.js';
import { PromisedRoom } from './promised-room.js';
import type { RevertMarks } from './revert-marks.js';
import type { RoomAhead } from './room-ahead.js';
import { TableBackwards } from './table-backwards.js';
import type { Copies, TableWriter } from './table-writer.js';
import { UncommittedCopies } from './uncommitted.js';
import type { UnusedBlocks } from './unused-blocks.js';
import { writeCopies } from './write-copies.js';

export interface DiffAreaState {
  readonly storeId: Guid;
  readonly epoch: bigint;
  readonly file: AreaFile;
  readonly information: ApplicationInformation;
  readonly table: BlockTable;
  readonly moves: Moves;
  readonly overlays: Overlays;
  readonly writer: TableWriter;
  readonly slots: AreaSlots;
  readonly bitmaps?: AreaBitmaps | undefined;
  readonly marks: RevertMarks;
}

export class DiffArea {
  readonly storeId: Guid;
  readonly epoch: bigint;
  readonly information: ApplicationInformation;
  /** What has a copy here. Changed only by `publish`. */
  readonly table: BlockTable;
  /** Of a revert, as they were found when it was opened. */
  readonly marks: RevertMarks;
  /** What has moved within the volume. Changed only when that is durable. */
  readonly moves: Moves;
  /** What was written to the snapshot itself. */
  readonly overlays: Overlays;
  readonly #file: AreaFile;
  readonly #writer: TableWriter;
  readonly #slots: AreaSlots;
  readonly #promised: PromisedRoom;
  /** Copies that are in the table chain but could not be committed. */
  readonly uncommitted = new UncommittedCopies();
  #isCut = false;
  readonly #checksum: CopyChecksum;
  /** Reading what was copied. */
  readonly copies: CopyReader;
  /** Set once, never changed: what is skipped reads the same for ever. */
  #bitmaps: AreaBitmaps | undefined;

  constructor(state: DiffAreaState) {
    this.storeId = state.storeId;
    this.epoch = state.epoch;
    this.information = state.information;
    this.table = state.table;
    this.marks = state.marks;
    this.moves = state.moves;
    this.overlays = state.overlays;
    this.#file = state.file;
    this.#writer = state.writer;
    this.#slots = state.slots;
    this.#checksum = new CopyChecksum(state.file.runs, state.epoch);
    this.#promised = new PromisedRoom(state.slots);
    this.copies = new CopyReader(state, this.#checksum);
    this.#bitmaps = state.bitmaps;
  }

  /** The file, for those who look at what it holds on its device. */
  get file(): AreaFile {
    return this.#file;
  }

  /** Bytes that the diff-area file has on its device. */
  get allocatedBytes(): ByteLength {
    return this.#slots.length;
  }

  /** Bytes in use: copies and metadata. */
  get usedBytes(): ByteLength {
    return this.allocatedBytes - this.freeBytes;
  }

  /** Room for copies of writes that are acknowledged already. */
  get ahead(): RoomAhead {
    return this.#promised.ahead;
  }

  get freeBytes(): ByteLength {
    return this.#slots.freeBytes;
  }

  /** Free bytes that nobody counts on. */
  get roomBytes(): ByteLength {
    return this.freeBytes - this.ahead.open * BLOCK_SIZE;
  }

  /** The item that describes this diff area in the control file. */
  get item(): DiffAreaItem {
    const { runs } = this.#file;
    return {
      kind: 'diff-area',
      storeId: this.storeId,
      tableOffset: runs.locate(offsetOfSlot(FixedSlot.table)),
      applicationInformationOffset: runs.locate(offsetOfSlot(FixedSlot.information)),
      locationOffset: runs.locate(offsetOfSlot(this.#slots.listSlot)),
      fileReference: 0n,
      allocatedSize: runs.size,
      ...offsetsOf(this.#bitmaps, this.#file),
      unknown: 0n,
      state: 0,
      heldUntil: 0n,
      elderOrder: 0,
    };
  }

  /** Blocks that are skipped: they have no copy, unless they got one before that was decided, and read as zeros. */
  get unused(): UnusedBlocks | undefined {
    return this.#bitmaps?.unused;
  }

  /** Must `block` be copied before it is overwritten, for its own content, or for that of a block that moved there? */
  needs(block: BlockNumber): boolean {
    if (this.moves.sourceOf(block) !== undefined) return true;
    if (this.table.has(block) || this.#bitmaps?.unused.has(block) === true) return false;
    return this.moves.targetOf(block) === undefined;
  }

  /** As `BlockTable.collect`, what is skipped included. */
  collect(first: BlockNumber, slots: Uint32Array, owners: Uint16Array, owner: number): number {
    const found = this.table.collect(first, slots, owners, owner);
    return found + (this.#bitmaps?.unused.collect(first, slots, owners, owner) ?? 0);
  }

  /** Skips, once this resolves, what is in both bitmaps. @param name records durable bitmaps in the control file, durably */
  async skip(
    slots: readonly Slot[],
    own: Uint8Array,
    previous: Uint8Array | undefined,
    name: (offsets: BitmapOffsets) => Promise<void>,
  ): Promise<void> {
    const wanted = { slots, blockCount: this.table.blockCount, own, previous };
    const bitmaps = await writeBitmaps(this.#file, this.epoch, wanted);
    await name(offsetsOf(bitmaps, this.#file));
    this.#bitmaps = bitmaps;
    if (previous === undefined) this.#slots.putBack(slots.slice(slots.length / 2));
  }

  /** Bytes by which the file has to grow before `slots` slots can be reserved for `entries` entries; 0: not at all. */
  growthNeeded(slots: number, entries: number): ByteLength {
    return this.#promised.lacking(slots, entries);
  }

  /**
   * Sets slots aside for copies, contiguous as far as possible, and room in the table for their entries.
   * @param blocks of which they are copies: room that was set aside for them is used first
   * @returns `undefined`, reserving nothing, if the file has to grow first
   */
  reserve(slots: number, entries: number, blocks: readonly BlockNumber[] = []): Slot[] | undefined {
    if (this.#promised.lacking(slots, entries, blocks) > 0) return undefined;
    this.#promised.promise(entries, blocks);
    return this.#slots.take(slots);
  }

  /** Takes back a reservation whose copies will not be appended. */
  cancel(slots: readonly Slot[], entries: number, blocks: readonly BlockNumber[] = []): void {
    this.#slots.putBack(slots);
    this.#promised.promise(-entries, blocks);
  }

  /** Keeps room in the table for `count` marks, and for one with each copy from now on; `undefined`: for none any more. */
  keepRoomForMarks(count: number | undefined): void {
    this.#promised.keepForMarks(count);
  }

  /** Checksum for the entry of a copy. */
  checksum(block: BlockNumber, slot: Slot, data: Uint8Array): number {
    return this.#checksum.of(block, slot, data);
  }

  /** The same for data whose CRC-32 is `sum`. */
  checksumFrom(block: BlockNumber, slot: Slot, sum: number): number {
    return this.#checksum.from(block, slot, sum);
  }

  /** Where a slot lies on the device of the file. */
  positionOf(slot: Slot): ByteOffset {
    return this.#file.runs.locate(offsetOfSlot(slot));
  }

  /** Writes copies: `data[i]` is 16 KiB for `slots[i]`. Contiguous slots go in one vectored write. */
  writeData(slots: readonly Slot[], data: readonly Uint8Array[]): Promise<void> {
    return writeCopies(this.#file, slots, data);
  }

  /** Adds the entries of copies whose slots were reserved here to the table chain: all or, on an assertion, none. */
  append(groups: readonly Copies[]): void {
    assert(!this.#isCut, () => `${this.storeId} was cut, it takes no entries`);
    const entries = groups.reduce((sum, { blocks }) => sum + blocks.length, 0);
    this.#writer.append(groups, this.#tableSlotsFor(entries));
    this.#promised.appended(entries);
  }

  #tableSlotsFor(entries: number): Slot[] {
    const { entries: promised } = this.#promised;
    assert(entries <= promised, () => `${entries} entries, ${promised} promised`);
    const blocks = this.#writer.blocksNeeded(entries);
    const slots = this.#slots.takeSpokenFor(blocks);
    assert(
      slots !== undefined,
      () => `no slots left for ${blocks} table blocks, ${this.#promised.entries} entries promised`,
    );
    return slots;
  }

  /** As `append`, of other kinds of entries. */
  appendEntries(entries: readonly TableEntry[]): void {
    this.#writer.appendEntries(entries, this.#tableSlotsFor(entries.length));
    this.#promised.appended(entries.length);
  }

  /** Adds marks to the table chain. @throws NoSpaceError, adding none, if no room was kept for them */
  appendMarks(marks: readonly RevertMark[]): void {
    const slots = this.#slots.takeSpokenFor(this.#writer.blocksNeeded(marks.length));
    if (slots === undefined)
      throw new NoSpaceError(`no room for ${marks.length} marks in the table of snapshot ${this.storeId}`);
    this.#writer.appendMarks(marks, slots);
    this.keepRoomForMarks(Math.max(0, this.#promised.marks - marks.length));
  }

  /** Makes entries durable, then the header that vouches for those without a checksum. After a failure it may be called again. */
  async flushProven(): Promise<void> {
    await this.writeEntries();
    await this.flush();
    await this.writeWatermark();
    await this.flush();
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

  /** Lets readers and the filter see copies that are durable. One of a block that something moved to is that one's. */
  publish(copies: Copies): void {
    for (const [index, block] of copies.blocks.entries()) {
      const slot = copies.slots[index] ?? 0;
      const checksum = copies.checksums[index] ?? 0;
      const owner = this.moves.ownerOfCopy(block);
      const own = owner === block ? checksum : this.#checksum.rebased(checksum, block, owner);
      this.table.set(owner, slot, own);
    }
  }

  /** The same for those that an earlier commit left, once all entries are durable. */
  publishUncommitted(): void {
    for (const copies of this.uncommitted.take()) this.publish(copies);
  }

  /** Records in the table that everything in it is durable, so that opening need not look at the data. Not flushed. */
  async writeWatermark(): Promise<void> {
    this.#writer.touchHeaders();
    await this.#writer.write();
  }

  /** Can the copy in `slot` and the one in `next`, of a block `distance` further on, be read together? */
  canReadTogether(slot: Slot, next: Slot, distance: number): boolean {
    return slot === FixedSlot.zeros ? next === slot : next === slot + distance;
  }

  /** Makes the file longer. @throws NoSpaceError, DeviceError */
  async grow(length: ByteLength, record: RecordChange): Promise<void> {
    await this.#slots.grow(length, record);
  }

  /** Gives the unused end of the file back, as far as it is not spoken for. */
  async trim(record: RecordChange): Promise<void> {
    await this.#slots.trim(record);
  }

  /** Makes all entries durable that there are. No group may be under way. @throws DeviceError */
  async settle(): Promise<void> {
    await this.writeEntries();
    await this.flush();
    this.publishUncommitted();
  }

  /** The same, while no copies come here: nothing is kept for the table but for copies that are on their way. */
  async trimAll(record: RecordChange): Promise<void> {
    this.#promised.forgetTable();
    await this.#slots.trim(record);
  }

  /** Its table, to be gone through from the end. No copies may come here any more, and none be on their way. */
  async tableBackwards(): Promise<TableBackwards> {
    return TableBackwards.open(this.#file, this.epoch);
  }

  /**
   * Cuts off what is in the table from place `end` on, and gives back the space of it. `this.table` keeps what is gone:
   * it must have been merged into an elder one, which is asked first.
   */
  async cut(table: TableBackwards, end: number, record: RecordChange): Promise<void> {
    this.#isCut = true;
    const highest = await table.cut(end);
    // Older snapshots ask its bitmaps until it leaves the chain.
    await this.#slots.freeFrom(Math.max(highest, this.#bitmaps?.highest ?? 0) + 1, record);
    await this.trimAll(record);
  }

  /** Does `table` hold more than the file? */
  get isCut(): boolean {
    return this.#isCut;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  /** Gives all space back; the control file no longer names this diff area. */
  async remove(): Promise<void> {
    await this.#slots.remove();
  }
}
