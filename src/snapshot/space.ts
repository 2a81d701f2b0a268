/**
 * Room for copies: growth of the newest diff area, and what goes when there is no room.
 *
 * Growth is ahead of need, in the background, in steps of 50 MiB at first, up to 1000 MiB when writers had to wait, and
 * back when they have not had to for a while. Copies that find no slot grow the file themselves: they must not wait for
 * the background pool.
 *
 * When there is no room, by limit or by host, `Overflow` does what the policy says:
 * - `delete-oldest`: the oldest snapshots go until there is room. If the oldest is held, as `fail-writes`.
 * - `hold-writes`: the copy waits, and the write with it, until something changes or its time is over. Nobody holds a
 *   lock meanwhile: whoever gives space, changes the policy or closes the volume can do so.
 * - `fail-writes`: the copy fails, and the write with it, before anything of it is in the volume.
 *
 * Shared state: `#growing` lets one growth or one decision about room happen at a time.
 */
import { Mutex } from 'async-mutex';
import type { CopyOnWriteHost, FailedAttempt } from '../copy-on-write/copy-host.js';
import type { CopyOnWrite } from '../copy-on-write/copy-on-write.js';
import type { Pools } from '../copy-on-write/pools.js';
import { AREA_SIZE_MIN } from '../diff-area/create.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import type { Clock } from '../environment.js';
import { isOutOfSpace, NoSpaceError } from '../errors.js';
import type { SpacePolicy, SpaceRules } from '../format/start-block.js';
import type { AttachedStore } from '../store/store.js';
import { BLOCK_SIZE, type ByteLength } from '../units.js';
import { AreaEnds } from './area-ends.js';
import type { SnapshotChain } from './chain.js';
import type { Emit } from './events.js';
import { type SpaceForecast, SpaceMonitor, type SpaceWarning } from './forecast.js';
import { type Growth, GrowthStep } from './growth.js';
import { type Full, hostReason, type MergesAtWork, Overflow, type SpacePolicyOptions } from './overflow.js';
import type { SnapshotRecord } from './record.js';
import { RoomByDeletion } from './room-by-deletion.js';
import { type Patience, SpaceWaiters } from './space-waiters.js';

/** Of a room that has a bound, so much is left to merges; bytes at most. */
const MERGE_SHARE = 1 / 64;
const MERGE_RESERVE_MAX: ByteLength = 1024 * 1024;

export interface SpaceFigures extends SpaceForecast, SpaceRules {
  /** Copies, with the writes behind them, that wait for room. */
  readonly waiting: number;
  /** Do writes wait or fail at present because there is no room? */
  readonly isFull: boolean;
  /** By how much the newest diff area grows at a time, in bytes. */
  readonly growthStep: ByteLength;
}

/** By how much a diff area grows for writes to its own snapshot. */
const OVERLAY_STEP: ByteLength = 1024 * 1024;

export interface SpaceOptions {
  readonly clock: Clock;
  readonly growth: Growth;
  readonly warning: SpaceWarning;
}

export class Space implements CopyOnWriteHost {
  readonly #store: AttachedStore;
  readonly #chain: SnapshotChain;
  readonly #pools: Pools;
  readonly #emit: Emit;
  readonly #step: GrowthStep;
  readonly #growing = new Mutex();
  #copyOnWrite: CopyOnWrite | undefined;
  #merging: MergesAtWork = { isAtWork: false, wake: () => undefined };
  #growingAhead = false;
  readonly #overflow: Overflow;
  /** Snapshots that go for what no copy waits for. */
  readonly byDeletion: RoomByDeletion;
  /** Space that is given back. */
  readonly ends: AreaEnds;
  readonly #waiters: SpaceWaiters;
  readonly #monitor: SpaceMonitor;
  /** Patience of attempts that failed, for as long as somebody repeats them. */
  readonly #patience = new WeakMap<FailedAttempt, Patience>();

