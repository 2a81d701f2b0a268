/** Which parts of data are zeros, to be left out. */
import { isZeros } from '../device/zeros.js';

/** Zeros are left out in this unit: the block of most file systems. */
export const ZERO_UNIT = 4096;

/** The parts of `data` that are not zeros, in units of 4 KiB, as ranges within it. */
export function* dataRuns(data: Buffer): Generator<{ readonly start: number; readonly end: number }> {
  let start: number | undefined;
  for (let at = 0; at < data.byteLength; at += ZERO_UNIT) {
    const end = Math.min(at + ZERO_UNIT, data.byteLength);
    const isHole = isZeros(data.subarray(at, end));
    if (!isHole) start ??= at;
    else if (start !== undefined) {
      yield { start, end: at };
      start = undefined;
    }
  }
  if (start !== undefined) yield { start, end: data.byteLength };
}
