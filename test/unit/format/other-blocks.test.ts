import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AssertionError } from '../../../src/errors.ts';
import { viewOf } from '../../../src/format/binary.ts';
import {
  bitAt,
  bitmapBlocksFor,
  decodeBitmapBlock,
  encodeBitmapBlock,
  setBit,
} from '../../../src/format/bitmap-block.ts';
import { sealBlock } from '../../../src/format/extension.ts';
import {
  decodeLocationBlock,
  encodeLocationBlock,
  type Location,
} from '../../../src/format/location-block.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { context, ours, outcome, survivesAnyBytes, windows } from './fixtures.ts';

const offsets = fc.nat({ max: 2 ** 38 }).map((block) => block * BLOCK_SIZE);
const locations: fc.Arbitrary<Location> = fc.record({
  volumeOffset: offsets,
  fileOffset: offsets,
  length: fc.integer({ min: 1, max: 1000 }).map((blocks) => blocks * BLOCK_SIZE),
});
const one: Location = { volumeOffset: 3 * BLOCK_SIZE, fileOffset: BLOCK_SIZE, length: 2 * BLOCK_SIZE };

describe('a location block', () => {
  test('comes back as it was', () => {
    fc.assert(
      fc.property(fc.array(locations, { maxLength: 677 }), fc.constantFrom(ours, windows), (list, place) => {
        expect(decodeLocationBlock(encodeLocationBlock(place, list), context).locations).toEqual(list);
      }),
      { numRuns: 30 },
    );
  });

  test('holds 677 locations and not one more', () => {
    const list = Array.from({ length: 677 }, () => one);
    expect(decodeLocationBlock(encodeLocationBlock(ours, list), context).locations).toHaveLength(677);
    expect(() => encodeLocationBlock(ours, [...list, one])).toThrow(AssertionError);
    expect(() => encodeLocationBlock(ours, [{ ...one, length: 0 }])).toThrow(AssertionError);
  });

  test.each<[string, (view: DataView) => void, string]>([
    [
      'an odd volume offset',
      (view) => view.setUint8(128, 1),
      'location 0: volume offset is 0xc001, must be a multiple of 16384',
    ],
    [
      'an odd file offset',
      (view) => view.setUint8(136, 1),
      'location 0: file offset is 0x4001, must be a multiple of 16384',
    ],
    [
      'an odd length',
      (view) => view.setUint8(144, 1),
      'location 0: length is 0x8001, must be a multiple of 16384',
    ],
    [
      'an empty run',
      (view) => view.setUint32(144, 0, true),
      'location 0: length is 0x0, must be more than zero',
    ],
    [
      'a run after the last one',
      (view) => view.setUint8(128 + 48, 1),
      'location block after its last location, byte 176, is 0x1, must be zero',
    ],
    [
      'bytes behind the last place',
      (view) => view.setUint8(BLOCK_SIZE - 1, 1),
      'location block after its last location, byte 16383,',
    ],
    [
      'a run that ends beyond 2^53',
      (view) => view.setUint32(148, 0x1f_ffff, true),
      'location 0: end is 0x20000000008000, must be',
    ],
  ])('of ours with %s is refused, of Windows is not', (_, change, message) => {
    for (const place of [ours, windows]) {
      const block = encodeLocationBlock(place, [one]);
      change(viewOf(block));
      if (message.includes('end is')) viewOf(block).setUint32(144, 0xffff_c000, true);
      sealBlock(block);
      if (place === ours) expect(() => decodeLocationBlock(block, context)).toThrow(message);
      else expect(outcome(() => decodeLocationBlock(block, context))).toBe('value');
    }
  });

  test('of Windows may have gaps', () => {
    const block = encodeLocationBlock(windows, [one, one, one]);
    block.fill(0, 128 + 24, 128 + 48);
    expect(decodeLocationBlock(block, context).locations).toEqual([one, one]);
  });

  test('with a number of 2^63 is refused', () => {
    for (const at of [0, 8, 16]) {
      const block = encodeLocationBlock(windows, [one]);
      block[128 + at + 7] = 0x80;
      expect(() => decodeLocationBlock(block, context), `at ${at}`).toThrow('no larger than 2^53 - 1');
    }
  });

  test('survives any bytes', () => {
    for (const place of [ours, windows])
      survivesAnyBytes(encodeLocationBlock(place, [one]), (bytes) => decodeLocationBlock(bytes, context));
  });
});

describe('a bitmap block', () => {
  test('comes back as it was', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 16_256 }), fc.constantFrom(ours, windows), (bits, place) => {
        const decoded = decodeBitmapBlock(encodeBitmapBlock(place, bits), context).bits;
        expect(decoded.byteLength).toBe(16_256);
        expect(decoded.subarray(0, bits.byteLength)).toEqual(bits);
        expect(decoded.subarray(bits.byteLength).every((byte) => byte === 0)).toBe(true);
      }),
      { numRuns: 30 },
    );
    expect(() => encodeBitmapBlock(ours, new Uint8Array(16_257))).toThrow(AssertionError);
  });

  test('has the first block of the volume in the lowest bit', () => {
    const bits = new Uint8Array(2);
    setBit(bits, 0, true);
    setBit(bits, 9, true);
    expect([...bits]).toEqual([1, 2]);
    expect([0, 1, 8, 9, 16].map((block) => bitAt(bits, block))).toEqual([true, false, false, true, false]);
    setBit(bits, 9, false);
    expect([...bits]).toEqual([1, 0]);
    expect(() => setBit(bits, 16, true)).toThrow(AssertionError);
  });

  test('describes 130,048 blocks', () => {
    expect([0, 1, 130_048, 130_049].map(bitmapBlocksFor)).toEqual([1, 1, 1, 2]);
  });

  test('survives any bytes', () => {
    survivesAnyBytes(encodeBitmapBlock(ours, new Uint8Array(4)), (bytes) =>
      decodeBitmapBlock(bytes, context),
    );
  });
});
