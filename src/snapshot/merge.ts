/**
 * One deleted snapshot that is merged into its elder neighbour: what the elder has no copy of itself is copied into
 * its diff area.
 *
 *     table of the deleted one, from its end ─► group ─► copies: read, verified, written ─► commit pool: entries, flush, publish
 *                                                          └─ where room is short: what was merged is cut off, and its space free
 *
 * A copy means the same in both: what the block held before it was overwritten for the first time since the elder. So
 * it does not matter how often this is cut short and begun again: what the elder has by then is passed over. Until the
 * deleted one leaves the chain, readers find in one of the two what they need.
 *
 * What was written to the deleted one itself is nobody's any more. Neither has moves by then: see `deleteSnapshot`. But a copy that
 * spent one is the entry of another block than its entry says, and is merged as that.
 *
 * Runs in the background pool, group by group. Everything else that comes to the elder's table comes through the commit
 * pool, as this does; the deleted one takes no copies any more.
 */
import type { CopyOnWrite } from '../copy-on-write/copy-on-write.js';
import type { Pools } from '../copy-on-write/pools.js';
import { FixedSlot } from '../diff-area/area-slots.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { pagesOf } from '../diff-area/paged-blocks.js';
import { BLOCKS_PER_PAGE, emptyPresence, setBits } from '../diff-area/presence.js';
import type { TableBackwards } from '../diff-area/table-backwards.js';
import type { Copies } from '../diff-area/table-writer.js';
import { FormatError, NoSpaceError } from '../errors.js';
import type { ControlFile } from '../store/control-file.js';
import { BLOCK_SIZE, type BlockNumber, type ByteLength, type Slot } from '../units.js';
import type { SnapshotChain } from './chain.js';
import type { SnapshotRecord } from './record.js';
import type { Space } from './space.js';

/** Copies of one group: 4 MiB. */
const GROUP_MAX = 256;
/** With so many times the space that is needed, nothing has to be given back before the end. */
const AMPLE = 4;

export interface MergeContext {
  readonly chain: SnapshotChain;
  readonly space: Space;
  readonly pools: Pools;
  readonly copyOnWrite: CopyOnWrite;
  readonly control: ControlFile;
}

interface Side {
  readonly record: SnapshotRecord;
  readonly area: DiffArea;
}

export class Merge {
  readonly #context: MergeContext;
  readonly #from: Side;
  readonly #into: Side;
  readonly #table: TableBackwards;
  readonly #places: number;
  /** Entries from this place on have been dealt with. */
  #end: number;
  /** Entries that are in the elder's chain, but not known durable. */
  #appended: Copies | undefined;
  /** For the data of the next group; unless the last one failed, whose writes may not have ended. */
  #buffer: Uint8Array | undefined;
  /** Copies merged. */
  blocks = 0;
  /** Bytes of data read and written for them; copies of zeros have none. */
  bytes: ByteLength = 0;

  private constructor(context: MergeContext, from: Side, into: Side, table: TableBackwards) {
    this.#context = context;
    this.#from = from;
    this.#into = into;
    this.#table = table;
    this.#places = table.places;
    this.#end = table.places;
  }

  /** @returns `undefined` if it is gone meanwhile @throws FormatError, DeviceError */
  static async begin(
    context: MergeContext,
    from: SnapshotRecord,
    into: SnapshotRecord,
  ): Promise<Merge | undefined> {
    const { copyOnWrite, space } = context;
    const sides = [sideOf(from), sideOf(into)] as const;
    const { area } = sides[0];
    await copyOnWrite.drained(area);
    for (const side of sides) await settleUncommitted(context, side);
    await space.ends.giveBack(from, area);
    const table = await from.whileThere(() => area.tableBackwards());
    return table && new Merge(context, ...sides, table);
  }

  isOf(from: SnapshotRecord, into: SnapshotRecord): boolean {
    return this.#from.record === from && this.#into.record === into;
  }

