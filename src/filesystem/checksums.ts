/** The checksums of ext4: CRC-32C (Castagnoli) and CRC-16 (ANSI), both reflected, neither inverted at the end. */
import { crcTable } from '../crc32.js';

const CRC32C = crcTable(0x82f63b78);
const CRC16 = crcTable(0xa001);

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
