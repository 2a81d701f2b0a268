/** Every crash of short histories, as far as a test has time: the rest is `npx tsx test/simulation/exhaustive.ts`. */
import { expect, test } from 'vitest';
import { explore } from './exploration.js';
import { HISTORIES, TURN_OVER } from './histories.js';

test.each(HISTORIES.map((history) => [history.name, history] as const))('%s', async (_, history) => {
  for (const layout of ['directory', 'in-volume'] as const) {
    const { states } = await explore(history, { layout, seed: 1, limit: 16, every: 8 });
    expect(states).toBeGreaterThan(5);
  }
});

test(TURN_OVER.name, async () => {
  const { states } = await explore(TURN_OVER, { layout: 'directory', seed: 1, limit: 16, every: 8 });
  expect(states).toBeGreaterThan(5);
});
