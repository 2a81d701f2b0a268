/**
 * Where snapshots are kept: the seam between the engine and the two layouts.
 *
 * A `Store` says where; attaching it to a device gives an `AttachedStore`, which owns the control file (what snapshots
 * there are) and hands out the space of diff-area files. It knows nothing of what those files hold.
 */
import type { BlockDevice } from '../device/block-device.js';
import type { Environment } from '../environment.js';
import type { DiffAreaItem } from '../format/control-block.js';
import type { Guid } from '../format/guid.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { ControlFile } from './control-file.js';
import type { LocationList } from './location-list.js';
import type { Piece, Runs } from './runs.js';
import type { SpaceBudget } from './space-budget.js';

export interface AttachOptions {
  readonly environment: Environment;
  readonly writable: boolean;
}

export interface InitializeOptions {
  readonly environment: Environment;
  /** Bytes that diff areas may take in all; 0: no limit. */
  readonly maximumSize: ByteLength;
  /** In-volume: a start block that Windows wrote gives way, and is kept as a sector of the volume like any other. Default: it is refused. */
  readonly overWindows?: boolean;
  /** `IncompatibleFeature`s of the store; default: none. */
  readonly incompatible?: number;
}

/** A place for the snapshots of one volume. */
export interface Store {
  readonly layout: 'directory' | 'in-volume';
  /**
   * Makes an empty store for the volume on `device`.
   * @throws AlreadyInitializedError, UnsupportedError (the layout does not fit the volume), DeviceError
   */
  initialize(device: BlockDevice, options: InitializeOptions): Promise<void>;
  /**
   * Opens the store of the volume on `device`.
   * @throws NotInitializedError, FormatError, UnsupportedError, DeviceError
   */
  attach(device: BlockDevice, options: AttachOptions): Promise<AttachedStore>;
}

/** A store in use. Not shared between volumes; what the engine calls in parallel is said at each method. */
export interface AttachedStore {
  readonly layout: 'directory' | 'in-volume';
  /** What messages call it. */
  readonly name: string;
  readonly control: ControlFile;
  /** How much of the limit is taken; also by diff areas whose files are not there. */
  readonly budget: SpaceBudget;
  /** The volume as its users see it. */
  readonly volume: BlockDevice;
  /** Does a reader of the raw device see other bytes in block 0 than the volume's users? (In-volume: the start block.) */
  readonly hidesStartBlock: boolean;
  /** The blocks of a store that lies inside the volume, as runs of a file of it; `undefined`: it lies elsewhere. */
  readonly inside?: BlocksInside | undefined;
  /** Bytes that could be taken now for diff areas, by limit and by room; `Infinity` if neither is known. */
  available(): ByteLength;
  /** Bytes taken by diff areas. */
  allocated(): ByteLength;
  /** A new, empty diff-area file. Nothing is durable until its item is in the control file. */
  createArea(storeId: Guid): Promise<AreaFile>;
  /**
   * The diff-area file of an item of the control file.
   * @param counted bytes that `budget` counts for it already; from then on it is the file that gives them back
   * @throws FormatError, NotFoundError, DeviceError; then `budget` is as it was
   */
  openArea(item: DiffAreaItem, counted?: ByteLength): Promise<OpenedArea>;
  /** Removes the file of a diff area that no item of the control file names any more, durably, if it is there. @throws DeviceError */
  removeArea(storeId: Guid): Promise<void>;
  /** Files that no item of the control file names. */
  orphans(): Promise<string[]>;
  /** Removes those files, durably; returns their names. Called once after opening. */
  removeOrphans(): Promise<string[]>;
  /** Closes the control file and what else was opened, not the device. */
  close(): Promise<void>;
}

/** Where a store lies in the midst of the volume's own blocks. Whoever writes there from above would destroy it. */
export interface BlocksInside {
  /** What of the store lies in a range of the volume: what it cannot do without, diff areas or room for them, or nothing. */
  storeWithin(offset: ByteOffset, length: ByteLength): 'needed' | 'diff-areas' | undefined;
  /**
   * Leaves what lies in the range to the volume, for good, durably. One caller at a time.
   * @throws ReadOnlyError if a diff area lies there; DeviceError, then it may be left or not at the next opening
   */
  leave(offset: ByteOffset, length: ByteLength): Promise<void>;
}

export interface OpenedArea {
  readonly file: AreaFile;
  readonly list: LocationList;
}

/** The space of one diff-area file. Taking and giving back may happen in parallel with reads and writes. */
export interface AreaFile {
  /** The device that volume offsets of this file refer to. */
  readonly device: BlockDevice;
  /** The ranges that make up the file; changed only by its `DiffArea`. */
  readonly runs: Runs;
  /**
   * Takes `length` more bytes (a multiple of 16 KiB); they belong to the file once its location list says so.
   * @throws NoSpaceError, taking nothing, if the limit or the room does not allow it; DeviceError
   */
  take(length: ByteLength): Promise<Piece[]>;
  /** Gives space back that the location list on the device no longer names. */
  giveBack(pieces: readonly Piece[]): Promise<void>;
  /** Makes what was written to a new file durable, and that there is one. @throws NoSpaceError, DeviceError */
  establish(): Promise<void>;
  close(): Promise<void>;
  /** Closes the file and gives all of its space back. Its item is gone from the control file already. */
  remove(): Promise<void>;
}
