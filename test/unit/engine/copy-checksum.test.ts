/** The checksum of a copy is the CRC-32 that the format asks for, though no such bytes are ever put together. */
import { crc32 } from 'node:zlib';
import { expect, test } from 'vitest';
import { CopyChecksum, CRC32_OF_ZEROS } from '../../../src/diff-area/copy-checksum.js';
import { Runs } from '../../../src/store/runs.js';
import { SeededRandom } from '../../../src/testing/seeded-random.js';
import { BLOCK_SIZE } from '../../../src/units.js';
import { shared } from '../device/shared.js';

const random = new SeededRandom(20_261_129);
const noise = (length: number) => Uint8Array.from({ length }, () => random.below(256));
const TIB = 2 ** 40;

/** docs/format.md, "Checksummed entry": the entry's first 28 bytes, the epoch, the copy. */
function expected(epoch: bigint, block: number, slot: number, place: number, data: Uint8Array) {
  const entry = Buffer.alloc(36);
  entry.writeBigUInt64LE(BigInt(block) * BigInt(BLOCK_SIZE), 0);
  entry.writeBigUInt64LE(BigInt(slot) * BigInt(BLOCK_SIZE), 8);
  entry.writeBigUInt64LE(BigInt(place), 16);
  entry.writeBigUInt64LE(epoch, 28);
  return crc32(data, crc32(entry));
}

/** A file of two runs, the second before the first, and far apart. */
const FIRST = { fileOffset: 0, volumeOffset: 2 ** 53 - TIB - BLOCK_SIZE, length: TIB };
const SECOND = { fileOffset: TIB, volumeOffset: 3 * BLOCK_SIZE, length: 16 * TIB };
const runs = new Runs([FIRST, SECOND]);
const slots = [
  0,
  1,
  255,
  256,
  65_535,
  65_536,
  TIB / BLOCK_SIZE - 1,
  TIB / BLOCK_SIZE,
  (17 * TIB) / BLOCK_SIZE - 1,
];
const blocks = [0, 1, 255, 256, 65_535, 65_536, 2 ** 24, 2 ** 32 - 1, 2 ** 32, 2 ** 39 - 1];

test('for blocks, slots and places of any number, in memory of either kind', () => {
  const epoch = 0xfedc_ba98_7654_3210n;
  const checksum = new CopyChecksum(runs, epoch);
  for (const slot of slots) {
    const offset = slot * BLOCK_SIZE;
    const place = offset < TIB ? FIRST.volumeOffset + offset : SECOND.volumeOffset + offset - TIB;
    for (const block of [...blocks, random.below(2 ** 39)]) {
      const data = noise(BLOCK_SIZE);
      const wanted = expected(epoch, block, slot, place, data);
      const name = `block ${block} in slot ${slot}`;
      expect(checksum.of(block, slot, data), name).toBe(wanted);
      expect(checksum.from(block, slot, crc32(data)), name).toBe(wanted);
      const memory = shared(BLOCK_SIZE);
      memory.set(data);
      expect(checksum.of(block, slot, memory), name).toBe(wanted);
    }
  }
});

test('for each bit of an epoch', () => {
  const data = noise(BLOCK_SIZE);
  for (let bit = 0n; bit < 64n; bit++) {
    const checksum = new CopyChecksum(runs, 1n << bit);
    expect(checksum.of(7, 9, data), `bit ${bit}`).toBe(
      expected(1n << bit, 7, 9, FIRST.volumeOffset + 9 * BLOCK_SIZE, data),
    );
  }
});

test('of a block of zeros', () => {
  const zeros = new Uint8Array(BLOCK_SIZE);
  expect(CRC32_OF_ZEROS).toBe(crc32(zeros));
  const checksum = new CopyChecksum(runs, 5n);
  expect(checksum.from(3, 4, CRC32_OF_ZEROS)).toBe(checksum.of(3, 4, zeros));
});

test('of one block becomes that of another without the data', () => {
  const checksum = new CopyChecksum(runs, 77n);
  const data = noise(BLOCK_SIZE);
  for (const from of blocks)
    for (const to of blocks)
      expect(checksum.rebased(checksum.of(from, 9, data), from, to)).toBe(checksum.of(to, 9, data));
});
