import { describe, expect, test } from 'vitest';
import { SeededRandom, shrink } from '../../../src/testing/index.js';

const upTo = (count: number) => Array.from({ length: count }, (_, index) => index);
const needs =
  (...wanted: readonly number[]) =>
  async (list: readonly number[]) =>
    wanted.every((item) => list.includes(item));

describe('shrink', () => {
  test('finds the only operations that matter, in their order', async () => {
    expect(await shrink(upTo(1000), needs(3, 500, 999))).toEqual([3, 500, 999]);
    expect(await shrink(upTo(1), needs(0))).toEqual([0]);
    expect(await shrink(upTo(64), needs())).toEqual([]);
  });

  test('takes few runs', async () => {
    let runs = 0;
    await shrink(upTo(1000), async (list) => {
      runs++;
      return list.includes(700) && list.includes(20);
    });
    expect(runs).toBeLessThan(150);
  });

  test('the result fails, and nothing can be left out of it', async () => {
    const random = new SeededRandom('shrink');
    for (let round = 0; round < 100; round++) {
      // Fails where some pair is whole, or enough of a group is there: not monotonic in single operations.
      const pair = [random.below(40), random.below(40)];
      const group = upTo(10).map(() => random.below(40));
      const fails = async (list: readonly number[]) =>
        pair.every((item) => list.includes(item)) || group.filter((item) => list.includes(item)).length > 5;
      const shortest = await shrink(upTo(40), fails);
      expect(await fails(shortest)).toBe(true);
      for (const left of shortest.keys()) {
        expect(await fails(shortest.filter((_, index) => index !== left))).toBe(false);
      }
    }
  });

  test('stops when it may try no more', async () => {
    let runs = 0;
    const fails = async (list: readonly number[]) => {
      runs++;
      return list.length > 50;
    };
    expect((await shrink(upTo(100), fails, { attemptsMax: 20 })).length).toBeLessThan(100);
    expect(runs).toBe(20);
  });

  test('reports progress, and refuses a list that does not fail', async () => {
    const lengths: number[] = [];
    await shrink(upTo(32), needs(1), { onProgress: (shortest) => lengths.push(shortest.length) });
    expect(lengths.at(-1)).toBe(1);
    await expect(shrink(upTo(3), async () => false)).rejects.toThrow('does not fail');
  });
});
