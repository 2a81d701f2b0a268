/**
 * What users do to an open volume, several at a time, each call reported to the model and each answer held against it.
 *
 * Calls may fail only in the ways that are documented: without a failing device a write never fails, and nothing ever
 * finds damage.
 */

import { isOutOfSpace } from '../../src/errors.js';
import { HoldTimeoutError, RevertInProgressError, type Snapshot, type Volume } from '../../src/index.js';
import { BlockLocks } from '../../src/nbd/client/block-locks.js';
import { stampSectors, type VolumeModel, type WriteRecord } from '../../src/testing/index.js';
import { BLOCK_SIZE, blocksIn } from '../../src/units.js';
import { Calls, DEVICE_FAILS, GONE, NO_ERROR, type Permitted } from './calls.js';
import { checkZeros, compareChanges } from './comparing.js';
import type { RunCounters } from './counters.js';
import { GrowthWork } from './growth-work.js';
import type { Cycle, Operation, Range } from './plan.js';
import { ProtectedWork } from './protected-work.js';
import { ReadBuffers } from './read-buffers.js';
import { REVERTING, RevertWork } from './revert-work.js';
import { NO_WORLD, SpaceWork, type WorkloadWorld } from './space-work.js';
import { drawUnused, providerOf } from './unused.js';

const NOT_CREATED: Permitted = ['HOLD_TIMEOUT', 'NO_SPACE', 'LIMIT', ...REVERTING];
/** One that is held, or that a revert needs, does not go. */
const KEPT: Permitted = ['HELD', ...REVERTING];
/** What moved within the volume is copied first. */
const NOT_DELETED: Permitted = [...GONE, ...KEPT, 'NO_SPACE'];
const NOT_WRITTEN: Permitted = [...GONE, ...REVERTING, 'NO_SPACE'];
const NOT_MERGED: Permitted = ['NO_SPACE', 'CLOSED'];
/** Older ones are not there yet. */
const LATE: Permitted = ['OFFLINE'];
type CreateOperation = Operation & { readonly kind: 'create' };

export class Workload {
  readonly #model: VolumeModel;
  readonly #counters: RunCounters;
  readonly #calls = new Calls();
  readonly #space: SpaceWork;
  readonly #reverts: RevertWork;
  /** Keeps changes away from ranges that are copied. */
  #changing = new BlockLocks();
  #growth: GrowthWork;
  #buffers = new ReadBuffers();
  readonly #protected: ProtectedWork;
  /** The one that is open. */
  #volume: Volume | undefined;
  #sequence = 1;
  #label = 0;
  #comparisons = 0;
  #holdTimeoutMs = 10_000;
  /** Was there no room for copies that a revert needs? Then writes, and with a buffer all that follows, may fail. */
  isShortOfSpace = false;
  /** May room lack for what was acknowledged: on the host, or because copies go elsewhere since a snapshot went? */
  #mayPark = false;
  /** Snapshots that are to go when the volume is closed, or at the next opening. */
  readonly #passing = new Set<string>();
  /** Those of them that somebody wanted to hold: they may stay. */
  readonly #kept = new Set<string>();
  /** Snapshots that must be there when late diff areas have arrived. */
  readonly #awaited = new Set<string>();

  constructor(model: VolumeModel, counters: RunCounters, world: WorkloadWorld = NO_WORLD) {
    this.#model = model;
    this.#counters = counters;
    const calls = this.#calls;
    const space = new SpaceWork(calls, counters, world, {
      // A revert that goes on at the opening may have told before anybody listened.
      onNoSpace: () => this.#noteOverflow(),
      onHold: (label) => {
        this.#reverts.want(label);
        this.#kept.add(label);
      },
    });
    this.#space = space;
    this.#growth = new GrowthWork(model, calls, counters);
    this.#protected = new ProtectedWork(world.inside, counters);
    const read = (snapshot: Snapshot) => this.#readSnapshot(snapshot, wholeOf(snapshot), 'keep');
    const errorOf: Calls['errorOf'] = (permitted, call) => space.errorOf(permitted, call);
    const whileNothingIsCopied = (volume: Volume, action: () => Promise<void>) =>
      this.#changing.run(0, volume.size, false, action);
    this.#reverts = new RevertWork({ model, counters, calls, read, errorOf, whileNothingIsCopied });
  }

