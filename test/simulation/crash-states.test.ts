/** The states that are tried are all there are, or the ones that are promised. */
import { describe, expect, test } from 'vitest';
import { SeededRandom } from '../../src/testing/index.js';
import { subsets } from './crash-states.js';

const all = (count: number, limit: number) =>
  [...subsets(count, limit, new SeededRandom('subsets'))].map((kept) =>
    kept()
      .map((isKept) => (isKept ? '1' : '0'))
      .join(''),
  );

describe('subsets of what a crash may keep', () => {
  test('within the limit every subset comes once', () => {
    for (const count of [0, 1, 2, 5, 10]) {
      const states = all(count, 1024);
      expect(states).toHaveLength(2 ** count);
      expect(new Set(states).size).toBe(2 ** count);
    }
  });

  test('beyond it, whatever loses or keeps at most two', () => {
    const states = new Set(all(12, 16));
    const ones = (state: string) => state.replaceAll('0', '').length;
    const count = (kept: number) => [...states].filter((state) => ones(state) === kept).length;
    expect([count(0), count(1), count(2)]).toEqual([1, 12, 66]);
    expect([count(12), count(11), count(10)]).toEqual([1, 12, 66]);
  });

  test('beyond it, whatever keeps or loses the first so many', () => {
    const states = new Set(all(20, 16));
    for (let border = 0; border <= 20; border++) {
      expect(states).toContain('1'.repeat(border) + '0'.repeat(20 - border));
      expect(states).toContain('0'.repeat(border) + '1'.repeat(20 - border));
    }
  });
});
