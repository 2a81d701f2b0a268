/**
 * What happens when there is no room for a copy: the policy, the snapshots that go by it, and what is told of it.
 *
 * Shared state: whether writes wait or fail; changed between awaits only. Decisions are made one at a time, under the
 * mutex of `Space`.
 */
import type { CopyOnWrite } from '../copy-on-write/copy-on-write.js';
import { hostLack } from '../device/system-error.js';
import type { Clock } from '../environment.js';
import {
  HeldError,
  InvalidArgumentError,
  isTooLong,
  NoSpaceError,
  RevertInProgressError,
  SnapshotDeletedError,
} from '../errors.js';
import { SPACE_POLICIES, type SpacePolicy, type SpaceRules } from '../format/start-block.js';
import type { AttachedStore } from '../store/store.js';
import type { ByteLength } from '../units.js';
import type { SnapshotChain } from './chain.js';
import type { Emit, FullReason } from './events.js';
import { memoryIsFull } from './late-area.js';
import type { DeletionReason, SnapshotRecord } from './record.js';
import type { Patience, SpaceWaiters } from './space-waiters.js';

export interface SpacePolicyOptions {
  /** `hold-writes`: how long a write waits for room; default 60,000 ms, at most a day. */
  readonly waitMs?: number;
  /** `hold-writes`: what happens then; default `fail-writes`. */
  readonly afterWait?: Exclude<SpacePolicy, 'hold-writes'>;
}

const WAIT_MS = 60_000;
const WAIT_MS_MAX = 86_400_000;

/** What is to be known of merges of deleted snapshots. */
export interface MergesAtWork {
  /** Does one go on, that neither lacks room nor has failed? */
  readonly isAtWork: boolean;
  wake(): void;
}

/** What is lacking, and why. */
export interface Full {
  readonly neededBytes: ByteLength;
  readonly availableBytes: ByteLength;
  readonly reason: FullReason;
  readonly cause?: unknown;
}

/** The reason where the host gave no room; `error` says so (see `isOutOfSpace`). */
export const hostReason = (error: unknown): FullReason => (isTooLong(error) ? 'file-too-long' : 'host-full');

export interface OverflowParts {
  readonly store: AttachedStore;
  readonly chain: SnapshotChain;
  readonly emit: Emit;
  readonly clock: Clock;
  readonly waiters: SpaceWaiters;
  readonly copying: () => CopyOnWrite;
  readonly merging: () => MergesAtWork;
}

export class Overflow {
  readonly #store: AttachedStore;
  readonly #chain: SnapshotChain;
  readonly #emit: Emit;
  readonly #clock: Clock;
  readonly #waiters: SpaceWaiters;
  readonly #copying: () => CopyOnWrite;
  readonly #merging: () => MergesAtWork;
  #blocked: { readonly action: SpacePolicy; readonly since: number } | undefined;

  constructor({ store, chain, emit, clock, waiters, copying, merging }: OverflowParts) {
    this.#store = store;
    this.#chain = chain;
    this.#emit = emit;
    this.#clock = clock;
    this.#waiters = waiters;
    this.#copying = copying;
    this.#merging = merging;
  }

  /** Do writes wait or fail? */
  get isBlocking(): boolean {
    return this.#blocked !== undefined;
  }

  /** In force now, with defaults filled in. */
  get rules(): SpaceRules {
    const { spaceRules } = this.#store.control.start.extension;
    return { ...spaceRules, waitMs: spaceRules.waitMs === 0 ? WAIT_MS : spaceRules.waitMs };
  }

  /** Changes what happens when there is no room; durable when it resolves. @throws InvalidArgumentError */
  async setPolicy(policy: SpacePolicy, options: SpacePolicyOptions): Promise<void> {
    const { waitMs = WAIT_MS, afterWait = 'fail-writes' } = options;
    if (!SPACE_POLICIES.includes(policy))
      throw new InvalidArgumentError(`policy must be one of ${SPACE_POLICIES.join(', ')}, got ${policy}`);
    if (afterWait !== 'fail-writes' && afterWait !== 'delete-oldest')
      throw new InvalidArgumentError(`afterWait must be fail-writes or delete-oldest, got ${afterWait}`);
    if (!(Number.isInteger(waitMs) && waitMs > 0 && waitMs <= WAIT_MS_MAX))
      throw new InvalidArgumentError(
        `waitMs must be whole, above 0 and at most ${WAIT_MS_MAX}, got ${waitMs}`,
      );
    const rules: SpaceRules = { policy, waitMs, afterWait };
    await this.#store.control.setSpaceRules(rules);
    this.#emit('spacePolicy', { ...rules, reason: 'requested' });
  }

