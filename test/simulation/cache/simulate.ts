/**
 * `npx tsx test/simulation/cache/simulate.ts [--seed N] [--runs N] [--cycles N] [--no-faults] [--progress N]`
 *
 * The cache image in a simulated world; a seed that fails is printed with the command that runs it again.
 */
import { parseArgs } from 'node:util';
import { noCacheCounters, runCache } from './run.js';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    runs: { type: 'string', default: '100' },
    cycles: { type: 'string', default: '20' },
    'no-faults': { type: 'boolean', default: false },
    progress: { type: 'string', default: '10' },
  },
});
const [first, runs, cycles] = [Number(values.seed), Number(values.runs), Number(values.cycles)];
const counters = noCacheCounters();
const started = performance.now();
const seconds = () => ((performance.now() - started) / 1000).toFixed(1);
let said = 0;

for (let seed = first; seed < first + runs; seed++) {
  try {
    await runCache(seed, { cycles, faults: !values['no-faults'] }, counters);
  } catch (error) {
    console.log(`seed ${seed}: ${seed - first + 1} seeds`);
    const faults = values['no-faults'] ? ' --no-faults' : '';
    console.error(
      `replay: npx tsx test/simulation/cache/simulate.ts --seed ${seed} --runs 1 --cycles ${cycles}${faults}`,
    );
    console.error(error);
    process.exit(1);
  }
  if (performance.now() - said < 1000 * Number(values.progress)) continue;
  said = performance.now();
  console.log(`seed ${seed}: ${seed - first + 1} seeds, ${counters.crashes} crashes, ${seconds()} s`);
}
console.log(`${runs} seeds from ${first}: no byte stale or wrong, in ${seconds()} s`);
console.log(JSON.stringify(counters));
