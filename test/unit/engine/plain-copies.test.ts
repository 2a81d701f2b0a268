/** Entries of a table block that are taken many at a time: which ones. */
import { expect, test } from 'vitest';
import { PlainCopies } from '../../../src/diff-area/plain-copies.ts';
import { viewOf } from '../../../src/format/binary.ts';
import { encodeTableBlock } from '../../../src/format/table-block.ts';
import { Runs } from '../../../src/store/runs.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';

const BLOCKS = 1000;
/** Slots 0 to 9 lie at block 100 of the device, 10 to 19 at block 50. */
const runs = new Runs([
  { volumeOffset: 100 * BLOCK_SIZE, fileOffset: 0, length: 10 * BLOCK_SIZE },
  { volumeOffset: 50 * BLOCK_SIZE, fileOffset: 10 * BLOCK_SIZE, length: 10 * BLOCK_SIZE },
]);
const placeOf = (slot: number): number => (slot < 10 ? 100 + slot : 40 + slot);

/** Reads entries of a block, a slot and a place on the device each. */
function read(entries: readonly (readonly [block: number, slot: number, place?: number])[], count?: number) {
  const image = encodeTableBlock(
    { fileOffset: 0, volumeOffset: 0, nextOffset: 0, epoch: 1n },
    entries.map(([block, slot, place = placeOf(slot)]) => ({
      originalOffset: block * BLOCK_SIZE,
      relativeOffset: slot * BLOCK_SIZE,
      volumeOffset: place * BLOCK_SIZE,
      flags: 0,
      bitmap: block + slot,
    })),
  );
  const copies = new PlainCopies(runs, BLOCKS);
  const taken = copies.read(viewOf(image), count ?? entries.length);
  const { blocks, slots, checksums } = copies.columns;
  return Array.from({ length: taken }, (_, i) => {
    expect(checksums[i]).toBe((blocks[i] ?? 0) + (slots[i] ?? 0));
    return [blocks[i], slots[i]];
  });
}

test('copies in slots of any run are taken, those of zeros too, and no more than were asked for', () => {
  const entries: [number, number][] = [
    [0, 5],
    [999, 19],
    [7, 4],
    [7, 9],
    [8, 10],
  ];
  expect(read(entries)).toEqual(entries);
  expect(read(entries, 2)).toEqual(entries.slice(0, 2));
});

test.each([
  ['a block past the volume', [BLOCKS, 6]],
  ['a slot of something else', [1, 3]],
  ['a slot past the file', [1, 20, 60]],
  ['a place that is not that of its slot', [1, 6, 107]],
  ['the place that another run would give', [1, 10, 110]],
  ['an empty entry', [0, 0, 0]],
] as const)('%s ends them', (_, broken) => {
  expect(read([[3, 5], broken, [4, 7]])).toEqual([[3, 5]]);
  expect(read([[3, 12], broken, [4, 7]])).toEqual([[3, 12]]);
  expect(read([broken])).toEqual([]);
});
