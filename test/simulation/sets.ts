/** `npx tsx test/simulation/sets.ts [--seed N] [--runs N] [--cycles N] [--seconds N] [--no-faults] [--commits]` */
import { parseArgs } from 'node:util';
import { noCounters } from './counters.js';
import { noSetCounters, runSets } from './set-run.js';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    runs: { type: 'string', default: '1000000' },
    cycles: { type: 'string', default: '10' },
    seconds: { type: 'string', default: 'Infinity' },
    progress: { type: 'string', default: '100' },
    'no-faults': { type: 'boolean', default: false },
    commits: { type: 'boolean', default: false },
  },
});

const counters = noCounters();
const sets = noSetCounters();
const first = Number(values.seed);
const started = performance.now();
const isOver = () => performance.now() - started > Number(values.seconds) * 1000;
for (let seed = first; seed < first + Number(values.runs) && !isOver(); seed++) {
  try {
    const options = { cycles: Number(values.cycles), faults: !values['no-faults'], commits: values.commits };
    await runSets(String(seed), options, counters, sets);
  } catch (error) {
    console.log(`seed ${seed}`);
    console.error(error);
    console.error(
      `replay: npx tsx test/simulation/sets.ts --seed ${seed} --runs 1 --cycles ${values.cycles}${values.commits ? ' --commits' : ''}`,
    );
    process.exit(1);
  }
  if (seed % Number(values.progress) === 0) console.log(`seed ${seed}`);
}
console.log(JSON.stringify({ ...counters, sets, seconds: Math.round((performance.now() - started) / 1000) }));
