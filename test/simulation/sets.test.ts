/** Snapshot sets over several volumes that crash together. */
import { expect, test } from 'vitest';
import { noCounters } from './counters.js';
import { noSetCounters, runSets } from './set-run.js';

const SEEDS = 12;

test('sets are whole after every crash', { timeout: 120_000 }, async () => {
  const [counters, sets] = [noCounters(), noSetCounters()];
  for (let seed = 1; seed <= SEEDS; seed++)
    await runSets(String(seed), { cycles: 10, faults: true }, counters, sets);
  expect(counters.crashes).toBeGreaterThan(0);
  expect(sets.crashes).toBeGreaterThan(0);
});

test('a run is a function of its seed', async () => {
  const options = { cycles: 3, faults: true };
  expect(await runSets('7', options)).toBe(await runSets('7', options));
});
