/** `npx tsx test/simulation/windows/planted.ts [--bug TEXT] [--runs N]`: plants one bug after the other and counts the seeds until it is caught. */
import { parseArgs } from 'node:util';
import { SabotagedCopy } from '../sabotage.js';
import { WINDOWS_BUGS, type WindowsBug } from './planted-bugs.js';

export interface WindowsCatch {
  readonly caught: boolean;
  readonly seeds: number;
  readonly message: string;
}

/** Runs seed after seed with the bug in place. */
export async function huntInWindows(
  { edits, options = [] }: WindowsBug,
  runs: number,
): Promise<WindowsCatch> {
  await using copy = await SabotagedCopy.make(edits);
  const { code, output } = await copy.run('windows/simulate.ts', [
    '--runs',
    String(runs),
    '--progress',
    '1',
    ...options,
  ]);
  const seeds = Number([...output.matchAll(/^seed (\d+)/gm)].at(-1)?.[1] ?? 0);
  const message =
    /^Error: (seed .*)$/m.exec(output)?.[1] ?? (code === 'silent' ? 'hangs' : output.trim().slice(-300));
  return code === 0 ? { caught: false, seeds: runs, message: '' } : { caught: true, seeds, message };
}

if (process.argv[1]?.endsWith('windows/planted.ts')) {
  const { values } = parseArgs({
    options: { bug: { type: 'string', default: '' }, runs: { type: 'string', default: '100' } },
  });
  for (const bug of WINDOWS_BUGS.filter(({ name }) => name.includes(values.bug))) {
    const { caught, seeds, message } = await huntInWindows(bug, Number(values.runs));
    console.log(
      `${caught ? `caught by seed ${seeds}` : 'NOT CAUGHT'}: ${bug.name}: ${message.slice(0, 110)}`,
    );
    if (!caught) process.exitCode = 1;
  }
}
