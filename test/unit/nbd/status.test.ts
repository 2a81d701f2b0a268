/** Extents of one answer keep the rules of the protocol and say what the context says. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { collectExtents } from '../../../src/nbd/server/status.ts';
import { COMPACT_EXTENT_MAX, type StatusExtent } from '../../../src/nbd/wire/block-status.ts';

const UNIT = 512;

const contextOf = (pieces: readonly StatusExtent[]) => ({ name: 'test:context', extents: () => pieces });

const statusAt = (extents: readonly StatusExtent[], at: number): number | undefined => {
  let end = 0;
  for (const { length, status } of extents) {
    end += length;
    if (at < end) return status;
  }
  return undefined;
};

describe('collectExtents', () => {
  test('says for every byte what the context says, in rules', async () => {
    const piece = fc.record({
      length: fc.integer({ min: 1, max: 20 }).map((n) => n * UNIT),
      status: fc.nat(2),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(piece, { minLength: 1, maxLength: 30 }),
        fc.double({ min: 0.01, max: 1, noNaN: true }),
        fc.boolean(),
        fc.boolean(),
        async (pieces, share, reqOne, extended) => {
          const size = pieces.reduce((sum, { length }) => sum + length, 0);
          const length = Math.max(1, Math.floor((size * share) / UNIT)) * UNIT;
          const extents = await collectExtents(
            contextOf(pieces),
            { offset: 0, length, size },
            { reqOne, extended },
          );
          const covered = extents.reduce((sum, extent) => sum + extent.length, 0);
          for (let at = 0; at < covered; at += UNIT) expect(statusAt(extents, at)).toBe(statusAt(pieces, at));
          for (const [i, extent] of extents.entries())
            if (i > 0) expect(extent.status).not.toBe(extents[i - 1]?.status);
          const beforeLast = covered - (extents.at(-1)?.length ?? 0);
          expect(beforeLast).toBeLessThan(length);
          expect(covered).toBeLessThanOrEqual(size);
          if (reqOne) {
            expect(extents).toHaveLength(1);
            expect(covered).toBeLessThanOrEqual(length);
          } else {
            expect(covered).toBeGreaterThanOrEqual(length);
          }
        },
      ),
    );
  });

  test('splits what 32 bits do not hold, unless headers are extended', async () => {
    const size = 3 * 2 ** 40;
    const range = { offset: 0, length: 2 ** 32 - UNIT, size };
    const compact = await collectExtents(contextOf([{ length: size, status: 3 }]), range, {
      reqOne: false,
      extended: false,
    });
    expect(compact.every(({ length }) => length <= COMPACT_EXTENT_MAX)).toBe(true);
    const one = await collectExtents(
      contextOf([{ length: size, status: 3 }]),
      { ...range, length: size },
      { reqOne: false, extended: true },
    );
    expect(one).toEqual([{ length: size, status: 3 }]);
  });

  test('stops after as many extents as one answer may have', async () => {
    const pieces = Array.from({ length: 200_000 }, (_, i) => ({ length: UNIT, status: i % 2 }));
    const size = pieces.length * UNIT;
    const extents = await collectExtents(
      contextOf(pieces),
      { offset: 0, length: size, size },
      { reqOne: false, extended: false },
    );
    expect(extents).toHaveLength(65_536);
  });
});
