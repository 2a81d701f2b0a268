/**
 * The simulation finds what it is there to find. Here the bugs that it finds soonest; all of them:
 * `npx tsx test/simulation/planted.ts`.
 */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { SMALL_BLOCKS } from './planted/bug.js';
import { PLANTED_BUGS } from './planted-bugs.js';
import { applied, editsOf, hunt, SabotagedCopy } from './sabotage.js';
import { hasTest } from './unit-hunt.js';

/** Names of bugs, and a seed that shows each, or one soon after it. */
const SOON: readonly string[] = [
  'the diff area is not flushed before the volume is written',
  'a write does not wait for a copy in flight',
  'a write goes on once its copy is written, before the commit',
  'a flush does nothing',
  'a slot is handed out twice',
  'entries behind the watermark are dropped unread',
  'held writes go on before the snapshot is committed',
  'a reader looks at the newest diff area first',
  'a buffered write is written out before its copy is committed',
  'a read misses the write buffer',
  'a snapshot is taken before the buffer is in the volume',
];
const SEEDS_MAX = 40;

const bugNamed = (name: string) => {
  const bug = PLANTED_BUGS.find((planted) => planted.name === name);
  if (bug === undefined) throw new Error(`no planted bug is called: ${name}`);
  return bug;
};

test('what planted bugs change is there, once each', async () => {
  const sourceOf = (file: string) =>
    readFile(fileURLToPath(new URL(`../../src/${file}`, import.meta.url)), 'utf8');
  for (const edit of [...SMALL_BLOCKS, ...PLANTED_BUGS.flatMap(({ edits }) => edits)])
    expect(() => applied('', edit)).toThrow('adapt test/simulation/planted');
  for (const { edits } of [{ edits: SMALL_BLOCKS }, ...PLANTED_BUGS])
    for (const edit of edits) applied(await sourceOf(edit.file), edit);
});

test('unit tests that are to catch planted bugs are there', async () => {
  for (const { name, unitTest } of PLANTED_BUGS)
    if (unitTest !== undefined) expect(await hasTest(unitTest), name).toBe(true);
});

test('every planted bug has a name of its own', () => {
  expect(new Set(PLANTED_BUGS.map(({ name }) => name)).size).toBe(PLANTED_BUGS.length);
});

describe('caught soon', () => {
  test.each(SOON)('%s', { timeout: 120_000 }, async (name) => {
    const { caught, message } = await hunt(bugNamed(name), { seed: 1, runs: SEEDS_MAX, cycles: 10 });
    expect(caught).toBe(true);
    expect(message).not.toBe('');
  });
});

test('a failure names the command that runs it again, and a shorter plan', { timeout: 120_000 }, async () => {
  const bug = bugNamed('the last block that a write touches only in part is not copied');
  await using copy = await SabotagedCopy.make(editsOf(bug));
  const failed = await copy.run('simulate.ts', ['--seed', '1', '--runs', String(SEEDS_MAX)]);
  const replay = /replay: +npm run simulate -- (--seed \d+ --runs 1 --cycles 10)$/m.exec(failed.output);
  expect(replay).not.toBeNull();
  const args = replay?.[1]?.split(' ') ?? [];
  const again = await copy.run('simulate.ts', args);
  expect(again.code).toBe(1);
  const shrunk = await copy.run('simulate.ts', [...args, '--shrink']);
  expect(shrunk.output).toMatch(/shortest plan: \d cycles?, \d operations?/);
});
