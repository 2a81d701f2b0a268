import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AssertionError, FormatError } from '../../../src/errors.ts';
import { viewOf } from '../../../src/format/binary.ts';
import { ITEM_SIZE } from '../../../src/format/constants.ts';
import {
  type ControlItem,
  type DiffAreaItem,
  decodeControlBlock,
  decodeItem,
  encodeControlBlock,
  encodeItem,
  ITEM_PAIRS,
  isPairSound,
  itemPosition,
  type SnapshotItem,
  sealPair,
  sectorOfItem,
} from '../../../src/format/control-block.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import {
  aligned,
  context,
  foreignContext,
  guids,
  ours,
  safe,
  survivesAnyBytes,
  u64,
  windows,
} from './fixtures.ts';

const snapshots: fc.Arbitrary<SnapshotItem> = fc.record({
  kind: fc.constant('snapshot' as const),
  volumeSize: safe,
  storeId: guids,
  order: safe,
  flags: safe,
  createdAt: u64,
});
const diffAreas: fc.Arbitrary<DiffAreaItem> = fc.record({
  kind: fc.constant('diff-area' as const),
  tableOffset: aligned,
  storeId: guids,
  applicationInformationOffset: aligned,
  locationOffset: aligned,
  bitmapOffset: aligned,
  fileReference: u64,
  allocatedSize: safe,
  previousBitmapOffset: aligned,
  unknown: u64,
  state: fc.nat(0x7f),
  heldUntil: u64,
  elderOrder: safe,
});
/** As a reader of a foreign block sees it. */
const foreign = (item: ControlItem): ControlItem =>
  item.kind === 'diff-area' ? { ...item, state: 0, heldUntil: 0n, elderOrder: 0 } : item;
const items: fc.Arbitrary<ControlItem> = fc.oneof(
  snapshots,
  diffAreas,
  fc.constant({ kind: 'free' } as const),
  fc.constant({ kind: 'end' } as const),
);

const encoded = (item: ControlItem): Uint8Array => {
  const bytes = new Uint8Array(128).fill(0xee);
  encodeItem(bytes, 0, item);
  return bytes;
};
const [snapshot = { kind: 'free' } as const] = fc.sample(snapshots, { numRuns: 1, seed: 1 });
const [diffArea = { kind: 'free' } as const] = fc.sample(diffAreas, { numRuns: 1, seed: 1 });

test('a control block comes back as it was, ours and one of Windows', () => {
  fc.assert(
    fc.property(fc.array(items, { maxLength: 127 }), fc.constantFrom(ours, windows), (list, place) => {
      const block = encodeControlBlock(place, list);
      const decoded = decodeControlBlock(block, context);
      const empty = Array.from({ length: 127 - list.length }, () => ({ kind: 'end' }));
      expect(decoded.items).toEqual([...(place === ours ? list : list.map(foreign)), ...empty]);
      expect(decoded.header.extension?.epoch).toBe(place.epoch);
    }),
    { numRuns: 30 },
  );
});

test('a control block of Windows reads as libvshadow shows it', () => {
  // Two items of the sample image, cut down to what is not zero.
  const block = encodeControlBlock(
    { ...windows, fileOffset: 0, volumeOffset: 0x6e30000, nextOffset: 0x6e34000 },
    [],
  );
  const put = (at: number, text: string) => block.set(Buffer.from(text.replaceAll(' ', ''), 'hex'), at);
  put(
    0x80,
    '0200000000000000 0000004000000000 690b0f60df5be3119d6c005056c00008 0100000000000000 4000000000000000 4ba912d0f1efce01',
  );
  put(
    0x200,
    '0300000000000000 0040e40600000000 6d0b0f60df5be3119d6c005056c00008 0000e40600000000 0080e40600000000 0000e50600000000 2800000000000100 0000000000000000 0040e50600000000 0100000000000000',
  );
  const { items: found } = decodeControlBlock(block, { offset: 0x6e30000 });
  expect(found[0]).toEqual({
    kind: 'snapshot',
    volumeSize: 2 ** 30,
    storeId: '600f0b69-5bdf-11e3-9d6c-005056c00008',
    order: 1,
    flags: 0x40,
    createdAt: 130_305_261_097_363_787n,
  });
  expect(found[3]).toEqual({
    kind: 'diff-area',
    state: 0,
    heldUntil: 0n,
    elderOrder: 0,
    tableOffset: 0x6e44000,
    storeId: '600f0b6d-5bdf-11e3-9d6c-005056c00008',
    applicationInformationOffset: 0x6e40000,
    locationOffset: 0x6e48000,
    bitmapOffset: 0x6e50000,
    fileReference: 0x0001_0000_0000_0028n,
    allocatedSize: 0,
    previousBitmapOffset: 0x6e54000,
    unknown: 1n,
  });
});

