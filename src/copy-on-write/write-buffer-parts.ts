/** What the write buffer stands on. */
import type { BlockDevice } from '../device/block-device.js';
import type { Clock } from '../environment.js';
import type { ByteLength } from '../units.js';
import type { CopyOnWrite } from './copy-on-write.js';
import type { WriteGate } from './write-gate.js';

/** A write of so many bytes rather waits until it is written than for room. */
export const LONG_WRITE: ByteLength = 262_144;

export interface WriteBufferParts {
  readonly device: BlockDevice;
  readonly gate: WriteGate;
  readonly copyOnWrite: CopyOnWrite;
  readonly clock: Clock;
  /** Bytes of memory that may wait to be written. */
  readonly limit: ByteLength;
}
