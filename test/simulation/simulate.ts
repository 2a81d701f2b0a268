/**
 * `npm run simulate -- [--seed S] [--runs N] [--cycles N] [--no-faults] [--jobs N]`
 *
 * Draws plans from seeds S, S+1, … and runs them. A failing seed prints the command that replays it.
 */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { shrink } from '../../src/testing/index.js';
import { noCounters, type RunCounters } from './counters.js';
import { type Cycle, drawPlan, type Operation, type Plan } from './plan.js';
import { runPlan } from './run.js';

interface Options {
  readonly seed: number;
  readonly runs: number;
  readonly cycles: number;
  readonly faults: boolean;
}

/** Runs seeds one after the other until one fails. */
export async function simulate(
  { seed, runs, cycles, faults }: Options,
  counters: RunCounters,
): Promise<void> {
  for (let i = 0; i < runs; i++) {
    const plan = drawPlan(String(seed + i), { cycles, faults });
    try {
      await runPlan(plan, counters);
    } catch (error) {
      throw new Error(
        `seed ${seed + i}: ${error instanceof Error ? error.message : error}\nreplay: npm run simulate -- --seed ${seed + i} --runs 1 --cycles ${cycles}${faults ? '' : ' --no-faults'}`,
        { cause: error },
      );
    }
  }
}

/** The shortest plan that still fails. */
async function shortest(plan: Plan): Promise<Plan> {
  type Item = { readonly cycle: number; readonly operation?: Operation };
  const items: Item[] = plan.cycles.flatMap(({ operations }, cycle) => [
    { cycle },
    ...operations.map((operation) => ({ cycle, operation })),
  ]);
  const planOf = (kept: readonly Item[]): Plan => {
    const cycles: Cycle[] = [];
    for (const [index, cycle] of plan.cycles.entries()) {
      if (!kept.some((item) => item.cycle === index)) continue;
      cycles.push({
        ...cycle,
        operations: kept.flatMap((item) => (item.cycle === index && item.operation) || []),
      });
    }
    return { ...plan, cycles };
  };
  const kept = await shrink(items, async (candidate) => fails(planOf(candidate)), { attemptsMax: 400 });
  return planOf(kept);
}

const fails = async (plan: Plan): Promise<boolean> => {
  try {
    await runPlan(plan);
    return false;
  } catch {
    return true;
  }
};

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string', default: String(Date.now() % 1_000_000_000) },
      runs: { type: 'string', default: '100' },
      cycles: { type: 'string', default: '10' },
      jobs: { type: 'string', default: '1' },
      shrink: { type: 'boolean', default: false },
      'no-faults': { type: 'boolean', default: false },
    },
  });
  const options = {
    seed: Number(values.seed),
    runs: Number(values.runs),
    cycles: Number(values.cycles),
    faults: !values['no-faults'],
  };
  const jobs = Number(values.jobs);
  const started = performance.now();
  const counters = noCounters();
  if (values.shrink) return printShortest(options);
  if (jobs === 1) await simulate(options, counters);
  else await inChildren(options, jobs, counters);
  const seconds = (performance.now() - started) / 1000;
  console.log(
    `seeds ${options.seed} to ${options.seed + options.runs - 1}: nothing lost, in ${seconds.toFixed(1)} s`,
  );
  console.log(JSON.stringify(counters));
  if (process.send !== undefined) process.send(counters);
}

async function printShortest({ seed, cycles, faults }: Options): Promise<void> {
  const plan = await shortest(drawPlan(String(seed), { cycles, faults }));
  console.log(JSON.stringify(plan, undefined, 1));
  await runPlan(plan);
}

/** Spreads the seeds over processes; fails when one does. */
async function inChildren(
  { seed, runs, cycles, faults }: Options,
  jobs: number,
  counters: RunCounters,
): Promise<void> {
  const share = Math.ceil(runs / jobs);
  const child = (index: number) =>
    new Promise<void>((resolve, reject) => {
      const from = seed + index * share;
      const count = Math.max(0, Math.min(share, runs - index * share));
      const args = [
        '--seed',
        String(from),
        '--runs',
        String(count),
        '--cycles',
        String(cycles),
        ...(faults ? [] : ['--no-faults']),
      ];
      const process_ = fork(fileURLToPath(import.meta.url), args, {
        stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      });
      process_.on('message', (part: RunCounters) => {
        for (const key of Object.keys(counters) as (keyof RunCounters)[]) counters[key] += part[key];
      });
      process_.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`job ${index} failed`))));
    });
  await Promise.all(Array.from({ length: jobs }, (_, index) => child(index)));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  main().catch((error: unknown) => {
    console.error(error);
    process.exitCode = 1;
  });
}
