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
  HoldTimeoutError,
  NotFoundError,
  RevertInProgressError,
  type Snapshot,
  VolsnapError,
  type Volume,
} from '../../src/index.js';
import { BlockLocks } from '../../src/nbd/client/block-locks.js';
import { ModelMismatch, stampSectors, type VolumeModel } from '../../src/testing/index.js';
import type { ModelRevert, PendingCall } from '../../src/testing/volume-model.js';
import { BLOCK_SIZE, blocksIn } from '../../src/units.js';
import type { RunCounters } from './counters.js';
import type { Cycle, Operation, Range } from './plan.js';
import { drawUnused, NO_BLOCKS, providerOf, zeroBlocksOf } from './unused.js';

/** Codes of the errors that a call may end in. */
export type Permitted = readonly ErrorCode[];

const NO_ERROR: Permitted = [];
/** A snapshot may go at any moment. */
const GONE: Permitted = ['SNAPSHOT_DELETED'];
const REVERTING: Permitted = ['REVERT_IN_PROGRESS'];
const NOT_CREATED: Permitted = ['HOLD_TIMEOUT', 'NO_SPACE', 'LIMIT', ...REVERTING];
const NOT_REVERTED: Permitted = [...NOT_CREATED, ...GONE];
const NOT_CANCELLED: Permitted = ['NOT_FOUND', 'HOLD_TIMEOUT'];
/** What moved within the volume is copied first. */
const NOT_DELETED: Permitted = [...GONE, ...REVERTING, 'NO_SPACE'];
const NOT_WRITTEN: Permitted = [...GONE, ...REVERTING, 'NO_SPACE'];
const NOT_MERGED: Permitted = ['NO_SPACE', 'CLOSED'];
/** Besides the others, while devices fail. */
export const DEVICE_FAILS: Permitted = ['DEVICE', 'NO_SPACE'];
/** Besides the others, where the store is known to be damaged. */
export const DAMAGED: Permitted = ['INTEGRITY', 'FORMAT', 'UNSUPPORTED'];

type CreateOperation = Operation & { readonly kind: 'create' };

interface AskedRevert {
  readonly content: Uint8Array;
  readonly asked: PendingCall;
  readonly unused: ReadonlySet<number>;
  seen?: ModelRevert;
}

/** How often something is in use. */
class Tally<T> {
  readonly #counts = new Map<T, number>();

  has(item: T): boolean {
    return (this.#counts.get(item) ?? 0) > 0;
  }

  add(item: T): void {
    this.#counts.set(item, (this.#counts.get(item) ?? 0) + 1);
  }

  delete(item: T): void {
    this.#counts.set(item, (this.#counts.get(item) ?? 1) - 1);
  }
}

export class Workload {
  readonly #model: VolumeModel;
  readonly #counters: RunCounters;
  /** Keeps changes away from ranges that are copied. */
  #changing = new BlockLocks();
  #sequence = 1;
  #label = 0;
  #comparisons = 0;
  #holdTimeoutMs = 10_000;
  /** Errors that any call may end in for now, because of what is done to the devices. */
  tolerated: Permitted = NO_ERROR;
  /** Has a revert been asked for? Then what the volume's device holds need not be the volume. */
  mayRevert = false;
  /** Was there no room for copies that a revert needs? Then writes, and with a buffer all that follows, may fail. */
  isShortOfSpace = false;
  /** Reverts that have not begun, by the label of the snapshot that is taken first: what they go to, and since when that may be seen. */
  readonly #reverts = new Map<string, AskedRevert>();
  #isCancelling = false;
  /** Snapshots that are being written, and those that a revert to is being asked for: it must be known what they hold. */
  readonly #writes = new Tally<Snapshot>();
  readonly #targets = new Tally<Snapshot>();
  /** Snapshots that are to go with the revert that they were taken for. */
  readonly #unwanted = new Set<string>();
  /** Snapshots that are to go when the volume is closed, or at the next opening. */
  readonly #passing = new Set<string>();
  /** What was wrong besides the answers to calls. */
  readonly complaints: string[] = [];
  /** Are there snapshots whose diff areas have not arrived? Those that must be there when they have. */
  isWaiting = false;
  readonly #awaited = new Set<string>();

  constructor(model: VolumeModel, counters: RunCounters) {
    this.#model = model;
    this.#counters = counters;
  }

