/**
 * `npx tsx test/simulation/cache/exhaustive.ts [--history TEXT] [--seed N] [--seeds N] [--limit N] [--per-moment N]`
 *
 * Every crash of short histories of a cached device. `--seeds`: so many orders of events, from `--seed` on. `--limit`: up to so many states of a moment every subset is
 * tried.
 */
import { parseArgs } from 'node:util';
import { exploreCache } from './exploration.js';
import { CACHE_HISTORIES } from './histories.js';

const { values } = parseArgs({
  options: {
    history: { type: 'string', default: '' },
    seed: { type: 'string', default: '1' },
    seeds: { type: 'string', default: '1' },
    limit: { type: 'string', default: '1024' },
    'per-moment': { type: 'string' },
  },
});
const started = performance.now();
const total = { moments: 0, states: 0 };
for (const history of CACHE_HISTORIES.filter(({ name }) => name.includes(values.history))) {
  for (let seed = Number(values.seed); seed < Number(values.seed) + Number(values.seeds); seed++) {
    const limits = { limit: Number(values.limit), perMoment: Number(values['per-moment'] ?? Infinity) };
    const { moments, states, sampled } = await exploreCache(history, { seed, ...limits });
    total.moments += moments;
    total.states += states;
    console.log(
      `${history.name}, order ${seed}: ${states} states of ${moments} moments (${sampled} sampled)`,
    );
  }
}
const seconds = ((performance.now() - started) / 1000).toFixed(0);
console.log(
  `${total.states} crash states of ${total.moments} moments: no byte stale or wrong, in ${seconds} s`,
);
