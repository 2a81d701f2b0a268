/** Looks for a planted bug in the unit test that makes, by hand, the situation in which it does harm. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Edit, UnitTest } from './planted/bug.js';
import { runWatched } from './watched.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** In the environment of the test runner: what `vitest.planted.ts` makes of the sources. */
export const EDITS_VARIABLE = 'VOLSNAP_PLANTED_EDITS';

/** Of a run of the tests: did one fail, and what did the first say? */
export interface UnitCatch {
  readonly caught: boolean;
  readonly message: string;
}

/** @throws Error if no such test ran */
export async function huntByTest({ file, name }: UnitTest, edits: readonly Edit[]): Promise<UnitCatch> {
  const args = ['run', `test/unit/${file}`, '--testNamePattern', escaped(name)];
  const { code, output } = await runWatched(
    [join(ROOT, 'node_modules/vitest/vitest.mjs'), ...args, '--config', 'test/simulation/vitest.planted.ts'],
    { folder: ROOT, variables: { [EDITS_VARIABLE]: JSON.stringify(edits), NO_COLOR: '1' } },
  );
  if (code === 'silent') return { caught: true, message: 'hangs' };
  const tests = /^ *Tests +(?:(\d+) failed)?.*$/m.exec(output);
  if (tests === null || /no tests/.test(tests[0]) || (code !== 0 && tests[1] === undefined))
    throw new Error(`${file}, ${name}: does not run\n${output}`);
  const message = /^\w*Error: .*$/m.exec(output)?.[0] ?? '';
  return { caught: code !== 0, message };
}

/** Does the test exist? */
export async function hasTest({ file, name }: UnitTest): Promise<boolean> {
  const text = await readFile(join(ROOT, 'test/unit', file), 'utf8');
  return text.includes(`'${name}`);
}

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