  /** What another workload has left behind: snapshots that are to go with their revert, or with the open volume. */
  follow(other: Workload): void {
    for (const label of other.#unwanted) this.#unwanted.add(label);
    for (const label of other.#passing) this.#passing.add(label);
  }

  /** After `listen`, of a volume without its diff areas: until they have arrived a crash may take the snapshots. */
  waitFor(volume: Volume): void {
    this.#awaited.clear();
    this.isWaiting = volume.recovery.warnings.some((text) => text.includes('has not arrived'));
    if (volume.snapshots.length > 0)
      this.complaints.push('snapshots are shown whose diff areas are not there');
    for (const label of this.#model.snapshotNames) {
      this.#model.beginDelete(label);
      this.#awaited.add(label);
    }
  }

  /** Must be called for each volume that is opened, at once: tells the model of snapshots that go. */
  listen(volume: Volume): void {
    // What was under way before a crash never ends.
    this.#reverts.clear();
    this.#isCancelling = false;
    // Opening deletes those whose revert is over, before anybody listens.
    for (const label of this.#unwanted) if (this.#model.has(label)) this.#model.beginDelete(label);
    this.#passAway(volume);
    const labels = new Map(volume.snapshots.map(({ id, label }) => [id, label ?? '']));
    volume.on('created', ({ id, label = '' }) => {
      labels.set(id, label);
      const revert = this.#reverts.get(label);
      if (revert === undefined) return;
      // Writes are held: this is the moment. What it goes back to is seen, and may be durable, from now on.
      this.#model.endSnapshot(label);
      revert.seen = this.#model.beginRevert(revert.content, revert.asked, revert.unused);
    });
    volume.on('overflow', () => this.#noteOverflow(volume));
    volume.on('deleting', ({ id }) => {
      const label = labels.get(id);
      // Of one that nobody was shown, because it expired, that is known. Of those whose diff area is late each may be gone.
      if (label === undefined) this.#awaited.clear();
      else this.#model.beginDelete(label);
    });
    volume.on('deleted', ({ id, reason }) => {
      if (reason !== 'requested' && reason !== 'released') this.#counters.snapshotsGivenUp++;
      const label = labels.get(id);
      if (label !== undefined) this.#model.drop(label);
      if (reason === 'late') this.isWaiting = false;
    });
    volume.on('arrived', () => {
      this.#counters.lateArrivals++;
      for (const { id, label = '' } of volume.snapshots) labels.set(id, label);
      for (const label of this.#awaited) this.#model.endDelete(label, 'failed');
      this.#awaited.clear();
      this.isWaiting = false;
    });
    volume.on('deleted', ({ reason, cause }) => {
      if (reason === 'copy-failed') this.#expectFault('a snapshot was given up', cause);
    });
    volume.on('merged', ({ blocks }) => {
      this.#counters.snapshotsMerged++;
      this.#counters.blocksMerged += blocks;
    });
    volume.on('backgroundFailure', ({ what, error }) => {
      if (isOutOfSpace(error)) this.#noteOverflow(volume);
      if (!isOutOfSpace(error)) this.#expectFault(what, error);
    });
    volume.on('unusedSpaceUnknown', ({ reason, error }) => {
      if (!isOutOfSpace(error)) this.#expectFault(reason, error ?? reason);
    });
    volume.on('integrityFailure', ({ error }) => this.#expectFault('a copy is damaged', error));
  }

  /** None that was to go with the volume as it was open before is there now. */
  #passAway({ snapshots }: Volume): void {
    const left = snapshots.map(labelOf).filter((label) => this.#passing.has(label));
    if (left.length > 0)
      this.complaints.push(`still there after the volume was opened again: ${left.join(', ')}`);
    for (const label of this.#passing) if (this.#model.has(label)) this.#model.beginDelete(label);
  }

  /** A revert needs its snapshots, so none of them makes room. */
  #noteOverflow({ figures }: Volume): void {
    if (figures.revert === undefined && this.#reverts.size === 0) return;
    this.isShortOfSpace = true;
    if (this.tolerated.length === 0) this.tolerated = DEVICE_FAILS;
  }

  /** Something happened that only failing devices or rot can cause. Listeners must not throw, so it is only noted. */
  #expectFault(what: string, cause: unknown): void {
    if (cause instanceof AssertionError) this.complaints.push(`${what}: ${cause}`);
    else if (this.tolerated.length === 0)
      this.complaints.push(`${what}, though nothing was done to the devices: ${cause}`);
  }

  async run(volume: Volume, { operations, clients }: Pick<Cycle, 'operations' | 'clients'>): Promise<void> {
    // Calls that a crash cut off never end.
    this.#changing = new BlockLocks();
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
        await this.#outcome(REVERTING, () => volume.deleteOldest());
        return;
      case 'delete-all':
        await this.#outcome(REVERTING, () => volume.deleteOldest(volume.snapshots.length));
        return;
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
        await this.#outcome(NO_ERROR, () => volume.setMaximumSize(operation.maximum));
        return;
      case 'revert':
        return this.#revert(volume, operation);
      case 'cancel-revert':
        return this.#cancelRevert(volume);
      case 'shorten-hold':
        this.#holdTimeoutMs = this.#holdTimeoutMs === 1 ? 10_000 : 1;
    }
  }

  async #write(volume: Volume, { offset, length }: Range, zeros: boolean): Promise<void> {
    const bytes = new Uint8Array(length);
    if (!zeros) stampSectors(bytes, offset, this.#sequence++);
    await this.#changing.run(offset, offset + length, false, async () => {
      const write = this.#model.beginWrite(offset, bytes);
      this.#model.endWrite(write, await this.#outcome(NO_ERROR, () => volume.write(offset, bytes)));
    });
  }

  /** Nothing else is written where it reads and writes: else nobody could say what it copied. */
  async #copy(volume: Volume, from: number, { offset, length }: Range): Promise<void> {
    const [start, end] = [Math.min(from, offset), Math.max(from, offset) + length];
    await this.#changing.run(start, end, true, async () => {
      const bytes = new Uint8Array(length);
      if ((await this.#outcome(NO_ERROR, () => volume.read(from, bytes))) !== 'done') return;
      const write = this.#model.beginWrite(offset, bytes);
      const call = () => volume.copyRange(from, offset, length);
      this.#model.endWrite(write, await this.#outcome(NO_ERROR, call));
    });
  }

  async #clear(volume: Volume, { offset, length }: Range, kind: 'discard' | 'zeroes'): Promise<void> {
    await this.#changing.run(offset, offset + length, false, async () => {
      const write = this.#model.beginDiscard(offset, length);
      const call = () =>
        kind === 'discard' ? volume.discard(offset, length) : volume.writeZeroes(offset, length);
      this.#model.endWrite(write, await this.#outcome(NO_ERROR, call));
    });
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
    const error = await this.#errorOf(NOT_CREATED, call);
    if (error === undefined) this.#counters.snapshotsTaken++;
    // Gone already: it was deleted before its creation returned.
    if (!this.#model.has(label)) return;
    // After an error of the device only the next opening tells.
    const failed = error instanceof HoldTimeoutError ? 'failed' : 'uncertain';
    this.#model.endSnapshot(label, error === undefined ? 'done' : failed);
  }

