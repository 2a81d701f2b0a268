/** What users do about room: policies, holds, and what the host has; and writes that may fail because there is none. */
import type { Snapshot, VolsnapError, Volume } from '../../src/index.js';
import { type Calls, GONE, NO_ERROR, type Permitted } from './calls.js';
import type { RunCounters } from './counters.js';
import type { InsidePlan } from './plan-inside.js';
import type { SpaceOperation } from './plan-space.js';
import { SpaceExpectations } from './space-expectations.js';

const FULL: Permitted = ['NO_SPACE'];

/** What the workload needs of the world. */
export interface WorkloadWorld {
  readonly now: () => number;
  readonly setHostSpace: (bytes: number) => void;
  /** A store inside the volume. */
  readonly inside?: InsidePlan | undefined;
}

export const NO_WORLD: WorkloadWorld = { now: () => 0, setHostSpace: () => undefined };

export interface SpaceListener {
  /** A call has failed for lack of room. */
  onNoSpace(): void;
  /** A snapshot is about to be held. */
  onHold(label: string): void;
}

export class SpaceWork {
  readonly #calls: Calls;
  readonly #counters: RunCounters;
  readonly #world: WorkloadWorld;
  readonly expected: SpaceExpectations;

  readonly #listener: SpaceListener;

  constructor(calls: Calls, counters: RunCounters, world: WorkloadWorld, listener: SpaceListener) {
    this.#calls = calls;
    this.#listener = listener;
    this.#counters = counters;
    this.#world = world;
    this.expected = new SpaceExpectations(world.now);
  }

  /** A call that may fail for lack of room: only where the policy, or a hold, lets that be. */
  async errorOf(permitted: Permitted, call: () => Promise<unknown>): Promise<VolsnapError | undefined> {
    const mayFail = this.expected.watch();
    const error = await this.#calls.errorOf([...permitted, ...FULL], call);
    if (error?.code === 'NO_SPACE') this.#listener.onNoSpace();
    const isExpected = mayFail() || permitted.includes('NO_SPACE');
    if (error?.code === 'NO_SPACE' && !isExpected && !this.#calls.tolerated.includes('NO_SPACE')) throw error;
    return error;
  }

  /** The same of a write. */
  async change(permitted: Permitted, call: () => Promise<unknown>): Promise<VolsnapError | undefined> {
    const error = await this.errorOf(permitted, call);
    if (error?.code === 'NO_SPACE') this.#counters.writesRefused++;
    return error;
  }

  async perform(volume: Volume, operation: SpaceOperation): Promise<void> {
    switch (operation.kind) {
      case 'policy':
        return this.#setPolicy(volume, operation);
      case 'hold':
      case 'release': {
        const snapshot = volume.snapshots[operation.age % Math.max(1, volume.snapshots.length)];
        return snapshot && this.#setHold(snapshot, operation);
      }
      case 'host-space':
        this.#world.setHostSpace(operation.bytes);
    }
  }

  async #setPolicy(
    volume: Volume,
    { policy, waitMs, afterWait }: Extract<SpaceOperation, { kind: 'policy' }>,
  ): Promise<void> {
    this.expected.beginPolicy(policy, afterWait);
    const call = () => volume.setSpacePolicy(policy, { waitMs, afterWait });
    const result = await this.#calls.outcome(NO_ERROR, call);
    this.expected.endPolicy(result === 'done' ? policy : undefined);
  }

  async #setHold(
    snapshot: Snapshot,
    operation: Extract<SpaceOperation, { kind: 'hold' | 'release' }>,
  ): Promise<void> {
    const label = snapshot.label ?? '';
    if (operation.kind === 'release') {
      this.expected.begin(label, false);
      const result = await this.#calls.outcome(GONE, () => snapshot.release());
      this.expected.end(label, result === 'done' ? 'free' : undefined);
      return;
    }
    const { forMs } = operation;
    const until = forMs === undefined ? undefined : this.#world.now() + forMs;
    this.expected.begin(label, true);
    this.#listener.onHold(label);
    const call = () => snapshot.hold(until === undefined ? {} : { until: new Date(until) });
    const result = await this.#calls.outcome(GONE, call);
    this.expected.end(label, result === 'done' ? { until } : undefined);
  }
}
