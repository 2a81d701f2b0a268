/** A shadow copy that Windows made, as a snapshot like any other. */
import { asTarget } from '../arguments.js';
import { ReadOnlyError, SnapshotDeletedError, UnsupportedError } from '../errors.js';
import { type Guid, NIL_GUID } from '../format/guid.js';
import type { Emit } from '../snapshot/events.js';
import type { DeletionReason } from '../snapshot/record.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { RemovalListener } from '../windows/foreign-removals.js';
import type { ForeignSnapshot } from '../windows/foreign-snapshot.js';

/** What takes it out of its store, if it is the oldest. @throws UnsupportedError if it is not */
interface Remover {
  remove(snapshot: ForeignSnapshot): Promise<void>;
}

export class WindowsSnapshot implements Snapshot {
  readonly writable = false;
  readonly movedBytes = 0;
  readonly label = undefined;
  readonly applicationInfo = undefined;
  /** What Windows skips counts only while the snapshot is the newest; it is not counted. */
  readonly unusedBytes = 0;
  readonly held = false;
  readonly heldUntil = undefined;
  readonly inSet = false;
  readonly persistent = true;
  readonly autoRelease = false;
  /** Windows shows few of them; who opens such a volume here wants to see all. */
  readonly hidden = false;
  readonly offline = false;
  /** Why it is gone; `undefined` while it is not. */
  deleted: DeletionReason | undefined;
  readonly #writer: Remover | undefined;

  /** @param writer of the volume, if that is open for writing */
  constructor(
    readonly foreign: ForeignSnapshot,
    writer: Remover | undefined,
  ) {
    this.#writer = writer;
  }

  get id() {
    return idOf(this.foreign);
  }

  get storeId() {
    return this.foreign.storeId;
  }

  get setId() {
    return this.foreign.setId ?? NIL_GUID;
  }

  get createdAt() {
    return this.foreign.createdAt;
  }

  get order() {
    return this.foreign.order;
  }

  get size() {
    return this.foreign.size;
  }

  get usedBytes() {
    return this.foreign.usedBytes;
  }

  get allocatedBytes() {
    return this.foreign.allocatedBytes;
  }

  get state() {
    if (this.deleted !== undefined) return 'deleted';
    return this.foreign.reason === undefined ? 'ok' : 'damaged';
  }

  get problem() {
    return this.deleted ?? this.foreign.reason;
  }

  async read(offset: ByteOffset, target: ByteLength | Uint8Array): Promise<Uint8Array> {
    this.#checkExists();
    const buffer = asTarget(target);
    await this.foreign.readInto(offset, buffer);
    // Once it is gone nothing is kept for it any more.
    this.#checkExists();
    return buffer;
  }

  #checkExists(): void {
    if (this.deleted !== undefined)
      throw new SnapshotDeletedError(`shadow copy ${this.id} was deleted (${this.deleted})`);
  }

  change(): Promise<void> {
    return this.write();
  }

  async write(): Promise<void> {
    throw new UnsupportedError('a shadow copy that Windows made cannot be changed');
  }

  writeZeroes(): Promise<void> {
    return this.write();
  }

  async flush(): Promise<void> {
    // Nothing can be written.
  }

  setWritable(): Promise<void> {
    return this.write();
  }

  async hold(): Promise<void> {
    throw new UnsupportedError('a shadow copy that Windows made cannot be held');
  }

  /** It is not held. */
  async release(): Promise<void> {
    // Nothing to do.
  }

  /**
   * The volume cannot be put back to it: the stores of Windows lie in blocks of the volume that held something else then, or nothing,
   * and the shadow copies would go with them.
   * @throws UnsupportedError
   */
  refuseRevert(): never {
    throw new UnsupportedError(
      `the volume cannot be put back to shadow copy ${this.id}, which Windows made: the stores of the shadow copies lie in blocks that would be overwritten. Copy it out with: volsnap export`,
    );
  }

  /** @throws UnsupportedError if it is not the oldest */
  async delete(): Promise<void> {
    this.#checkExists();
    const writer = this.#writer;
    if (writer === undefined) throw new ReadOnlyError('the volume is open for reading only');
    await writer.remove(this.foreign);
  }
}

/** Names a shadow copy: by its own id, or where that is damaged by that of its store. */
export const idOf = ({ snapshotId, storeId }: ForeignSnapshot): Guid => snapshotId ?? storeId;

/** Tells of shadow copies that go, and marks those of `handles`, which may be filled later. */
export const announcing = <Reason extends DeletionReason>(
  emit: Emit,
  handles: ReadonlyMap<ForeignSnapshot, WindowsSnapshot>,
): RemovalListener<Reason> => ({
  removing: (snapshot, reason, cause) => emit('deleting', { id: idOf(snapshot), reason, cause }),
  removed: (snapshot, reason, cause) => {
    const gone = handles.get(snapshot);
    if (gone !== undefined) gone.deleted = reason;
    emit('deleted', { id: idOf(snapshot), reason, cause });
  },
});
