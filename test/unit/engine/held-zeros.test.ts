import { expect, test } from 'vitest';
import { type HeldRange, lessHeld } from '../../../src/copy-on-write/held-zeros.ts';
import { type AllocationExtent, merged } from '../../../src/device/allocation.ts';

const zero = (length: number) => ({ length, zero: true });
const data = (length: number) => ({ length, zero: false });

async function laidOver(extents: readonly AllocationExtent[], held: readonly HeldRange[]) {
  const all: AllocationExtent[] = [];
  for await (const extent of merged(lessHeld(given(extents), 100, held))) all.push(extent);
  return all;
}

async function* given(extents: readonly AllocationExtent[]) {
  yield* extents;
}

test.each<readonly [string, readonly HeldRange[], readonly AllocationExtent[]]>([
  ['nothing', [], [zero(50), data(50), zero(100)]],
  ['the middle of zeros', [{ offset: 110, end: 120 }], [zero(10), data(10), zero(30), data(50), zero(100)]],
  ['what is data anyway', [{ offset: 160, end: 190 }], [zero(50), data(50), zero(100)]],
  ['both sides of a border', [{ offset: 140, end: 210 }], [zero(40), data(70), zero(90)]],
  ['all of it, and more', [{ offset: 0, end: 1000 }], [data(200)]],
  [
    'ranges that overlap, in any order',
    [
      { offset: 260, end: 270 },
      { offset: 90, end: 105 },
      { offset: 210, end: 290 },
      { offset: 102, end: 110 },
    ],
    [data(10), zero(40), data(50), zero(10), data(80), zero(10)],
  ],
])('a buffer that holds %s', async (_, held, expected) => {
  expect(await laidOver([zero(50), data(50), zero(100)], held)).toEqual(expected);
});
