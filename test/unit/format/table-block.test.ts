import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AssertionError, FormatError } from '../../../src/errors.ts';
import { viewOf } from '../../../src/format/binary.ts';
import {
  copyColumns,
  decodeEntry,
  decodeTableBlock,
  EntryFlag,
  encodeEntry,
  encodeTableBlock,
  entryBitmap,
  entryChecksum,
  entryFlags,
  entryOriginalOffset,
  entryPosition,
  entryRelativeOffset,
  entryVolumeOffset,
  epochBytesOf,
  isEmptyEntry,
  readCopies,
  type TableEntry,
  writeOrdinaryEntry,
} from '../../../src/format/table-block.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { context, ours, safe, survivesAnyBytes, u32, windows } from './fixtures.ts';

const entries: fc.Arbitrary<TableEntry> = fc.record({
  originalOffset: safe,
  relativeOffset: safe,
  volumeOffset: safe,
  flags: u32,
  bitmap: u32,
});
const empty: TableEntry = { originalOffset: 0, relativeOffset: 0, volumeOffset: 0, flags: 0, bitmap: 0 };

test('a table block comes back as it was', () => {
  fc.assert(
    fc.property(fc.array(entries, { maxLength: 508 }), fc.constantFrom(ours, windows), (list, place) => {
      const decoded = decodeTableBlock(encodeTableBlock(place, list), context);
      expect(decoded.entries).toEqual([...list, ...Array.from({ length: 508 - list.length }, () => empty)]);
      expect(decoded.header.extension?.readOnlyCompatible).toBe(place.epoch === undefined ? undefined : 1);
    }),
    { numRuns: 30 },
  );
});

test('the fields of an entry are read one by one without decoding it', () => {
  fc.assert(
    fc.property(entries, (entry) => {
      const bytes = new Uint8Array(40);
      encodeEntry(bytes, 5, entry);
      const view = viewOf(bytes);
      expect({
        originalOffset: entryOriginalOffset(view, 5),
        relativeOffset: entryRelativeOffset(view, 5),
        volumeOffset: entryVolumeOffset(view, 5),
        flags: entryFlags(view, 5),
        bitmap: entryBitmap(view, 5),
      }).toEqual(entry);
      expect(decodeEntry(bytes, 5, context)).toEqual(entry);
      expect([bytes[4], bytes[37]]).toEqual([0, 0]);
    }),
  );
});

test('copies are read many at a time, up to the first entry that is anything else', () => {
  const block = fc.nat(2 ** 32 - 1);
  const copies = fc.array(fc.tuple(block, block, block, u32), { maxLength: 20 });
  const odd = fc.constantFrom<Partial<TableEntry>>(
    { flags: 1 },
    { flags: 2 ** 31 },
    { originalOffset: 512 },
    { relativeOffset: BLOCK_SIZE - 1 },
    { volumeOffset: 2 ** 46 },
    { relativeOffset: 2 ** 52 },
  );
  fc.assert(
    fc.property(copies, odd, copies, (first, broken, rest) => {
      const entryOf = ([original, relative, volume, bitmap]: readonly number[]): TableEntry => ({
        originalOffset: (original ?? 0) * BLOCK_SIZE,
        relativeOffset: (relative ?? 0) * BLOCK_SIZE,
        volumeOffset: (volume ?? 0) * BLOCK_SIZE,
        flags: 0,
        bitmap: bitmap ?? 0,
      });
      const list = [...first.map(entryOf), { ...empty, ...broken }, ...rest.map(entryOf)];
      const view = viewOf(encodeTableBlock(ours, list));
      const columns = copyColumns(508);
      expect(readCopies(view, list.length, columns)).toBe(first.length);
      const { blocks, slots, places, checksums } = columns;
      expect(first.map((_, i) => [blocks[i], slots[i], places[i], checksums[i]])).toEqual(first);
      if (first.length > 0) expect(readCopies(view, first.length - 1, columns)).toBe(first.length - 1);
    }),
  );
});

test('an entry is empty only when every byte is zero', () => {
  const bytes = new Uint8Array(32);
  expect(isEmptyEntry(viewOf(bytes), 0)).toBe(true);
  for (let at = 0; at < 32; at++) {
    bytes.fill(0)[at] = 1;
    expect(isEmptyEntry(viewOf(bytes), 0), `byte ${at}`).toBe(false);
  }
});

test.each([0, 8, 16])('an offset of 2^63 at byte %d of an entry is refused', (at) => {
  const bytes = new Uint8Array(32);
  bytes[at + 7] = 0x80;
  expect(() => decodeEntry(bytes, 0, context)).toThrow(FormatError);
  expect(() => decodeEntry(bytes, 0, context)).toThrow(
    /offset is 0x8000000000000000, must be no larger than 2\^53 - 1/,
  );
  expect(() => decodeEntry(bytes, 1, context)).toThrow('table entry length is 0x1f');
});

test('508 entries fill a block; the first sector holds 12, every other one 16', () => {
  expect(entryPosition(508)).toBe(BLOCK_SIZE);
  expect([entryPosition(0), entryPosition(12), entryPosition(28)]).toEqual([128, 512, 1024]);
  expect(() =>
    encodeTableBlock(
      ours,
      Array.from({ length: 509 }, () => empty),
    ),
  ).toThrow(AssertionError);
});

test('flags have the values of the format', () => {
  expect(EntryFlag).toEqual({ move: 1, overlay: 2, unused: 4 });
});

describe('the checksum of an entry', () => {
  const entry = new Uint8Array(32);
  writeOrdinaryEntry(viewOf(entry), 0, 3 * BLOCK_SIZE, 5 * BLOCK_SIZE, 9 * BLOCK_SIZE, 0, 0);
  const epoch = epochBytesOf(0x0102_0304_0506_0708n);
  const data = new Uint8Array(BLOCK_SIZE).fill(7);
  const sum = entryChecksum(entry, epoch, data);

  test('is CRC-32 of entry, epoch and data one after the other', () => {
    expect([...epoch]).toEqual([8, 7, 6, 5, 4, 3, 2, 1]);
    expect(sum).toBe(crc32(Buffer.concat([entry.subarray(0, 28), epoch, data])));
    expect(entryChecksum(entry.subarray(0, 28), epoch, data)).toBe(sum);
  });

  test('leaves its own field out, and nothing else', () => {
    for (let at = 0; at < 32; at++) {
      const other = entry.slice();
      other[at] = (other[at] ?? 0) ^ 1;
      expect(entryChecksum(other, epoch, data) === sum, `byte ${at}`).toBe(at >= 28);
    }
    expect(entryChecksum(entry, epochBytesOf(1n), data)).not.toBe(sum);
    expect(entryChecksum(entry, epoch, new Uint8Array(BLOCK_SIZE))).not.toBe(sum);
  });
});

test('a table block survives any bytes', () => {
  for (const place of [ours, windows])
    survivesAnyBytes(encodeTableBlock(place, [empty]), (bytes) => decodeTableBlock(bytes, context));
});
