/** A run is a function of its seed, or a failure could not be seen again. */
import { expect, test } from 'vitest';
import { drawPlan } from './plan.js';
import { runPlan } from './run.js';

const OPTIONS = { cycles: 6, faults: true, rot: false };
const SEEDS = Array.from({ length: 6 }, (_, index) => String(index + 1));

test.each(SEEDS)('seed %s runs the same way twice', async (seed) => {
  const plan = drawPlan(seed, OPTIONS);
  expect(await runPlan(plan)).toBe(await runPlan(drawPlan(seed, OPTIONS)));
});

test('different seeds run differently', async () => {
  const hashes = new Set<number>();
  for (const seed of SEEDS) hashes.add(await runPlan(drawPlan(seed, OPTIONS)));
  expect(hashes.size).toBe(SEEDS.length);
});

test('rot follows from the seed too', async () => {
  const options = { cycles: 4, faults: false, rot: true };
  expect(await runPlan(drawPlan('7', options))).toBe(await runPlan(drawPlan('7', options)));
});
