/**
 * What users do to an open volume, several at a time, each call reported to the model and each answer held against it.
 *
 * Calls may fail only in the ways that are documented: without a failing device a write never fails, and nothing ever
 * finds damage.
 */

import { isOutOfSpace } from '../../src/errors.js';
import {
  AssertionError,
  allocationOf,
  type ErrorCode,
  type FreeSpaceProvider,
  HoldTimeoutError,
  type Snapshot,
  VolsnapError,
  type Volume,
} from '../../src/index.js';
import { ModelMismatch, SeededRandom, stampSectors, type VolumeModel } from '../../src/testing/index.js';
import { BLOCK_SIZE, blocksIn } from '../../src/units.js';
import type { RunCounters } from './counters.js';
import type { Cycle, Operation, Range } from './plan.js';
import { SpaceExpectations } from './space-expectations.js';

/** Codes of the errors that a call may end in. */
export type Permitted = readonly ErrorCode[];

const NO_ERROR: Permitted = [];
/** A snapshot may go at any moment. */
const GONE: Permitted = ['SNAPSHOT_DELETED'];
const NOT_DELETED: Permitted = ['SNAPSHOT_DELETED', 'HELD'];
/** One that is held does not go. */
const HELD: Permitted = ['HELD'];
const FULL: Permitted = ['NO_SPACE'];
const NOT_CREATED: Permitted = ['HOLD_TIMEOUT', 'NO_SPACE', 'LIMIT'];
const NOT_MERGED: Permitted = ['NO_SPACE', 'CLOSED'];
/** Besides the others, while devices fail. */
export const DEVICE_FAILS: Permitted = ['DEVICE', 'NO_SPACE'];
/** Besides the others, where the store is known to be damaged. */
export const DAMAGED: Permitted = ['INTEGRITY', 'FORMAT', 'UNSUPPORTED'];

/** What the workload needs of the world. */
export interface WorkloadWorld {
  readonly now: () => number;
  readonly setHostSpace: (bytes: number) => void;
}

const NO_WORLD: WorkloadWorld = { now: () => 0, setHostSpace: () => undefined };

export class Workload {
  readonly #model: VolumeModel;
  readonly #counters: RunCounters;
  #sequence = 1;
  #label = 0;
  #comparisons = 0;
  #holdTimeoutMs = 10_000;
  readonly #space: SpaceExpectations;
  readonly #setHostSpace: (bytes: number) => void;
  /** Errors that any call may end in for now, because of what is done to the devices. */
  tolerated: Permitted = NO_ERROR;
  /** What was wrong besides the answers to calls. */
  readonly complaints: string[] = [];

  constructor(model: VolumeModel, counters: RunCounters, world: WorkloadWorld = NO_WORLD) {
    this.#model = model;
    this.#counters = counters;
    this.#space = new SpaceExpectations(world.now);
    this.#setHostSpace = world.setHostSpace;
  }

