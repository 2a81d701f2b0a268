/** Every crash of short histories, as far as a test has time: the rest is `npx tsx test/simulation/exhaustive.ts`. */
import { expect, test } from 'vitest';
import { explore } from './exploration.js';
import { HISTORIES, TURN_OVER, WRITTEN_HISTORIES } from './histories.js';
import { INSIDE_HISTORIES } from './histories-inside.js';

const LIMITS = { seed: 1, limit: 5, perMoment: 2 };

/** Both layouts, both modes, in turn from one history to the next; all four ways of each are tried by `exhaustive.ts`. */
const WAYS = [
  ['directory', 'ordered'],
  ['in-volume', 'ordered'],
  ['directory', 'writeback'],
] as const;

const CASES = HISTORIES.map((history, index) => {
  const [layout, mode] = WAYS[index % WAYS.length] ?? WAYS[0];
  return [`${history.name}, ${layout}, ${mode}`, { history, layout, mode }] as const;
});

test.each(CASES)('%s', async (_, { history, ...way }) => {
  const { states, moments } = await explore(history, { ...LIMITS, ...way });
  expect(moments).toBeGreaterThan(5);
  // Equal disks are looked at once: what opening writes is often what is there already.
  expect(states).toBeGreaterThan(1);
});

/** One way each. */
test.each(WRITTEN_HISTORIES.map((history, index) => [history.name, { history, index }] as const))(
  '%s',
  async (_, { history, index }) => {
    const [layout, mode] = WAYS[index % WAYS.length] ?? WAYS[0];
    const { states } = await explore(history, { ...LIMITS, perMoment: 2, layout, mode });
    expect(states).toBeGreaterThan(1);
  },
);

test.each(INSIDE_HISTORIES)('$name', async (history) => {
  const { states } = await explore(history, { ...LIMITS, layout: 'in-volume' });
  expect(states).toBeGreaterThan(10);
});

test(TURN_OVER.name, async () => {
  const { states } = await explore(TURN_OVER, { ...LIMITS, layout: 'directory', perMoment: 1 });
  expect(states).toBeGreaterThan(10);
});
