/** What calls of a volume take. */
import type { Environment } from '../environment.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import type { Store } from '../store/store.js';
import type { ByteLength, ByteOffset } from '../units.js';

export interface InitializeVolumeOptions {
  readonly store: Store;
  /** Bytes that diff areas may take in all; default 0: no limit. */
  readonly maximumSize?: ByteLength;
  readonly environment?: Environment;
}

export interface ChangedBlocksOptions {
  /** Default: when the volume was all zeros, so that everything but what is known to be zero has changed. */
  readonly since?: Snapshot | undefined;
  /** Default: now. */
  readonly until?: Snapshot | undefined;
  /** Extents begin and end at multiples of so many bytes, or at the volume's end; default: where the changes do. */
  readonly alignment?: ByteLength;
  /** Compare the bytes and leave out blocks that are equal again. */
  readonly compare?: boolean;
  /** Without what `since` leaves out as unused, which may read otherwise now: for pictures and figures, not for backups. */
  readonly copiedOnly?: boolean;
  /** Only what lies in this range, which costs accordingly; default: all. */
  readonly offset?: ByteOffset;
  readonly length?: ByteLength;
  readonly signal?: AbortSignal;
}
