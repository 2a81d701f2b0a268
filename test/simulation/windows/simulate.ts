/**
 * `npx tsx test/simulation/windows/simulate.ts [--seed N] [--runs N] [--cycles N] [--no-faults] [--progress N] [--take-over]`
 *
 * Writes to volumes with shadow copies of Windows in a simulated world, or has stores of volsnap take them over; a seed that fails is printed with the command that runs it again.
 */
import { parseArgs } from 'node:util';
import { noWindowsCounters, runWindows } from './run.js';
import { noTakenOverCounters, runTakenOver } from './taken-over.js';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    runs: { type: 'string', default: '100' },
    cycles: { type: 'string', default: '5' },
    'no-faults': { type: 'boolean', default: false },
    progress: { type: 'string', default: '10' },
    'take-over': { type: 'boolean', default: false },
  },
});
const [first, runs, cycles] = [Number(values.seed), Number(values.runs), Number(values.cycles)];
const windows = noWindowsCounters();
const takenOver = noTakenOverCounters();
const counters = values['take-over'] ? takenOver : windows;
const started = performance.now();
const seconds = () => ((performance.now() - started) / 1000).toFixed(1);
let said = 0;

for (let seed = first; seed < first + runs; seed++) {
  try {
    const options = { cycles, faults: !values['no-faults'] };
    await (values['take-over'] ? runTakenOver(seed, options, takenOver) : runWindows(seed, options, windows));
  } catch (error) {
    console.log(`seed ${seed}: ${seed - first + 1} seeds`);
    const faults = `${values['no-faults'] ? ' --no-faults' : ''}${values['take-over'] ? ' --take-over' : ''}`;
    console.error(
      `replay: npx tsx test/simulation/windows/simulate.ts --seed ${seed} --runs 1 --cycles ${cycles}${faults}`,
    );
    console.error(error);
    process.exit(1);
  }
  if (performance.now() - said < 1000 * Number(values.progress)) continue;
  said = performance.now();
  console.log(`seed ${seed}: ${seed - first + 1} seeds, ${counters.crashes} crashes, ${seconds()} s`);
}
console.log(`${runs} seeds from ${first}: every shadow copy as Windows left it, in ${seconds()} s`);
console.log(JSON.stringify(counters));
