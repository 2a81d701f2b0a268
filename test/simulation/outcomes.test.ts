/** Further outcomes of one crash: the run goes on as without them, and each can be seen again by its name. */
import { expect, test } from 'vitest';
import { noCounters } from './counters.js';
import { drawPlan } from './plan.js';
import { runPlan } from './run.js';

const OPTIONS = { cycles: 3, faults: true, rot: false };

test('a run goes on as without them', async () => {
  const counters = noCounters();
  const without = await runPlan(drawPlan('3', OPTIONS));
  const plan = drawPlan('3', { ...OPTIONS, outcomes: 3, moments: 1 });
  expect(await runPlan(plan, counters)).toBe(without);
  expect(counters.outcomes).toBeGreaterThan(4);
  // Some that were tried left what others had left.
  expect(counters.outcomes).toBeLessThan(3 * (counters.crashes + counters.cycles));
});

test('one of them alone is tried where it is named', async () => {
  const counters = noCounters();
  await runPlan(drawPlan('3', { ...OPTIONS, outcomes: 4, outcome: { crash: 2, outcome: 3 } }), counters);
  expect(counters.outcomes).toBeLessThanOrEqual(1);
});
