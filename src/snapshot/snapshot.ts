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

export interface Snapshot extends ByteSource {
  /** What it is called; of a snapshot that Windows took, the shadow copy's id. */
  readonly id: Guid;
  /** GUID of its diff area, as in file names and in `vshadowinfo`; the same as `id` in stores of volsnap. */
  readonly storeId: Guid;
  /** GUID of the set of snapshots that were taken at one moment. */
  readonly setId: Guid;
  readonly label: string | undefined;
  /** What the creator stored with it. */
  readonly applicationInfo: Uint8Array | undefined;
  readonly createdAt: Date;
  /** Age order within the volume; grows with each snapshot. */
  readonly order: number;
  /** Bytes of its diff area in use. */
  readonly usedBytes: ByteLength;
  /** Bytes that its diff area takes. */
  readonly allocatedBytes: ByteLength;
  /** `damaged`: cannot be read; `problem` says why. */
  readonly state: 'ok' | 'damaged' | 'deleted';
  readonly problem: string | undefined;
  /** Is it held now, so that nothing deletes it? A date that has passed ends a hold. */
  readonly held: boolean;
  /** Until when; `undefined`: it is not held, or has no date. */
  readonly heldUntil: Date | undefined;

  /**
   * Reads the volume as it was when the snapshot was taken. Every copy is verified against its checksum.
   * @param target how many bytes, or where to put them
   * @throws InvalidArgumentError (range), SnapshotDeletedError, IntegrityError, FormatError (damaged), DeviceError
   */
  read(offset: ByteOffset, target: ByteLength | Uint8Array): Promise<Uint8Array>;

  /**
   * Deletes it; durable when this resolves. For now only the oldest can be deleted.
   * @throws UnsupportedError if older snapshots exist, HeldError, SnapshotDeletedError, ReadOnlyError, DeviceError
   */
  delete(): Promise<void>;

  /**
   * Holds it: no command, limit or lack of room deletes it, until the date or until it is released. Durable when this
   * resolves. Holding it again changes the date.
   * @throws InvalidArgumentError (a date that has passed), SnapshotDeletedError, ReadOnlyError, DeviceError
   */
  hold(options?: HoldOptions): Promise<void>;

  /** Ends the hold, if there is one; durable when this resolves. @throws SnapshotDeletedError, ReadOnlyError, DeviceError */
  release(): Promise<void>;
}
