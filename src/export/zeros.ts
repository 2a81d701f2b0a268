/** Finding zeros fast: a comparison of the C library, many times as fast as a loop. */
const ZEROS = Buffer.alloc(65_536);

/** @param bytes at most 64 KiB */
export const isZeros = (bytes: Uint8Array): boolean =>
  ZEROS.compare(bytes, 0, bytes.byteLength, 0, bytes.byteLength) === 0;
