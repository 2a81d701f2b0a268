/** `npx tsx test/simulation/cache/planted.ts [--bug TEXT] [--runs N]`: plants one bug after the other and counts the seeds until it is caught. */
import { parseArgs } from 'node:util';
import { SabotagedCopy } from '../sabotage.js';
import { CACHE_BUGS, type CacheBug } from './planted-bugs.js';

export interface CacheCatch {
  readonly caught: boolean;
  readonly seeds: number;
  readonly message: string;
}

/** Runs seed after seed with the bug in place. */
export async function huntInCache({ edits }: CacheBug, runs: number): Promise<CacheCatch> {
  await using copy = await SabotagedCopy.make(edits);
  const { code, output } = await copy.run('cache/simulate.ts', ['--runs', String(runs), '--progress', '1']);
  const seeds = Number([...output.matchAll(/^seed (\d+)/gm)].at(-1)?.[1] ?? 0);
  const message =
    /^Error: (cycle .*)$/m.exec(output)?.[1] ?? (code === 'silent' ? 'hangs' : output.trim().slice(-300));
  return code === 0 ? { caught: false, seeds: runs, message: '' } : { caught: true, seeds, message };
}

if (process.argv[1]?.endsWith('cache/planted.ts')) {
  const { values } = parseArgs({
    options: { bug: { type: 'string', default: '' }, runs: { type: 'string', default: '100' } },
  });
  for (const bug of CACHE_BUGS.filter(({ name }) => name.includes(values.bug))) {
    const { caught, seeds, message } = await huntInCache(bug, Number(values.runs));
    console.log(
      `${caught ? `caught by seed ${seeds}` : 'NOT CAUGHT'}: ${bug.name}: ${message.slice(0, 110)}`,
    );
    if (!caught) process.exitCode = 1;
  }
}
