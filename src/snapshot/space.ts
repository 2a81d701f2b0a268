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
import { checkWhole } from '../arguments.js';
import type { CopyOnWrite, CopyOnWriteHost, FailedAttempt } from '../copy-on-write/copy-on-write.js';
import type { Pools } from '../copy-on-write/pools.js';
import { AREA_SIZE_MIN } from '../diff-area/create.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import type { Clock } from '../environment.js';
import { isOutOfSpace, NoSpaceError } from '../errors.js';
import type { SpacePolicy, SpaceRules } from '../format/start-block.js';
import type { AttachedStore } from '../store/store.js';
import { BLOCK_SIZE, type ByteLength, roundUp } from '../units.js';
import type { SnapshotChain } from './chain.js';
import type { Emit } from './events.js';
import { type SpaceForecast, SpaceMonitor, type SpaceWarning } from './forecast.js';
import { type Full, Overflow, type SpacePolicyOptions } from './overflow.js';
import type { SnapshotRecord } from './record.js';
import { type Patience, SpaceWaiters } from './space-waiters.js';

export interface Growth {
  /** First size of a diff area, and step of growth at the beginning; bytes. */
  readonly initial: ByteLength;
  /** Largest step, in bytes. */
  readonly maximum: ByteLength;
}

export interface SpaceFigures extends SpaceForecast, SpaceRules {
  /** Copies, with the writes behind them, that wait for room. */
  readonly waiting: number;
  /** Do writes wait or fail at present because there is no room? */
  readonly isFull: boolean;
  /** By how much the newest diff area grows at a time, in bytes. */
  readonly growthStep: ByteLength;
}

/** Growths in a row that nobody waited for, after which the step is halved. */
const QUIET_GROWTHS = 4;

