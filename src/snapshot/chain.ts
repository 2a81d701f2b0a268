/**
 * The snapshots of a volume, oldest first, and how they go.
 *
 * The oldest can go at once: it is removed from the control file, durably; until then copies for it go on. Then its
 * readers finish or fail, and its space is free.
 *
 * Older ones read through any other. That is marked as being deleted, durably: from then on nobody sees it, but it stays in the
 * chain until what older ones need of it has been merged into its elder neighbour (`merging.ts`), or until they are gone.
 *
 * Shared state: the list changes only between awaits. `#removing` makes deletions one after the other; `#ordering`
 * keeps the control file's order numbers and the list together while a snapshot is added or taken out of the middle.
 */
import { Mutex } from 'async-mutex';
import type { CopyOnWrite } from '../copy-on-write/copy-on-write.js';
import type { Pools } from '../copy-on-write/pools.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import type { Clock } from '../environment.js';
import { assert, NotFoundError, UnsupportedError } from '../errors.js';
import { SnapshotState } from '../format/control-block.js';
import { filetimeFromMilliseconds } from '../format/filetime.js';
import type { Guid } from '../format/guid.js';
import type { ControlFile } from '../store/control-file.js';
import { elderOf, nextToMergeOf, type ToMerge } from './chain-order.js';
import { twice } from './doubt.js';
import { type Elders, NO_ELDERS } from './elders.js';
import type { Emit } from './events.js';
import { Freeing } from './freeing.js';
import { Keeping } from './keeping.js';
import { checkArrived } from './late-area.js';
import type { DeletionReason, Hold, SnapshotRecord } from './record.js';

/** What a snapshot goes with. */
const TO_GO = SnapshotState.dropAfterRevert | SnapshotState.autoRelease | SnapshotState.volatile;

export class SnapshotChain {
  readonly #control: ControlFile;
  readonly #emit: Emit;
  readonly #records: SnapshotRecord[];
  readonly #removing = new Mutex();
  readonly #ordering = new Mutex();
  #removals = 0;
  /** What must stay. */
  readonly keeping: Keeping;
  /** Called when a snapshot, or its space, has gone, and when a hold was released: who lacks room may look again. */
  onRelief: () => void = () => undefined;
  readonly #areasFrom = new Map<SnapshotRecord, readonly DiffArea[]>();
  readonly #freeing: Freeing;
  readonly #elders: Elders;
  #onFreed: () => void = () => undefined;