  /** Must be called for each volume that is opened, at once: tells the model of snapshots that go. */
  listen(volume: Volume): void {
    const labels = new Map(volume.snapshots.map(({ id, label }) => [id, label ?? '']));
    volume.on('created', ({ id, label }) => labels.set(id, label ?? ''));
    volume.on('deleting', ({ id, reason }) => {
      const label = labels.get(id) ?? '';
      this.#model.beginDelete(label);
      if (this.#space.isHeld(label)) this.complaints.push(`${label} is held and is deleted (${reason})`);
    });
    volume.on('deleted', ({ id, reason }) => {
      if (reason !== 'requested') this.#counters.snapshotsGivenUp++;
      this.#space.forget(labels.get(id) ?? '');
      this.#model.drop(labels.get(id) ?? '');
    });
    volume.on('deleted', ({ reason, cause }) => {
      if (reason === 'copy-failed') this.#expectFault('a snapshot was given up', cause);
    });
    volume.on('merged', ({ blocks }) => {
      this.#counters.snapshotsMerged++;
      this.#counters.blocksMerged += blocks;
    });
    volume.on('backgroundFailure', ({ what, error }) => {
      if (!isOutOfSpace(error)) this.#expectFault(what, error);
    });
    volume.on('unusedSpaceUnknown', ({ reason, error }) => {
      if (!isOutOfSpace(error)) this.#expectFault(reason, error ?? reason);
    });
    volume.on('integrityFailure', ({ error }) => this.#expectFault('a copy is damaged', error));
  }

  /** Something happened that only failing devices or rot can cause. Listeners must not throw, so it is only noted. */
  #expectFault(what: string, cause: unknown): void {
    if (cause instanceof AssertionError) this.complaints.push(`${what}: ${cause}`);
    else if (this.tolerated.length === 0)
      this.complaints.push(`${what}, though nothing was done to the devices: ${cause}`);
  }

  async run(volume: Volume, { operations, clients }: Pick<Cycle, 'operations' | 'clients'>): Promise<void> {
    let next = 0;
    const client = async () => {
      for (let operation = operations[next++]; operation !== undefined; operation = operations[next++]) {
        await this.#perform(volume, operation);
        this.#counters.operations++;
      }
    };
    await Promise.all(Array.from({ length: clients }, client));
  }

  /** Reads everything there is. */
  async verify(volume: Volume): Promise<void> {
    await this.#read(volume, { offset: 0, length: volume.size });
    for (const snapshot of volume.snapshots) {
      if (!this.tolerated.includes('INTEGRITY')) await this.#readSnapshot(snapshot);
      // One damaged block makes a read fail that has it, and would hide what is wrong in all the others.
      else for (const part of blocksOf(snapshot.size)) await this.#readSnapshot(snapshot, part);
    }
  }

  /** What was said of holds and policy before the volume was closed, or a crash came, is as it was. @throws ModelMismatch */
  verifySpace(volume: Volume): void {
    this.#space.verify(volume);
  }

  async #perform(volume: Volume, operation: Operation): Promise<void> {
    switch (operation.kind) {
      case 'write':
        return this.#write(volume, operation, operation.zeros);
      case 'discard':
      case 'zeroes':
        return this.#clear(volume, operation, operation.kind);
      case 'flush':
        return this.#flush(volume);
      case 'read':
        return this.#read(volume, operation);
      case 'create':
        return this.#create(volume, operation.free);
      case 'delete-oldest':
      case 'delete-all': {
        const count = operation.kind === 'delete-all' ? volume.snapshots.length : 1;
        await this.#outcome(HELD, () => volume.deleteOldest(count));
        return;
      }
      case 'delete':
        return this.#delete(volume, operation);
      case 'read-snapshot': {
        const snapshot = volume.snapshots[operation.age % Math.max(1, volume.snapshots.length)];
        return snapshot && this.#readSnapshot(snapshot, operation);
      }
      case 'read-snapshots':
        for (const snapshot of volume.snapshots) await this.#readSnapshot(snapshot);
        return;
      case 'changed':
        return this.#changed(volume);
      case 'limit':
        await this.#outcome(NO_ERROR, () => volume.setMaximumSize(operation.maximum));
        return;
      case 'policy':
        return this.#setPolicy(volume, operation);
      case 'hold':
      case 'release': {
        const snapshot = volume.snapshots[operation.age % Math.max(1, volume.snapshots.length)];
        return snapshot && this.#setHold(snapshot, operation);
      }
      case 'host-space':
        this.#setHostSpace(operation.bytes);
        return;
      case 'shorten-hold':
        this.#holdTimeoutMs = this.#holdTimeoutMs === 1 ? 10_000 : 1;
    }
  }

  async #write(volume: Volume, { offset, length }: Range, zeros: boolean): Promise<void> {
    const bytes = new Uint8Array(length);
    if (!zeros) stampSectors(bytes, offset, this.#sequence++);
    const write = this.#model.beginWrite(offset, bytes);
    this.#model.endWrite(write, await this.#change(() => volume.write(offset, bytes)));
  }

