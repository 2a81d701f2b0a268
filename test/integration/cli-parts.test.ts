/** The parts of the program that need no process: sizes, times, text. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatAge } from '../../src/cli/age.js';
import { formatShare, formatSize, parseSize } from '../../src/cli/size.js';
import { cutTo, tableLines } from '../../src/cli/table.js';
import { oneLine } from '../../src/cli/text.js';

describe('sizes', () => {
  test.each([
    ['0', 0],
    ['512', 512],
    ['4k', 4096],
    ['64M', 64 * 1024 ** 2],
    ['64 MiB', 64 * 1024 ** 2],
    ['1.5G', 1.5 * 1024 ** 3],
    ['2tib', 2 * 1024 ** 4],
    ['100B', 100],
    ['0x1E00', 7680],
    ['9007199254740991', Number.MAX_SAFE_INTEGER],
  ])('%s is read as %i', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  test.each([
    '',
    ' ',
    '-1',
    '1KB',
    '1.',
    '.5',
    '1e3',
    '0.3',
    '1P',
    'K',
    '1 2',
    '9007199254740992',
    '8192T',
    'NaN',
  ])('"%s" is none', (text) => {
    expect(() => parseSize(text)).toThrow();
  });

  test('any whole number is read as itself', () => {
    fc.assert(fc.property(fc.maxSafeNat(), (bytes) => parseSize(String(bytes)) === bytes));
  });

  test.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1 KiB'],
    [12_897_485, '12.3 MiB'],
    [1024 ** 2 - 1, '1 MiB'],
    [1024 ** 3, '1 GiB'],
    [Number.MAX_SAFE_INTEGER, '8 PiB'],
  ])('%i is shown as %s', (bytes, text) => {
    expect(formatSize(bytes)).toBe(text);
  });

  test('a share is nothing or everything only if it is', () => {
    expect(formatShare(0, 10)).toBe('0 %');
    expect(formatShare(1, 1_000_000)).toBe('< 0.1 %');
    expect(formatShare(999_999, 1_000_000)).toBe('99.9 %');
    expect(formatShare(5, 5)).toBe('100 %');
    expect(formatShare(0, 0)).toBe('0 %');
  });
});

test.each([
  [1, 'just now'],
  [59, '59 seconds ago'],
  [60, '1 minute ago'],
  [7199, '1 hour ago'],
  [86_400, 'yesterday'],
  [3 * 86_400, '3 days ago'],
  [400 * 86_400, '13 months ago'],
  [12.5 * 31_556_952, '12 years ago'],
  [-600, 'in 10 minutes'],
])('%i seconds before is %s', (seconds, text) => {
  const now = Date.UTC(2026, 0, 1);
  expect(formatAge(new Date(now - seconds * 1000), now)).toBe(text);
});

describe('text', () => {
  test('any text becomes one line without control characters', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'binary' }),
        (text) => !/[\p{Cc}\u2028\u2029\u202e]/u.test(oneLine(text)),
      ),
    );
  });

  test('columns line up whatever is in them', () => {
    const columns = [{ title: 'A' }, { title: 'B', align: 'right' }] as const;
    expect(
      tableLines(columns, [
        ['日本', '1'],
        ['x', '22'],
      ]),
    ).toEqual(['A      B', '日本   1', 'x     22']);
    expect(cutTo('日本語です', 5)).toBe('日本…');
    expect(cutTo('short', 5)).toBe('short');
  });
});
