/** A snapshot of a volume that another process serves, as the last answer described it. */
import type { AllocationExtent } from '../device/allocation.js';
import { writeZeros } from '../device/zeros.js';
import { InvalidArgumentError } from '../errors.js';
import type { SettledOptions } from '../snapshot/merging.js';
import type { DeleteSnapshotOptions, HoldOptions, Snapshot, SnapshotChange } from '../snapshot/snapshot.js';
import type { ByteLength, ByteOffset } from '../units.js';
import { clearRange } from '../volume/clearing.js';
import type { SnapshotState } from './control-protocol.js';
import type { RemoteContent } from './remote-content.js';

/** Bytes of zeros that are written at once. */
const ZEROS_AT_ONCE = 4 * 1024 * 1024;

/** The volume, as its snapshots need it. */
export interface SnapshotOwner {
  readonly content: RemoteContent;
  setWritable(storeId: string, writable: boolean): Promise<void>;
  changeSnapshot(storeId: string, change: SnapshotChange): Promise<void>;
  deleteOne(storeId: string): Promise<void>;
  settled(options?: SettledOptions): Promise<void>;
  holdSnapshot(storeId: string, until: number | undefined): Promise<void>;
  releaseSnapshot(storeId: string): Promise<void>;
}

export class RemoteSnapshot implements Snapshot {
  readonly #volume: SnapshotOwner;
  #state: SnapshotState;
  #deleted = false;

  constructor(volume: SnapshotOwner, state: SnapshotState) {
    this.#volume = volume;
    this.#state = state;
  }

  take(state: SnapshotState): void {
    this.#state = state;
  }

  markDeleted(): void {
    this.#deleted = true;
  }

  get id() {
    return this.#state.id;
  }

  get storeId() {
    return this.#state.storeId;
  }

  get setId() {
    return this.#state.setId;
  }

  get inSet() {
    return this.#state.inSet;
  }

  get label() {
    return this.#state.label;
  }

  get applicationInfo() {
    const { applicationInfo } = this.#state;
    return applicationInfo === undefined ? undefined : Buffer.from(applicationInfo, 'base64');
  }

  get createdAt() {
    return new Date(this.#state.createdAt ?? Number.NaN);
  }

  get order() {
    return this.#state.order;
  }

  get size() {
    return this.#state.size;
  }

  get usedBytes() {
    return this.#state.usedBytes;
  }

  get unusedBytes() {
    return this.#state.unusedBytes;
  }

  get allocatedBytes() {
    return this.#state.allocatedBytes;
  }

  get state() {
    return this.#deleted ? 'deleted' : this.#state.state;
  }

  get persistent() {
    return this.#state.persistent;
  }

  get autoRelease() {
    return this.#state.autoRelease;
  }

  get hidden() {
    return this.#state.hidden;
  }

  get offline() {
    return this.#state.offline;
  }

  get problem() {
    return this.#state.problem;
  }

  get held() {
    return this.#state.held;
  }

  get heldUntil() {
    const { heldUntil } = this.#state;
    return heldUntil === undefined ? undefined : new Date(heldUntil);
  }

  read(offset: ByteOffset, target: ByteLength | Uint8Array): Promise<Uint8Array> {
    return this.#volume.content.read(this.storeId, this.size, offset, target);
  }

  allocation(offset: ByteOffset, length: ByteLength): AsyncIterable<AllocationExtent> {
    return this.#volume.content.zeros(this.storeId, this.size, offset, length);
  }

  get writable() {
    return this.#state.writable;
  }

  get movedBytes() {
    return this.#state.movedBytes;
  }

  write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    return this.#volume.content.write(this.storeId, this.size, offset, source);
  }

  writeZeroes(offset: ByteOffset, length: ByteLength): Promise<void> {
    const write = (at: ByteOffset, source: Uint8Array) => this.write(at, source);
    return clearRange(this, { offset, length }, ZEROS_AT_ONCE, (at, part) => writeZeros(write, at, part));
  }

  flush(): Promise<void> {
    return this.#volume.content.flush(this.storeId);
  }

  setWritable(writable: boolean): Promise<void> {
    return this.#volume.setWritable(this.storeId, writable);
  }

  async change(change: SnapshotChange): Promise<void> {
    await this.#volume.changeSnapshot(this.storeId, change);
  }

  /** Where it waits, it waits for all that were deleted. */
  async delete({ wait = false, ...options }: DeleteSnapshotOptions = {}): Promise<void> {
    options.signal?.throwIfAborted();
    await this.#volume.deleteOne(this.storeId);
    if (wait) await this.#volume.settled(options);
  }

  async hold({ until }: HoldOptions = {}): Promise<void> {
    if (Number.isNaN(until?.getTime()))
      throw new InvalidArgumentError('a snapshot is held until a date, got none');
    await this.#volume.holdSnapshot(this.storeId, until?.getTime());
  }

  async release(): Promise<void> {
    await this.#volume.releaseSnapshot(this.storeId);
  }
}
