import { expect, test } from 'vitest';
import { viewOf } from '../../../src/format/binary.ts';
import { encodeTableBlock } from '../../../src/format/table-block.ts';
import {
  endOfEntries,
  placeInOneSector,
  roomFrom,
  sectorOfEntry,
} from '../../../src/format/table-placement.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { BlockRanges } from '../../../src/windows/block-ranges.ts';
import { FreeSlots } from '../../../src/windows/free-slots.ts';
import { TableWriter } from '../../../src/windows/table-writer.ts';
import { copy, EMPTY_ENTRY } from '../../interop/support/windows-image.ts';

const PLACE = { fileOffset: 0x4000, volumeOffset: 0x8000, nextOffset: 0, epoch: undefined };
const slot = (block: number) => ({
  fileOffset: block * BLOCK_SIZE,
  volumeOffset: (block + 100) * BLOCK_SIZE,
});

test('entries go behind the last one, whatever was left out before it', () => {
  const block = encodeTableBlock(PLACE, [copy(1, 2), EMPTY_ENTRY, copy(3, 4)]);
  expect(endOfEntries(viewOf(block))).toBe(3);
  expect(endOfEntries(viewOf(encodeTableBlock(PLACE, [])))).toBe(0);
});

test('two that belong together lie in one sector', () => {
  // The first sector has 12 places, every other one 16.
  expect([10, 11, 12, 27, 28].map((end) => placeInOneSector(end, 2))).toEqual([10, 12, 12, 28, 28]);
  expect([505, 506, 507].map((end) => placeInOneSector(end, 2))).toEqual([505, 506, undefined]);
  expect([507, 508].map((end) => placeInOneSector(end, 1))).toEqual([507, undefined]);
  expect([11, 12, 507].map(sectorOfEntry)).toEqual([0, 512, 31 * 512]);
});

test('the room that is promised is there, in pairs and singly', () => {
  for (let start = 0; start <= 508; start++) {
    for (const count of [1, 2]) {
      let [end, placed] = [start, 0];
      for (let at = placeInOneSector(end, count); at !== undefined; at = placeInOneSector(end, count)) {
        end = at + count;
        placed += count;
      }
      expect(placed, `${count} from ${start}`).toBeGreaterThanOrEqual(roomFrom(start) - (count - 1));
    }
  }
});

test('free slots are those of the runs behind what is in use, and not taken by others', () => {
  const runs = [
    { fileOffset: 2 * BLOCK_SIZE, firstBlock: 10, blocks: 4 },
    { fileOffset: 6 * BLOCK_SIZE, firstBlock: 30, blocks: 4 },
  ];
  const slots = new FreeSlots(runs, 4 * BLOCK_SIZE, new BlockRanges([{ start: 31, end: 33 }]));
  expect(slots.count).toBe(4);
  const taken = Array.from({ length: 4 }, () => slots.take());
  expect(taken.map(({ volumeOffset }) => volumeOffset / BLOCK_SIZE)).toEqual([12, 13, 30, 33]);
  expect(taken.map(({ fileOffset }) => fileOffset / BLOCK_SIZE)).toEqual([4, 5, 6, 9]);
  expect(() => slots.take()).toThrow('no free slot is left');
});

test('ranges are joined and searched', () => {
  const ranges = new BlockRanges([
    { start: 5, end: 7 },
    { start: 1, end: 2 },
    { start: 6, end: 9 },
    { start: 12, end: 12 },
  ]);
  expect(ranges.list).toEqual([
    { start: 1, end: 2 },
    { start: 5, end: 9 },
  ]);
  expect([0, 1, 2, 4, 5, 8, 9].filter((block) => ranges.firstWithin(block, block + 1) !== undefined)).toEqual(
    [1, 5, 8],
  );
  expect([ranges.firstWithin(2, 6), ranges.firstWithin(2, 5), ranges.firstWithin(6, 99)]).toEqual([
    5,
    undefined,
    6,
  ]);
  expect([
    ranges.lastWithin(0, 6),
    ranges.lastWithin(0, 5),
    ranges.lastWithin(2, 99),
    ranges.lastWithin(9, 99),
  ]).toEqual([5, 1, 8, undefined]);
  expect(
    BlockRanges.overlapOf([
      { start: 5, end: 7 },
      { start: 6, end: 8 },
    ]),
  ).toBe(6);
  expect(
    BlockRanges.overlapOf([
      { start: 5, end: 7 },
      { start: 7, end: 8 },
    ]),
  ).toBeUndefined();
});

test('a table goes on in a new block that is written whole before anything leads to it', () => {
  const end = encodeTableBlock(
    PLACE,
    Array.from({ length: 507 }, () => copy(1, 2)),
  );
  const writer = new TableWriter({ offset: 0x8000, bytes: end });
  expect([writer.blocksFor(0), writer.blocksFor(1), writer.blocksFor(476), writer.blocksFor(477)]).toEqual([
    0, 1, 1, 2,
  ]);
  writer.append(7, slot(1), 1, () => slot(9));
  expect(writer.pending()).toMatchObject({ fresh: [], linked: [{ offset: 0x8000 + 31 * 512 }] });
  writer.append(8, slot(2), 2, () => slot(9));
  const { fresh, linked } = writer.pending();
  expect(fresh.map(({ offset, bytes }) => [offset, bytes.byteLength])).toEqual([
    [109 * BLOCK_SIZE, BLOCK_SIZE],
  ]);
  expect(linked.map(({ offset, bytes }) => [offset, bytes.byteLength])).toEqual([[0x8000, BLOCK_SIZE]]);
  writer.written();
  expect(writer.pending()).toEqual({ fresh: [], linked: [] });
  writer.append(9, slot(3), 1, () => slot(10));
  expect(writer.pending()).toMatchObject({ fresh: [], linked: [{ offset: 109 * BLOCK_SIZE }] });
});
