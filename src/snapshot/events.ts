/** What a volume tells those who listen: `volume.on('deleted', ({ id, reason }) => …)`. */
import type { VolsnapError } from '../errors.js';
import type { Guid } from '../format/guid.js';
import type { SpacePolicy, SpaceRules } from '../format/start-block.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { SpaceForecast } from './forecast.js';
import type { Problem } from './problem.js';
import type { DeletionReason } from './record.js';

/** Why there is no room: the limit of the store (its reserve, in-volume), the file system that it is on, or the memory for a late diff area. */
export type FullReason = 'limit' | 'host-full' | 'file-too-long' | 'memory';

export interface VolumeEvents {
  created: [{ readonly id: Guid; readonly label: string | undefined }];
  /** A snapshot is about to go, for good: its removal begins. */
  deleting: [{ readonly id: Guid; readonly reason: DeletionReason; readonly cause: unknown }];
  deleted: [{ readonly id: Guid; readonly reason: DeletionReason; readonly cause: unknown }];
  /** What older snapshots need of a deleted one was merged into its elder neighbour, and that one's space is free. */
  merged: [{ readonly id: Guid; readonly into: Guid; readonly blocks: number; readonly bytes: ByteLength }];
  /** Nothing deletes the snapshot from now on, until then (milliseconds since 1970) or until it is released. */
  held: [{ readonly id: Guid; readonly until: number | undefined; readonly reason: 'requested' }];
  released: [{ readonly id: Guid; readonly reason: 'requested' }];
  /** A diff area became longer: `ahead` of need, because a write `needed` it and waited, or for a `merge`. */
  grown: [
    {
      readonly id: Guid;
      readonly bytes: ByteLength;
      readonly allocatedBytes: ByteLength;
      readonly reason: 'ahead' | 'needed' | 'merge';
    },
  ];
  /**
   * There is no room for a copy that a write needs. `action` says what follows: with `delete-oldest` it is told for each
   * snapshot that goes, else once until writes go on (`writesResumed`).
   */
  overflow: [
    {
      readonly id: Guid;
      readonly neededBytes: ByteLength;
      readonly availableBytes: ByteLength;
      readonly action: SpacePolicy;
      readonly reason: FullReason;
    },
  ];
  /** After an `overflow` in which writes waited or failed: there is room again. */
  writesResumed: [{ readonly id: Guid; readonly afterMs: number; readonly reason: 'space-given' }];
  /**
   * Room runs low. `share`: so much of it is used; `forecast`: at the present rate it is used up within the time that
   * was to be warned of. Told once, until there is clearly more room again (`spaceEnough`).
   */
  spaceLow: [SpaceForecast & { readonly reason: 'share' | 'forecast' }];
  spaceEnough: [SpaceForecast & { readonly reason: 'share' | 'forecast' }];
  /** What happens when there is no room has been changed. */
  spacePolicy: [SpaceRules & { readonly reason: 'requested' }];
  /** Somebody wrote where the store lies inside the volume: that failed, or all snapshots were dropped for it. */
  protectedWrite: [
    {
      readonly offset: ByteOffset;
      readonly length: ByteLength;
      readonly outcome: 'rejected' | 'dropped';
    },
  ];
  /** A copy fails its checksum. */
  integrityFailure: [{ readonly id: Guid; readonly error: VolsnapError }];
  /** A scrub came this far: copies tested, and copies in all, in bytes. */
  scrubProgress: [{ readonly doneBytes: ByteLength; readonly totalBytes: ByteLength }];
  /** A scrub found something; `repaired`: and put it right. */
  problemFound: [{ readonly problem: Problem }];
  /** A scrub is over; `stopped`: before it had tested everything. */
  scrubbed: [
    {
      readonly outcome: 'finished' | 'stopped';
      readonly problems: number;
      readonly doneBytes: ByteLength;
    },
  ];
  /** Blocks were put back, of those that differ from the snapshot that the volume is going back to. */
  revertProgress: [{ readonly id: Guid; readonly doneBytes: ByteLength; readonly totalBytes: ByteLength }];
  /** A revert to snapshot `id` is over: all was put back, or, if it was cancelled, all is again as in `previousId`. */
  reverted: [{ readonly id: Guid; readonly previousId: Guid; readonly outcome: 'reverted' | 'cancelled' }];
  /** What is unused could not be told for certain, so the snapshot skips nothing; `error` if something failed. */
  unusedSpaceUnknown: [{ readonly id: Guid; readonly reason: string; readonly error: unknown }];
  /** Diff areas that had not been there have arrived, and the copies made in memory meanwhile are in them. */
  arrived: [{ readonly ids: readonly Guid[]; readonly copies: number }];
  holdTimedOut: [{ readonly limitMs: number }];
  /** Work in the background failed without harm; it is tried again when there is a reason to. */
  backgroundFailure: [{ readonly id: Guid; readonly what: string; readonly error: unknown }];
}

/** Tells listeners. */
export type Emit = <Name extends keyof VolumeEvents>(name: Name, ...event: VolumeEvents[Name]) => void;
