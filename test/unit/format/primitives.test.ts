import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AssertionError, FormatError } from '../../../src/errors.ts';
import { isZero, readU64, readU64Rounded, viewOf, writeU64 } from '../../../src/format/binary.ts';
import { filetimeFromMilliseconds, millisecondsFromFiletime } from '../../../src/format/filetime.ts';
import { decodeGuid, encodeGuid, guidFrom, isGuid } from '../../../src/format/guid.ts';
import { context, guids, safe, u64 } from './fixtures.ts';

describe('u64', () => {
  const view = new DataView(new ArrayBuffer(16));

  test('a safe integer comes back as it was and lies on disk little-endian', () => {
    fc.assert(
      fc.property(safe, (value) => {
        writeU64(view, 3, value);
        expect(view.getBigUint64(3, true)).toBe(BigInt(value));
        expect(readU64(view, 3, 'field')).toBe(value);
      }),
    );
  });

  test.each([2n ** 53n, 2n ** 63n, 2n ** 64n - 1n])(
    '%s is refused, naming field, value and place',
    (value) => {
      view.setBigUint64(0, value, true);
      expect(() => readU64(view, 0, 'next offset', context)).toThrow(FormatError);
      expect(() => readU64(view, 0, 'next offset', context)).toThrow(
        `block at offset 0x14000: next offset is 0x${value.toString(16)}, must be no larger than 2^53 - 1`,
      );
      expect(readU64Rounded(view, 0)).toBeGreaterThan(Number.MAX_SAFE_INTEGER);
    },
  );

  test.each([-1, 0.5, 2 ** 53, Number.NaN])('%s is a bug of the writer', (value) => {
    expect(() => writeU64(view, 0, value)).toThrow(AssertionError);
  });

  test('the rounded form never takes a large value for a small one', () => {
    fc.assert(
      fc.property(u64, (value) => {
        view.setBigUint64(0, value, true);
        expect(readU64Rounded(view, 0) > Number.MAX_SAFE_INTEGER).toBe(
          value > BigInt(Number.MAX_SAFE_INTEGER),
        );
      }),
    );
  });
});

test('a view covers exactly the bytes it is made of', () => {
  const view = viewOf(new Uint8Array([1, 2, 3, 4]).subarray(1, 3));
  expect([view.byteLength, view.getUint8(0)]).toEqual([2, 2]);
});

test.each([4, 100, 50_000])('isZero looks at the given range of %i bytes only', (size) => {
  const bytes = new Uint8Array(size);
  bytes[0] = bytes[size - 1] = 1;
  const found = [isZero(bytes), isZero(bytes, 1, size - 1), isZero(bytes, 1), isZero(bytes, size)];
  expect(found).toEqual([false, true, false, true]);
});

describe('GUID', () => {
  test('the first three fields are little-endian on disk', () => {
    const bytes = new Uint8Array(18);
    encodeGuid(bytes, 1, '3808876b-c176-4e48-b7ae-04046e6cc752');
    expect(Buffer.from(bytes).toString('hex')).toBe('006b87083876c1484eb7ae04046e6cc75200');
  });

  test('any GUID comes back as it was', () => {
    fc.assert(
      fc.property(guids, (guid) => {
        const bytes = new Uint8Array(16);
        encodeGuid(bytes, 0, guid);
        expect(decodeGuid(bytes, 0)).toBe(guid);
      }),
    );
  });

  test('a new one is version 4 and takes the rest from the random source', () => {
    const random = (byte: number) => guidFrom({ fill: (target) => target.fill(byte) });
    expect([random(0), random(255)]).toEqual([
      '00000000-0000-4000-8000-000000000000',
      'ffffffff-ffff-4fff-bfff-ffffffffffff',
    ]);
  });

  test.each([
    '',
    '3808876B-C176-4E48-B7AE-04046E6CC752',
    '{3808876b-c176-4e48-b7ae-04046e6cc752}',
    '3808876b-c176-4e48-b7ae-04046e6cc752\n',
  ])('%j is none, and cannot be encoded', (text) => {
    expect(isGuid(text)).toBe(false);
    expect(() => encodeGuid(new Uint8Array(16), 0, text)).toThrow(AssertionError);
  });
});

describe('FILETIME', () => {
  test.each([
    [0, 116_444_736_000_000_000n],
    [Date.UTC(2013, 11, 3, 6, 35, 9, 736), 130_305_261_097_360_000n],
    [Date.UTC(1601, 0, 1), 0n],
  ])('%d ms since 1970 is tick %d', (milliseconds, ticks) => {
    expect(filetimeFromMilliseconds(milliseconds)).toBe(ticks);
    expect(millisecondsFromFiletime(ticks)).toBe(milliseconds);
  });

  test('ticks between two milliseconds belong to the earlier one, before 1970 too', () => {
    expect(millisecondsFromFiletime(116_444_736_000_000_000n - 1n)).toBe(-1);
    expect(millisecondsFromFiletime(116_444_736_000_000_000n + 9_999n)).toBe(0);
  });

  test('every u64 gives a valid date', () => {
    fc.assert(
      fc.property(u64, (ticks) => Number.isFinite(new Date(millisecondsFromFiletime(ticks)).getTime())),
    );
  });
});