  async #revert(volume: Volume, { age, keep }: { age: number; keep: boolean }): Promise<void> {
    const target = snapshotOf(volume, { age });
    // What is being written to it may be in what the volume goes back to, or not.
    if (target === undefined || this.#writes.has(target)) return;
    this.#targets.add(target);
    await this.#revertTo(volume, target, keep);
    this.#targets.delete(target);
  }

  async #revertTo(volume: Volume, target: Snapshot, keep: boolean): Promise<void> {
    // Read, it holds one value in each sector and no other.
    const content = await this.#readSnapshot(target);
    if (content === undefined) return;
    this.mayRevert = true;
    const label = `s${this.#label++}`;
    const unused = target.unusedBytes > 0 ? zeroBlocksOf(content) : NO_BLOCKS;
    const revert: AskedRevert = { content, unused, asked: this.#model.tick() };
    this.#reverts.set(label, revert);
    if (!keep) this.#unwanted.add(label);
    this.#model.beginSnapshot(label);
    const call = async () => {
      const holdTimeoutMs = this.#holdTimeoutMs;
      await this.#whileNothingIsCopied(
        volume,
        () => volume.revert(target, { label, holdTimeoutMs, keepPrevious: keep }).begun,
      );
    };
    const error = await this.#errorOf(NOT_REVERTED, call);
    this.#reverts.delete(label);
    if (revert.seen !== undefined) {
      this.#model.endRevert(revert.seen, error === undefined ? 'done' : 'failed');
      if (error === undefined) this.#counters.reverts++;
    } else if (this.#model.has(label)) {
      // It was one that was under way already, or nothing came of it; after an error of the device the next opening tells.
      const isAbsent = error === undefined || error.code !== 'DEVICE';
      this.#model.endSnapshot(label, isAbsent ? 'failed' : 'uncertain');
    }
  }