  /** Errors that any call may end in for now, because of what is done to the devices. */
  get tolerated(): Permitted {
    return this.#calls.tolerated;
  }

  set tolerated(permitted: Permitted) {
    this.#calls.tolerated = permitted;
  }

  /** What was wrong besides the answers to calls. */
  get complaints(): string[] {
    return this.#calls.complaints;
  }

  /** Into which everything is read. */
  get buffers(): ReadBuffers {
    return this.#buffers;
  }

  /** Has a revert been asked for? Then what the volume's device holds need not be the volume. */
  get mayRevert(): boolean {
    return this.#reverts.mayRevert;
  }

  /** May a write fail for lack of room, by the policy or because of a hold? */
  get mayBeRefused(): boolean {
    return this.#space.expected.mayFail;
  }

  /** What another workload has left behind: snapshots that are to go with their revert, or with the open volume; holds; the policy. */
  follow(other: Workload): void {
    this.#label = other.#label;
    this.#reverts.follow(other.#reverts);
    this.#space.expected.follow(other.#space.expected);
    for (const label of other.#passing) this.#passing.add(label);
    for (const label of other.#kept) this.#kept.add(label);
    this.#buffers = other.#buffers;
  }

  /** Are there snapshots whose diff areas have not arrived? */
  get isWaiting(): boolean {
    return this.#volume?.figures.late !== undefined;
  }

  /** Is one of the snapshots held: for certain, or perhaps? */
  holds(degree: 'certain' | 'possible'): boolean {
    const { expected } = this.#space;
    return degree === 'possible'
      ? expected.mayBeHeld
      : this.#model.snapshotNames.some((label) => expected.isHeld(label));
  }

  /** After `listen`, of a volume without its diff areas: until they have arrived a crash may take the snapshots, but none that is held. */
  waitFor(volume: Volume): void {
    this.#awaited.clear();
    if (this.isWaiting && this.holds('certain'))
      this.complaints.push('copies are made in memory that a held snapshot needs');
    if (volume.snapshots.length > 0)
      this.complaints.push('snapshots are shown whose diff areas are not there');
    for (const label of this.#model.snapshotNames) {
      this.#model.beginDelete(label);
      this.#awaited.add(label);
    }
  }

  /** Must be called for each volume that is opened, at once: tells the model of snapshots that go. */
  listen(volume: Volume): void {
    this.#volume = volume;
    this.#mayPark = this.isWaiting || volume.figures.deletion.snapshots > 0;
    this.#reverts.begin();
    this.#passAway(volume);
    const { expected } = this.#space;
    const labels = new Map(volume.snapshots.map(({ id, label }) => [id, label ?? '']));
    volume.on('created', ({ id, label = '' }) => {
      labels.set(id, label);
      this.#reverts.created(label);
    });
    volume.on('overflow', ({ reason }) => {
      if (reason !== 'limit') this.#mayPark = true;
      this.#noteOverflow();
    });
    volume.on('deleting', ({ id, reason }) => {
      this.#mayPark = true;
      const label = labels.get(id);
      // One that expired while a revert needed it is shown to nobody.
      // Or its diff area is late: nobody knows which, so each of them may be gone.
      if (label === undefined) {
        this.#awaited.clear();
        return;
      }
      this.#model.beginDelete(label);
      if (reason === 'space' && volume.snapshots[0]?.id !== id) {
        this.#counters.youngerGivenUp++;
        // Copies are on their way to it.
        if (labels.size > 1 && [...labels.keys()].at(-1) === id)
          this.complaints.push('the newest snapshot went for lack of room');
      }
      if (expected.isHeld(label)) this.#calls.complaints.push(`${label} is held and is deleted (${reason})`);
    });
    volume.on('deleted', ({ id, reason }) => {
      if (reason !== 'requested' && reason !== 'released') this.#counters.snapshotsGivenUp++;
      const label = labels.get(id);
      if (label === undefined) return;
      labels.delete(id);
      expected.forget(label);
      this.#model.drop(label);
    });
    volume.on('arrived', () => {
      this.#counters.lateArrivals++;
      // Those that were taken meanwhile are newer.
      const newer = [...labels];
      labels.clear();
      for (const { id, label = '' } of volume.snapshots) labels.set(id, label);
      for (const [id, label] of newer) labels.set(id, label);
      for (const label of this.#awaited) this.#model.endDelete(label, 'failed');
      this.#awaited.clear();
    });
    volume.on('deleted', ({ reason, cause }) => {
      if (reason === 'store-overwritten' && !this.#protected.isGivingWay)
        this.#calls.complaints.push('a snapshot went for a write that was not over its store');
      if (reason === 'copy-failed') this.#calls.expectFault('a snapshot was given up', cause);
    });
    volume.on('merged', ({ blocks }) => {
      this.#counters.snapshotsMerged++;
      this.#counters.blocksMerged += blocks;
    });
    volume.on('backgroundFailure', ({ id, what, error }) => {
      if (isOutOfSpace(error)) {
        this.#noteOverflow();
        // What was to go with a revert stays where its moves have no room to be settled.
        this.#reverts.want(labels.get(id) ?? '');
      } else this.#calls.expectFault(what, error);
    });
    volume.on('unusedSpaceUnknown', ({ reason, error }) => {
      if (!isOutOfSpace(error)) this.#calls.expectFault(reason, error ?? reason);
    });
    volume.on('integrityFailure', ({ error }) => this.#calls.expectFault('a copy is damaged', error));
  }

  /** Is the snapshot to go when the volume is closed? Who opens it for reading then is not shown it any more. */
  isPassing(label: string): boolean {
    return this.#passing.has(label);
  }

  /** How many there were that do not outlast the open volume. */
  get passingCount(): number {
    return this.#passing.size;
  }

  /** None that was to go with the volume as it was open before is there now. */
  #passAway({ snapshots }: Volume): void {
    const mustGo = (label: string) => this.#passing.has(label) && !this.#kept.has(label);
    const left = snapshots.map(labelOf).filter(mustGo);
    if (left.length > 0)
      this.complaints.push(`still there after the volume was opened again: ${left.join(', ')}`);
    for (const label of this.#passing) if (this.#model.has(label)) this.#model.beginDelete(label);
  }

  /** A revert needs its snapshots, so none of them makes room. */
  #noteOverflow(): void {
    if (this.#volume === undefined || !this.#reverts.isAt(this.#volume)) return;
    this.isShortOfSpace = true;
    if (this.tolerated.length === 0) this.tolerated = DEVICE_FAILS;
  }

  /** @param onBegin is told of each operation */
  async run(
    volume: Volume,
    { operations, clients }: Pick<Cycle, 'operations' | 'clients'>,
    onBegin: (operation: Operation) => void = () => undefined,
  ): Promise<void> {
    // Calls that a crash cut off never end.
    this.#changing = new BlockLocks();
    this.#protected.reset();
    this.#growth = new GrowthWork(this.#model, this.#calls, this.#counters);
    let next = 0;
    const client = async () => {
      for (let operation = operations[next++]; operation !== undefined; operation = operations[next++]) {
        onBegin(operation);
        await this.#perform(volume, operation);
        this.#counters.operations++;
      }
    };
    await Promise.all(Array.from({ length: clients }, client));
  }

  /** Reads everything there is. */
  async verify(volume: Volume): Promise<void> {
    this.#model.checkSize(volume.size);
    await this.#read(volume, { offset: 0, length: volume.size });
    for (const snapshot of volume.snapshots) {
      if (!this.tolerated.includes('INTEGRITY')) await this.#readSnapshot(snapshot);
      // One damaged block makes a read fail that has it, and would hide what is wrong in all the others.
      else for (const part of blocksOf(snapshot.size)) await this.#readSnapshot(snapshot, part);
    }
  }

  /** What was said of holds and policy before the volume was closed, or a crash came, is as it was. @throws ModelMismatch */
  verifySpace(volume: Volume): void {
    this.#space.expected.verify(volume);
  }

  async #perform(volume: Volume, operation: Operation): Promise<void> {
    switch (operation.kind) {
      case 'write':
        return this.#write(volume, operation, operation.zeros);
      case 'discard':
      case 'zeroes':
        return this.#clear(volume, operation, operation.kind);
      case 'copy-range':
        return this.#copy(volume, operation.from, operation);
      case 'flush':
        return this.#flush(volume);
      case 'read':
        return this.#read(volume, operation);
      case 'create':
        return this.#create(volume, operation);
      case 'delete-oldest':
      case 'delete-all': {
        const count = operation.kind === 'delete-all' ? volume.snapshots.length : 1;
        const permitted = this.isWaiting ? [...KEPT, ...LATE] : KEPT;
        await this.#calls.outcome(permitted, () => volume.deleteOldest(count));
        return;
      }
      case 'delete':
        return this.#delete(volume, operation);
      case 'read-snapshot': {
        const snapshot = snapshotOf(volume, operation);
        if (snapshot !== undefined) await this.#readSnapshot(snapshot, operation);
        return;
      }
      case 'write-snapshot': {
        const snapshot = snapshotOf(volume, operation);
        return snapshot && this.#writeSnapshot(snapshot, operation, operation.zeros);
      }
      case 'flush-snapshot': {
        const snapshot = snapshotOf(volume, operation);
        return snapshot && this.#flushSnapshot(snapshot);
      }
      case 'read-snapshots':
        for (const snapshot of volume.snapshots) await this.#readSnapshot(snapshot);
        return;
      case 'changed':
        return this.#changed(volume);
      case 'limit':
        await this.#calls.outcome(NO_ERROR, () => volume.setMaximumSize(operation.maximum));
        return;
      case 'revert': {
        const options = { label: `s${this.#label++}`, holdTimeoutMs: this.#holdTimeoutMs };
        return this.#reverts.revert(volume, { ...operation, ...options });
      }
      case 'cancel-revert':
        return this.#reverts.cancel(volume);
      case 'grow':
        return this.#growth.grow(volume, operation.size);
      case 'policy':
      case 'hold':
      case 'release':
      case 'host-space':
        return this.#space.perform(volume, operation);
      case 'shorten-hold':
        this.#holdTimeoutMs = this.#holdTimeoutMs === 1 ? 10_000 : 1;
    }
  }

  async #write(volume: Volume, range: Range, zeros: boolean): Promise<void> {
    const { offset, length } = within(range, volume.size);
    if (length === 0) return;
    const bytes = new Uint8Array(length);
    if (!zeros) stampSectors(bytes, offset, this.#sequence++);
    await this.#changing.run(offset, offset + length, false, async () => {
      const write = this.#model.beginWrite(offset, bytes);
      await this.#change(write, () => volume.write(offset, bytes));
    });
  }

  /** Nothing else is written where it reads and writes: else nobody could say what it copied. */
  async #copy(volume: Volume, from: number, range: Range): Promise<void> {
    const source = within({ offset: from, length: range.length }, volume.size);
    const { offset, length } = within({ ...range, length: source.length }, volume.size);
    if (length === 0) return;
    const [start, end] = [Math.min(from, offset), Math.max(from, offset) + length];
    await this.#changing.run(start, end, true, async () => {
      const bytes = new Uint8Array(length);
      if ((await this.#calls.outcome(NO_ERROR, () => volume.read(from, bytes))) !== 'done') return;
      const call = () => volume.copyRange(from, offset, length);
      // Onto itself it writes nothing, wherever that is, even where it is in doubt what the next opening finds there.
      if (from === offset) await this.#space.change(NO_ERROR, call);
      else await this.#change(this.#model.beginWrite(offset, bytes), call);
    });
  }

  /** What is refused because the store lies there has never been. */
  async #change(write: WriteRecord, call: () => Promise<unknown>): Promise<void> {
    const range = { offset: write.offset, length: write.bytes.byteLength };
    const change = () => this.#space.change(this.#protected.permitted(range), call);
    const error = await this.#protected.whileWriting(range, change);
    const failed = this.#protected.isRefused(range, error) ? 'refused' : 'failed';
    this.#model.endWrite(write, error === undefined ? 'done' : failed);
  }

  /** Zeros may be written where the store lies: it reads as that. */
  async #clear(volume: Volume, range: Range, kind: 'discard' | 'zeroes'): Promise<void> {
    const { offset, length } = within(range, volume.size);
    if (length === 0) return;
    await this.#changing.run(offset, offset + length, false, async () => {
      const write = this.#model.beginDiscard(offset, length);
      const call = () =>
        kind === 'discard' ? volume.discard(offset, length) : volume.writeZeroes(offset, length);
      const error = await this.#space.change(NO_ERROR, call);
      this.#model.endWrite(write, error === undefined ? 'done' : 'failed');
    });
  }

  async #flush(volume: Volume): Promise<void> {
    const flush = this.#model.beginFlush();
    // What was acknowledged may wait for room.
    const error = await this.#space.errorOf(NO_ERROR, () => volume.flush());
    if (error?.code === 'NO_SPACE' && !this.#mayPark && !this.mayRevert && this.tolerated.length === 0)
      this.complaints.push(`a flush lacks room for what was acknowledged: ${error.message}`);
    this.#model.endFlush(flush, error === undefined ? 'done' : 'failed');
  }

  async #read(volume: Volume, range: Range): Promise<void> {
    const { offset, length } = within(range, volume.size);
    const read = this.#model.beginRead();
    const bytes = this.#buffers.take(length);
    if ((await this.#calls.outcome(NO_ERROR, () => volume.read(offset, bytes))) === 'done') {
      this.#model.endRead(read, offset, bytes);
      this.#buffers.give(bytes);
    } else this.#model.cancelRead(read);
  }

  async #create(volume: Volume, { free, passing }: CreateOperation): Promise<void> {
    const label = `s${this.#label++}`;
    const unused = free === undefined ? undefined : drawUnused(free, volume.size);
    this.#model.beginSnapshot(label, undefined, unused);
    if (passing !== undefined) {
      this.#passing.add(label);
      this.#counters.snapshotsPassing++;
    }
    const call = async () => {
      const snapshot = await volume.createSnapshot({
        label,
        holdTimeoutMs: this.#holdTimeoutMs,
        ...(passing === 'not persistent' ? { persistent: false } : {}),
        ...(passing === 'released' ? { autoRelease: true } : {}),
        ...(unused === undefined ? {} : { unusedSpace: providerOf(unused) }),
      });
      if (snapshot.unusedBytes > 0) this.#counters.snapshotsSkipping++;
    };
    const error = await this.#calls.errorOf(NOT_CREATED, call);
    if (error === undefined) this.#counters.snapshotsTaken++;
    // Gone already: it was deleted before its creation returned.
    if (!this.#model.has(label)) return;
    // After an error of the device only the next opening tells.
    const failed = error instanceof HoldTimeoutError ? 'failed' : 'uncertain';
    this.#model.endSnapshot(label, error === undefined ? 'done' : failed);
  }

  /** Snapshots that should have gone with a revert that is over. */
  unwantedIn(volume: Volume): string[] {
    return this.#reverts.unwantedIn(volume);
  }

  async #delete(volume: Volume, { age, wait }: { age: number; wait: boolean }): Promise<void> {
    const { snapshots } = volume;
    const snapshot = snapshots[age % Math.max(1, snapshots.length)];
    if (snapshot === undefined) return;
    const permitted = this.isWaiting ? [...NOT_DELETED, ...LATE] : NOT_DELETED;
    if ((await this.#calls.outcome(permitted, () => snapshot.delete())) !== 'done') return;
    this.#counters.snapshotsDeleted++;
    // It may have to wait for room, or for the next opening.
    if (wait) await this.settle(volume);
  }

  /** Waits until what was deleted is merged, unless there is no room for that. */
  async settle(volume: Volume): Promise<void> {
    await this.#calls.outcome(NOT_MERGED, () => volume.settled());
  }

  /**
   * What comes back is right even if the snapshot was deleted meanwhile; it may also be refused then.
   * @returns what was read; unless it is to be kept, it is good until the next read
   */
  async #readSnapshot(
    snapshot: Snapshot,
    range: Range = wholeOf(snapshot),
    use: 'compare' | 'keep' = 'compare',
  ): Promise<Uint8Array | undefined> {
    const { offset, length } = within(range, snapshot.size);
    this.#model.checkSnapshotSize(labelOf(snapshot), snapshot.size);
    const read = this.#model.calls.beginRead(labelOf(snapshot));
    const bytes = this.#buffers.take(length);
    const result = await this.#calls.outcome(GONE, () => snapshot.read(offset, bytes));
    if (read === undefined) return undefined;
    this.#model.calls.endRead(read, offset, result === 'done' ? bytes : undefined);
    if (result !== 'done') return undefined;
    this.#counters.snapshotsVerified++;
    // What is rotten may be zero at one moment and not at another.
    if (this.tolerated.length === 0)
      await this.#calls.outcome(GONE, () => checkZeros(snapshot, { offset, length }, bytes));
    if (use === 'compare') this.#buffers.give(bytes);
    return bytes;
  }

  async #writeSnapshot(snapshot: Snapshot, range: Range, zeros: boolean): Promise<void> {
    const { offset, length } = within(range, snapshot.size);
    if (length === 0) return;
    const bytes = new Uint8Array(length);
    if (!zeros) stampSectors(bytes, offset, this.#sequence++);
    if (!snapshot.writable) {
      const result = await this.#calls.outcome(GONE, () => snapshot.setWritable(true));
      if (result !== 'done') return;
    }
    // So that the model knows what is there before.
    if ((await this.#readSnapshot(snapshot, { offset, length })) === undefined) return;
    const write = this.#model.calls.beginWrite(labelOf(snapshot), offset, bytes);
    if (write === undefined) return;
    const call = async () => {
      if (this.#reverts.targets.has(snapshot))
        throw new RevertInProgressError('a revert to it is being asked for');
      await (zeros ? snapshot.writeZeroes(offset, length) : snapshot.write(offset, bytes));
    };
    this.#reverts.writes.add(snapshot);
    const refused = this.#protected.permittedOfSnapshot({ offset, length }, zeros);
    this.#model.calls.endWrite(write, await this.#calls.outcome([...NOT_WRITTEN, ...refused], call));
    this.#reverts.writes.delete(snapshot);
  }

  async #flushSnapshot(snapshot: Snapshot): Promise<void> {
    const flush = this.#model.calls.begin(labelOf(snapshot));
    const result = await this.#calls.outcome(GONE, () => snapshot.flush());
    if (flush !== undefined) this.#model.calls.endFlush(flush, result);
  }

  /** Every block that differs is reported as changed: between two neighbouring snapshots, or the last and now. */
  async #changed(volume: Volume): Promise<void> {
    const isUntilNow = this.#comparisons++ % 2 === 1;
    const [since, until] = volume.snapshots.slice(isUntilNow ? -1 : -2);
    if (since === undefined || (until === undefined && !isUntilNow)) return;
    await this.#calls.outcome(GONE, () => compareChanges(volume, this.#buffers, since, until));
  }
}

const blocksOf = (size: number): Range[] =>
  Array.from({ length: blocksIn(size) }, (_, block) => {
    const offset = block * BLOCK_SIZE;
    return { offset, length: Math.min(BLOCK_SIZE, size - offset) };
  });

const wholeOf = ({ size }: Snapshot): Range => ({ offset: 0, length: size });

/** As much of the range as there is. */
const within = ({ offset, length }: Range, size: number): Range => ({
  offset: Math.min(offset, size),
  length: Math.max(0, Math.min(length, size - offset)),
});

const snapshotOf = ({ snapshots }: Volume, { age }: { readonly age: number }): Snapshot | undefined =>
  snapshots[age % Math.max(1, snapshots.length)];

export const labelOf = ({ label }: Snapshot): string => label ?? '';
