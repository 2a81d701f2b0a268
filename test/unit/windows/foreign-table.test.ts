/** The rules of research on the format, entry by entry; what a whole snapshot reads is compared with libvshadow. */
import { describe, expect, test } from 'vitest';
import { viewOf } from '../../../src/format/binary.ts';
import { encodeTableBlock, type TableEntry } from '../../../src/format/table-block.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { type ForeignTable, ForeignTableBuilder } from '../../../src/windows/foreign-table.ts';
import { Notes } from '../../../src/windows/notes.ts';
import { stableOrder } from '../../../src/windows/stable-order.ts';
import { copy, EMPTY_ENTRY, move, overlay } from '../../interop/support/windows-image.ts';

const BLOCKS = 100;
const notes = new Notes();
const windows = { fileOffset: 0, volumeOffset: 0, nextOffset: 0, epoch: undefined };

function tableOf(entries: readonly TableEntry[], into = notes): ForeignTable {
  const builder = new ForeignTableBuilder(BLOCKS, into);
  builder.addBlock(viewOf(encodeTableBlock(windows, entries)), { offset: 7 * BLOCK_SIZE });
  return builder.finish();
}
/** What the table says of a block: the block where its copy lies, `→` the block it moved to, or nothing. */
function say(table: ForeignTable, block: number): string {
  const place = table.placeOf(block);
  if (place === undefined) return '';
  return place < 0 ? `→${-1 - place}` : `${place / BLOCK_SIZE}`;
}
const says = (entries: readonly TableEntry[], ...blocks: number[]): string[] => {
  const table = tableOf(entries);
  return blocks.map((block) => say(table, block));
};

describe('an ordinary entry', () => {
  test.each([0, 0x8, 0x10, 0x18, 0x28, 0x48, 0x88, 0xf8, 0x100, 0x8000_0000])(
    'with flags %d is a copy',
    (flags) => {
      expect(says([copy(3, 50, flags)], 2, 3, 4)).toEqual(['', '50', '']);
    },
  );
  test('counts when it is the later of two', () => {
    expect(says([copy(3, 50), copy(2, 51), copy(3, 52)], 2, 3)).toEqual(['51', '52']);
  });
  test('is found behind empty ones', () => {
    expect(says([EMPTY_ENTRY, copy(3, 50), EMPTY_ENTRY, EMPTY_ENTRY, copy(4, 51)], 3, 4)).toEqual([
      '50',
      '51',
    ]);
  });
  test.each([0x4, 0x5, 0x6, 0xc])('with the unused flag (%d) is ignored', (flags) => {
    expect(says([copy(3, 50), copy(3, 51, flags)], 3)).toEqual(['50']);
    expect(tableOf([overlay(3, 50, 1, flags)]).overlayOf(3)).toBeUndefined();
  });
  test('keeps the device offset it states, on the block grid or off it', () => {
    expect(tableOf([{ ...copy(3, 50), volumeOffset: 50 * BLOCK_SIZE + 512 }]).placeOf(3)).toBe(
      50 * BLOCK_SIZE + 512,
    );
  });
  test('for no block of the volume is ignored with a note', () => {
    const own = new Notes();
    const table = tableOf([copy(BLOCKS, 50), { ...copy(3, 50), originalOffset: 3 * BLOCK_SIZE + 512 }], own);
    expect([...table.changedBlocks()]).toEqual([]);
    expect(own.list).toEqual([
      'block at offset 0x1c000: table entry at byte 128 is for offset 0x190000, which is no block of the volume; ignored',
      'block at offset 0x1c000: table entry at byte 160 is for offset 0xc200, which is no block of the volume; ignored',
    ]);
  });
});

