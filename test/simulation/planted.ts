/** Tests the simulation: plants one bug after the other into a copy of the engine and looks for it; see `HELP`. */
import { appendFile, readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import type { PlantedBug } from './planted/bug.js';
import { MECHANISMS } from './planted-bugs.js';
import { type Catch, hunt } from './sabotage.js';

const HELP = `Plants one bug after the other into a copy of the engine and looks for it.

  npx tsx test/simulation/planted.ts [options]

  --mechanism NAME  only bugs of ${Object.keys(MECHANISMS).join(', ')}; may be given several times
  --bug TEXT        only those whose name contains it
  --seed N          first seed (default 1)
  --unit-tests      only those that a unit test is to catch
  --runs N          seeds for each bug (default 300)
  --seconds N       begin no further seed of a bug after this time
  --cycles N        openings in every run (default 10)
  --outcomes N, --moments N  of simulate.ts, for bugs that are looked for in plans (default 0)
  --results FILE    a line of JSON for each bug is added to it; those that it has already are not looked for again
  --help

A bug is looked for in the plans, runs, histories or by the unit test that are named where it is planted.`;

const { values } = parseArgs({
  options: {
    mechanism: { type: 'string', multiple: true },
    bug: { type: 'string', default: '' },
    'unit-tests': { type: 'boolean', default: false },
    runs: { type: 'string', default: '300' },
    seconds: { type: 'string', default: 'Infinity' },
    seed: { type: 'string', default: '1' },
    cycles: { type: 'string', default: '10' },
    outcomes: { type: 'string', default: '0' },
    moments: { type: 'string', default: '0' },
    results: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});

interface Result extends Catch {
  readonly mechanism: string;
  readonly name: string;
  /** Where it was looked for. */
  readonly where: string;
}

async function main(): Promise<void> {
  if (values.help) return console.log(HELP);
  const options = {
    seed: Number(values.seed),
    runs: Number(values.runs),
    cycles: Number(values.cycles),
    seconds: Number(values.seconds),
    outcomes: Number(values.outcomes),
    moments: Number(values.moments),
  };
  const known = new Set((await resultsIn(values.results)).map(({ name }) => name));
  const sums: string[] = [];
  const missed: string[] = [];
  for (const [mechanism, bugs] of Object.entries(MECHANISMS)) {
    if (values.mechanism?.includes(mechanism) === false) continue;
    const wanted = bugs.filter(
      ({ name, unitTest }) =>
        name.includes(values.bug) && !known.has(name) && (unitTest !== undefined || !values['unit-tests']),
    );
    let caught = 0;
    for (const bug of wanted) {
      const result: Result = {
        mechanism,
        name: bug.name,
        where: whereOf(bug),
        ...(await hunt(bug, options)),
      };
      console.log(asLine(result));
      if (values.results !== undefined) await appendFile(values.results, `${JSON.stringify(result)}\n`);
      if (result.caught) caught++;
      else missed.push(bug.name);
    }
    if (wanted.length > 0) sums.push(`${mechanism}: ${caught} of ${wanted.length} caught`);
  }
  console.log(sums.join('\n'));
  if (missed.length === 0) return;
  console.error(`not caught:\n${missed.join('\n')}`);
  process.exitCode = 1;
}

async function resultsIn(file: string | undefined): Promise<readonly Result[]> {
  if (file === undefined) return [];
  const text = await readFile(file, 'utf8').catch(() => '');
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Result);
}

function whereOf({ unitTest, history, sets, rot, about, smallBlocks }: PlantedBug): string {
  if (unitTest !== undefined) return `unit test ${unitTest.file}`;
  const kind =
    history !== undefined
      ? `crashes of "${history.name}"`
      : sets
        ? `sets${sets === 'commits' ? ' --commits' : ''}`
        : `plans${rot ? ' --rot' : ''}${about === undefined ? '' : ` --about ${about}`}`;
  return `${kind}${smallBlocks ? ', small blocks' : ''}`;
}

function asLine({ name, where, caught, seed, seeds, seconds, message }: Result): string {
  const verdict = caught
    ? where.startsWith('unit test')
      ? 'caught'
      : `caught by seed ${seed}`
    : `NOT CAUGHT within ${seeds}`;
  return `${verdict.padEnd(22)} ${seconds.toFixed(1).padStart(5)} s  ${name} (${where}): ${message.slice(0, 120)}`;
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
