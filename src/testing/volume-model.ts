/**
 * The oracle: a volume and its snapshots in memory, with everything that a right engine may show.
 *
 * The driver of a simulation reports each call to the engine when it begins and when it ends, and asks here about
 * whatever it reads. Nothing is assumed about when, between the two, a call happens (see `sector-history.ts`), so calls
 * may overlap in any way. After a crash `reconcile` accepts exactly the volumes and snapshots that the promises in
 * docs/reliability.md permit, and goes on from what was found.
 *
 * Ranges are whole sectors: below that, writes in flight together would mix within a sector. One set of snapshots over
 * several volumes needs models with one `Ticks`, and one `Moment`.
 * Left out: merges that were in flight at a crash.
 */
import { assert } from '../errors.js';
import { type BlockNumber, type ByteLength, type ByteOffset, SECTOR_SIZE } from '../units.js';
import type { CrashModel } from './crash-model.js';
import type { CallResult, PendingCall } from './model-calls.js';
import { checkSectors, report } from './model-mismatch.js';
import { type ModelRevert, revertWrites } from './model-revert.js';
import { ModelSizes } from './model-sizes.js';
import { lengthened, SectorHistory, type WriteRecord } from './sector-history.js';
import { SnapshotCalls } from './snapshot-calls.js';
import { differingSectors, type Moment, SnapshotModel } from './snapshot-model.js';
import { SpareBytes } from './spare-bytes.js';
import { Ticks } from './ticks.js';

export type { CallResult, PendingCall } from './model-calls.js';
export { ModelMismatch } from './model-mismatch.js';
export type { ModelRevert } from './model-revert.js';
export { Ticks } from './ticks.js';

export class VolumeModel {
  readonly ticks: Ticks;
  #history: SectorHistory;
  /** The last value written of each sector: nearly always the one that is found. */
  #likely: Uint8Array;
  #sizes: ModelSizes;
  readonly #snapshots = new Map<string, SnapshotModel>();
  /** Reads, writes and flushes of snapshots themselves. */
  readonly calls: SnapshotCalls;
  /** When the reads and creations in flight began: until they end, older values may still be seen. */
  readonly #readsAndCreations = new Set<number>();
  /** When the flushes in flight began. */
  readonly #flushes = new Set<number>();
  /** Shared with clones. */
  readonly #spare: SpareBytes;
  #crashed: { readonly model: CrashModel; readonly isBuffered: boolean; readonly at: number } | undefined;