describe('a move', () => {
  test.each([0x1, 0x9, 0x21, 0x81])('with flags %d sends a block to another', (flags) => {
    const table = tableOf([move(2, 9, flags)]);
    expect([say(table, 2), say(table, 9), table.isMoveTarget(9), table.isMoveTarget(2)]).toEqual([
      '→9',
      '',
      true,
      false,
    ]);
  });
  test('is spent by the next entry for its target, which becomes one for its source', () => {
    const table = tableOf([move(2, 9), copy(9, 50), copy(9, 51)]);
    expect([say(table, 2), say(table, 9), table.isMoveTarget(9)]).toEqual(['50', '51', false]);
  });
  test('of a target moves the source on', () => {
    const entries = [move(2, 9), move(9, 12)];
    expect(says(entries, 2, 9, 12)).toEqual(['→12', '', '']);
    expect(says([...entries, copy(12, 50)], 2, 9, 12)).toEqual(['50', '', '']);
  });
  test('back to where it came from is ignored, and the target is one no longer', () => {
    const table = tableOf([move(2, 9), move(9, 2), copy(9, 50)]);
    expect([say(table, 2), say(table, 9), table.isMoveTarget(9)]).toEqual(['→9', '50', false]);
  });
  test('to itself is ignored', () => {
    expect(says([copy(2, 50), move(2, 2)], 2)).toEqual(['50']);
  });
  test('replaces an ordinary entry before it', () => {
    expect(says([copy(2, 50), move(2, 9)], 2)).toEqual(['→9']);
  });
  test('to a target that has one already: an entry for it is for the later source', () => {
    expect(says([move(2, 9), move(3, 9), copy(9, 50)], 2, 3, 9)).toEqual(['→9', '50', '']);
  });
  test('is not ended by an unused entry or an overlay of its target', () => {
    const table = tableOf([move(2, 9), copy(9, 50, 4), overlay(9, 51, 1), copy(9, 52)]);
    expect([say(table, 2), say(table, 9), table.overlayOf(2), table.overlayOf(9)?.sectors]).toEqual([
      '52',
      '',
      undefined,
      1,
    ]);
  });
  test('that names a copy too is refused', () => {
    expect(() => tableOf([{ ...move(2, 9), volumeOffset: BLOCK_SIZE }])).toThrow(
      'block at offset 0x1c000: table entry at byte 128: volume offset of a move is 0x4000, must be 0',
    );
  });
  test.each([BLOCKS * BLOCK_SIZE, 9 * BLOCK_SIZE + 1])(
    'to %d, no block of the volume, leads past the end of any device',
    (to) => {
      const own = new Notes();
      expect(tableOf([{ ...move(2, 9), relativeOffset: to }], own).placeOf(2)).toBe(Number.MAX_SAFE_INTEGER);
      expect(own.list).toHaveLength(1);
    },
  );
});

describe('an overlay', () => {
  test.each([0x2, 0x22, 0x42, 0x82, 0xa])(
    'with flags %d names sectors and leaves the block as it is',
    (flags) => {
      const table = tableOf([overlay(3, 50, 0x8000_0001, flags)]);
      expect(say(table, 3)).toBe('');
      expect(table.overlayOf(3)).toEqual({ offset: 50 * BLOCK_SIZE, sectors: 0x8000_0001 });
    },
  );
  test('adds its sectors to an earlier one and shares its data block', () => {
    const later = { ...overlay(3, 60, 4), relativeOffset: 1 };
    expect(tableOf([overlay(3, 50, 1), copy(3, 55), later]).overlayOf(3)).toEqual({
      offset: 50 * BLOCK_SIZE,
      sectors: 5,
    });
  });
  test('stays on a block that moves, also when the move becomes a copy', () => {
    const table = tableOf([overlay(2, 50, 1), move(2, 9), copy(9, 51)]);
    expect([say(table, 2), table.overlayOf(2)?.sectors, table.overlayOf(9)]).toEqual(['51', 1, undefined]);
  });
});

test('changed blocks come in ascending order, once each, with the targets of moves', () => {
  const table = tableOf([
    copy(70, 50),
    copy(3, 51),
    move(2, 9),
    overlay(5, 50, 1),
    copy(3, 52),
    move(4, 3),
    move(1, 80),
  ]);
  expect([...table.changedBlocks()]).toEqual([1, 2, 3, 4, 9, 70, 80]);
  expect([table.entryCount, table.dataBlocks]).toEqual([7, 3]);
});

test('a table grows over many blocks of entries', () => {
  const builder = new ForeignTableBuilder(100_000, notes);
  for (let block = 0; block < 10; block++)
    builder.addBlock(
      viewOf(
        encodeTableBlock(
          windows,
          Array.from({ length: 508 }, (_, i) => copy((i * 10 + block + 1) * 7, i + 1)),
        ),
      ),
      { offset: 0 },
    );
  const table = builder.finish();
  expect(table.entryCount).toBe(5080);
  expect([...table.changedBlocks()]).toEqual(Array.from({ length: 5080 }, (_, i) => (i + 1) * 7));
  expect(say(table, 7 * 5080)).toBe('508');
});

test('a stable order keeps equal values as they came', () => {
  const values = Uint32Array.of(5, 0xffff_ffff, 5, 0, 0x1_0000, 5, 0);
  expect([...stableOrder(values)]).toEqual([3, 6, 0, 2, 5, 4, 1]);
  expect([...stableOrder(new Uint32Array(0))]).toEqual([]);
});

test('notes are bounded, and the rest is counted', () => {
  const own = new Notes();
  for (let i = 0; i < 103; i++) own.add(`${i}`);
  expect(own.list.slice(98)).toEqual(['98', '99', 'and 3 more']);
});