  /**
   * Does what the policy says.
   * @returns `wait`: for something to change; `removed`: a snapshot went, perhaps that of the record itself
   * @throws NoSpaceError: the write that asks has to fail
   */
  async act(record: SnapshotRecord, full: Full, patience: Patience): Promise<'removed' | 'wait'> {
    const { policy, waitMs, afterWait } = this.rules;
    const isOver = policy === 'hold-writes' && this.#waiters.isOver(patience, waitMs);
    const action = !isOver ? policy : this.#waiters.isClosed ? 'fail-writes' : afterWait;
    patience.isForMerge = action === 'delete-oldest';
    const outcome = action === 'delete-oldest' ? await this.#deleteOldest(record, full) : undefined;
    if (outcome !== undefined) return outcome;
    // It may have gone meanwhile: then nothing has to be copied for it.
    if (record.isGone) return 'removed';
    this.#block(record, full, action === 'hold-writes' ? action : 'fail-writes');
    if (action === 'hold-writes') return 'wait';
    throw this.#noSpace(record, full, isOver);
  }

  /** The oldest, whose room is free at once; `undefined`: it must stay. */
  get victim(): SnapshotRecord | undefined {
    const { oldest, keeping } = this.#chain;
    return oldest !== undefined && keeping.mayGo(oldest) ? oldest : undefined;
  }

