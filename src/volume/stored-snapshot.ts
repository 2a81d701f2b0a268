/** A snapshot in a store of volsnap. */

import { asTarget, checkRange, lengthOf } from '../arguments.js';
import { type AllocationExtent, merged } from '../device/allocation.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { IntegrityError, OfflineError, ReadOnlyError } from '../errors.js';
import { SnapshotFlag, SnapshotState } from '../format/control-block.js';
import { millisecondsFromFiletime } from '../format/filetime.js';
import { NIL_GUID } from '../format/guid.js';
import { snapshotAllocation } from '../snapshot/allocation.js';
import { readSnapshot } from '../snapshot/reader.js';
import type { SnapshotRecord } from '../snapshot/record.js';
import type { DeleteSnapshotOptions, Snapshot, SnapshotChange } from '../snapshot/snapshot.js';
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

  async read(offset: ByteOffset, target: ByteLength | Uint8Array): Promise<Uint8Array> {
    checkRange(offset, lengthOf(target), this.size);
    this.#checkReadable();
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
    this.#checkReadable();
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
    if (!this.#writable) throw new ReadOnlyError('the volume is open for reading only');
    signal?.throwIfAborted();
    const { chain, copyOnWrite, life, merging } = this.#engine;
    await life.run(() => chain.remove(this.#record, copyOnWrite, 'requested'));
    merging.wake();
    // Not as a call under way: a close does not wait for it, but ends it.
    if (wait) await merging.done(this.#record, { signal, onProgress });
  }
}
