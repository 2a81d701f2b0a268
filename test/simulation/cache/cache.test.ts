/** The cache image in a simulated world: seeds that are always the same, and a few bugs that they have to find. */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { applied } from '../sabotage.js';
import { exploreCache } from './exploration.js';
import { CACHE_HISTORIES } from './histories.js';
import { huntInCache } from './planted.js';
import { CACHE_BUGS } from './planted-bugs.js';
import { noCacheCounters, runCache } from './run.js';

test('five seeds, with crashes and failing devices, show no byte stale or wrong', async () => {
  const counters = noCacheCounters();
  for (let seed = 1; seed <= 5; seed++) await runCache(seed, { cycles: 8, faults: true }, counters);
  // A simulation that does nothing would not fail either.
  expect(counters.crashes).toBeGreaterThan(30);
  expect(counters.bytesHit).toBeGreaterThan(100_000);
  expect(counters.extentsKept).toBeGreaterThan(50);
});

/** Every second one, a state or two of each moment; all are tried by `exhaustive.ts`. */
test.each(
  CACHE_HISTORIES.filter((_, index) => index % 2 === 1).map((history) => [history.name, history] as const),
)('crashes of: %s', async (_, history) => {
  const { states, moments } = await exploreCache(history, { seed: 1, limit: 4, perMoment: 1 });
  expect(moments).toBeGreaterThan(3);
  expect(states).toBeGreaterThan(3);
});

test('a run is a function of its seed', async () => {
  const hashes = [1, 2].map(() => runCache(7, { cycles: 3, faults: true }, noCacheCounters()));
  const [one, two] = [await hashes[0], await hashes[1]];
  expect(one).toBe(two);
});

test('what planted bugs change is there, once each', async () => {
  const sourceOf = (file: string) =>
    readFile(fileURLToPath(new URL(`../../../src/${file}`, import.meta.url)), 'utf8');
  for (const { edits } of CACHE_BUGS) for (const edit of edits) applied(await sourceOf(edit.file), edit);
});

test.each(['a write leaves what was cached', 'blocks of what leaves the tree are free at once'])(
  'caught: %s',
  async (name) => {
    const bug = CACHE_BUGS.find((each) => each.name === name);
    if (bug === undefined) throw new Error(`no planted bug is called: ${name}`);
    expect((await huntInCache(bug, 10)).caught).toBe(true);
  },
);
