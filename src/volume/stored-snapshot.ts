/** A snapshot in a store of volsnap. */

import { asTarget, checkRange, lengthOf } from '../arguments.js';
import { type HeldRange, lessHeld } from '../copy-on-write/held-zeros.js';
import { type AllocationExtent, merged } from '../device/allocation.js';
import { writeZeros } from '../device/zeros.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { IntegrityError, InvalidArgumentError, OfflineError, ReadOnlyError } from '../errors.js';
import { SnapshotFlag, SnapshotState } from '../format/control-block.js';
import { millisecondsFromFiletime } from '../format/filetime.js';
import { NIL_GUID } from '../format/guid.js';
import { snapshotAllocation } from '../snapshot/allocation.js';
import { deleteSnapshot } from '../snapshot/delete.js';
import { readSnapshot } from '../snapshot/reader.js';
import type { Hold, SnapshotRecord } from '../snapshot/record.js';
import type { DeleteSnapshotOptions, HoldOptions, Snapshot, SnapshotChange } from '../snapshot/snapshot.js';
import { SnapshotWrites } from '../snapshot/writes.js';
import { BLOCK_SIZE, type ByteLength, type ByteOffset, blockOf } from '../units.js';
import { extentsOf, runsOf } from './changed-blocks.js';
import { clearRange } from './clearing.js';
import type { Engine } from './engine.js';

/** Bytes of zeros that are written at once. */
const ZEROS_AT_ONCE = 4 * 1024 * 1024;

export class StoredSnapshot implements Snapshot {
  readonly #engine: Engine;
  readonly #record: SnapshotRecord;
  readonly #writable: boolean;
  readonly #writes: SnapshotWrites | undefined;

  constructor(engine: Engine, record: SnapshotRecord, writable: boolean) {
    this.#engine = engine;
    this.#record = record;
    this.#writable = writable;
    this.#writes = record.area && new SnapshotWrites(engine, record, record.area);
  }

  get id() {
    return this.#record.id;
  }

  get storeId() {
    return this.#record.id;
  }

  get setId() {
    return this.#record.area?.information.setId ?? NIL_GUID;
  }

  get inSet() {
    return this.#record.area?.information.coordinator !== undefined;
  }

  get label() {
    return this.#record.area?.information.label;
  }

  get applicationInfo() {
    return this.#record.area?.information.agentBytes;
  }

