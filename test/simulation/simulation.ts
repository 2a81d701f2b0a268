/** Runs seed after seed, in this process or spread over several. */
import { type ChildProcess, fork } from 'node:child_process';
import { addCounters, type RunCounters } from './counters.js';
import { SeedFailed, type SeedOptions } from './failure.js';
import { drawPlan } from './plan.js';
import { runPlan } from './run.js';

export interface SimulationOptions extends SeedOptions {
  /** Seeds to run: this many at most, `stride` apart. */
  readonly runs: number;
  readonly stride: number;
  /** Time after which no further seed is begun. */
  readonly seconds: number;
}

/** Called after each seed. */
export type OnSeed = (seed: number, counters: RunCounters) => void;

/** @returns how many seeds were run @throws SeedFailed for the first seed that shows something wrong */
export async function simulate(
  options: SimulationOptions,
  counters: RunCounters,
  onSeed: OnSeed = () => undefined,
): Promise<number> {
  const { runs, stride, seconds, ...seedOptions } = options;
  const end = performance.now() + seconds * 1000;
  let done = 0;
  while (done < runs && performance.now() < end) {
    const seed = options.seed + done * stride;
    try {
      await runPlan(drawPlan(String(seed), seedOptions), counters);
    } catch (error) {
      throw new SeedFailed({ ...seedOptions, seed }, error);
    }
    done++;
    onSeed(seed, counters);
  }
  return done;
}

/** What a child says after each seed, counted since the last time. */
export interface Report {
  readonly seed: number;
  readonly counters: RunCounters;
}

/** Every job takes each `jobs`-th seed. @throws Error when one of them fails, which has said why */
export async function simulateInJobs(
  args: readonly string[],
  { seed, runs, stride }: SimulationOptions,
  jobs: number,
  counters: RunCounters,
  onSeed: OnSeed,
): Promise<number> {
  let done = 0;
  const children: ChildProcess[] = [];
  const job = (index: number) =>
    new Promise<void>((resolve, reject) => {
      const count = Math.ceil(Math.max(0, runs - index) / jobs);
      const own = ['--seed', seed + index * stride, '--stride', stride * jobs, '--runs', count, '--jobs', 1];
      // The same script, which is another one in a copy with changes.
      const child = fork(process.argv[1] ?? '', [...args, ...own.map(String), '--report'], {
        stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      });
      children.push(child);
      child.on('message', (report: Report) => {
        done++;
        addCounters(counters, report.counters);
        onSeed(report.seed, counters);
      });
      child.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`job ${index} failed`))));
    });
  try {
    await Promise.all(Array.from({ length: jobs }, (_, index) => job(index)));
  } finally {
    for (const child of children) child.kill();
  }
  return done;
}