const MEBIBYTE = 1024 * 1024;
export const DEFAULT_GROWTH: Growth = { initial: 50 * MEBIBYTE, maximum: 1000 * MEBIBYTE };

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
  readonly #growth: Growth;
  readonly #growing = new Mutex();
  #copyOnWrite: CopyOnWrite | undefined;
  #step: ByteLength;
  #growingAhead = false;
  readonly #overflow: Overflow;
  readonly #waiters: SpaceWaiters;
  readonly #monitor: SpaceMonitor;
  /** Patience of attempts that failed, for as long as somebody repeats them. */
  readonly #patience = new WeakMap<FailedAttempt, Patience>();
  #quietGrowths = 0;

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
    checkWhole('growth.initial', growth.initial);
    checkWhole('growth.maximum', growth.maximum);
    const initial = Math.max(BLOCK_SIZE, roundUp(growth.initial, BLOCK_SIZE));
    this.#growth = { initial, maximum: Math.max(initial, roundUp(growth.maximum, BLOCK_SIZE)) };
    this.#step = initial;
    this.#waiters = new SpaceWaiters(clock);
    this.#overflow = new Overflow(store, chain, emit, clock, this.#waiters, () => this.#copying);
    this.#monitor = new SpaceMonitor(clock, emit, warning, () => this.#use());
    chain.onRelief = () => this.#waiters.wake();
  }

  #use() {
    const { newest } = this.#chain;
    const free = newest?.area?.freeBytes ?? 0;
    return {
      usedBytes: this.#store.allocated() - free,
      roomBytes: this.#store.available() + free,
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
      growthStep: this.#step,
    };
  }

  /** Nobody is kept waiting any more. */
  close(): void {
    this.#waiters.close();
  }

  /** Space and copy-on-write need each other; this closes the circle. */
  serve(copyOnWrite: CopyOnWrite): void {
    this.#copyOnWrite = copyOnWrite;
  }

  /** Size with which a new diff area begins: a share of what is there, so that a small reserve serves many. */
  get firstLength(): ByteLength {
    return Math.max(AREA_SIZE_MIN, wholeBlocks(Math.min(this.#growth.initial, this.#store.available() / 8)));
  }

  growAhead(area: DiffArea): void {
    this.#monitor.look();
    if (this.#growingAhead || area.roomBytes >= this.#step / 2) return;
    // Ahead of need only a share is taken: what is left serves the next snapshot.
    const length = wholeBlocks(Math.min(this.#step, this.#store.available() / 4));
    const record = this.#chain.ownerOf(area);
    if (length === 0 || record === undefined) return;
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
      this.#waited();
      const full = await this.#growNow(record, area, needed);
      if (full === undefined) continue;
      if ((await this.#overflow.act(record, full, patience)) === 'wait') return 'wait';
    }
  }

  /** @returns why that cannot be */
  async #growNow(record: SnapshotRecord, area: DiffArea, neededBytes: ByteLength): Promise<Full | undefined> {
    const availableBytes = wholeBlocks(this.#store.available());
    if (availableBytes < neededBytes) return { neededBytes, availableBytes, reason: 'limit' };
    try {
      await this.#grow(record, area, Math.min(availableBytes, Math.max(neededBytes, this.#step)), 'needed');
      return undefined;
    } catch (error) {
      if (!(error instanceof NoSpaceError)) throw error;
      return { neededBytes, availableBytes, reason: 'host-full', cause: error };
    }
  }

  get #copying(): CopyOnWrite {
    if (this.#copyOnWrite === undefined) throw new Error('serve() was not called');
    return this.#copyOnWrite;
  }

  /** A write had to wait for a growth: the next ones are longer. */
  #waited(): void {
    this.#step = Math.min(this.#growth.maximum, this.#step * 2);
    this.#quietGrowths = 0;
  }

  #grewQuietly(): void {
    if (++this.#quietGrowths < QUIET_GROWTHS) return;
    this.#quietGrowths = 0;
    this.#step = Math.max(this.#growth.initial, roundUp(this.#step / 2, BLOCK_SIZE));
  }

  async #grow(
    record: SnapshotRecord,
    area: DiffArea,
    length: ByteLength,
    reason: 'ahead' | 'needed',
  ): Promise<void> {
    const grown = await this.#whileThere(record, () =>
      area.grow(length, (change) => this.#store.control.update(record.id, change)),
    );
    if (!grown) return;
    if (reason === 'ahead') this.#grewQuietly();
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
        reason: 'host-full',
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
   * Makes room for a new diff area of at least the smallest size: what the newest one does not use goes first, then the
   * oldest snapshots, if the policy lets them go. It does not wait, whatever the policy.
   * @throws NoSpaceError if nothing is left to give up
   */
  async makeRoomForArea(): Promise<void> {
    const { newest } = this.#chain;
    if (this.#store.available() < AREA_SIZE_MIN && newest?.area !== undefined)
      await this.#trim(newest, newest.area);
    while (this.#store.available() < AREA_SIZE_MIN) {
      const before = this.#store.available();
      const gone = await this.#giveForArea();
      if (gone === undefined) {
        throw new NoSpaceError(
          `a snapshot needs at least ${AREA_SIZE_MIN} bytes, ${this.#store.available()} can be had; raise the limit with: volsnap resize-store`,
        );
      }
      if (this.#store.available() <= before) {
        throw new NoSpaceError(
          `deleting snapshot ${gone.id} gave no space back in ${this.#store.name}; close the volume and open it again`,
        );
      }
    }
  }

  /** The host had no room for a new diff area. @returns whether a snapshot went, so that it is worth another try */
  async relieveHost(): Promise<boolean> {
    return (await this.#giveForArea()) !== undefined;
  }

  /** Gives the oldest snapshot up for a new one. @returns `undefined` if none may go */
  async #giveForArea(): Promise<SnapshotRecord | undefined> {
    const victim = this.#overflow.rules.policy === 'delete-oldest' ? this.#overflow.victim : undefined;
    if (victim === undefined || !(await this.#overflow.give(victim, 'space'))) return undefined;
    await this.#pools.background.onIdle();
    return victim;
  }

  /**
   * Gets the space allocated down to `maximum` bytes (0: no limit): what the newest diff area does not use goes first, then
   * the oldest snapshots, up to one that is held. Other policies than `delete-oldest` keep them all; then nothing grows.
   */
  async shrinkTo(maximum: ByteLength): Promise<void> {
    const isOver = () => maximum !== 0 && this.#store.allocated() > maximum;
    const { newest } = this.#chain;
    if (isOver() && newest?.area !== undefined) await this.#trim(newest, newest.area);
    while (isOver() && this.#overflow.rules.policy === 'delete-oldest') {
      const before = this.#store.allocated();
      const victim = this.#overflow.victim;
      if (victim === undefined || !(await this.#overflow.give(victim, 'limit-lowered'))) break;
      await this.#pools.background.onIdle();
      if (this.#store.allocated() >= before) break; // that one's space comes back at the next opening
    }
    this.#waiters.wake();
  }

  /** Does something to a diff area that must not be removed meanwhile; resolves to false if it is gone already. */
  async #whileThere(record: SnapshotRecord, action: () => Promise<void>): Promise<boolean> {
    return record.resizing.runExclusive(async () => {
      if (record.deleted !== undefined) return false;
      await action();
      return true;
    });
  }

  async #trim(record: SnapshotRecord, area: DiffArea): Promise<void> {
    await this.#whileThere(record, () =>
      area.trim((change) => this.#store.control.update(record.id, change)),
    );
  }

  /**
   * A newer snapshot takes the copies from now on: what this one has is recorded as durable, and its unused space goes
   * back. Runs in the background.
   */
  retire(record: SnapshotRecord, area: DiffArea): void {
    void this.#pools.background.add(async () => {
      try {
        await this.#whileThere(record, () =>
          area.retire((change) => this.#store.control.update(record.id, change)),
        );
      } catch (error) {
        this.#emit('backgroundFailure', {
          id: record.id,
          what: 'giving back the unused end of its diff area',
          error,
        });
      }
    });
  }
}

const wholeBlocks = (length: number): ByteLength =>
  Number.isFinite(length) ? Math.floor(length / BLOCK_SIZE) * BLOCK_SIZE : length;
