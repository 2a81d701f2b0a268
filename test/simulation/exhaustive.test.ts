/** Every crash of short histories, as far as a test has time: the rest is `npx tsx test/simulation/exhaustive.ts`. */
import { expect, test } from 'vitest';
import { explore } from './exploration.js';
import { HISTORIES, TURN_OVER } from './histories.js';

const LIMITS = { seed: 1, limit: 16, perMoment: 3 };

test.each(HISTORIES.map((history) => [history.name, history] as const))('%s', async (_, history) => {
  for (const layout of ['directory', 'in-volume'] as const) {
    const { states, moments } = await explore(history, { ...LIMITS, layout });
    expect(moments).toBeGreaterThan(5);
    // Equal disks are looked at once: what opening writes is often what is there already.
    expect(states).toBeGreaterThan(1);
  }
});

test(TURN_OVER.name, async () => {
  const { states } = await explore(TURN_OVER, { ...LIMITS, layout: 'directory', perMoment: 1 });
  expect(states).toBeGreaterThan(10);
});
