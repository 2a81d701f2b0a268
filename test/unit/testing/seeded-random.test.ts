import { describe, expect, test } from 'vitest';
import { SeededRandom } from '../../../src/testing/index.js';

const draw = (random: SeededRandom, count = 8) => Array.from({ length: count }, () => random.next());

describe('SeededRandom', () => {
  test('gives the same numbers for the same seed, and others for another', () => {
    expect(draw(new SeededRandom('a'))).toEqual(draw(new SeededRandom('a')));
    expect(draw(new SeededRandom(1))).toEqual(draw(new SeededRandom('1')));
    expect(draw(new SeededRandom('a'))).not.toEqual(draw(new SeededRandom('b')));
  });

  test('never changes its streams: old seeds must stay replayable', () => {
    expect(draw(new SeededRandom('volsnap'), 3)).toMatchInlineSnapshot(`
      [
        3721801142,
        2709743518,
        2121533278,
      ]
    `);
  });

  test('forks do not depend on what was drawn before', () => {
    const first = new SeededRandom(7);
    const second = new SeededRandom(7);
    second.next();
    expect(draw(first.fork('disk'))).toEqual(draw(second.fork('disk')));
    expect(draw(first.fork('disk'))).not.toEqual(draw(first.fork('clock')));
  });

  test.each([1, 2, 7, 100, 2 ** 32, 2 ** 40, Number.MAX_SAFE_INTEGER])('below(%d) stays below', (limit) => {
    const random = new SeededRandom(limit);
    for (let round = 0; round < 2000; round++) {
      const value = random.below(limit);
      expect(Number.isSafeInteger(value) && value >= 0 && value < limit).toBe(true);
    }
  });

  test('below is even', () => {
    const random = new SeededRandom('even');
    const counts = new Array<number>(10).fill(0);
    for (let round = 0; round < 100_000; round++) {
      const value = random.below(10);
      counts[value] = (counts[value] ?? 0) + 1;
    }
    for (const count of counts) expect(count).toBeGreaterThan(9_000);
  });

  test('refuses to draw below nothing', () => {
    expect(() => new SeededRandom(1).below(0)).toThrow('below 0');
    expect(() => new SeededRandom(1).pick([])).toThrow();
  });

  test('chance meets its probability, and 0 and 1 are certain', () => {
    const random = new SeededRandom('chance');
    let hits = 0;
    let wrong = 0;
    for (let round = 0; round < 100_000; round++) {
      if (random.chance(0.25)) hits++;
      if (random.chance(0) || !random.chance(1)) wrong++;
    }
    expect(wrong).toBe(0);
    expect(Math.abs(hits - 25_000)).toBeLessThan(800);
  });

  test('fills a range of any length and place, and nothing around it', () => {
    for (const length of [0, 1, 3, 4, 5, 63]) {
      const bytes = new Uint8Array(80);
      expect(new SeededRandom(3).fill(bytes.subarray(5, 5 + length)).byteLength).toBe(length);
      const expected = new Uint8Array(length + 8);
      new SeededRandom(3).fill(expected.subarray(0, length));
      expect(bytes.subarray(5, 5 + length)).toEqual(expected.subarray(0, length));
      expect(bytes.subarray(0, 5).every((byte) => byte === 0)).toBe(true);
      expect(bytes.subarray(5 + length).every((byte) => byte === 0)).toBe(true);
    }
  });

  test('shuffle keeps every item', () => {
    const items = Array.from({ length: 50 }, (_, index) => index);
    const shuffled = new SeededRandom(1).shuffle([...items]);
    expect(shuffled).not.toEqual(items);
    expect(shuffled.sort((a, b) => a - b)).toEqual(items);
  });
});