  async #clear(volume: Volume, { offset, length }: Range, kind: 'discard' | 'zeroes'): Promise<void> {
    const write = this.#model.beginDiscard(offset, length);
    const call = () =>
      kind === 'discard' ? volume.discard(offset, length) : volume.writeZeroes(offset, length);
    this.#model.endWrite(write, await this.#change(call));
  }

  /** A write that may fail for lack of room: only where the policy, or a hold, lets that be. */
  async #change(call: () => Promise<unknown>): Promise<'done' | 'failed'> {
    const mayFail = this.#space.watch();
    const error = await this.#errorOf(FULL, call);
    if (error === undefined) return 'done';
    if (error.code === 'NO_SPACE' && !mayFail() && !this.tolerated.includes('NO_SPACE')) throw error;
    if (error.code === 'NO_SPACE') this.#counters.writesRefused++;
    return 'failed';
  }

  async #setPolicy(
    volume: Volume,
    { policy, waitMs, afterWait }: Extract<Operation, { kind: 'policy' }>,
  ): Promise<void> {
    this.#space.beginPolicy(policy, afterWait);
    const result = await this.#outcome(NO_ERROR, () => volume.setSpacePolicy(policy, { waitMs, afterWait }));
    this.#space.endPolicy(result === 'done' ? policy : undefined);
  }

  async #setHold(
    snapshot: Snapshot,
    operation: Extract<Operation, { kind: 'hold' | 'release' }>,
  ): Promise<void> {
    const label = labelOf(snapshot);
    if (operation.kind === 'release') {
      this.#space.begin(label, false);
      const result = await this.#outcome(GONE, () => snapshot.release());
      this.#space.end(label, result === 'done' ? 'free' : undefined);
      return;
    }
    const { forMs } = operation;
    const until = forMs === undefined ? undefined : this.#space.now() + forMs;
    this.#space.begin(label, true);
    const call = () => snapshot.hold(until === undefined ? {} : { until: new Date(until) });
    const result = await this.#outcome(GONE, call);
    this.#space.end(label, result === 'done' ? { until } : undefined);
  }

  async #flush(volume: Volume): Promise<void> {
    const flush = this.#model.beginFlush();
    this.#model.endFlush(flush, await this.#outcome(NO_ERROR, () => volume.flush()));
  }

  async #read(volume: Volume, { offset, length }: Range): Promise<void> {
    const read = this.#model.beginRead();
    const bytes = new Uint8Array(length);
    if ((await this.#outcome(NO_ERROR, () => volume.read(offset, bytes))) === 'done')
      this.#model.endRead(read, offset, bytes);
    else this.#model.cancelRead(read);
  }

  async #create(volume: Volume, free: number | undefined): Promise<void> {
    const label = `s${this.#label++}`;
    const unused = free === undefined ? undefined : drawUnused(free, volume.size);
    this.#model.beginSnapshot(label, undefined, unused);
    const call = async () => {
      const snapshot = await volume.createSnapshot({
        label,
        holdTimeoutMs: this.#holdTimeoutMs,
        ...(unused === undefined ? {} : { unusedSpace: providerOf(unused) }),
      });
      if (snapshot.unusedBytes > 0) this.#counters.snapshotsSkipping++;
    };
    const error = await this.#errorOf(NOT_CREATED, call);
    if (error === undefined) this.#counters.snapshotsTaken++;
    // Gone already: it was deleted before its creation returned.
    if (!this.#model.has(label)) return;
    // After an error of the device only the next opening tells.
    const failed = error instanceof HoldTimeoutError ? 'failed' : 'uncertain';
    this.#model.endSnapshot(label, error === undefined ? 'done' : failed);
  }

  async #delete(volume: Volume, { age, wait }: { age: number; wait: boolean }): Promise<void> {
    const { snapshots } = volume;
    const snapshot = snapshots[age % Math.max(1, snapshots.length)];
    if (snapshot === undefined) return;
    if ((await this.#outcome(NOT_DELETED, () => snapshot.delete())) !== 'done') return;
    this.#counters.snapshotsDeleted++;
    // It may have to wait for room, or for the next opening.
    if (wait) await this.settle(volume);
  }

  /** Waits until what was deleted is merged, unless there is no room for that. */
  async settle(volume: Volume): Promise<void> {
    await this.#outcome(NOT_MERGED, () => volume.settled());
  }

  /** What comes back is right even if the snapshot was deleted meanwhile; it may also be refused then. */
  async #readSnapshot(snapshot: Snapshot, { offset, length }: Range = { offset: 0, length: snapshot.size }) {
    const read = this.#model.beginSnapshotRead(labelOf(snapshot));
    const bytes = new Uint8Array(length);
    const result = await this.#outcome(GONE, () => snapshot.read(offset, bytes));
    if (read === undefined) return;
    this.#model.endSnapshotRead(read, offset, result === 'done' ? bytes : undefined);
    if (result !== 'done') return;
    this.#counters.snapshotsVerified++;
    // What is rotten may be zero at one moment and not at another.
    if (this.tolerated.length === 0)
      await this.#outcome(GONE, () => checkZeros(snapshot, { offset, length }, bytes));
  }

  /** Every block that differs is reported as changed: between two neighbouring snapshots, or the last and now. */
  async #changed(volume: Volume): Promise<void> {
    const isUntilNow = this.#comparisons++ % 2 === 1;
    const [since, until] = volume.snapshots.slice(isUntilNow ? -1 : -2);
    if (since === undefined || (until === undefined && !isUntilNow)) return;
    await this.#outcome(GONE, async () => {
      // Read first: what is written meanwhile may be reported or not.
      const after = await (until ?? volume).read(0, until?.size ?? volume.size);
      const changed = new Uint8Array(volume.size);
      for await (const { offset, length } of volume.changedBlocks(until ? { since, until } : { since }))
        changed.fill(1, offset, offset + length);
      const before = await since.read(0, since.size);
      // That block is compared, and may be equal again by then.
      if (isUntilNow && volume.figures.layout === 'in-volume') changed.fill(1, 0, BLOCK_SIZE);
      const missed = before.findIndex((byte, at) => byte !== after[at] && changed[at] === 0);
      if (missed >= 0)
        throw new ModelMismatch(
          `byte ${missed} differs between ${since.label} and ${until?.label ?? 'now'}, but is not reported as changed`,
        );
    });
  }

  async #outcome(permitted: Permitted, call: () => Promise<unknown>): Promise<'done' | 'failed'> {
    return (await this.#errorOf(permitted, call)) === undefined ? 'done' : 'failed';
  }

  /** Runs a call that may fail, but only in the ways that the documentation names. */
  async #errorOf(permitted: Permitted, call: () => Promise<unknown>): Promise<VolsnapError | undefined> {
    try {
      await call();
      return undefined;
    } catch (error) {
      if (!(error instanceof VolsnapError)) throw error;
      if (permitted.includes(error.code) || this.tolerated.includes(error.code)) return error;
      throw error;
    }
  }
}

