/** Seeds of the simulation as tests: a few in each, so that a failure comes soon and says which. */
import { expect, test } from 'vitest';
import { noCounters } from './counters.js';
import type { PlanOptions } from './plan.js';
import { simulate } from './simulation.js';

const SEEDS_PER_TEST = 10;

/** Declares tests for `count` seeds from `first`. The error of one that fails names the command that runs it again. */
export function testSeeds(
  first: number,
  count: number,
  options: PlanOptions = { cycles: 10, faults: true, rot: false },
): void {
  for (let seed = first; seed < first + count; seed += SEEDS_PER_TEST) {
    const runs = Math.min(SEEDS_PER_TEST, first + count - seed);
    test(`seeds ${seed} to ${seed + runs - 1} lose nothing`, { timeout: 120_000 }, async () => {
      const counters = noCounters();
      await simulate({ ...options, seed, runs, stride: 1, seconds: Infinity }, counters);
      // A simulation that does nothing would not fail either.
      expect(counters.snapshotsVerified).toBeGreaterThan(runs);
      if (!options.rot) expect(counters.cycles).toBe(runs * options.cycles);
    });
  }
}