  get createdAt() {
    return new Date(millisecondsFromFiletime(this.#record.item.createdAt));
  }

  get order() {
    return this.#record.item.order;
  }

  get size() {
    return this.#record.item.volumeSize;
  }

  get usedBytes() {
    return this.#record.area?.usedBytes ?? 0;
  }

  get unusedBytes() {
    return Math.min(this.size, (this.#record.area?.unused?.count ?? 0) * BLOCK_SIZE);
  }

  get allocatedBytes() {
    return this.#record.area?.allocatedBytes ?? 0;
  }

  get movedBytes() {
    return (this.#record.area?.moves.size ?? 0) * BLOCK_SIZE;
  }

  get state() {
    if (this.#record.deleted !== undefined) return 'deleted';
    if (this.#record.damage !== undefined) return 'damaged';
    return (this.#record.state & SnapshotState.setPending) === 0 ? 'ok' : 'pending';
  }

  get persistent() {
    return (this.#record.state & SnapshotState.volatile) === 0;
  }

  get autoRelease() {
    return (this.#record.state & SnapshotState.autoRelease) !== 0;
  }

  get hidden() {
    return (this.#record.item.flags & SnapshotFlag.visible) === 0;
  }

  get offline() {
    return (this.#record.item.flags & SnapshotFlag.offline) !== 0;
  }

  get problem() {
    return this.#record.deleted ?? this.#record.damage?.message;
  }

  get held() {
    return this.#engine.chain.keeping.isHeld(this.#record);
  }

  get heldUntil() {
    const until = this.#record.hold?.until;
    return until === undefined || !this.held ? undefined : new Date(until);
  }

  async read(offset: ByteOffset, target: ByteLength | Uint8Array): Promise<Uint8Array> {
    checkRange(offset, lengthOf(target), this.size);
    this.#checkReadable();
    const buffer = asTarget(target);
    try {
      await this.#engine.life.run(() => this.#record.whileReading(() => this.#read(offset, buffer)));
    } catch (error) {
      if (error instanceof IntegrityError) this.#engine.emit('integrityFailure', { id: this.id, error });
      throw error;
    }
    return buffer;
  }

  async #read(offset: ByteOffset, buffer: Uint8Array): Promise<void> {
    const { device, threadReads } = this.#engine;
    await readSnapshot(() => this.#areas(), device, offset, buffer, threadReads);
    // What it is laid over never changes, so the order does not matter.
    await this.#writes?.layOver(offset, buffer);
  }

  get writable() {
    return this.#record.isWritable;
  }

  async write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    checkRange(offset, source.byteLength, this.size);
    const writes = this.#writing();
    this.#engine.protectedBlocks?.checkSnapshotWrite(offset, source);
    await this.#engine.life.run(() => writes.write(offset, source));
  }

  async writeZeroes(offset: ByteOffset, length: ByteLength): Promise<void> {
    checkRange(offset, length, this.size);
    this.#writing();
    const write = (at: ByteOffset, source: Uint8Array) => this.write(at, source);
    await clearRange(this, { offset, length }, ZEROS_AT_ONCE, (at, part) => writeZeros(write, at, part));
  }

  async flush(): Promise<void> {
    if (!this.#writable || this.#record.area?.overlays.isEmpty !== false) return;
    await this.#engine.life.run(() => this.flushWrites());
  }

  /** @internal As `flush`, also while the volume is being closed. */
  async flushWrites(): Promise<void> {
    if (this.#record.area?.overlays.isEmpty === false) await this.#writes?.flush();
  }

  async setWritable(writable: boolean): Promise<void> {
    this.#checkWritableVolume();
    const { life, store } = this.#engine;
    await life.run(async () => {
      this.#record.checkExists();
      if (this.#record.isWritable === writable) return;
      const change = writable ? { set: SnapshotFlag.writable } : { clear: SnapshotFlag.writable };
      this.#record.takeFlags(await store.control.setFlags(this.id, change));
    });
  }

  #checkWritableVolume(): void {
    if (!this.#writable) throw new ReadOnlyError('the volume is open for reading only');
  }

  /** @throws ReadOnlyError, SnapshotDeletedError, FormatError (damaged), OfflineError */
  #writing(): SnapshotWrites {
    this.#checkWritableVolume();
    this.#record.checkExists();
    this.#checkReadable();
    if (this.#writes === undefined || !this.#record.isWritable)
      throw new ReadOnlyError(`snapshot ${this.id} may only be read; setWritable(true) changes that`);
    return this.#writes;
  }

  async *allocation(offset: ByteOffset, length: ByteLength): AsyncGenerator<AllocationExtent> {
    const { life, device } = this.#engine;
    checkRange(offset, length, this.size);
    this.#checkReadable();
    life.check();
    this.#record.checkExists();
    const zeros = snapshotAllocation(() => this.#areas(), device, offset, length);
    for await (const extent of merged(lessHeld(zeros, offset, this.#written(offset, length)))) {
      life.check();
      this.#record.checkExists();
      yield extent;
    }
  }

  /** Blocks of the range that were written to this snapshot itself. */
  #written(offset: ByteOffset, length: ByteLength): HeldRange[] {
    const overlays = this.#record.area?.overlays;
    if (overlays === undefined || overlays.isEmpty || length === 0) return [];
    const runs = runsOf([overlays], blockOf(offset), blockOf(offset + length - 1) + 1);
    return [...extentsOf(runs, this.size)].map((run) => ({
      offset: run.offset,
      end: run.offset + run.length,
    }));
  }

  /** Diff areas of this snapshot and of all newer ones; only an older snapshot can be without one. */
  #areas(): readonly DiffArea[] {
    return this.#engine.chain.areasFrom(this.#record);
  }

  /** @throws FormatError (damaged), OfflineError */
  #checkReadable(): void {
    if (this.#record.damage !== undefined) throw this.#record.damage;
    if (this.offline) throw new OfflineError(`snapshot ${this.id} is offline; take it online first`);
  }

  async change({ hidden = this.hidden, offline = this.offline }: SnapshotChange): Promise<void> {
    if (!this.#writable) throw new ReadOnlyError('the volume is open for reading only');
    const { store, life } = this.#engine;
    const { visible, offline: offlineFlag } = SnapshotFlag;
    const set = (hidden ? 0 : visible) | (offline ? offlineFlag : 0);
    await life.run(async () => {
      this.#record.checkExists();
      const clear = (visible | offlineFlag) & ~set;
      this.#record.takeFlags(await store.control.setFlags(this.id, { set, clear }));
    });
  }

  async delete({ wait = false, signal, onProgress }: DeleteSnapshotOptions = {}): Promise<void> {
    this.#checkWritableVolume();
    signal?.throwIfAborted();
    const { life, merging } = this.#engine;
    await life.run(() => deleteSnapshot(this.#engine, this.#record));
    merging.wake();
    // Not as a call under way: a close does not wait for it, but ends it.
    if (wait) await merging.done(this.#record, { signal, onProgress });
  }

  async hold({ until }: HoldOptions = {}): Promise<void> {
    const { clock } = this.#engine.environment;
    if (until !== undefined && !(until.getTime() > clock.now())) {
      throw new InvalidArgumentError(
        `a snapshot is held until a date to come, got ${Number.isNaN(until.getTime()) ? 'no date' : until.toISOString()}`,
      );
    }
    await this.#setHold({ until: until?.getTime() });
  }

  async release(): Promise<void> {
    await this.#setHold(undefined);
    // It may have rested because nothing that was left could go.
    this.#engine.reverts.resume();
  }

  async #setHold(hold: Hold | undefined): Promise<void> {
    if (!this.#writable) throw new ReadOnlyError('the volume is open for reading only');
    const { chain, life } = this.#engine;
    await life.run(() => chain.setHold(this.#record, hold));
  }
}
