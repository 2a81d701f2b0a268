import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AssertionError, FormatError, UnsupportedError } from '../../../src/errors.ts';
import { viewOf } from '../../../src/format/binary.ts';
import {
  decodeStartBlock,
  encodeStartBlock,
  isStartBlock,
  SPACE_POLICIES,
  type StartBlock,
} from '../../../src/format/start-block.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { aligned, guids, outcome, safe, survivesAnyBytes, u32, u64 } from './fixtures.ts';

const context = { offset: 0x1e00 };
const extension = {
  incompatible: 0,
  readOnlyCompatible: 0,
  compatible: 0,
  protectedSize: 10 * BLOCK_SIZE,
  layout: 'directory',
  storeId: 77n,
  clean: { volumeSize: 10 * BLOCK_SIZE, modifiedAt: 1_700_000_000_123_456_789n },
  spaceRules: { policy: 'hold-writes', waitMs: 5000, afterWait: 'delete-oldest' },
} as const;
const start: StartBlock = {
  version: 1,
  firstControlBlock: BLOCK_SIZE,
  maximumSize: 123,
  volumeId: '600f0b64-5bdf-11e3-9d6c-005056c00008',
  storageVolumeId: '600f0b65-5bdf-11e3-9d6c-005056c00008',
  extension,
};
/** The start block with some bytes changed and its checksum made right again. */
const changed = (change: (view: DataView) => void, of: StartBlock = start): Uint8Array => {
  const bytes = encodeStartBlock(of);
  const view = viewOf(bytes);
  change(view);
  view.setUint32(152, 0, true);
  view.setUint32(152, crc32(bytes), true);
  return bytes;
};

const extensions = fc.record({
  incompatible: fc.constant(0),
  readOnlyCompatible: u32,
  compatible: u32,
  protectedSize: safe,
  layout: fc.constantFrom('directory' as const, 'in-volume' as const),
  storeId: u64,
  clean: fc.option(fc.record({ volumeSize: safe, modifiedAt: u64 }), { nil: undefined }),
  spaceRules: fc.record({
    policy: fc.constantFrom(...SPACE_POLICIES),
    waitMs: u32,
    afterWait: fc.constantFrom('fail-writes' as const, 'delete-oldest' as const),
  }),
});

describe('a start block', () => {
  test('comes back as it was', () => {
    fc.assert(
      fc.property(
        fc.record({
          version: fc.constantFrom(1 as const, 2 as const),
          firstControlBlock: aligned,
          maximumSize: safe,
          volumeId: guids,
          storageVolumeId: guids,
        }),
        fc.option(extensions, { nil: undefined }),
        (fields, ext) => {
          const value: StartBlock = ext === undefined ? fields : { ...fields, extension: ext };
          const bytes = encodeStartBlock(value);
          expect(bytes.byteLength).toBe(512);
          expect(isStartBlock(bytes)).toBe(true);
          expect(decodeStartBlock(bytes, context)).toEqual(value);
        },
      ),
    );
  });

  test('states its own place twice, as Windows does', () => {
    const view = viewOf(encodeStartBlock(start));
    expect([view.getBigUint64(24, true), view.getBigUint64(32, true), view.getBigUint64(40, true)]).toEqual([
      0x1e00n,
      0x1e00n,
      0n,
    ]);
  });

  test('of Windows may hold anything after byte 96', () => {
    const { extension: _, ...fields } = start;
    const bytes = encodeStartBlock(fields);
    bytes.fill(0xaa, 96);
    expect(decodeStartBlock(bytes, context)).toEqual(fields);
  });

  test.each<[string, (view: DataView) => void, string]>([
    [
      'a version that nobody wrote',
      (view) => view.setUint32(16, 3, true),
      'start block version is 0x3, must be 1 or 2',
    ],
    [
      'another place',
      (view) => view.setUint32(32, 0, true),
      'volume offset is 0x0, must be 0x1e00, where it was read',
    ],
    ['a next block', (view) => view.setUint32(40, 1, true), 'next offset, byte 40, is 0x1, must be zero'],
    [
      'an odd control block',
      (view) => view.setUint32(48, 3, true),
      'first control block is 0x3, must be a multiple of 16384',
    ],
    [
      'a huge maximum',
      (view) => view.setUint32(60, 0x4000_0000, true),
      'maximum diff-area size is 0x4000000000000',
    ],
    ['a huge size', (view) => view.setUint32(116, 0x4000_0000, true), 'protected size is 0x4000000000'],
    [
      'an unknown layout',
      (view) => view.setUint32(120, 0, true),
      'store layout is 0x0, must be 1 (directory) or 2 (in-volume)',
    ],
    ['an unknown flag', (view) => view.setUint32(124, 3, true), 'start block flags is 0x3, must be within 1'],
    [
      'a clean record that is not declared',
      (view) => view.setUint32(124, 0, true),
      'absent clean record, byte 137, is 0x80, must be zero',
    ],
    ['a policy that there is not', (view) => view.setUint32(156, 3, true), 'space policy'],
    ['no policy after the wait', (view) => view.setUint32(160, 2, true), 'space policy after the wait'],
    ['a reserved byte', (view) => view.setUint8(200, 1), 'start block, byte 200, is 0x1, must be zero'],
    [
      'a record of a set beyond their number',
      (view) => view.setUint8(511, 1),
      'set records, byte 511, is 0x1, must be zero',
    ],
  ])('of ours with %s is refused', (_, change, message) => {
    expect(() => decodeStartBlock(changed(change), context)).toThrow(FormatError);
    expect(() => decodeStartBlock(changed(change), context)).toThrow(message);
  });

  test('with an unknown incompatible feature is refused by the number of the bit', () => {
    const bytes = changed((view) => view.setUint32(100, 1 << 20, true));
    expect(() => decodeStartBlock(bytes, context)).toThrow(UnsupportedError);
    expect(() => decodeStartBlock(bytes, context)).toThrow('incompatible feature bit 20');
  });

  test('of ours is refused for every changed bit outside the magic', () => {
    const good = encodeStartBlock(start);
    for (let bit = 0; bit < 512 * 8; bit++) {
      const at = bit >> 3;
      if (at >= 96 && at < 100) continue;
      const bytes = good.slice();
      bytes[at] = (bytes[at] ?? 0) ^ (1 << (bit & 7));
      expect(
        outcome(() => decodeStartBlock(bytes, context)),
        `bit ${bit}`,
      ).toBe('refused');
    }
  });

  test('cannot record a time that is no u64', () => {
    const clean = { volumeSize: 1, modifiedAt: -1n };
    expect(() => encodeStartBlock({ ...start, extension: { ...extension, clean } })).toThrow(AssertionError);
  });

  test('is told from anything else by signature and type', () => {
    const bytes = encodeStartBlock(start);
    expect([isStartBlock(bytes.subarray(1)), isStartBlock(new Uint8Array(512))]).toEqual([false, false]);
    bytes[20] = 2;
    expect(isStartBlock(bytes)).toBe(false);
    expect(() => decodeStartBlock(bytes, context)).toThrow(
      'block at offset 0x1e00: block type is 0x2, must be 1 (start block)',
    );
  });

  test('survives any bytes', () => {
    survivesAnyBytes(encodeStartBlock(start), (bytes) => {
      isStartBlock(bytes);
      decodeStartBlock(bytes, context);
    });
  });
});
