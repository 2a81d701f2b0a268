/** Figures of copy-on-write. */

/** What has been done so far. */
export class CopyFigures {
  /** Blocks with a copy of their own. */
  copiedBlocks = 0;
  /** Blocks of zeros, which share one. */
  zeroBlocks = 0;
  /** Batches read and written together. */
  batches = 0;
  /** Groups of batches made durable by one flush. */
  groups = 0;
  /** Attempts that failed. */
  failures = 0;
}