  /** What a copy within the volume reads is what its model has read before. */
  #whileNothingIsCopied(volume: Volume, action: () => Promise<void>): Promise<void> {
    return this.#changing.run(0, volume.size, false, action);
  }

  /** All that was written since the revert began goes. */
  async #cancelRevert(volume: Volume): Promise<void> {
    const status = () => volume.figures.revert;
    const { previousId, phase } = status() ?? {};
    const previous = volume.snapshots.find(({ id }) => id === previousId);
    if (previous === undefined || phase === 'cancelling' || this.#isCancelling) return;
    this.#isCancelling = true;
    const content = await this.#readSnapshot(previous);
    if (content !== undefined && status()?.previousId === previousId) {
      const seen = this.#model.beginRevert(content);
      const error = await this.#errorOf(NOT_CANCELLED, () =>
        this.#whileNothingIsCopied(volume, async () => {
          if (status()?.previousId !== previousId) throw new NotFoundError('the revert is over');
          await volume.reverting?.cancel();
        }),
      );
      this.#model.endRevert(seen, error === undefined ? 'done' : 'failed');
      if (error === undefined) this.#counters.revertsCancelled++;
    }
    this.#isCancelling = false;
  }

  /** Snapshots that should have gone with a revert that is over. */
  unwantedIn({ snapshots, figures }: Volume): string[] {
    return figures.revert === undefined
      ? snapshots.map(labelOf).filter((label) => this.#unwanted.has(label))
      : [];
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
  async #readSnapshot(
    snapshot: Snapshot,
    { offset, length }: Range = { offset: 0, length: snapshot.size },
  ): Promise<Uint8Array | undefined> {
    const read = this.#model.beginSnapshotRead(labelOf(snapshot));
    const bytes = new Uint8Array(length);
    const result = await this.#outcome(GONE, () => snapshot.read(offset, bytes));
    if (read === undefined) return undefined;
    this.#model.endSnapshotRead(read, offset, result === 'done' ? bytes : undefined);
    if (result !== 'done') return undefined;
    this.#counters.snapshotsVerified++;
    // What is rotten may be zero at one moment and not at another.
    if (this.tolerated.length === 0)
      await this.#outcome(GONE, () => checkZeros(snapshot, { offset, length }, bytes));
    return bytes;
  }

  async #writeSnapshot(snapshot: Snapshot, range: Range, zeros: boolean): Promise<void> {
    const { offset, length } = range;
    const bytes = new Uint8Array(length);
    if (!zeros) stampSectors(bytes, offset, this.#sequence++);
    if (!snapshot.writable) {
      const result = await this.#outcome(GONE, () => snapshot.setWritable(true));
      if (result !== 'done') return;
    }
    // So that the model knows what is there before.
    if ((await this.#readSnapshot(snapshot, range)) === undefined) return;
    const write = this.#model.beginSnapshotWrite(labelOf(snapshot), offset, bytes);
    if (write === undefined) return;
    const call = async () => {
      if (this.#targets.has(snapshot)) throw new RevertInProgressError('a revert to it is being asked for');
      await (zeros ? snapshot.writeZeroes(offset, length) : snapshot.write(offset, bytes));
    };
    this.#writes.add(snapshot);
    this.#model.endSnapshotWrite(write, await this.#outcome(NOT_WRITTEN, call));
    this.#writes.delete(snapshot);
  }

  async #flushSnapshot(snapshot: Snapshot): Promise<void> {
    const flush = this.#model.beginSnapshotFlush(labelOf(snapshot));
    const result = await this.#outcome(GONE, () => snapshot.flush());
    if (flush !== undefined) this.#model.endSnapshotFlush(flush, result);
  }

  /** Every block that differs is reported as changed: between two neighbouring snapshots, or the last and now. */
  async #changed(volume: Volume): Promise<void> {
    const isUntilNow = this.#comparisons++ % 2 === 1;
    const [since, until] = volume.snapshots.slice(isUntilNow ? -1 : -2);
    if (since === undefined || (until === undefined && !isUntilNow)) return;
    await this.#outcome(GONE, async () => {
      // Read first: what is written meanwhile may be reported or not.
      const after = await (until ?? volume).read(0, until?.size ?? volume.size);
      const before = await since.read(0, since.size);
      const changed = new Uint8Array(volume.size);
      for await (const { offset, length } of volume.changedBlocks(until ? { since, until } : { since }))
        changed.fill(1, offset, offset + length);
      // That block is compared, and may be equal again by then.
      const mayChange = isUntilNow || since.writable || until?.writable === true;
      if (mayChange && volume.figures.layout === 'in-volume') changed.fill(1, 0, BLOCK_SIZE);
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

const snapshotOf = ({ snapshots }: Volume, { age }: { readonly age: number }): Snapshot | undefined =>
  snapshots[age % Math.max(1, snapshots.length)];

export const labelOf = ({ label }: Snapshot): string => label ?? '';
