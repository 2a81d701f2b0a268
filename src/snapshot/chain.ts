/**
 * The snapshots of a volume, oldest first, and how they go.
 *
 * Only the oldest can go: an older snapshot reads through the newer ones. A snapshot that is gone is first removed from
 * the control file, durably; until then copies for it go on. Then its readers finish or fail, and its space is free.
 *
 * Shared state: the list changes only between awaits. `#removing` makes deletions one after the other.
 */
import { Mutex } from 'async-mutex';
import type { CopyOnWrite } from '../copy-on-write/copy-on-write.js';
import type { Pools } from '../copy-on-write/pools.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import type { Clock } from '../environment.js';
import { assert, HeldError, NotFoundError } from '../errors.js';
import { SnapshotState } from '../format/control-block.js';
import { filetimeFromMilliseconds } from '../format/filetime.js';
import type { Guid } from '../format/guid.js';
import type { ControlFile } from '../store/control-file.js';
import type { Emit } from './events.js';
import type { DeletionReason, Hold, SnapshotRecord } from './record.js';

export class SnapshotChain {
  readonly #control: ControlFile;
  readonly #pools: Pools;
  readonly #emit: Emit;
  readonly #records: SnapshotRecord[];
  readonly #removing = new Mutex();
  #removals = 0;
  readonly #clock: Clock;
  /** Called when a snapshot, or its space, has gone, and when a hold was released: who lacks room may look again. */
  onRelief: () => void = () => undefined;
  readonly #areasFrom = new Map<SnapshotRecord, readonly DiffArea[]>();

  constructor(
    records: readonly SnapshotRecord[],
    control: ControlFile,
    pools: Pools,
    emit: Emit,
    clock: Clock,
  ) {
    this.#records = [...records];
    this.#control = control;
    this.#pools = pools;
    this.#emit = emit;
    this.#clock = clock;
  }

  /** Oldest first. */
  get records(): readonly SnapshotRecord[] {
    return this.#records;
  }

  get oldest(): SnapshotRecord | undefined {
    return this.#records[0];
  }

  get newest(): SnapshotRecord | undefined {
    return this.#records.at(-1);
  }

  /** Snapshots removed since the volume was opened. */
  get removals(): number {
    return this.#removals;
  }

  /** Position by age, 0 the oldest. @throws SnapshotDeletedError, NotFoundError */
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
   * Removes `last` and everything older; durable when it resolves.
   * @throws HeldError if one of them is held, DeviceError if the control file cannot be changed; what is left exists still
   */
  async removeThrough(
    last: SnapshotRecord,
    copyOnWrite: CopyOnWrite,
    reason: DeletionReason,
    cause?: unknown,
  ): Promise<void> {
    await this.#removing.runExclusive(async () => {
      while (this.#records.includes(last)) {
        const record = this.#records[0];
        assert(record !== undefined, () => 'an empty list holds a record');
        await this.#removeOldest(record, copyOnWrite, reason, cause);
      }
    });
  }

  /** Removes the `count` oldest, or as many as there are; none if one of them is held. @throws as `removeThrough` */
  async removeOldest(count: number, copyOnWrite: CopyOnWrite, reason: DeletionReason): Promise<void> {
    await this.#removing.runExclusive(async () => {
      for (const record of this.#records.slice(0, count)) this.#checkNotHeld(record);
      for (let i = 0; i < count; i++) {
        const record = this.#records[0];
        if (record === undefined) return;
        await this.#removeOldest(record, copyOnWrite, reason, undefined);
      }
    });
  }

  isHeld(record: SnapshotRecord): boolean {
    return record.isHeldAt(this.#clock.now());
  }

  #checkNotHeld(record: SnapshotRecord): void {
    if (!this.isHeld(record)) return;
    const until = record.hold?.until;
    throw new HeldError(
      `snapshot ${record.id} is held${until === undefined ? '' : ` until ${new Date(until).toISOString()}`}; release it first with: volsnap release VOLUME ${record.id}`,
    );
  }

  /**
   * Holds a snapshot, or releases it; durable when it resolves. A deletion that has begun comes first.
   * @throws SnapshotDeletedError, NotFoundError, DeviceError
   */
  async setHold(record: SnapshotRecord, hold: Hold | undefined): Promise<void> {
    await this.#removing.runExclusive(async () => {
      this.indexOf(record);
      const until = hold?.until;
      await this.#control.update(record.id, ({ state }) => ({
        state: hold === undefined ? state & ~SnapshotState.held : state | SnapshotState.held,
        heldUntil: until === undefined ? 0n : filetimeFromMilliseconds(until),
      }));
      record.hold = hold;
    });
    if (hold === undefined) {
      this.#emit('released', { id: record.id, reason: 'requested' });
      this.onRelief();
    } else {
      this.#emit('held', { id: record.id, until: hold.until, reason: 'requested' });
    }
  }

  async #removeOldest(
    record: SnapshotRecord,
    copyOnWrite: CopyOnWrite,
    reason: DeletionReason,
    cause: unknown,
  ): Promise<void> {
    this.#checkNotHeld(record);
    this.#emit('deleting', { id: record.id, reason, cause });
    try {
      await this.#control.remove(record.id);
    } catch {
      // Once more, for a passing failure; the second one is the caller's.
      await this.#control.remove(record.id);
    }
    record.markDeleted(reason);
    this.#records.shift();
    this.#removals++;
    this.#areasFrom.clear();
    this.#emit('deleted', { id: record.id, reason, cause });
    this.onRelief();
    const { area } = record;
    if (area === undefined) return;
    if (copyOnWrite.target === area) {
      copyOnWrite.setTarget(undefined);
      // Its copies may be what asked for the removal, so they cannot be waited for here.
      void this.#pools.background.add(async () => {
        await copyOnWrite.drained(area);
        await this.#free(record, area);
      });
    } else {
      await this.#free(record, area);
    }
  }

  /** Gives the space back. A failure leaves it to be found unused at the next opening. */
  async #free(record: SnapshotRecord, area: DiffArea): Promise<void> {
    await record.unread();
    try {
      await record.resizing.runExclusive(() => area.remove());
      this.onRelief();
    } catch (error) {
      this.#emit('backgroundFailure', {
        id: record.id,
        what: 'giving the space of a deleted snapshot back',
        error,
      });
    }
  }
}
