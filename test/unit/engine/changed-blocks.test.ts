/** What changed in a part of a volume. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BlockTable } from '../../../src/diff-area/block-table.ts';
import { BLOCKS_PER_PAGE } from '../../../src/diff-area/presence.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { changedExtents } from '../../../src/volume/changed-blocks.ts';

describe('What changed', () => {
  const SIZE = 3 * BLOCKS_PER_PAGE * BLOCK_SIZE - 5000;
  const lengths = fc.array(fc.tuple(fc.nat(BLOCKS_PER_PAGE), fc.integer({ min: 1, max: 5000 })), {
    maxLength: 8,
  });

  test('in a range is what changed in all, cut at the edges of the range', () => {
    fc.assert(
      fc.property(
        lengths,
        fc.nat(SIZE),
        fc.nat(SIZE),
        fc.nat(SIZE * 2),
        (runs, offset, length, sizeBefore) => {
          const table = new BlockTable(3 * BLOCKS_PER_PAGE);
          let block = 0;
          for (const [gap, count] of runs) {
            block += gap;
            for (let i = 0; i < count && block < table.blockCount; i++) table.set(block++, 5, 0);
          }
          const all = [...changedExtents([table], { sizeBefore, size: SIZE })];
          const end = Math.min(SIZE, offset + length);
          const wanted = all
            .map((extent) => [Math.max(extent.offset, offset), Math.min(extent.offset + extent.length, end)])
            .filter(([from = 0, to = 0]) => from < to)
            .map(([from = 0, to = 0]) => ({ offset: from, length: to - from }));
          expect([...changedExtents([table], { sizeBefore, size: SIZE, offset, length })]).toEqual(wanted);
        },
      ),
      { numRuns: 60 },
    );
  });

  test.each([0, 1, 31, 32, 33])(
    'is all that a volume has grown by, also where it was written to (block %d of a word)',
    (at) => {
      const block = 4096 + at;
      const table = new BlockTable(3 * BLOCKS_PER_PAGE);
      for (let written = block + 1; written < block + 40; written++) table.set(written, 5, 0);
      const range = { offset: block * BLOCK_SIZE, length: 1 };
      const sizeBefore = 100 * BLOCK_SIZE;
      expect([...changedExtents([table], { sizeBefore, size: SIZE, ...range })]).toEqual([range]);
    },
  );

  test('of a gibibyte that changed whole is one extent', () => {
    const table = new BlockTable(2 ** 16);
    for (let block = 0; block < table.blockCount; block++) table.set(block, 5, 0);
    const size = 2 ** 16 * BLOCK_SIZE;
    expect([...changedExtents([table], { sizeBefore: size, size })]).toEqual([{ offset: 0, length: size }]);
  });
});