describe('an item', () => {
  test('takes exactly its own bytes', () => {
    const bytes = new Uint8Array(3 * 128).fill(0xee);
    encodeItem(bytes, 128, snapshot);
    expect([bytes[127], bytes[256], bytes[128 + 127]]).toEqual([0xee, 0xee, 0]);
  });

  test('of an unknown type is refused, naming type and place', () => {
    const bytes = encoded(snapshot);
    bytes[0] = 4;
    for (const where of [context, foreignContext]) {
      expect(() => decodeItem(bytes, 0, where)).toThrow(FormatError);
      expect(() => decodeItem(bytes, 0, where)).toThrow(
        'block at offset 0x14000: control item at byte 0: type is 0x4, must be 0 (end)',
      );
    }
  });

  test.each([
    ['snapshot', snapshot, [8, 32, 40]],
    ['diff area', diffArea, [8, 32, 40, 48, 64, 72]],
  ] as const)(
    '%s with a number of 2^63 is refused wherever it stands, and comes out rounded from a foreign block',
    (_, item, places) => {
      for (const at of places) {
        const bytes = encoded(item);
        bytes[at + 7] = 0x80;
        expect(() => decodeItem(bytes, 0, context), `at ${at}`).toThrow('must be no larger than 2^53 - 1');
        const numbers = Object.values(decodeItem(bytes, 0, foreignContext)).filter(
          (value) => typeof value === 'number' && value >= 2 ** 63,
        );
        expect(numbers, `at ${at}`).toHaveLength(1);
      }
    },
  );

  test.each([
    ['snapshot', snapshot, [4, 56, 127]],
    ['diff area', diffArea, [4, 112, 127]],
    ['free', { kind: 'free' }, [4, 8, 127]],
    ['end', { kind: 'end' }, [4, 8, 127]],
  ] as const)('%s with reserved bytes is refused in a store of ours only', (_, item, places) => {
    for (const at of places) {
      const bytes = encoded(item);
      bytes[at] = 1;
      expect(() => decodeItem(bytes, 0, context), `at ${at}`).toThrow('must be zero (reserved)');
      expect(decodeItem(bytes, 0, foreignContext)).toEqual(foreign(item));
    }
  });

  test('with an offset off the block grid is refused in a store of ours only', () => {
    for (const at of [8, 32, 40, 48, 72]) {
      const bytes = encoded(diffArea);
      bytes[at + 1] = 2;
      expect(() => decodeItem(bytes, 0, context), `at ${at}`).toThrow('must be a multiple of 16384');
      expect(decodeItem(bytes, 0, foreignContext).kind).toBe('diff-area');
    }
  });

  test('that is cut short is refused; writing beyond the end is a bug', () => {
    expect(() => decodeItem(new Uint8Array(200), 128, context)).toThrow('control item length is 0x48');
    expect(() => encodeItem(new Uint8Array(200), 128, snapshot)).toThrow(AssertionError);
  });

  test('survives any bytes', () => {
    for (const item of [snapshot, diffArea]) {
      survivesAnyBytes(encoded(item), (bytes) => decodeItem(bytes, 0, context));
      survivesAnyBytes(encoded(item), (bytes) => decodeItem(bytes, 0, foreignContext));
    }
    survivesAnyBytes(encodeControlBlock(windows, [snapshot, diffArea]), (bytes) =>
      decodeControlBlock(bytes, context),
    );
  });
});

test('the two items of a pair share a sector, and 63 pairs fit into a block', () => {
  expect(ITEM_PAIRS).toHaveLength(63);
  expect(ITEM_PAIRS.slice(0, 4)).toEqual([0, 3, 5, 7]);
  const used = ITEM_PAIRS.flatMap((index) => [index, index + 1]);
  expect(new Set(used).size).toBe(126);
  for (const index of ITEM_PAIRS) {
    const first = sectorOfItem(index);
    expect(first % 512).toBe(0);
    expect(itemPosition(index)).toBeGreaterThanOrEqual(first);
    expect(itemPosition(index + 2)).toBeLessThanOrEqual(first + 512);
  }
  expect(itemPosition(127)).toBe(BLOCK_SIZE);
});

test('more than 127 items are a bug of the writer', () => {
  expect(() =>
    encodeControlBlock(
      ours,
      Array.from({ length: 128 }, () => ({ kind: 'free' }) as const),
    ),
  ).toThrow(AssertionError);
  expect(viewOf(encodeControlBlock(ours, [])).getUint32(128, true)).toBe(0);
});

describe('the checksum of a pair', () => {
  const pair = (epoch: bigint) => {
    const block = encodeControlBlock({ fileOffset: 0, volumeOffset: 0, nextOffset: 0, epoch }, []);
    encodeItem(block, itemPosition(3), snapshot);
    encodeItem(block, itemPosition(4), diffArea);
    sealPair(block, 3, epoch);
    return block;
  };

  test('finds every flipped bit of both items, and a pair of another store', () => {
    expect(isPairSound(pair(7n), 3, 7n)).toBe(true);
    expect(isPairSound(pair(7n), 3, 8n)).toBe(false);
    for (let bit = 0; bit < 2 * ITEM_SIZE * 8; bit++) {
      const block = pair(7n);
      const at = itemPosition(3) + (bit >> 3);
      block[at] = (block[at] ?? 0) ^ (1 << (bit & 7));
      expect(isPairSound(block, 3, 7n), `bit ${bit}`).toBe(false);
    }
  });
});
