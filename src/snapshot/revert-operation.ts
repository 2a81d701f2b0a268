/** A revert as its users see it. */
import type { Guid } from '../format/guid.js';
import type { ByteLength } from '../units.js';

export interface RevertOptions {
  /** Does the snapshot of the state before stay when the revert is over, done or cancelled? Default: yes. */
  readonly keepPrevious?: boolean;
  /** Label of that snapshot. Default: one that says what it is. */
  readonly label?: string;
  /** How long writes may be held at the beginning; default 10,000 ms. */
  readonly holdTimeoutMs?: number;
  /** Cancels the revert, as `cancel()` does. */
  readonly signal?: AbortSignal;
  /** Bytes put back, of those that have to be. */
  readonly onProgress?: (done: ByteLength, total: ByteLength) => void;
}

/** How a revert ended: the volume was put back to the snapshot, or it is again as it was before. */
export type RevertOutcome = 'reverted' | 'cancelled';

export interface RevertOperation {
  /**
   * Resolves when the volume reads as the snapshot: from then on, durably, and whatever happens.
   * @throws SnapshotDeletedError, RevertInProgressError (another one is under way), UnsupportedError (the volume had another
   *   size), HoldTimeoutError, LimitError, NoSpaceError, ReadOnlyError, DeviceError; then nothing was reverted
   */
  readonly begun: Promise<void>;
  /**
   * Resolves when all is in its place and the snapshots can go again.
   * @throws what `begun` throws; NoSpaceError, DeviceError, IntegrityError: it rests, and goes on when it is asked for again, at the
   *   next opening, and when the store gets more room; ClosedError: it goes on at the next opening
   */
  readonly completed: Promise<RevertOutcome>;
  /**
   * Puts the volume back as it was before: also what was written since is gone. Resolves when users see that.
   * @throws NotFoundError (it is over), HoldTimeoutError, DeviceError; then it goes on
   */
  cancel(): Promise<void>;
}

/** A revert under way, as it is told. */
export interface RevertStatus {
  readonly targetId: Guid;
  /** The snapshot of the volume as it was before. */
  readonly previousId: Guid;
  readonly phase: 'reverting' | 'cancelling';
  readonly doneBytes: ByteLength;
  readonly totalBytes: ByteLength;
  /** Why it rests; `undefined`: it goes on. */
  readonly problem: string | undefined;
}

/** A promise, and what settles it. A failure that nobody waits for ends nothing. */
export class Outcome {
  readonly promise: Promise<RevertOutcome>;
  isSettled = false;
  #settle: { resolve: (outcome: RevertOutcome) => void; reject: (error: unknown) => void } | undefined;

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.promise.catch(() => undefined);
  }

  resolve(outcome: RevertOutcome): void {
    this.isSettled = true;
    this.#settle?.resolve(outcome);
  }

  reject(error: unknown): void {
    this.isSettled = true;
    this.#settle?.reject(error);
  }
}
