/** Zeros where nobody can make them any cheaper: written. */
import type { ByteLength, ByteOffset } from '../units.js';

const ZEROS = new Uint8Array(1024 * 1024);

/** Writes zeros, one megabyte after the other. @throws what `write` does */
export async function writeZeros(
  write: (offset: ByteOffset, source: Uint8Array) => Promise<unknown>,
  offset: ByteOffset,
  length: ByteLength,
): Promise<void> {
  for (let done = 0; done < length; done += ZEROS.byteLength)
    await write(offset + done, ZEROS.subarray(0, Math.min(ZEROS.byteLength, length - done)));
}
