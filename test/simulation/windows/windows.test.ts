/** Volumes of Windows in a simulated world: seeds that are always the same. Bugs are planted by `planted.ts`. */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { applied } from '../sabotage.js';
import { WINDOWS_BUGS } from './planted-bugs.js';
import { noWindowsCounters, runWindows } from './run.js';
import { noTakenOverCounters, runTakenOver } from './taken-over.js';

test('six seeds, with crashes and failing devices, leave every shadow copy as it was', async () => {
  const counters = noWindowsCounters();
  for (let seed = 1; seed <= 6; seed++) await runWindows(seed, { cycles: 4, faults: true }, counters);
  // A simulation that does nothing would not fail either.
  expect(counters.crashes).toBe(24);
  expect(counters.copies).toBeGreaterThan(50);
  expect(counters.refused).toBeGreaterThan(30);
  expect(counters.blocksCompared).toBeGreaterThan(3000);
});

test('a run is a function of its seed', async () => {
  const [one, two] = await Promise.all(
    [1, 2].map(() => runWindows(7, { cycles: 2, faults: true }, noWindowsCounters())),
  );
  expect(one).toBe(two);
});

test('four seeds in which a store of volsnap takes them over leave them, and its own snapshots, as they were', async () => {
  const counters = noTakenOverCounters();
  for (let seed = 1; seed <= 4; seed++) await runTakenOver(seed, { cycles: 4, faults: true }, counters);
  expect(counters.crashes).toBe(16);
  expect(counters.taken).toBeGreaterThan(3);
  expect(counters.copies).toBeGreaterThan(20);
  expect(counters.blocksCompared).toBeGreaterThan(1500);
});

test('what planted bugs change is there, once each', async () => {
  const sourceOf = (file: string) =>
    readFile(fileURLToPath(new URL(`../../../src/${file}`, import.meta.url)), 'utf8');
  for (const { edits } of WINDOWS_BUGS) for (const edit of edits) applied(await sourceOf(edit.file), edit);
});
