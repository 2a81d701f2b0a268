import { describe, expect, test } from 'vitest';
import { explainSector, readStamp, stampSectors } from '../../../src/testing/index.js';

const sector = (number: number, sequence: number, volume = 0) =>
  stampSectors(new Uint8Array(512), number * 512, sequence, volume);

describe('self-describing sectors', () => {
  test('say which sector they are, of which volume, and of which write', () => {
    const bytes = stampSectors(new Uint8Array(3 * 512), 7 * 512, 42, 3);
    for (const index of [0, 1, 2]) {
      const stamp = readStamp(bytes.subarray(index * 512, (index + 1) * 512));
      expect(stamp).toEqual({ volume: 3, sector: 7 + index, sequence: 42 });
    }
    expect(readStamp(sector(2 ** 32 - 1, 2 ** 32 - 1))).toMatchObject({ sector: 2 ** 32 - 1 });
  });

  test('differ in nearly every byte from any other', () => {
    const differing = sector(1, 1).filter((byte, at) => byte !== sector(1, 2)[at]).length;
    expect(differing).toBeGreaterThan(450);
  });

  test('show every flipped bit', () => {
    for (let at = 0; at < 512; at++) {
      const bytes = sector(5, 6);
      bytes[at] = (bytes[at] ?? 0) ^ (1 << (at % 8));
      expect(readStamp(bytes)).toBe('corrupt');
    }
    expect(readStamp(new Uint8Array(512))).toBe('zeros');
    expect(readStamp(new Uint8Array(100).fill(1))).toBe('corrupt');
  });

  test.each([
    ['corrupt', new Uint8Array(512).fill(7)],
    ['empty', new Uint8Array(512)],
    ['misplaced', sector(9, 5)],
    ['misplaced', sector(8, 5, 1)],
    ['too new', sector(8, 7)],
    ['too old', sector(8, 3)],
    ['wrong', sector(8, 5)],
  ])('a mismatch is explained as %s', (verdict, actual) => {
    const message = explainSector(8, actual, [sector(8, 4), sector(8, 6), sector(8, 6)]);
    expect(message).toContain(`sector 8 is ${verdict}: it holds `);
    expect(message).toMatch(
      /allowed: sector 8 of volume 0 as of write 4 or sector 8 of volume 0 as of write 6$/,
    );
  });
});