  constructor(
    store: AttachedStore,
    chain: SnapshotChain,
    pools: Pools,
    emit: Emit,
    { clock, growth, warning }: SpaceOptions,
  ) {
    this.#store = store;
    this.#chain = chain;
    this.#pools = pools;
    this.#emit = emit;
    this.#step = new GrowthStep(growth);
    this.#waiters = new SpaceWaiters(clock);
    this.#overflow = new Overflow({
      store,
      chain,
      emit,
      clock,
      waiters: this.#waiters,
      copying: () => this.#copying,
      merging: () => this.#merging,
    });
    this.#monitor = new SpaceMonitor(clock, emit, warning, () => this.#use());
    this.ends = new AreaEnds(
      store.control,
      pools,
      emit,
      () => this.#copying,
      () => this.relieved(),
    );
    this.byDeletion = new RoomByDeletion({
      store,
      chain,
      overflow: this.#overflow,
      ends: this.ends,
      available: () => this.#forCopies,
    });
    chain.onRelief = () => this.#waiters.wake();
  }

  #use() {
    const { newestVisible: newest } = this.#chain;
    const free = newest?.area?.freeBytes ?? 0;
    return {
      usedBytes: this.#store.allocated() - free,
      roomBytes: this.#forCopies + free,
      copiedBytes: this.#copying.figures.copiedBlocks * BLOCK_SIZE,
    };
  }

  async setPolicy(policy: SpacePolicy, options: SpacePolicyOptions): Promise<void> {
    await this.#overflow.setPolicy(policy, options);
    this.#waiters.wake();
  }

  get figures(): SpaceFigures {
    return {
      ...this.#monitor.forecast,
      ...this.#overflow.rules,
      waiting: this.#waiters.count,
      isFull: this.#overflow.isBlocking,
      growthStep: this.#step.bytes,
    };
  }

  /** Nobody is kept waiting any more. */
  close(): void {
    this.#waiters.close();
  }

  /** Space, copy-on-write and merging need each other; this closes the circle. */
  serve(copyOnWrite: CopyOnWrite): void {
    this.#copyOnWrite = copyOnWrite;
  }

  /** The same. */
  takeFrom(merging: MergesAtWork): void {
    this.#merging = merging;
  }

  /**
   * Size with which a new diff area begins: a share of what is there, so that a small reserve serves many.
   * @param extra bytes that are spoken for already
   */
  firstLength(extra: ByteLength = 0): ByteLength {
    const share = wholeBlocks(Math.min(this.#step.initial, (this.#forCopies - extra) / 8));
    return Math.max(AREA_SIZE_MIN, share) + extra;
  }

  growAhead(area: DiffArea): void {
    this.#monitor.look();
    if (this.#growingAhead || area.roomBytes >= this.#step.bytes / 2) return;
    // Ahead of need only a share is taken: what is left serves the next snapshot.
    const length = wholeBlocks(Math.min(this.#step.bytes, this.#forCopies / 4));
    const record = this.#chain.ownerOf(area);
    if (length === 0 || record === undefined || record.hasStandIn) return;
    this.#growingAhead = true;
    void this.#pools.background.add(async () => {
      try {
        await this.#growing.runExclusive(() => this.#grow(record, area, length, 'ahead'));
      } catch (error) {
        this.#emit('backgroundFailure', {
          id: record.id,
          what: 'growing its diff area ahead of need',
          error,
        });
      } finally {
        this.#growingAhead = false;
      }
    });
  }

  async makeRoom(area: DiffArea, slots: number, entries: number): Promise<boolean> {
    const patience: Patience = {};
    for (;;) {
      const outcome = await this.#growing.runExclusive(() => this.#roomFor(area, slots, entries, patience));
      if (outcome !== 'wait') return outcome === 'room';
      await this.#waiters.wait(patience);
    }
  }

  /** @throws NoSpaceError if the policy says so */
  async #roomFor(
    area: DiffArea,
    slots: number,
    entries: number,
    patience: Patience,
  ): Promise<'room' | 'gone' | 'wait'> {
    for (;;) {
      const record = this.#chain.ownerOf(area);
      if (record === undefined) return 'gone';
      const needed = area.growthNeeded(slots, entries);
      if (needed === 0) {
        this.#overflow.isOver(record);
        return 'room';
      }
      if (record.hasStandIn) {
        await this.#overflow.actForLate(record, needed);
        continue;
      }
      this.#step.waited();
      const full = await this.#growNow(record, area, needed);
      if (full === undefined) continue;
      if ((await this.#overflow.act(record, full, patience)) === 'wait') return 'wait';
    }
  }

  /**
   * The same for what is written to a snapshot itself. It does not wait, whatever the policy.
   * @throws NoSpaceError, SnapshotDeletedError, DeviceError
   */
  async makeRoomForOverlay(record: SnapshotRecord, area: DiffArea, slots: number): Promise<void> {
    await this.#growing.runExclusive(async () => {
      for (;;) {
        const needed = area.growthNeeded(slots, 1);
        if (needed === 0) return;
        record.checkExists();
        // Less than ahead of copies: what such a snapshot does not use comes back only with its end.
        const full = await this.#growNow(record, area, needed, Math.min(this.#step.bytes, OVERLAY_STEP));
        if (full !== undefined) await this.#overflow.actForOverlay(record, full);
      }
    });
  }

  /** @returns why that cannot be */
  async #growNow(
    record: SnapshotRecord,
    area: DiffArea,
    neededBytes: ByteLength,
    step = this.#step.bytes,
  ): Promise<Full | undefined> {
    const availableBytes = wholeBlocks(this.#forCopies);
    if (availableBytes < neededBytes) return { neededBytes, availableBytes, reason: 'limit' };
    try {
      await this.#grow(record, area, Math.min(availableBytes, Math.max(neededBytes, step)), 'needed');
      return undefined;
    } catch (error) {
      if (!isOutOfSpace(error)) throw error;
      return { neededBytes, availableBytes, reason: hostReason(error), cause: error };
    }
  }

  get #copying(): CopyOnWrite {
    if (this.#copyOnWrite === undefined) throw new Error('serve() was not called');
    return this.#copyOnWrite;
  }

  async #grow(
    record: SnapshotRecord,
    area: DiffArea,
    length: ByteLength,
    reason: 'ahead' | 'needed' | 'merge',
  ): Promise<void> {
    const grown = await this.ends.grow(record, area, length);
    if (!grown) return;
    if (reason === 'ahead') this.#step.grewQuietly();
    this.#emit('grown', { id: record.id, bytes: length, allocatedBytes: area.allocatedBytes, reason });
    this.#waiters.wake();
  }

  get removals(): number {
    return this.#chain.removals;
  }

  async copyFailed(area: DiffArea, error: unknown, attempt: FailedAttempt): Promise<'retry' | 'gone'> {
    const patience = this.#patience.get(attempt) ?? {};
    this.#patience.set(attempt, patience);
    const outcome = await this.#growing.runExclusive(() =>
      this.#afterFailure(area, error, attempt, patience),
    );
    if (outcome !== 'wait') return outcome;
    await this.#waiters.wait(patience);
    return 'retry';
  }

  async #afterFailure(
    area: DiffArea,
    error: unknown,
    { failures, removals }: FailedAttempt,
    patience: Patience,
  ): Promise<'retry' | 'gone' | 'wait'> {
    const newest = this.#chain.ownerOf(area);
    if (newest === undefined) return 'gone';
    if (isOutOfSpace(error)) {
      // What went since the attempt began has made room already.
      if (this.removals !== removals) return 'retry';
      const full: Full = {
        neededBytes: BLOCK_SIZE,
        availableBytes: 0,
        reason: hostReason(error),
        cause: error,
      };
      if ((await this.#overflow.act(newest, full, patience)) === 'wait') return 'wait';
      return this.#chain.ownerOf(area) === undefined ? 'gone' : 'retry';
    }
    if (failures === 1) return 'retry';
    // Older snapshots read the missing block through this one, so all are wrong without it. One that is held must not
    // go: then the write fails instead.
    if (!(await this.#overflow.give(newest, 'copy-failed', error))) throw error;
    return 'gone';
  }

  /**
   * Room in `area` for what is merged into it. Nothing is given up for that.
   * @param ahead bytes that will be needed in all
   * @returns `false` if there is no room, or `record` is gone
   */
  async roomToMerge(
    record: SnapshotRecord,
    area: DiffArea,
    { slots, entries, ahead }: { slots: number; entries: number; ahead: ByteLength },
  ): Promise<boolean> {
    return this.#growing.runExclusive(async () => {
      const needed = area.growthNeeded(slots, entries);
      const available = wholeBlocks(this.#store.available());
      if (record.isGone || needed > available) return false;
      if (needed === 0) return true;
      try {
        await this.#grow(
          record,
          area,
          Math.min(available, Math.max(needed, Math.min(ahead, this.#step.maximum))),
          'merge',
        );
        return true;
      } catch (error) {
        if (error instanceof NoSpaceError) return false;
        throw error;
      }
    });
  }

  /** There may be room now for those who wait. @param arrived for its copies there is, which had been made in memory */
  relieved(arrived?: SnapshotRecord): void {
    if (arrived !== undefined) this.#overflow.isOver(arrived);
    this.#waiters.wake();
  }

  /** Bytes that copies could still take. A merge may need some to begin with, so that any snapshot can be deleted: those are left. */
  get #forCopies(): ByteLength {
    const available = this.#store.available();
    if (!Number.isFinite(available)) return available;
    const share = (available + this.#store.allocated()) * MERGE_SHARE;
    return Math.max(0, available - wholeBlocks(Math.min(MERGE_RESERVE_MAX, share)));
  }

  /** Bytes that diff areas could still take. */
  get available(): ByteLength {
    return this.#store.available();
  }
}

const wholeBlocks = (length: number): ByteLength =>
  Number.isFinite(length) ? Math.floor(length / BLOCK_SIZE) * BLOCK_SIZE : length;
