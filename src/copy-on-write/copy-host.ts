/** What copy-on-write needs of the rest of the engine, and what it tells. */
import type { DiffArea } from '../diff-area/diff-area.js';
import type { ApartCopier } from './thread-copies.js';

export interface FailedAttempt {
  /** Attempts that failed so far, for another reason than a lack of space. */
  readonly failures: number;
  /** `removals` as the attempt began. */
  readonly removals: number;
}

/** What copying needs of the rest of the engine. */
export interface CopyOnWriteHost {
  /** Called when slots may run short; never waits. */
  growAhead(area: DiffArea): void;
  /**
   * Makes room for `slots` copies and `entries` entries, giving up older snapshots or waiting, as the policy says.
   * Resolves to false if the snapshot of `area` itself had to go: nothing is left to copy for.
   * @throws NoSpaceError if the policy is that the write fails
   */
  makeRoom(area: DiffArea, slots: number, entries: number): Promise<boolean>;
  /** Snapshots removed so far. */
  readonly removals: number;
  /**
   * An attempt to copy failed; `attempt` is the same object each time. Says whether to try again, or that the snapshot of `area` is, durably, gone, with every
   * other that would be wrong without the copies.
   * @throws if it cannot even be given up, or must not; then the writes that wait must fail
   */
  copyFailed(area: DiffArea, error: unknown, attempt: FailedAttempt): Promise<'retry' | 'gone'>;
}

/** Copying in another thread. */
export interface Apart {
  readonly copier: ApartCopier;
  /** Blocks of a batch from which on it is used. Somebody may be waiting for a small one, which is done sooner here. */
  readonly smallest: number;
}

/** What has been done so far. */
export class CopyFigures {
  /** Blocks with a copy of their own. */
  copiedBlocks = 0;
  /** Blocks of zeros, which share one. */
  zeroBlocks = 0;
  /** Blocks that moved within the volume and needed no copy. */
  movedBlocks = 0;
  /** Batches read and written together. */
  batches = 0;
  /** Groups of batches made durable by one flush. */
  groups = 0;
  /** Attempts that failed. */
  failures = 0;
}
