/**
 * Snapshots older than all of volsnap's, which somebody else made and which are read through the oldest of those: shadow copies
 * of Windows that the store has taken over. That oldest one, the base, stays as long as there are any.
 */
import type { ByteLength, ByteOffset } from '../units.js';
import type { DeletionReason } from './record.js';

export interface Elders {
  /** How many there are still. */
  readonly count: number;
  /** Removes the `count` oldest, or as many as there are; durable when it resolves. @throws DeviceError; then the rest is there still */
  removeOldest(count: number, reason: DeletionReason, cause?: unknown): Promise<void>;
  /** Does a range of the volume hold copies of theirs? Whoever writes there destroys them. */
  areWithin(offset: ByteOffset, length: ByteLength): boolean;
}

export const NO_ELDERS: Elders = {
  count: 0,
  removeOldest: async () => undefined,
  areWithin: () => false,
};
