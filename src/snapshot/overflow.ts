/**
 * What happens when there is no room for a copy: the policy, the snapshots that go by it, and what is told of it.
 *
 * Shared state: whether writes wait or fail; changed between awaits only. Decisions are made one at a time, under the
 * mutex of `Space`.
 */
import type { CopyOnWrite } from '../copy-on-write/copy-on-write.js';
import type { Clock } from '../environment.js';
import { HeldError, InvalidArgumentError, NoSpaceError } from '../errors.js';
import { SPACE_POLICIES, type SpacePolicy, type SpaceRules } from '../format/start-block.js';
import type { AttachedStore } from '../store/store.js';
import type { ByteLength } from '../units.js';
import type { SnapshotChain } from './chain.js';
import type { Emit, FullReason } from './events.js';
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
/** What is lacking, and why. */
export interface Full {
  readonly neededBytes: ByteLength;
  readonly availableBytes: ByteLength;
  readonly reason: FullReason;
  readonly cause?: unknown;
}

const figuresOf = ({ neededBytes, availableBytes, reason }: Full) => ({
  neededBytes,
  availableBytes,
  reason,
});

export class Overflow {
  readonly #store: AttachedStore;
  readonly #chain: SnapshotChain;
  readonly #emit: Emit;
  readonly #clock: Clock;
  readonly #waiters: SpaceWaiters;
  readonly #copying: () => CopyOnWrite;
  #blocked: { readonly action: SpacePolicy; readonly since: number } | undefined;

  constructor(
    store: AttachedStore,
    chain: SnapshotChain,
    emit: Emit,
    clock: Clock,
    waiters: SpaceWaiters,
    copying: () => CopyOnWrite,
  ) {
    this.#store = store;
    this.#chain = chain;
    this.#emit = emit;
    this.#clock = clock;
    this.#waiters = waiters;
    this.#copying = copying;
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
    if (action === 'delete-oldest' && (await this.#dropOldest(record, full))) return 'removed';
    this.#block(record, full, action === 'hold-writes' ? action : 'fail-writes');
    if (action === 'hold-writes') return 'wait';
    throw this.#noSpace(record, full, isOver);
  }

  /** The one that goes next; `undefined`: none may. Only the oldest gives its room back at once: a younger one has to be merged first, which takes room itself, and may free none. So one that is held ends it. */
  get victim(): SnapshotRecord | undefined {
    const { oldest } = this.#chain;
    return oldest === undefined || this.#chain.isHeld(oldest) ? undefined : oldest;
  }

  /** @returns false if none may go */
  async #dropOldest(record: SnapshotRecord, full: Full): Promise<boolean> {
    const victim = this.victim;
    if (victim === undefined) return false;
    this.#emit('overflow', { id: record.id, ...figuresOf(full), action: 'delete-oldest' });
    return this.give(victim, 'space', full.cause);
  }

  /** @returns false if it was held after all */
  async give(victim: SnapshotRecord, reason: DeletionReason, cause?: unknown): Promise<boolean> {
    try {
      await this.#chain.removeThrough(victim, this.#copying(), reason, cause);
      return true;
    } catch (error) {
      if (error instanceof HeldError) return false;
      throw error;
    }
  }

  /** Writes wait or fail from now on; told once. */
  #block(record: SnapshotRecord, full: Full, action: 'hold-writes' | 'fail-writes'): void {
    if (this.#blocked?.action === action) return;
    this.#blocked = { action, since: this.#blocked?.since ?? this.#clock.monotonic() };
    this.#emit('overflow', { id: record.id, ...figuresOf(full), action });
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
      full.reason === 'host-full'
        ? `the file system of ${this.#store.name} is full`
        : `the diff area of snapshot ${record.id} needs ${full.neededBytes} bytes more, ${full.availableBytes} can be had`;
    const rule = hasWaited
      ? `none was given within ${waitMs} ms`
      : policy === 'delete-oldest'
        ? 'the oldest snapshot is held'
        : `the policy is ${policy}`;
    return new NoSpaceError(
      `no room to copy what a write would overwrite: ${why}, and ${rule}. Raise the limit (volsnap resize-store), delete or release snapshots, or change the policy (volsnap policy)`,
      { cause: full.cause },
    );
  }
}