/** Blocks that nothing uses, whatever they hold: here and there, long runs, none, all. */
function drawUnused(seed: number, size: number): ReadonlySet<number> {
  const random = new SeededRandom(`free ${seed}`);
  const blocks = new Set<number>();
  const count = blocksIn(size);
  const share = random.pick([0.1, 0.5, 0.9, 1]);
  const lengths = random.pick([1, 4, 16]);
  for (let block = 0; block < count; ) {
    const end = Math.min(count, block + 1 + random.below(lengths));
    const isFree = random.chance(share);
    for (; block < end; block++) if (isFree) blocks.add(block);
  }
  return blocks;
}

/** Looks at the volume first, as real ones do. */
const providerOf = (unused: ReadonlySet<number>): FreeSpaceProvider => ({
  name: 'drawn',
  async unusedBlocks(source, size) {
    const look = new Uint8Array(Math.min(size, 2 * BLOCK_SIZE));
    await source.read(0, look);
    await source.read(size - look.byteLength, look);
    const bits = new Uint8Array(Math.ceil(blocksIn(size) / 8));
    for (const block of unused) bits[block >>> 3] = (bits[block >>> 3] ?? 0) | (1 << (block & 7));
    return { unused: bits };
  },
});

/** What a snapshot knows to be zero reads as zeros, always: it does not change. */
async function checkZeros(snapshot: Snapshot, { offset, length }: Range, bytes: Uint8Array): Promise<void> {
  let at = 0;
  for await (const extent of allocationOf(snapshot, offset, length)) {
    const part = bytes.subarray(at, at + extent.length);
    const wrong = extent.zero ? part.findIndex((byte) => byte !== 0) : -1;
    if (wrong >= 0)
      throw new ModelMismatch(
        `byte ${offset + at + wrong} of ${snapshot.label} is not zero, but is said to be`,
      );
    at += extent.length;
  }
  if (at !== length) throw new ModelMismatch(`of ${length} bytes ${at} are described as zero or not`);
}

const blocksOf = (size: number): Range[] =>
  Array.from({ length: blocksIn(size) }, (_, block) => {
    const offset = block * BLOCK_SIZE;
    return { offset, length: Math.min(BLOCK_SIZE, size - offset) };
  });

export const labelOf = ({ label }: Snapshot): string => label ?? '';
