import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AssertionError, FormatError } from '../../../src/errors.ts';
import { viewOf } from '../../../src/format/binary.ts';
import {
  decodeQcow2Header,
  encodeQcow2Header,
  isBackingName,
  isQcow2,
  QCOW2_HEADER,
  type Qcow2Header,
} from '../../../src/format/qcow2.ts';
import {
  encodeRefcountBlock,
  l1EntriesFor,
  l2Reach,
  planRefcounts,
  setOffsetEntry,
  setRefcountBlock,
  setZerosEntry,
} from '../../../src/format/qcow2-tables.ts';
import { guids, safe, survivesAnyBytes, u32 } from './fixtures.ts';

const header: Qcow2Header = {
  clusterBits: 16,
  size: 5 * 512,
  l1: { offset: 0x30000, entries: 1 },
  refcountTable: { offset: 0x40000, clusters: 1 },
  backing: { name: 'full.qcow2', format: 'qcow2' },
  origin: {
    snapshotId: '600f0b69-5bdf-11e3-9d6c-005056c00008',
    sinceId: '600f0b6d-5bdf-11e3-9d6c-005056c00008',
  },
};
const names = fc.string({ minLength: 1, maxLength: 200, unit: 'grapheme' });

describe('the header of a qcow2 image', () => {
  test('has its fields where the document says', () => {
    const offsets = Object.entries(QCOW2_HEADER.at).map(([name, at]) => `${at} ${name}`);
    expect(offsets).toMatchInlineSnapshot(`
      [
        "0 magic",
        "4 version",
        "8 backingNameOffset",
        "16 backingNameLength",
        "20 clusterBits",
        "24 size",
        "32 encryption",
        "36 l1Entries",
        "40 l1Offset",
        "48 refcountTableOffset",
        "56 refcountTableClusters",
        "60 snapshotCount",
        "64 snapshotsOffset",
        "72 incompatible",
        "80 compatible",
        "88 autoclear",
        "96 refcountOrder",
        "100 headerLength",
      ]
    `);
    const bytes = encodeQcow2Header({ ...header, backing: undefined, origin: undefined });
    expect(bytes.byteLength).toBe(65_536);
    expect(Buffer.from(bytes.subarray(0, 112)).toString('hex')).toMatchInlineSnapshot(
      `"514649fb00000003000000000000000000000000000000100000000000000a000000000000000001000000000003000000000000000400000000000100000000000000000000000000000000000000000000000000000000000000000000000000000004000000680000000000000000"`,
    );
    expect(bytes.subarray(104).every((byte) => byte === 0)).toBe(true);
  });

  test('comes back as it was', () => {
    fc.assert(
      fc.property(
        fc.record({
          clusterBits: fc.constantFrom(12, 14, 16),
          size: safe,
          l1: fc.record({ offset: safe, entries: u32 }),
          refcountTable: fc.record({ offset: safe, clusters: u32 }),
          backing: fc.option(fc.record({ name: names, format: fc.constantFrom('qcow2', 'raw', undefined) }), {
            nil: undefined,
          }),
          origin: fc.option(fc.record({ snapshotId: guids, sinceId: fc.option(guids, { nil: undefined }) }), {
            nil: undefined,
          }),
        }),
        (value) => {
          const bytes = encodeQcow2Header(value);
          expect(isQcow2(bytes)).toBe(true);
          expect(decodeQcow2Header(bytes)).toEqual(value);
        },
      ),
    );
  });

  test('takes a backing name of 1 to 1023 bytes', () => {
    expect([1, 1023].map((length) => isBackingName('n'.repeat(length)))).toEqual([true, true]);
    expect(['', 'n'.repeat(1024), 'ä'.repeat(512)].map(isBackingName)).toEqual([false, false, false]);
    const backing = { name: 'n'.repeat(1024), format: undefined };
    expect(() => encodeQcow2Header({ ...header, backing })).toThrow(AssertionError);
  });

  test.each<[string, (view: DataView) => void, string]>([
    [
      'another magic',
      (view) => view.setUint32(0, 0x514649fa),
      'qcow2 magic is 0x514649fa, must be 0x514649fb',
    ],
    ['a version to come', (view) => view.setUint32(4, 4), 'qcow2 version is 0x4, must be 2 or 3'],
    ['tiny clusters', (view) => view.setUint32(20, 8), 'qcow2 cluster bits is 0x8, must be 9 to 21'],
    ['huge clusters', (view) => view.setUint32(20, 22), 'qcow2 cluster bits is 0x16, must be 9 to 21'],
    ['a huge size', (view) => view.setUint32(24, 0x4000_0000), 'qcow2 size is 0x4000000000000a00'],
    ['a short header', (view) => view.setUint32(100, 72), 'qcow2 header length is 0x48, must be'],
    ['an odd length', (view) => view.setUint32(100, 107), 'qcow2 header length is 0x6b, must be'],
    ['a header past its cluster', (view) => view.setUint32(100, 65_544), 'qcow2 header length is 0x10008'],
    ['a long name', (view) => view.setUint32(16, 1024), 'qcow2 backing name is 1024 bytes at'],
    ['a name elsewhere', (view) => view.setUint32(8 + 4, 65_530), 'qcow2 backing name is 10 bytes at 65530'],
    ['an endless extension', (view) => view.setUint32(108, 0x100), 'extension at 104 has 256 bytes, past'],
  ])('with %s is refused', (_, change, message) => {
    const bytes = encodeQcow2Header(header);
    change(viewOf(bytes));
    expect(() => decodeQcow2Header(bytes)).toThrow(FormatError);
    expect(() => decodeQcow2Header(bytes)).toThrow(message);
  });

  test('may have extensions that nobody knows', () => {
    const bytes = encodeQcow2Header(header);
    viewOf(bytes).setUint32(104, 0x1234_5678);
    expect(decodeQcow2Header(bytes)).toEqual({
      ...header,
      backing: { ...header.backing, format: undefined },
    });
  });

  test('survives any bytes', () => {
    survivesAnyBytes(encodeQcow2Header({ ...header, clusterBits: 9 }), (bytes) => {
      isQcow2(bytes);
      decodeQcow2Header(bytes);
    });
  });
});