  constructor(initial: Uint8Array, ticks = new Ticks(), spare = new SpareBytes()) {
    assert(
      initial.byteLength % SECTOR_SIZE === 0,
      () => `a volume has whole sectors, not ${initial.byteLength} bytes`,
    );
    this.ticks = ticks;
    this.#spare = spare;
    this.calls = new SnapshotCalls(ticks, (name) => this.#snapshots.get(name));
    this.#history = new SectorHistory(new Uint8Array(initial));
    this.#likely = new Uint8Array(initial);
    this.#sizes = new ModelSizes([initial.byteLength]);
  }

  /** The most bytes that the volume may have, or may have had. */
  get size(): ByteLength {
    return this.#likely.byteLength;
  }

  /**
   * An equal model with ticks of its own, to find out what one of several crashes at the same moment leaves. Calls
   * that are in flight cannot be ended there: a crash must follow.
   */
  clone(): VolumeModel {
    const copy = new VolumeModel(new Uint8Array(0), new Ticks(this.ticks.last), this.#spare);
    copy.#likely = this.#spare.copy(this.#likely);
    copy.#history = this.#history.clone(this.#spare);
    copy.#sizes = this.#sizes.clone();
    const moments = new Map<Moment, Moment>();
    for (const [name, snapshot] of this.#snapshots) {
      const moment = moments.get(snapshot.moment) ?? { ...snapshot.moment };
      moments.set(snapshot.moment, moment);
      copy.#snapshots.set(name, snapshot.clone(moment));
    }
    for (const start of this.#readsAndCreations) copy.#readsAndCreations.add(start);
    for (const start of this.#flushes) copy.#flushes.add(start);
    copy.#crashed = this.#crashed;
    return copy;
  }

  /** Nobody asks this one any more: its room is for its clones, and for what it is a clone of. */
  release(): void {
    for (const name of this.#snapshots.keys()) this.#remove(name);
    this.#spare.give(this.#likely);
    this.#likely = new Uint8Array(0);
    this.#history.release(this.#spare);
  }

  /** A write of whole sectors begins; its bytes are copied. */
  beginWrite(offset: ByteOffset, bytes: Uint8Array): WriteRecord {
    return this.#begin(offset, new Uint8Array(bytes));
  }

  /** A discard, or a write of zeros, begins. */
  beginDiscard(offset: ByteOffset, length: ByteLength): WriteRecord {
    return this.#begin(offset, new Uint8Array(length));
  }

  #begin(offset: ByteOffset, bytes: Uint8Array): WriteRecord {
    this.#checkRange(offset, bytes.byteLength);
    return this.#history.begin(offset, bytes, this.ticks.next());
  }

  /** A write or discard returned, or failed: then each of its sectors may be old or new; or it was refused, and did nothing. */
  endWrite(write: WriteRecord, result: 'done' | 'failed' | 'refused' = 'done'): void {
    if (result === 'refused') this.#history.withdraw(write);
    else this.#history.end(write, this.ticks.next(), result === 'failed');
    if (result === 'done') this.#likely.set(write.bytes, write.offset);
  }

  /**
   * The volume begins to read as something else as a whole, as by a revert: to be called at the moment from which that may be seen.
   * @param bytes of the whole volume
   * @param asked when it was asked for: what was acknowledged since may be newer, or older and gone
   * @param unused blocks that the snapshot may have left out: they become zeros, or stay as they are
   */
  beginRevert(
    bytes: Uint8Array,
    asked: PendingCall = this.tick(),
    unused: ReadonlySet<BlockNumber> = new Set<BlockNumber>(),
  ): ModelRevert {
    this.#checkRange(0, bytes.byteLength);
    return revertWrites(bytes, unused, (offset, part) => this.#history.begin(offset, part, asked.start));
  }

  /** The volume begins to become so long; one growth at a time. */
  beginGrow(size: ByteLength): void {
    this.#sizes.add(size);
    for (const snapshot of this.#snapshots.values()) if (!snapshot.isClosed) snapshot.sizes.add(size);
    if (size <= this.size) return;
    this.#history.extend(size);
    this.#likely = lengthened(this.#likely, size);
  }

  /** It has become so long, durably. What failed, or was cut off, may show until the next opening. */
  endGrow(size: ByteLength): void {
    this.#sizes.settle(size);
  }

  /** The volume was opened, and has so many bytes: durably from now on. @throws ModelMismatch */
  opened(size: ByteLength): void {
    this.#sizes.check('the volume', size);
    this.#sizes.settle(size);
  }

  /** The volume was seen to have so many bytes. @throws ModelMismatch */
  checkSize(size: ByteLength): void {
    this.#sizes.check('the volume', size);
  }

  /** The same of a snapshot, if there is one of that name whose creation is over. @throws ModelMismatch */
  checkSnapshotSize(name: string, size: ByteLength): void {
    const snapshot = this.#snapshots.get(name);
    if (snapshot?.isClosed !== true) return;
    snapshot.sizes.check(`snapshot ${name}`, size);
    snapshot.sizes.settle(size);
  }

  /** This moment, for calls that are reported later. */
  tick(): PendingCall {
    return { start: this.ticks.next() };
  }

  /** It does, durably; or the revert, or its cancelling, failed: then each sector may be as before or not. */
  endRevert({ whole, unsure }: ModelRevert, result: 'done' | 'failed' = 'done'): void {
    for (const write of whole) this.endWrite(write, result);
    for (const write of unsure) this.endWrite(write, 'failed');
    if (result === 'failed') return;
    const horizon = Math.min(...this.#readsAndCreations, Infinity);
    for (const write of whole) this.#history.makeStable(write, horizon);
  }

  beginFlush(): PendingCall {
    const flush = { start: this.ticks.next() };
    this.#flushes.add(flush.start);
    return flush;
  }

  /** A flush returned: every write that ended before it began is durable; or it failed, and they are in doubt. */
  endFlush(flush: PendingCall, result: 'done' | 'failed' = 'done'): void {
    this.ticks.next();
    this.#flushes.delete(flush.start);
    if (result === 'failed') this.#history.doom(flush.start);
    else this.#history.stabilize(flush.start, Math.min(...this.#readsAndCreations, Infinity));
  }

  beginRead(): PendingCall {
    const read = { start: this.ticks.next() };
    this.#readsAndCreations.add(read.start);
    return read;
  }

  /** A read returned whole sectors. @throws ModelMismatch */
  endRead(read: PendingCall, offset: ByteOffset, actual: Uint8Array): void {
    this.#checkRange(offset, actual.byteLength);
    this.cancelRead(read);
    // What was written last is always allowed: whatever could supersede it ended earlier, so it began earlier.
    this.#compare(offset, actual, (sector) =>
      this.#history.seen(sector, read.start).map(({ bytes }) => bytes),
    );
  }

  /** A read failed, so nothing is learnt. */
  cancelRead(read: PendingCall): void {
    this.#readsAndCreations.delete(read.start);
  }

  /** Everything at rest: the whole volume. @throws ModelMismatch */
  check(actual: Uint8Array): void {
    this.endRead(this.beginRead(), 0, actual);
  }

  /**
   * The creation of a snapshot begins.
   * @param moment shared with the other volumes of a set; from `beginMoment`
   * @param unused blocks that it may leave out
   */
  beginSnapshot(name: string, moment: Moment = this.beginMoment(), unused?: ReadonlySet<BlockNumber>): void {
    assert(!this.#snapshots.has(name), () => `the model has a snapshot ${name} already`);
    const start = this.ticks.next();
    const parts = { name, start, moment, sizes: this.#sizes.clone(), unused, spare: this.#spare };
    this.#snapshots.set(name, new SnapshotModel(parts));
    this.#readsAndCreations.add(start);
  }

  beginMoment(): Moment {
    return { after: this.ticks.next(), before: Infinity };
  }

  /**
   * The creation returned. `failed`: it is not there. `uncertain`: it is whole or absent, `reconcile` will tell. Its
   * deletion may have begun meanwhile.
   */
  endSnapshot(name: string, result: CallResult = 'done'): void {
    const snapshot = this.#snapshot(name);
    this.#close(snapshot, this.ticks.next());
    if (result === 'done' && snapshot.state === 'creating') snapshot.state = 'present';
    if (result === 'failed') this.#remove(name);
  }

  beginDelete(name: string): void {
    this.#snapshot(name).state = 'deleting';
  }

  /** The deletion returned. `failed`: it is still there. `uncertain`: it may be, `reconcile` will tell. */
  endDelete(name: string, result: CallResult = 'done'): void {
    if (result === 'done') this.#remove(name);
    if (result === 'failed') this.#snapshot(name).state = 'present';
  }

  /** The engine gave a snapshot up, and said so. */
  drop(name: string): void {
    this.#remove(name);
  }

  /** Is there, or may there be, a snapshot of that name? */
  has(name: string): boolean {
    return this.#snapshots.has(name);
  }

  /** Names of snapshots that are there for certain. */
  get snapshotNames(): string[] {
    return [...this.#snapshots.values()].filter(({ state }) => state === 'present').map(({ name }) => name);
  }

  /** Whole sectors of a snapshot that were read. @throws ModelMismatch */
  checkSnapshot(name: string, offset: ByteOffset, actual: Uint8Array): void {
    this.#checkRange(offset, actual.byteLength);
    report(this.#snapshot(name).check(offset, actual, this.ticks.next()));
  }

  /** A clean close made everything durable. */
  closed(): void {
    this.endFlush(this.beginFlush());
    for (const snapshot of this.#snapshots.values()) snapshot.flushed(this.ticks.next());
  }

  /**
   * Everything in flight is cut off. `reconcile` must follow, once the engine is open again.
   * Closing a volume whose flush failed, to open it again, counts as a kill.
   * @param isBuffered did the process hold acknowledged writes in its own memory? Then a kill, too, loses what was not flushed.
   */
  crash(model: CrashModel, isBuffered = false): void {
    const at = this.ticks.next();
    for (const snapshot of this.#snapshots.values()) {
      this.#close(snapshot, at);
      snapshot.crash();
    }
    this.#readsAndCreations.clear();
    // One in flight may have failed, and nobody was told.
    for (const start of this.#flushes) this.#history.doom(start);
    this.#flushes.clear();
    this.#crashed = { model, isBuffered, at };
  }

  /**
   * Compares what is found after a crash with the promises, and goes on from it.
   * @param snapshots the content of each snapshot that the engine lists
   * @throws ModelMismatch
   */
  reconcile(volume: Uint8Array, snapshots: ReadonlyMap<string, Uint8Array>): void {
    this.reconcileVolume(volume);
    this.reconcileNames([...snapshots.keys()]);
    for (const [name, actual] of snapshots) this.checkSnapshot(name, 0, actual);
  }

  /** The first part of `reconcile`: promise 1. */
  reconcileVolume(found: Uint8Array): void {
    assert(this.#crashed !== undefined, () => 'only a crash leaves anything to reconcile');
    this.#checkRange(0, found.byteLength);
    const { model, isBuffered, at } = this.#crashed;
    this.#sizes.found(found.byteLength, model);
    // Where it could have been longer nothing durable can be lost.
    const actual = lengthened(found, this.size);
    const isKept = model === 'kill' && !isBuffered;
    const isStable = (write: WriteRecord) =>
      write.stable || (isKept && !write.failed && !write.doomed && write.end !== Infinity);
    this.#compare(0, actual, (sector) => this.#history.surviving(sector, isStable));
    this.#likely.set(actual);
    if (model === 'kill') this.#history.adopt(actual, at, this.ticks.next());
    else this.#history.settle(actual);
    this.#crashed = undefined;
  }

  /** The second part: which snapshots there are. Those in doubt are decided by it. @param pending are there, and may not count */
  reconcileNames(found: readonly string[], pending: readonly string[] = []): void {
    const wrong: string[] = [];
    for (const name of [...found, ...pending]) {
      const snapshot = this.#snapshots.get(name);
      if (snapshot === undefined) wrong.push(`snapshot ${name} is there, but was deleted or never created`);
      else if (!pending.includes(name)) snapshot.state = 'present';
    }
    for (const { name, state } of [...this.#snapshots.values()]) {
      if (found.includes(name) || pending.includes(name)) continue;
      if (state === 'present') wrong.push(`snapshot ${name} was created and is gone`);
      this.#remove(name);
    }
    report(wrong);
  }

  #compare(offset: ByteOffset, actual: Uint8Array, allowedIn: (sector: number) => Uint8Array[]): void {
    checkSectors(differingSectors(this.#likely, offset, actual), offset, actual, allowedIn);
  }

  #close(snapshot: SnapshotModel, now: number): void {
    if (snapshot.isClosed) return;
    snapshot.close(this.#history, now);
    this.#readsAndCreations.delete(snapshot.start);
  }

  #remove(name: string): void {
    const snapshot = this.#snapshots.get(name);
    if (snapshot === undefined) return;
    this.#readsAndCreations.delete(snapshot.start);
    snapshot.release();
    this.#snapshots.delete(name);
  }

  #snapshot(name: string): SnapshotModel {
    const snapshot = this.#snapshots.get(name);
    assert(snapshot !== undefined, () => `the model has no snapshot ${name}`);
    return snapshot;
  }

  #checkRange(offset: ByteOffset, length: ByteLength): void {
    const isWhole = offset % SECTOR_SIZE === 0 && length % SECTOR_SIZE === 0;
    assert(isWhole && offset >= 0 && offset + length <= this.size, () => {
      return `the model takes whole sectors within ${this.size} bytes, not ${length} bytes at ${offset}`;
    });
  }
}
