/**
 * `npx tsx test/simulation/planted.ts [--bug TEXT] [--runs N] [--seed N] [--markdown]`
 *
 * Tests the simulation: plants one bug after the other into a copy of the engine and counts the seeds that it takes to
 * catch it.
 */
import { parseArgs } from 'node:util';
import { PLANTED_BUGS } from './planted-bugs.js';
import { type Catch, hunt } from './sabotage.js';

const { values } = parseArgs({
  options: {
    bug: { type: 'string', default: '' },
    runs: { type: 'string', default: '300' },
    seed: { type: 'string', default: '1' },
    cycles: { type: 'string', default: '10' },
    markdown: { type: 'boolean', default: false },
  },
});
const bugs = PLANTED_BUGS.filter(({ name }) => name.includes(values.bug));
const options = { seed: Number(values.seed), runs: Number(values.runs), cycles: Number(values.cycles) };
const missed: string[] = [];

for (const bug of bugs) {
  const result = await hunt(bug, options);
  if (!result.caught) missed.push(bug.name);
  console.log(values.markdown ? asRow(bug.name, bug.breaks, result) : asLine(bug.name, result));
}
console.log(`${bugs.length - missed.length} of ${bugs.length} planted bugs caught`);
if (missed.length > 0) {
  console.error(`not caught within ${options.runs} seeds:\n${missed.join('\n')}`);
  process.exitCode = 1;
}

function asLine(name: string, { caught, seeds, seconds, message }: Catch): string {
  const verdict = caught ? `caught by seed ${String(seeds).padStart(3)}` : 'NOT CAUGHT       ';
  return `${verdict}  ${seconds.toFixed(1).padStart(5)} s  ${name}: ${message.slice(0, 120)}`;
}

function asRow(name: string, breaks: string, { caught, seeds, message }: Catch): string {
  return `| ${name} | ${breaks} | ${caught ? seeds : 'not caught'} | ${message.slice(0, 100).replaceAll('|', '/')} |`;
}
