import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { AllocationExtent } from '../../../src/device/allocation.ts';
import { type Part, zeroParts } from '../../../src/export/zero-parts.ts';
import { MEBIBYTE } from '../engine/world.ts';

const UNIT = 65_536;

interface Extent {
  readonly offset: number;
  readonly length: number;
}

/** A source that knows the given runs, of alternating kind, and counts how often it is asked. */
function sourceOf(size: number, runs: readonly number[], firstIsZero: boolean) {
  const asked: Extent[] = [];
  async function* allocation(offset: number, length: number): AsyncGenerator<AllocationExtent> {
    asked.push({ offset, length });
    let at = 0;
    let zero = firstIsZero;
    for (const run of [...runs, size]) {
      const [from, to] = [Math.max(at, offset), Math.min(at + run, offset + length)];
      if (from < to) yield { length: to - from, zero };
      at += run;
      zero = !zero;
    }
  }
  const isZero = (from: number, to: number) => {
    let at = 0;
    return [...runs, size].every((run, index) => {
      const begin = at;
      at += run;
      return begin >= to || at <= from || (index % 2 === 0) === firstIsZero;
    });
  };
  return { size, allocation, asked, isZero };
}

async function collect(parts: AsyncIterable<Part>): Promise<Part[]> {
  const all: Part[] = [];
  for await (const part of parts) all.push(part);
  return all;
}

async function* each(...extents: readonly Extent[]): AsyncGenerator<Extent> {
  yield* extents;
}

test('parts make up the extents in whole units, and what is zero in them is found', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 6 * UNIT }), { maxLength: 30 }),
      fc.boolean(),
      fc.integer({ min: MEBIBYTE, max: 3 * MEBIBYTE }),
      fc.nat({ max: 8 }),
      async (runs, firstIsZero, length, skipped) => {
        const offset = skipped * UNIT;
        const source = sourceOf(offset + length, runs, firstIsZero);
        const parts = await collect(zeroParts(source, each({ offset, length }), UNIT));
        let at = offset;
        for (const part of parts) {
          expect(part.offset).toBe(at);
          expect(part.offset % UNIT).toBe(0);
          expect(part.length).toBeGreaterThan(0);
          at += part.length;
        }
        expect(at).toBe(source.size);
        for (let unit = offset; unit < source.size; unit += UNIT) {
          const end = Math.min(unit + UNIT, source.size);
          const part = parts.find((one) => one.offset <= unit && unit < one.offset + one.length);
          expect(part?.zero, `unit at ${unit}`).toBe(source.isZero(unit, end));
        }
      },
    ),
  );
});

test('short extents are not asked about, and who knows nothing is read', async () => {
  const source = sourceOf(4 * MEBIBYTE, [], true);
  const short = { offset: UNIT, length: MEBIBYTE - UNIT };
  const long = { offset: MEBIBYTE, length: MEBIBYTE };
  expect(await collect(zeroParts(source, each(short, long), UNIT))).toEqual([
    { ...short, zero: false },
    { ...long, zero: true },
  ]);
  expect(source.asked).toEqual([long]);
  const ignorant = { size: source.size };
  expect(await collect(zeroParts(ignorant, each(long), UNIT))).toEqual([{ ...long, zero: false }]);
});