  get #isOff(): boolean {
    return this.#from.record.isGone || this.#into.record.isGone;
  }

  /** Bytes of copies gone through, and in all. */
  get progress(): { readonly done: ByteLength; readonly total: ByteLength } {
    return { done: (this.#places - this.#end) * BLOCK_SIZE, total: this.#places * BLOCK_SIZE };
  }

  /**
   * Merges a group; with none left, takes the deleted snapshot out of the chain.
   * @returns whether that is done, or one of the two gone
   * @throws NoSpaceError, IntegrityError, FormatError, DeviceError; it may be repeated
   */
  async step(): Promise<boolean> {
    if (this.#isOff) return true;
    if (this.#appended !== undefined) await this.#commit(this.#appended);
    else if (this.#end > 0) await this.#mergeGroup();
    else {
      await this.#finish();
      return true;
    }
    return this.#isOff;
  }

  async #mergeGroup(): Promise<void> {
    const { record, area } = this.#from;
    const isAmple = this.#context.space.available >= AMPLE * this.#end * BLOCK_SIZE;
    for (let count = GROUP_MAX; ; count = Math.ceil(count / 2)) {
      const range = await record.whileThere(() => this.#table.before(this.#end, count));
      if (range === undefined) return;
      const group = this.#missingOf(range.blocks, range.slots);
      if (group.blocks.length > 0) {
        if (!(await this.#makeRoom(group, isAmple))) {
          if (count > 1) continue;
          if (this.#isOff) return;
          throw new NoSpaceError(
            `deleted snapshot ${record.id} waits for room: what older ones need of it is merged into ${this.#into.record.id} as soon as a block is free`,
          );
        }
        if (!(await this.#copy(group))) return;
      }
      this.#end = range.from;
      if (!isAmple) await this.#cut(area);
      return;
    }
  }

  /** Those that the deleted snapshot has these copies of, and the elder needs: it has none, and does not skip them. In the order of slots. */
  #missingOf(
    blocks: readonly BlockNumber[],
    slots: readonly Slot[],
  ): { blocks: readonly BlockNumber[]; slots: readonly Slot[] } {
    const { table, moves } = this.#from.area;
    const elder = this.#into.area;
    const missing = new Map<BlockNumber, Slot>();
    for (const [i, block] of blocks.entries()) {
      const slot = slots[i] ?? 0;
      for (const owner of [block, ...moves.ownersOfCopies(block)])
        if (owner < elder.table.blockCount && table.slotOf(owner) === slot && elder.needs(owner))
          missing.set(owner, slot);
    }
    const sorted = [...missing].sort(([, a], [, b]) => a - b);
    return { blocks: sorted.map(([block]) => block), slots: sorted.map(([, slot]) => slot) };
  }

  #makeRoom({ slots }: { slots: readonly Slot[] }, isAmple: boolean): Promise<boolean> {
    const { record, area } = this.#into;
    const count = slots.filter((slot) => slot !== FixedSlot.zeros).length;
    const ahead = isAmple ? this.#end * BLOCK_SIZE : 0;
    return this.#context.space.roomToMerge(record, area, { slots: count, entries: slots.length, ahead });
  }

  /** @returns `false` if the slots were taken by others, or one of the two is gone */
  async #copy({
    blocks,
    slots,
  }: {
    blocks: readonly BlockNumber[];
    slots: readonly Slot[];
  }): Promise<boolean> {
    const { record, area } = this.#into;
    const zeros = slots.filter((slot) => slot === FixedSlot.zeros).length;
    const reserved = area.reserve(slots.length - zeros, slots.length);
    if (reserved === undefined) return false;
    const copies = await this.#from.record.whileThere(() =>
      record.whileThere(() => this.#copyData(blocks, slots, zeros, reserved)),
    );
    if (copies === undefined) return false;
    await this.#commit(copies);
    return this.#appended === undefined && !this.#isOff;
  }

  async #copyData(
    blocks: readonly BlockNumber[],
    slots: readonly Slot[],
    zeros: number,
    reserved: readonly Slot[],
  ): Promise<Copies> {
    const { area } = this.#into;
    const whole = this.#takeBuffer(reserved.length * BLOCK_SIZE);
    try {
      const buffer = whole.subarray(0, reserved.length * BLOCK_SIZE);
      await this.#from.area.copies.readEach(blocks.slice(zeros), slots.slice(zeros), buffer);
      const dataAt = (i: number) =>
        i < zeros ? ZEROS : buffer.subarray((i - zeros) * BLOCK_SIZE, (i - zeros + 1) * BLOCK_SIZE);
      const newSlots = blocks.map((_, i) => (i < zeros ? FixedSlot.zeros : (reserved[i - zeros] ?? 0)));
      const checksums = blocks.map((block, i) => area.checksum(block, newSlots[i] ?? 0, dataAt(i)));
      await area.writeData(
        reserved,
        reserved.map((_, i) => dataAt(zeros + i)),
      );
      this.#buffer = whole;
      return { blocks, slots: newSlots, checksums };
    } catch (error) {
      area.cancel(reserved, blocks.length);
      throw error;
    }
  }

  /** That of the group before, if it is long enough; else a new one. */
  #takeBuffer(length: ByteLength): Uint8Array {
    const buffer = this.#buffer;
    this.#buffer = undefined;
    return buffer !== undefined && buffer.byteLength >= length ? buffer : new Uint8Array(length);
  }

  /** Makes copies count that were written. */
  async #commit(copies: Copies): Promise<void> {
    const { record, area } = this.#into;
    const isNew = this.#appended === undefined;
    const isDone = await this.#context.pools.commit.add(() =>
      record.whileThere(() =>
        // Who compares the diff area with its device holds this too.
        record.resizing.runExclusive(async () => {
          if (isNew) area.append([copies]);
          this.#appended = copies;
          await area.writeEntries();
          await area.flush();
          area.publish(copies);
          this.#appended = undefined;
          return true;
        }),
      ),
    );
    if (isDone !== true) return;
    this.blocks += copies.blocks.length;
    this.bytes += copies.slots.filter((slot) => slot !== FixedSlot.zeros).length * BLOCK_SIZE;
  }

  /** Gives the space back of what has been merged. */
  async #cut(area: DiffArea): Promise<void> {
    const { chain, control } = this.#context;
    const { record } = this.#from;
    // Who reads an older one may have found copies there before.
    await Promise.all(chain.readersThrough(record).map((reader) => reader.unread()));
    await record.resizing.runExclusive(async () => {
      if (!record.isGone)
        await area.cut(this.#table, this.#end, (change) => control.update(record.id, change));
    });
    this.#context.space.relieved();
  }

  async #finish(): Promise<void> {
    const { chain, copyOnWrite, space } = this.#context;
    const { record, area } = this.#into;
    checkAllMerged(this.#from.area, area);
    if (!(await chain.takeOut(this.#from.record, record, copyOnWrite))) return;
    if (!copyOnWrite.takesCopies(area)) await space.ends.retireNow(record, area);
  }
}

/** What a commit has left, for lack of room: it must be in the table before that is gone through or continued. */
async function settleUncommitted(
  { pools, copyOnWrite }: MergeContext,
  { record, area }: Side,
): Promise<void> {
  if (area.uncommitted.isEmpty) return;
  await pools.commit.add(() => record.settle());
  // A copy of the same block may be on its way to the elder.
  const { target } = copyOnWrite;
  if (target !== undefined) await copyOnWrite.drained(target);
}

/** @throws FormatError: then what is on the device is not what was in memory */
function checkAllMerged({ table, storeId }: DiffArea, elder: DiffArea): void {
  const end = elder.table.blockCount;
  for (const page of pagesOf([table], 0, Math.ceil(end / BLOCKS_PER_PAGE))) {
    const missing = emptyPresence();
    const there = emptyPresence();
    table.addPresence(page, missing);
    elder.table.addPresence(page, there);
    for (let i = 0; i < missing.length; i++) missing[i] = (missing[i] ?? 0) & ~(there[i] ?? 0);
    for (const block of setBits(missing, page * BLOCKS_PER_PAGE))
      if (block < end && elder.needs(block))
        throw new FormatError(`deleted snapshot ${storeId}: the entry of block ${block} is not in its table`);
  }
}

function sideOf(record: SnapshotRecord): Side {
  const { area, damage } = record;
  if (area === undefined) throw damage ?? new FormatError(`snapshot ${record.id} has no diff area`);
  return { record, area };
}

const ZEROS = new Uint8Array(BLOCK_SIZE);
