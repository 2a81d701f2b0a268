/** What a volume tells those who listen: `volume.on('deleted', ({ id, reason }) => …)`. */
import type { VolsnapError } from '../errors.js';
import type { Guid } from '../format/guid.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { Problem } from './problem.js';
import type { DeletionReason } from './record.js';

export interface VolumeEvents {
  created: [{ readonly id: Guid; readonly label: string | undefined }];
  /** A snapshot is about to go, for good: its removal begins. */
  deleting: [{ readonly id: Guid; readonly reason: DeletionReason; readonly cause: unknown }];
  deleted: [{ readonly id: Guid; readonly reason: DeletionReason; readonly cause: unknown }];
  /** What older snapshots need of a deleted one was merged into its elder neighbour, and that one's space is free. */
  merged: [{ readonly id: Guid; readonly into: Guid; readonly blocks: number; readonly bytes: ByteLength }];
  /** A diff area became longer. */
  grown: [{ readonly id: Guid; readonly bytes: ByteLength; readonly allocatedBytes: ByteLength }];
  /** A diff area could not become longer when it had to; the oldest snapshot goes. */
  overflow: [{ readonly id: Guid; readonly neededBytes: ByteLength; readonly availableBytes: ByteLength }];
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