  /**
   * Where the oldest must stay: the oldest of the others that may go. What older ones read through it is merged into its elder
   * neighbour first, in the background, so its room is free later, and only as far as both have the same blocks. It is
   * never the newest: the copies that lack room are on their way there, and the merge would wait for them. One at a time: the next
   * one goes only if the merge of this one was not enough.
   */
  get #laterVictim(): SnapshotRecord | undefined {
    const { visible, keeping, nextToMerge } = this.#chain;
    // While a revert is under way the pool in which snapshots are merged may wait for the very copy that lacks room.
    if (nextToMerge !== undefined || keeping.from !== undefined) return undefined;
    // Moves of it, or of its elder, would have to be settled first, which takes room.
    const mayGo = (record: SnapshotRecord) =>
      keeping.mayGo(record) && !this.#chain.hasLateElder(record) && this.#chain.toSettle(record).length === 0;
    return visible.slice(0, -1).find(mayGo);
  }

  /** @returns `undefined` if none may go, or nothing comes of it */
  async #deleteOldest(record: SnapshotRecord, full: Full): Promise<'removed' | 'wait' | undefined> {
    const { victim } = this;
    if (victim !== undefined) {
      this.#tellOverflow(record, full, 'delete-oldest');
      return (await this.give(victim, 'space', full.cause)) ? 'removed' : undefined;
    }
    if (this.#waiters.isClosed) return undefined;
    if (this.#laterVictim !== undefined) {
      await this.#giveLater(record, full);
      // It is merged already; or another one was deleted before, so that none had to go, or none may go any more.
      if (this.#chain.nextToMerge === undefined) return 'removed';
    }
    return this.#willMergeHelp(record) ? 'wait' : undefined;
  }

  /** Chooses when deletions that have begun are over: one that was not the newest before may be it then, or need not go. */
  async #giveLater(record: SnapshotRecord, full: Full): Promise<void> {
    const choose = () => {
      const victim = this.#laterVictim;
      if (victim !== undefined) this.#tellOverflow(record, full, 'delete-oldest');
      return victim;
    };
    await this.#chain.remove(choose, this.#copying(), 'space');
    // Also for the one that was deleted before: who did that may not have come to it yet.
    this.#merging().wake();
  }

  /**
   * Is a merge at work for which a copy for `record` can wait? Not if the merge may have to wait for that copy: if it takes
   * `record` away, or adds to it, or a revert is in its pool.
   */
  #willMergeHelp(record: SnapshotRecord): boolean {
    const { nextToMerge, keeping } = this.#chain;
    if (nextToMerge === undefined || keeping.from !== undefined || record.deleted !== undefined) return false;
    return nextToMerge.elder !== record && this.#merging().isAtWork;
  }

  /**
   * Makes room for a write to a snapshot itself: older ones go if the policy lets them, and at once; that one never does for its own sake.
   * @throws NoSpaceError if none may go
   */
  async actForOverlay(record: SnapshotRecord, full: Full): Promise<void> {
    const { victim } = this;
    if (this.rules.policy === 'delete-oldest' && victim !== undefined && victim !== record) {
      this.#tellOverflow(record, full, 'delete-oldest');
      if (await this.give(victim, 'space', full.cause)) return;
    } else this.#tellOverflow(record, full, 'fail-writes');
    throw new NoSpaceError(
      `writing to snapshot ${record.id} needs ${full.neededBytes} bytes, ${full.availableBytes} can be had; raise the limit with: volsnap resize-store`,
      { cause: full.cause },
    );
  }

  /**
   * Memory for copies is full while the diff area of `record` has not arrived. Nothing waits for that: to arrive takes a moment
   * without writes under way. What `hold-writes` does after the wait it does at once.
   * @throws NoSpaceError: the write that asks has to fail; else the snapshot is gone
   */
  async actForLate(record: SnapshotRecord, neededBytes: ByteLength): Promise<void> {
    const { policy, afterWait } = this.rules;
    const cause = memoryIsFull(record);
    const full: Full = { neededBytes, availableBytes: 0, reason: 'memory', cause };
    const mayDelete = (policy === 'hold-writes' ? afterWait : policy) === 'delete-oldest';
    if (mayDelete && (await this.give(record, 'late', cause))) return;
    this.#block(record, full, 'fail-writes');
    throw cause;
  }

  /** Removes the oldest snapshots through `victim`, at once. @returns false if one of them must stay after all */
  give(victim: SnapshotRecord, reason: DeletionReason, cause?: unknown): Promise<boolean> {
    return unlessKept(() => this.#chain.removeThrough(victim, this.#copying(), reason, cause));
  }

  /** Writes wait or fail from now on; told once. */
  #block(record: SnapshotRecord, full: Full, action: 'hold-writes' | 'fail-writes'): void {
    if (this.#blocked?.action === action) return;
    this.#blocked = { action, since: this.#blocked?.since ?? this.#clock.monotonic() };
    this.#tellOverflow(record, full, action);
  }

  #tellOverflow({ id }: SnapshotRecord, full: Full, action: SpacePolicy): void {
    const { neededBytes, availableBytes, reason } = full;
    this.#emit('overflow', { id, neededBytes, availableBytes, action, reason });
  }

  /** There was room. */
  isOver({ id }: SnapshotRecord): void {
    if (this.#blocked === undefined) return;
    const afterMs = this.#clock.monotonic() - this.#blocked.since;
    this.#blocked = undefined;
    this.#emit('writesResumed', { id, afterMs, reason: 'space-given' });
  }

  #noSpace(record: SnapshotRecord, full: Full, hasWaited: boolean): NoSpaceError {
    const { policy, waitMs } = this.rules;
    const why =
      full.reason === 'host-full' || full.reason === 'file-too-long'
        ? hostLack(this.#store.name, full.cause)
        : `the diff area of snapshot ${record.id} needs ${full.neededBytes} bytes more, ${full.availableBytes} can be had`;
    const rule = hasWaited
      ? `none was given within ${waitMs} ms`
      : policy === 'delete-oldest'
        ? 'no snapshot may go that would make room: they are held, or a revert needs them'
        : `the policy is ${policy}`;
    return new NoSpaceError(
      `no room to copy what a write would overwrite: ${why}, and ${rule}. Raise the limit (volsnap resize-store), delete or release snapshots, or change the policy (volsnap policy)`,
      { cause: full.cause },
    );
  }
}

/** @returns false if a snapshot that would go must stay; true also if it is gone already */
async function unlessKept(removal: () => Promise<void>): Promise<boolean> {
  try {
    await removal();
    return true;
  } catch (error) {
    if (error instanceof HeldError || error instanceof RevertInProgressError) return false;
    if (error instanceof SnapshotDeletedError) return true;
    throw error;
  }
}
