/** Figures of the write buffer. */
import type { ByteLength } from '../units.js';

/** What the write buffer holds, and what it has done since the volume was opened. */
export interface WriteBufferFigures {
  /** Memory taken by changes that are not in the volume yet, or are still being read. */
  readonly bufferedBytes: ByteLength;
  readonly limitBytes: ByteLength;
  /** Changes that are not in the volume yet. */
  readonly entries: number;
  /** Writes acknowledged from the buffer. */
  readonly buffered: number;
  /** Of these, put in place of older bytes that had not been written yet. */
  readonly absorbed: number;
  /** Writes passed straight to the volume. */
  readonly direct: number;
  /** Writes of the device, each of one change or of several neighbours. */
  readonly writeOuts: number;
  /** Of `entries`, those that wait for room on the host: see docs/space.md. */
  readonly parked: number;
  /** Writes that were not acknowledged from the buffer because no room could be set aside for their copies. */
  readonly unbuffered: number;
  /** Writes that had to wait for room. */
  readonly roomWaits: number;
  /** Changes that were tried again after a failure. */
  readonly retries: number;
}
