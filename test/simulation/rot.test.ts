/** Bits that rot in the store never make a read return wrong bytes, and `check` finds them where they matter. */
import { expect, test } from 'vitest';
import { noCounters } from './counters.js';
import { testSeeds } from './seeds.js';
import { simulate } from './simulation.js';

testSeeds(1, 20, { cycles: 10, faults: false, rot: true });

test('some of it does damage', async () => {
  const counters = noCounters();
  const options = { seed: 1, runs: 5, stride: 1, seconds: Infinity, cycles: 10, faults: false, rot: true };
  await simulate(options, counters);
  expect(counters.damageFound).toBeGreaterThan(0);
  expect(counters.bitsRotted).toBeGreaterThan(counters.damageFound);
});
