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
import { assert, NotFoundError } from '../errors.js';
import type { Guid } from '../format/guid.js';
import type { ControlFile } from '../store/control-file.js';
import type { Emit } from './events.js';
import type { DeletionReason, SnapshotRecord } from './record.js';

export class SnapshotChain {
  readonly #control: ControlFile;
  readonly #pools: Pools;
  readonly #emit: Emit;
  readonly #records: SnapshotRecord[];
  readonly #removing = new Mutex();
  #removals = 0;
  readonly #areasFrom = new Map<SnapshotRecord, readonly DiffArea[]>();

  constructor(records: readonly SnapshotRecord[], control: ControlFile, pools: Pools, emit: Emit) {
    this.#records = [...records];
    this.#control = control;
    this.#pools = pools;
    this.#emit = emit;
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
   * @throws DeviceError if the control file cannot be changed; what is left exists still
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

  /** Removes the `count` oldest, or as many as there are. @throws as `removeThrough` */
  async removeOldest(count: number, copyOnWrite: CopyOnWrite, reason: DeletionReason): Promise<void> {
    await this.#removing.runExclusive(async () => {
      for (let i = 0; i < count; i++) {
        const record = this.#records[0];
        if (record === undefined) return;
        await this.#removeOldest(record, copyOnWrite, reason, undefined);
      }
    });
  }

  /**
   * Removes those that are marked as deleted and are still here, as far as nothing reads through them. Only while nothing is
   * written.
   * @param hasFirstBlock does each snapshot have a copy of block 0 from the beginning?
   */
  async removeExpired(copyOnWrite: CopyOnWrite, hasFirstBlock: boolean): Promise<void> {
    await this.#removing.runExclusive(async () => {
      for (;;) {
        const { oldest, newest } = this;
        if (oldest?.deleted !== undefined)
          await this.#removeOldest(oldest, copyOnWrite, oldest.deleted, undefined);
        else if (newest?.deleted !== undefined && isUntouched(newest, hasFirstBlock))
          await this.#removeNewest(newest, copyOnWrite, newest.deleted);
        else return;
      }
    });
  }

  /** Older ones have lost nothing by it: it holds no copies. */
  async #removeNewest(
    record: SnapshotRecord,
    copyOnWrite: CopyOnWrite,
    reason: DeletionReason,
  ): Promise<void> {
    this.#emit('deleting', { id: record.id, reason, cause: undefined });
    await this.#control.remove(record.id);
    this.#records.pop();
    this.#removals++;
    this.#areasFrom.clear();
    copyOnWrite.setTarget(this.newest?.area);
    this.#emit('deleted', { id: record.id, reason, cause: undefined });
    if (record.area !== undefined) await this.#free(record, record.area);
  }

  async #removeOldest(
    record: SnapshotRecord,
    copyOnWrite: CopyOnWrite,
    reason: DeletionReason,
    cause: unknown,
  ): Promise<void> {
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
    } catch (error) {
      this.#emit('backgroundFailure', {
        id: record.id,
        what: 'giving the space of a deleted snapshot back',
        error,
      });
    }
  }
}

/** Has nothing been copied for it, besides what it had from the beginning? */
function isUntouched({ area }: SnapshotRecord, hasFirstBlock: boolean): boolean {
  if (area === undefined) return false;
  for (const block of area.table.blocks()) if (block !== 0 || !hasFirstBlock) return false;
  return true;
}
