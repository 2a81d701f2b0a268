/** A snapshot as users of the package see it, whoever wrote it. */
import type { Allocated } from '../device/allocation.js';
import type { Guid } from '../format/guid.js';
import type { ByteLength, ByteOffset } from '../units.js';

/** Anything that bytes can be read from at an offset: a device, a volume, a snapshot. */
export interface ByteSource extends Allocated {
  /** Bytes. */
  readonly size: ByteLength;
  /** Fills `target` with the bytes from `offset`. */
  read(offset: ByteOffset, target: Uint8Array): Promise<unknown>;
}

export interface HoldOptions {
  /** By the clock of this machine; default: until it is released. */
  readonly until?: Date;
}

/** What can be changed about a snapshot. */
export interface SnapshotChange {
  readonly hidden?: boolean | undefined;
  readonly offline?: boolean | undefined;
}

export interface DeleteSnapshotOptions {
  /** Resolve only when it is merged and its space free. Default: when the deletion is durable. */
  readonly wait?: boolean;
  /** Ends the waiting; what is deleted stays deleted, and is merged all the same. */
  readonly signal?: AbortSignal;
  /** While waiting: bytes of copies gone through, and in all. */
  readonly onProgress?: (done: ByteLength, total: ByteLength) => void;
}

export interface Snapshot extends ByteSource {
  /** What it is called; of a snapshot that Windows took, the shadow copy's id. */
  readonly id: Guid;
  /** GUID of its diff area, as in file names and in `vshadowinfo`; the same as `id` in stores of volsnap. */
  readonly storeId: Guid;
  /** GUID of the set of snapshots that were taken at one moment. */
  readonly setId: Guid;
  /** Were other volumes' snapshots taken with it? */
  readonly inSet: boolean;
  readonly label: string | undefined;
  /** What the creator stored with it. */
  readonly applicationInfo: Uint8Array | undefined;
  readonly createdAt: Date;
  /** Age order within the volume; grows with each snapshot. */
  readonly order: number;
  /** Bytes of its diff area in use. */
  readonly usedBytes: ByteLength;
  /** Bytes of the volume that it skips because nothing used them: they read as zeros. */
  readonly unusedBytes: ByteLength;
  /** Bytes that its diff area takes. */
  readonly allocatedBytes: ByteLength;
  /** Bytes of its content that moved within the volume, see `Volume.copyRange`, and take no room here; of Windows' own not known. */
  readonly movedBytes: ByteLength;
  /**
   * `damaged`: cannot be read; `problem` says why. `pending`: whether it counts is not known, because the record of its set
   * cannot be found; until then it is kept as any other.
   */
  readonly state: 'ok' | 'damaged' | 'deleted' | 'pending';
  /** Else it is gone after the volume was closed, and after a crash. */
  readonly persistent: boolean;
  /** It goes when whoever took it goes. */
  readonly autoRelease: boolean;
  /** Lists leave it out; whoever knows its id can use it. */
  readonly hidden: boolean;
  /** It cannot be read until it is online again; it is kept as any other. */
  readonly offline: boolean;
  readonly problem: string | undefined;
  /** Is it held now, so that nothing deletes it? A date that has passed ends a hold. */
  readonly held: boolean;
  /** Until when; `undefined`: it is not held, or has no date. */
  readonly heldUntil: Date | undefined;
  /** May it be written, where its volume may? What was written while it might be stays when it may not any more. */
  readonly writable: boolean;

  /**
   * Reads the volume as it was when the snapshot was taken. Every copy is verified against its checksum.
   * @param target how many bytes, or where to put them
   * @throws InvalidArgumentError (range), SnapshotDeletedError, IntegrityError, FormatError (damaged), DeviceError
   */
  read(offset: ByteOffset, target: ByteLength | Uint8Array): Promise<Uint8Array>;

  /** Hides it or shows it, takes it offline or online; durable when this resolves. @throws SnapshotDeletedError, ReadOnlyError, DeviceError */
  change(change: SnapshotChange): Promise<void>;

  /**
   * Writes any byte range of the snapshot itself: neither the volume nor another snapshot sees it. It is there for readers
   * when this resolves, and durable after the next `flush`.
   * @throws InvalidArgumentError, ReadOnlyError (see `setWritable`), RevertInProgressError, NoSpaceError, SnapshotDeletedError, DeviceError
   */
  write(offset: ByteOffset, source: Uint8Array): Promise<void>;

  /** Makes the range read as zeros: a write of zeros, but for what is known to be zero. @throws as `write` */
  writeZeroes(offset: ByteOffset, length: ByteLength): Promise<void>;

  /** Resolves when every write to the snapshot acknowledged before is on stable storage. @throws SnapshotDeletedError, DeviceError */
  flush(): Promise<void>;

  /** Says, durably, whether it may be written. @throws UnsupportedError (Windows'), ReadOnlyError, SnapshotDeletedError, DeviceError */
  setWritable(writable: boolean): Promise<void>;

  /**
   * Deletes it, whatever its age: when this resolves nobody sees it any more, and it does not come back. Whoever reads it gets a
   * `SnapshotDeletedError`. If older ones read through it, what they need is merged into its elder neighbour
   * afterwards, in the background; only then its space is free.
   * Where there are older ones, what moved within the volume (`Volume.copyRange`) for it or the next older one is copied first.
   * @throws HeldError, SnapshotDeletedError, ReadOnlyError, RevertInProgressError, OfflineError (an older one is late), UnsupportedError (a shadow copy of Windows), NoSpaceError
   *   (no room for what moved), DeviceError: it exists still; with `wait` also as `VolumeAccess.settled`
   */
  delete(options?: DeleteSnapshotOptions): Promise<void>;

  /**
   * Holds it: no command, limit or lack of room deletes it, until the date or until it is released. Durable when this
   * resolves. Holding it again changes the date.
   * @throws InvalidArgumentError (a date that has passed), SnapshotDeletedError, ReadOnlyError, DeviceError
   */
  hold(options?: HoldOptions): Promise<void>;

  /** Ends the hold, if there is one; durable when this resolves. @throws SnapshotDeletedError, ReadOnlyError, DeviceError */
  release(): Promise<void>;
}
