/** Zeros where nobody can make them any cheaper: written. */
import type { ByteLength, ByteOffset } from '../units.js';
import type { BlockDevice } from './block-device.js';

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

/** Small, so that it stays in the processor's cache while it is written again and again. */
const PIECE = ZEROS.subarray(0, 65_536);

/** Buffers that hold `length` zero bytes together, for one vectored write. */
export function zeroBuffers(length: ByteLength): Uint8Array[] {
  const whole = Math.floor(length / PIECE.byteLength);
  const rest = length % PIECE.byteLength;
  return [...Array<Uint8Array>(whole).fill(PIECE), ...(rest > 0 ? [PIECE.subarray(0, rest)] : [])];
}

/** Makes the range of a device read as zeros, without writing them where it can. */
export async function zero(device: BlockDevice, offset: ByteOffset, length: ByteLength): Promise<void> {
  if (device.writeZeroes !== undefined) return device.writeZeroes(offset, length);
  await writeZeros((at, source) => device.write(at, source), offset, length);
}