describe('the tables of a qcow2 image', () => {
  test('hold offsets with the bit of the only reference, and zeros', () => {
    const view = new DataView(new ArrayBuffer(32));
    setOffsetEntry(view, 0, 0x10000);
    setOffsetEntry(view, 1, 0x00ab_cdef_1234_0000);
    setZerosEntry(view, 2);
    setRefcountBlock(view, 3, 0x12_3456_0000);
    expect([0, 8, 16, 24].map((at) => view.getBigUint64(at).toString(16))).toEqual([
      '8000000000010000',
      '80abcdef12340000',
      '1',
      '1234560000',
    ]);
    for (const offset of [0, 2 ** 56]) expect(() => setOffsetEntry(view, 0, offset)).toThrow(AssertionError);
  });

  test('describe as much as QEMU opens', () => {
    expect([l2Reach(16_384), l2Reach(65_536)]).toEqual([2 ** 25, 2 ** 29]);
    expect(l1EntriesFor(512, 65_536)).toBe(1);
    expect(l1EntriesFor(2 ** 29, 65_536)).toBe(1);
    expect(l1EntriesFor(2 ** 29 + 512, 65_536)).toBe(2);
    expect(l1EntriesFor(2 ** 47, 16_384)).toBe(2 ** 22);
    expect(l1EntriesFor(2 ** 47 + 512, 16_384)).toBeUndefined();
  });

  test('count a file and themselves with as little as possible', () => {
    fc.assert(
      fc.property(fc.nat({ max: 2 ** 33 }), fc.constantFrom(512, 16_384, 65_536), (clusters, clusterSize) => {
        const { blocks, tableClusters } = planRefcounts(clusters, clusterSize);
        const all = clusters + blocks + tableClusters;
        expect(blocks).toBe(Math.ceil(all / (clusterSize / 2)));
        expect(tableClusters).toBe(Math.ceil(blocks / (clusterSize / 8)));
        // One block less would not reach.
        expect((blocks - 1) * (clusterSize / 2)).toBeLessThan(all - (blocks > 1 ? 1 : 0));
      }),
    );
  });

  test('count as many clusters as there are', () => {
    const counts = (count: number) => [...new Uint8Array(encodeRefcountBlock(512, count))];
    const ones = (count: number) =>
      Array.from({ length: 512 }, (_, i) => (i % 2 === 1 && i < count * 2 ? 1 : 0));
    for (const count of [0, 1, 255, 256]) expect(counts(count)).toEqual(ones(count));
    expect(counts(1000)).toEqual(ones(256));
  });
});
