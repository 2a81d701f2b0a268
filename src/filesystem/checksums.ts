/** The checksums of ext4: CRC-32C (Castagnoli) and CRC-16 (ANSI), both reflected, neither inverted at the end. */

const tableOf = (polynomial: number): Uint32Array =>
  Uint32Array.from({ length: 256 }, (_, byte) => {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = (value & 1) === 0 ? value >>> 1 : (value >>> 1) ^ polynomial;
    return value;
  });

const CRC32C = tableOf(0x82f63b78);
const CRC16 = tableOf(0xa001);

const crc = (table: Uint32Array, bytes: Uint8Array, seed: number): number => {
  let value = seed >>> 0;
  for (let i = 0; i < bytes.byteLength; i++)
    value = (table[(value ^ (bytes[i] ?? 0)) & 0xff] ?? 0) ^ (value >>> 8);
  return value >>> 0;
};

/** @param seed `0xffffffff`, or the result for the bytes before */
export const crc32c = (bytes: Uint8Array, seed = 0xffff_ffff): number => crc(CRC32C, bytes, seed);

/** @param seed `0xffff`, or the result for the bytes before */
export const crc16 = (bytes: Uint8Array, seed = 0xffff): number => crc(CRC16, bytes, seed);
