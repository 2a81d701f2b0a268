/** The command line of the exhaustive crash states; see `HELP`. */
import { parseArgs } from 'node:util';
import { type ExplorationCounters, explore } from './exploration.js';
import {
  CHAIN_HISTORIES,
  CLOSE_AFTER_WORK,
  HISTORIES,
  TURN_OVER,
  TWO_SKIPPING,
  UNUSED_HISTORIES,
  WRITTEN_HISTORIES,
} from './histories.js';
import { INSIDE_HISTORIES } from './histories-inside.js';
import { LONG_REVERT_HISTORIES } from './histories-reverting.js';
import { runOnSmallBlocks } from './sabotage.js';

const HELP = `Tries every crash of short scripted histories.

  npx tsx test/simulation/exhaustive.ts [options]

  --history TEXT  only those whose name contains it
  --layout L      directory or in-volume (default: both)
  --mode M        ordered or writeback (default: both)
  --seed N        first order of events (default 1)
  --seeds N       orders of events to try (default 1)
  --limit N       up to so many states of a moment every subset is tried (default 1024)
  --per-moment N  at most so many states of each moment (default: all)
  --small-blocks  in a copy of the engine whose metadata blocks are soon full, histories of chains of them
  --help`;

const { values } = parseArgs({
  options: {
    history: { type: 'string', default: '' },
    layout: { type: 'string' },
    mode: { type: 'string' },
    seed: { type: 'string', default: '1' },
    seeds: { type: 'string', default: '1' },
    limit: { type: 'string', default: '1024' },
    'per-moment': { type: 'string' },
    'small-blocks': { type: 'boolean', default: false },
    // In the copy of the engine.
    chains: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

const WAYS = [
  ['directory', 'ordered'],
  ['in-volume', 'ordered'],
  ['directory', 'writeback'],
  ['in-volume', 'writeback'],
] as const;

async function main(): Promise<void> {
  if (values.help) return console.log(HELP);
  if (values['small-blocks']) {
    const args = process.argv.slice(2).filter((argument) => argument !== '--small-blocks');
    process.exitCode = await runOnSmallBlocks('exhaustive.ts', [...args, '--chains']);
    return;
  }
  const all = [
    ...(values.chains
      ? [...CHAIN_HISTORIES, ...UNUSED_HISTORIES, ...LONG_REVERT_HISTORIES, CLOSE_AFTER_WORK]
      : [...HISTORIES, ...LONG_REVERT_HISTORIES, TWO_SKIPPING, TURN_OVER]),
    ...WRITTEN_HISTORIES,
    ...INSIDE_HISTORIES,
  ];
  const started = performance.now();
  const total: ExplorationCounters = { moments: 0, states: 0, sampled: 0 };
  for (const history of all.filter(({ name }) => name.includes(values.history))) {
    for (const [layout, mode] of WAYS) {
      if (values.layout !== undefined && values.layout !== layout) continue;
      if (history.inside !== undefined && layout !== 'in-volume') continue;
      if (values.mode !== undefined && values.mode !== mode) continue;
      const from = Number(values.seed);
      for (let seed = from; seed < from + Number(values.seeds); seed++) {
        const options = {
          layout,
          mode,
          seed,
          limit: Number(values.limit),
          perMoment: Number(values['per-moment'] ?? Infinity),
        };
        const counters = await explore(history, options, progressOf(history.name));
        for (const key of Object.keys(total) as (keyof ExplorationCounters)[]) total[key] += counters[key];
        const { moments, states, sampled } = counters;
        console.log(
          `${history.name}, ${layout}, ${mode}, order ${seed}: ${states} states of ${moments} moments (${sampled} sampled)`,
        );
      }
    }
  }
  const seconds = (performance.now() - started) / 1000;
  console.log(
    `${total.states} crash states of ${total.moments} moments, all recovered, in ${seconds.toFixed(0)} s`,
  );
}

/** Something now and then, so that a long history is seen to go on. */
function progressOf(name: string): (counters: ExplorationCounters) => void {
  let last = performance.now();
  return ({ states }) => {
    if (performance.now() - last < 30_000) return;
    last = performance.now();
    console.error(`  ${name}: ${states} states so far`);
  };
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
