/** A few of the mutations that `cache-fuzz.ts` makes. */
import { expect, test } from 'vitest';
import { baseImage, fuzzCache } from './cache-fuzz.js';

test('images with changed bytes are refused with a clear error, or work', async () => {
  const { refused, opened } = await fuzzCache(await baseImage(), 1, 150);
  expect(refused).toBeGreaterThan(50);
  expect(opened).toBeGreaterThan(5);
});
