/** A snapshot in a store of volsnap. */

import { asTarget, checkRange, lengthOf } from '../arguments.js';
import { type AllocationExtent, merged } from '../device/allocation.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { IntegrityError, InvalidArgumentError, ReadOnlyError } from '../errors.js';
import { millisecondsFromFiletime } from '../format/filetime.js';
import { NIL_GUID } from '../format/guid.js';
import { snapshotAllocation } from '../snapshot/allocation.js';
import { readSnapshot } from '../snapshot/reader.js';
import type { Hold, SnapshotRecord } from '../snapshot/record.js';
import type { DeleteSnapshotOptions, HoldOptions, Snapshot } from '../snapshot/snapshot.js';
import { BLOCK_SIZE, type ByteLength, type ByteOffset } from '../units.js';
import type { Engine } from './engine.js';

export class StoredSnapshot implements Snapshot {
  readonly #engine: Engine;
  readonly #record: SnapshotRecord;
  readonly #writable: boolean;

  constructor(engine: Engine, record: SnapshotRecord, writable: boolean) {
    this.#engine = engine;
    this.#record = record;
    this.#writable = writable;
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

  get state() {
    if (this.#record.deleted !== undefined) return 'deleted';
    return this.#record.damage === undefined ? 'ok' : 'damaged';
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
    const { damage } = this.#record;
    if (damage !== undefined) throw damage;
    const buffer = asTarget(target);
    try {
      await this.#engine.life.run(() =>
        this.#record.whileReading(() =>
          readSnapshot(() => this.#areas(), this.#engine.device, offset, buffer),
        ),
      );
    } catch (error) {
      if (error instanceof IntegrityError) this.#engine.emit('integrityFailure', { id: this.id, error });
      throw error;
    }
    return buffer;
  }

  async *allocation(offset: ByteOffset, length: ByteLength): AsyncGenerator<AllocationExtent> {
    const { life, device } = this.#engine;
    checkRange(offset, length, this.size);
    if (this.#record.damage !== undefined) throw this.#record.damage;
    life.check();
    this.#record.checkExists();
    for await (const extent of merged(snapshotAllocation(() => this.#areas(), device, offset, length))) {
      life.check();
      this.#record.checkExists();
      yield extent;
    }
  }

  /** Diff areas of this snapshot and of all newer ones; only an older snapshot can be without one. */
  #areas(): readonly DiffArea[] {
    return this.#engine.chain.areasFrom(this.#record);
  }

  async delete({ wait = false, signal, onProgress }: DeleteSnapshotOptions = {}): Promise<void> {
    if (!this.#writable) throw new ReadOnlyError('the volume is open for reading only');
    signal?.throwIfAborted();
    const { chain, copyOnWrite, life, merging } = this.#engine;
    await life.run(() => chain.remove(this.#record, copyOnWrite, 'requested'));
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
