import * as zlib from 'node:zlib';
import { expect, test } from 'vitest';
import {
  CRC32_RESERVED,
  crc32,
  crc32Module,
  crc32Place,
  makeCrc32,
  makeCrc32InPlace,
  sharedCrc32Memory,
  WASM_PAGE,
} from '../../src/crc32.js';
import { SeededRandom } from '../../src/testing/seeded-random.js';

const random = new SeededRandom(20_261_128);
const noise = (length: number) => Uint8Array.from({ length }, () => random.below(256));

test('the CRC-32 of anything is the one that zlib computes', () => {
  const bytes = noise(70_000);
  const lengths = [0, 1, 9, 2047, 2048, 2049, 16_000, 16_383, 16_384, 16_385, 18_431, 18_432, 32_768, 70_000];
  for (let i = 0; i < 300; i++) lengths.push(random.below(20_000));
  // In turn, so that what one leaves in the memory meets a longer and a shorter one.
  for (const length of lengths) {
    const at = random.below(bytes.length - length + 1);
    const data = bytes.subarray(at, at + length);
    const seed = random.below(2 ** 32);
    expect(crc32(data, seed), `${length} bytes at ${at}, seed ${seed}`).toBe(zlib.crc32(data, seed));
    expect(crc32(data)).toBe(zlib.crc32(data));
  }
});

test('blocks of zeros and of ones, and memory that is shared', () => {
  const shared = new Uint8Array(new SharedArrayBuffer(16_384));
  shared.set(noise(16_384));
  for (const data of [new Uint8Array(16_384), new Uint8Array(16_384).fill(255), shared])
    expect(crc32(data, 7)).toBe(zlib.crc32(data, 7));
});

test('what is added is a multiple of the polynomial of the CRC', () => {
  let power = 1;
  const powers = Array.from({ length: 399 }, () => {
    const present = power;
    power = ((power << 1) ^ (power < 0 ? 0x04c1_1db7 : 0)) | 0;
    return present;
  });
  const terms = [398, 366, 197, 165, 96, 48, 0];
  expect(terms.reduce((sum, exponent) => sum ^ (powers[exponent] ?? 0), 0)).toBe(0);
});

test.each([
  ['vectors', undefined],
  ['addresses for the memory (ulimit -v)', {}],
])('where there are no %s zlib does it', (_, module) => {
  const asked: number[] = [];
  const made = makeCrc32(module, (data, seed = 0) => {
    asked.push(data.byteLength);
    return zlib.crc32(data, seed);
  });
  const data = noise(16_384);
  expect(made(data, 3)).toBe(zlib.crc32(data, 3));
  expect(asked).toEqual([16_384]);
});

test.each([
  ['by WebAssembly', sharedCrc32Memory(7), 0],
  ['by WebAssembly in another thread', sharedCrc32Memory(7), 3],
  ['by zlib, where there is no WebAssembly', { ...sharedCrc32Memory(7), wasm: undefined }, 0],
] as const)('16 KiB anywhere in shared memory, %s', (_, memory, thread) => {
  const bytes = new Uint8Array(memory.buffer);
  const inPlace = makeCrc32InPlace(crc32Place(memory, thread), zlib.crc32);
  for (let i = 0; i < 100; i++) {
    const data = i === 0 ? new Uint8Array(16_384) : noise(16_384);
    const at = CRC32_RESERVED + random.below(bytes.length - CRC32_RESERVED - data.length + 1);
    bytes.set(data, at);
    expect(inPlace(at), `at ${at}`).toBe(zlib.crc32(data));
    expect(Buffer.compare(bytes.subarray(at, at + data.length), data)).toBe(0);
  }
});

test('two threads do not disturb each other', () => {
  const memory = sharedCrc32Memory(7);
  const first = makeCrc32InPlace(crc32Place(memory, 0), zlib.crc32);
  const second = makeCrc32InPlace(crc32Place(memory, 1), zlib.crc32);
  const data = noise(16_384);
  const bytes = new Uint8Array(memory.buffer);
  bytes.set(data, CRC32_RESERVED);
  first(CRC32_RESERVED);
  const areas = bytes.slice(0, WASM_PAGE);
  expect(second(CRC32_RESERVED)).toBe(zlib.crc32(data));
  expect(Buffer.compare(bytes.subarray(0, WASM_PAGE), areas)).toBe(0);
});

test.runIf(process.arch === 'x64')('on this processor there are vectors', () => {
  expect(crc32Module).toBeDefined();
  expect(crc32Place(sharedCrc32Memory(5), 1).wasm).toBeDefined();
});
