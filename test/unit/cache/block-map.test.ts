import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BlockMap } from '../../../src/cache/block-map.js';
import { SeededRandom } from '../../../src/testing/index.js';
import { ModelMap } from './model-map.js';

test('the shortest free range that is long enough is taken', () => {
  const map = new BlockMap(100);
  map.allocateAt(0, 100, 'data');
  map.release(10, 8, 'data');
  map.release(30, 5, 'data');
  map.release(50, 6, 'data');
  expect(map.allocate(5, 'metadata')).toBe(30);
  expect(map.allocate(5, 'data')).toBe(50);
  expect(map.allocate(9, 'data')).toBeUndefined();
  expect(map.allocate(5, 'data', 14)).toBeUndefined();
  expect(map.counts).toEqual({ blocks: 100, free: 9, metadata: 5, data: 86 });
});

test('or the next longer one, if blocks have to lie before an end', () => {
  const map = new BlockMap(100);
  map.allocateAt(0, 100, 'data');
  for (const start of [10, 50, 70]) map.release(start, 8, 'data');
  map.release(30, 9, 'data');
  map.release(90, 5, 'data');
  expect(map.allocate(5, 'data', 94)).toBe(10);
  expect(map.allocate(8, 'data', 40)).toBe(30);
  expect(map.allocate(8, 'data', 58)).toBe(50);
  expect(map.allocate(8, 'data', 77)).toBeUndefined();
});

test('freed neighbours become one range, and a part of a run may be freed', () => {
  const map = new BlockMap(64);
  expect(map.allocate(64, 'data')).toBe(0);
  map.release(16, 16, 'data');
  map.release(48, 8, 'data');
  expect(map.freeRangeCount).toBe(2);
  map.release(32, 16, 'data');
  expect([...map.freeRanges()]).toEqual([{ start: 16, count: 40 }]);
});

test('a run grows in place where the next range is free, and moves where it is not', () => {
  const map = new BlockMap(64);
  expect(map.allocate(8, 'data')).toBe(0);
  expect(map.reallocate(0, 8, 16, 'data')).toBe(0);
  expect(map.allocateAt(16, 1, 'metadata')).toBe(true);
  expect(map.reallocate(0, 16, 24, 'data')).toBe(17);
  expect(map.isFree(0, 16)).toBe(true);
  expect(map.reallocate(17, 24, 4, 'data')).toBe(17);
  expect(map.reallocate(17, 4, 64, 'data')).toBeUndefined();
  expect(map.counts).toEqual({ blocks: 64, free: 59, metadata: 1, data: 4 });
});

test('freeing what is free is a bug that is noticed', () => {
  const map = new BlockMap(16);
  map.allocate(8, 'data');
  map.release(4, 2, 'data');
  expect(() => map.release(5, 2, 'data')).toThrow('free already');
  expect(() => map.release(12, 8, 'data')).toThrow('12 to 20');
});

test('the bitmap has a bit for each block, lowest first', () => {
  const map = new BlockMap(20);
  map.allocateAt(0, 3, 'metadata');
  map.allocateAt(9, 11, 'data');
  const bits = new Uint8Array(4);
  map.fillBitmap(0, bits);
  expect([...bits]).toEqual([0b111, 0b1111_1110, 0b1111, 0]);
  map.fillBitmap(8, bits.subarray(0, 1));
  expect(bits[0]).toBe(0b1111_1110);
});

test('does what a plain list of blocks does', () => {
  fc.assert(
    fc.property(fc.nat(), fc.integer({ min: 1, max: 200 }), (seed, blocks) => {
      new ModelMap(blocks).compare(new SeededRandom(seed), 60);
    }),
    { numRuns: 200 },
  );
});

test('four thousand operations on one map', () => {
  new ModelMap(3000).compare(new SeededRandom('long'), 4000);
});