  constructor(
    records: readonly SnapshotRecord[],
    control: ControlFile,
    pools: Pools,
    emit: Emit,
    clock: Clock,
    elders = NO_ELDERS,
  ) {
    this.#records = [...records];
    this.#elders = elders;
    this.#control = control;
    this.#emit = emit;
    this.keeping = new Keeping(clock, this.#records);
    this.#freeing = new Freeing(pools, emit, () => {
      this.onRelief();
      this.#onFreed();
    });
  }

  /** Merging waits for room, and needs the chain; this closes the circle. */
  whenFreed(action: () => void): void {
    this.#onFreed = action;
  }

  /** Oldest first, with those that are being deleted. */
  get records(): readonly SnapshotRecord[] {
    return this.#records;
  }

  /** Oldest first: those that there are for users. */
  get visible(): SnapshotRecord[] {
    return this.undeleted.filter(({ isShown }) => isShown);
  }

  /** Are there any whose diff areas have not arrived? They are the oldest. */
  get isLate(): boolean {
    return this.#records[0]?.isLate === true;
  }

  /** Oldest first, with those that nobody is shown yet, or any more, and without those that are being deleted. */
  get undeleted(): SnapshotRecord[] {
    return this.#records.filter(({ deleted }) => deleted === undefined);
  }

  get oldest(): SnapshotRecord | undefined {
    return this.#records[0];
  }

  /** The last in order; it may be one that is being deleted. */
  get newest(): SnapshotRecord | undefined {
    return this.#records.at(-1);
  }

  /** From now on neither this snapshot nor a newer one can go. A deletion that has begun comes first. @throws SnapshotDeletedError, NotFoundError */
  async keep(record: SnapshotRecord): Promise<void> {
    await this.#removing.runExclusive(async () => {
      this.indexOf(record);
      this.keeping.from = record;
    });
  }

  /** The newest that is not being deleted: the one to copy for. */
  get newestVisible(): SnapshotRecord | undefined {
    return this.#records.findLast(({ deleted }) => deleted === undefined);
  }

  /** The newest visible one and deleted ones after it: what was copied last is there. */
  get latest(): readonly SnapshotRecord[] {
    const target = this.#records.findLastIndex(({ deleted }) => deleted === undefined);
    return this.#records.slice(Math.max(0, target));
  }

  get nextToMerge(): ToMerge | undefined {
    return nextToMergeOf(this.#records);
  }

  /** Snapshots removed since the volume was opened. */
  get removals(): number {
    return this.#removals;
  }

  /** Position by age, 0 the oldest, among `records`. @throws SnapshotDeletedError, NotFoundError */
  indexOf(record: SnapshotRecord): number {
    record.checkExists();
    const index = this.#records.indexOf(record);
    if (index < 0) throw new NotFoundError(`snapshot ${record.id} is not one of this volume`);
    return index;
  }

  /**
   * Diff areas of `record` and of all newer snapshots, oldest first. The same array until the list changes.
   * @throws SnapshotDeletedError
   */
  areasFrom(record: SnapshotRecord): readonly DiffArea[] {
    let areas = this.#areasFrom.get(record);
    if (areas === undefined) {
      areas = this.#records.slice(this.indexOf(record)).flatMap(({ area }) => area ?? []);
      this.#areasFrom.set(record, areas);
    }
    return areas;
  }

  find(id: Guid): SnapshotRecord | undefined {
    return this.#records.find((record) => record.id === id);
  }

  /** From now until the function that it resolves to is called no snapshot is taken out of the middle. */
  ordered(): Promise<() => void> {
    return this.#ordering.acquire();
  }

  /** The list has changed: tells copy-on-write for which snapshot copies are made now. */
  retarget(copyOnWrite: CopyOnWrite): void {
    this.#areasFrom.clear();
    const { newestVisible } = this;
    const newer = newestVisible === undefined ? [] : this.latest.slice(1);
    copyOnWrite.redirect(
      newestVisible?.area,
      newer.flatMap(({ area }) => area ?? []),
    );
  }

  /** The record that owns `area`, if it still exists. */
  ownerOf(area: DiffArea): SnapshotRecord | undefined {
    return this.#records.find((record) => record.area === area);
  }

  add(record: SnapshotRecord): void {
    const { newest } = this;
    assert(
      newest === undefined || newest.item.order < record.item.order,
      () => `order ${record.item.order} is not the newest`,
    );
    this.#records.push(record);
    this.#areasFrom.clear();
    this.#emit('created', { id: record.id, label: record.area?.information.label });
  }

  /**
   * Deletes one snapshot, whatever its age: durable when it resolves. Of one that is not the oldest the space becomes free later.
   * Use `deleteSnapshot`, which settles moves before.
   * @param choose says which when deletions that have begun are over; `undefined`: none
   * @returns `false`, having done nothing, if none was chosen, or there are moves to settle
   * @throws SnapshotDeletedError; HeldError, RevertInProgressError, UnsupportedError (elders are read through it), DeviceError if the control
   *   file cannot be changed; then it exists still
   */
  remove(choose: () => SnapshotRecord | undefined, copyOnWrite: CopyOnWrite, reason: DeletionReason) {
    return this.#removing.runExclusive(async () => {
      const record = choose();
      if (record === undefined || this.toSettle(record).length > 0) return false;
      const index = this.indexOf(record);
      if (index === 0 && this.#elders.count > 0)
        throw new UnsupportedError(
          `the shadow copies of Windows are read through snapshot ${record.id}; delete them first, oldest first`,
        );
      if (index === 0) await this.#removeOldest(record, copyOnWrite, reason, undefined);
      else await this.#hide(record, copyOnWrite, reason);
      await this.#removeUnneeded(copyOnWrite);
      return true;
    });
  }

  /**
   * Snapshots whose moves stand in the way of deleting `record`: itself, because moves are not merged, and its elder, whose moves ask
   * for content in this one. The oldest is asked by nobody.
   * @throws SnapshotDeletedError; HeldError, RevertInProgressError if it cannot go; OfflineError if it cannot yet, see `hasLateElder`
   */
  toSettle(record: SnapshotRecord): SnapshotRecord[] {
    this.indexOf(record);
    this.keeping.check([record]);
    const elder = elderOf(this.#records, record);
    if (elder === undefined) return [];
    checkArrived(elder);
    return [record, elder].filter(({ area }) => area?.moves.isSettled === false);
  }

  /** Is the one that it would be merged into one that waits for a diff area? Then it cannot be deleted yet. */
  hasLateElder(record: SnapshotRecord): boolean {
    return elderOf(this.#records, record)?.isLate === true;
  }

  /** From now on nobody sees it, and it takes no new copies. */
  async #hide(record: SnapshotRecord, copyOnWrite: CopyOnWrite, reason: DeletionReason): Promise<void> {
    this.#emit('deleting', { id: record.id, reason, cause: undefined });
    await twice(() => this.#control.setState(record.id, { set: SnapshotState.deleting }));
    record.markDeleted(reason);
    this.retarget(copyOnWrite);
    this.#emit('deleted', { id: record.id, reason, cause: undefined });
  }

  /**
   * Removes `last` and everything older; durable when it resolves.
   * @throws HeldError or RevertInProgressError if one of them must stay, and none is removed; DeviceError if the control file cannot be changed; what is left exists still
   */
  async removeThrough(
    last: SnapshotRecord,
    copyOnWrite: CopyOnWrite,
    reason: DeletionReason,
    cause?: unknown,
  ): Promise<void> {
    await this.#removing.runExclusive(async () => {
      this.keeping.check(this.#records.slice(0, this.#records.indexOf(last) + 1));
      while (this.#records.includes(last)) {
        const record = this.#records[0];
        assert(record !== undefined, () => 'an empty list holds a record');
        await this.#removeOldest(record, copyOnWrite, reason, cause);
      }
      await this.#removeUnneeded(copyOnWrite);
    });
  }

  /** Removes the `count` oldest, elders first, or as many as there are; none if one of them is held, or late. @throws as `removeThrough`; OfflineError */
  async removeOldest(count: number, copyOnWrite: CopyOnWrite, reason: DeletionReason): Promise<void> {
    await this.#removing.runExclusive(async () => {
      const elders = Math.min(count, this.#elders.count);
      this.keeping.check(this.undeleted.slice(0, count - elders));
      // Nobody is shown late ones, so nobody can mean them.
      this.#records.slice(0, count - elders).forEach(checkArrived);
      await this.#elders.removeOldest(elders, reason);
      for (let i = elders; i < count; i++) {
        await this.#removeUnneeded(copyOnWrite);
        const record = this.#records[0];
        if (record === undefined) return;
        await this.#removeOldest(record, copyOnWrite, reason, undefined);
      }
      await this.#removeUnneeded(copyOnWrite);
    });
  }

  /**
   * Holds a snapshot, or releases it; durable when it resolves. A deletion that has begun comes first. One that was to go
   * with a revert, its owner or its process is wanted from then on, whatever becomes of those.
   * @throws SnapshotDeletedError, NotFoundError, DeviceError
   */
  async setHold(record: SnapshotRecord, hold: Hold | undefined): Promise<void> {
    await this.#removing.runExclusive(async () => {
      this.indexOf(record);
      const until = hold?.until;
      await this.#control.update(record.id, ({ state }) => ({
        state: hold === undefined ? state & ~SnapshotState.held : (state & ~TO_GO) | SnapshotState.held,
        heldUntil: until === undefined ? 0n : filetimeFromMilliseconds(until),
      }));
      record.hold = hold;
      if (hold !== undefined) record.state &= ~TO_GO;
    });
    if (hold === undefined) {
      this.#emit('released', { id: record.id, reason: 'requested' });
      this.onRelief();
    } else {
      this.#emit('held', { id: record.id, until: hold.until, reason: 'requested' });
    }
  }

  /** Of snapshots that are being deleted those through which nobody reads any more. @throws DeviceError */
  async removeUnneeded(copyOnWrite: CopyOnWrite): Promise<void> {
    await this.#removing.runExclusive(() => this.#removeUnneeded(copyOnWrite));
  }

  async #removeUnneeded(copyOnWrite: CopyOnWrite): Promise<void> {
    for (let first = this.#records[0]; first?.deleted !== undefined; first = this.#records[0])
      await this.#removeOldest(first, copyOnWrite, first.deleted, undefined);
  }

  /** @param reason of one that was visible still */
  async #removeOldest(
    record: SnapshotRecord,
    copyOnWrite: CopyOnWrite,
    reason: DeletionReason,
    cause: unknown,
  ): Promise<void> {
    // They are read through it.
    await this.#elders.removeOldest(Infinity, reason, cause);
    const wasVisible = record.deleted === undefined;
    if (wasVisible) this.#emit('deleting', { id: record.id, reason, cause });
    await twice(() => this.#control.remove(record.id));
    record.markGone(reason);
    this.#records.shift();
    this.#removals++;
    this.onRelief();
    const { area } = record;
    const mayBeWaiting = area !== undefined && copyOnWrite.takesCopies(area);
    this.retarget(copyOnWrite);
    if (wasVisible) this.#emit('deleted', { id: record.id, reason, cause });
    if (area === undefined) return;
    const readers = [...this.#freeing.unfreed, record];
    // Its copies may be what asked for the removal, so they cannot be waited for here.
    if (mayBeWaiting) this.#freeing.later(record, area, readers, () => copyOnWrite.drained(area));
    else await this.#freeing.now(record, area, readers);
  }

  /**
   * Takes a deleted snapshot out of the chain: its elder neighbour has everything that is read through it.
   * @returns `false` if it, or the elder, is not there any more
   * @throws DeviceError; then it is there still
   */
  async takeOut(record: SnapshotRecord, elder: SnapshotRecord, copyOnWrite: CopyOnWrite): Promise<boolean> {
    return this.#removing.runExclusive(async () => {
      const isOut = await this.#ordering.runExclusive(async () => {
        const index = this.#records.indexOf(record);
        if (index < 1 || this.#records[index - 1] !== elder) return false;
        const next = this.#records[index + 1];
        // Before it is gone: a gap that nobody speaks of is a snapshot that was lost.
        if (next !== undefined)
          await twice(() => this.#control.update(next.id, { elderOrder: elder.item.order }));
        await twice(() => this.#control.remove(record.id));
        record.markGone('requested');
        this.#records.splice(index, 1);
        return true;
      });
      if (!isOut) return false;
      this.#removals++;
      this.retarget(copyOnWrite);
      const { area } = record;
      const readers = [...this.readersThrough(elder), record];
      if (area !== undefined) this.#freeing.later(record, area, readers, async () => undefined);
      return true;
    });
  }

  /** Those whose readers may have found copies in the diff area of `record`: it and all older ones, with those just gone. */
  readersThrough(record: SnapshotRecord): SnapshotRecord[] {
    return [...this.#freeing.unfreed, ...this.#records.slice(0, this.#records.indexOf(record) + 1)];
  }

  /** Resolves when the space of all that was removed before is free. */
  async freed(): Promise<void> {
    await this.#freeing.done();
  }
}
