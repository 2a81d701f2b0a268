/** The command line of the simulation; see `HELP`. */
import { parseArgs } from 'node:util';
import { noCounters, type RunCounters } from './counters.js';
import { SeedFailed } from './failure.js';
import { drawPlan, type OutcomeName, TOPICS, type Topic } from './plan.js';
import { runPlan } from './run.js';
import { runOnSmallBlocks } from './sabotage.js';
import { describePlan, shortest } from './shortest.js';
import { type Report, type SimulationOptions, simulate, simulateInJobs } from './simulation.js';

const HELP = `Runs the engine in a simulated world, crashes it, and compares what comes back with a model.

  npm run simulate -- [options]

  --seed N      first seed; each seed is one run (default: from the clock, and printed)
  --runs N      seeds to run (default 100, or as many as fit when --seconds is given)
  --seconds N   begin no further seed after this time
  --cycles N    openings, each ended by a crash or a close, in every run (default 10)
  --jobs N      processes to spread the seeds over (default 1)
  --no-faults   no device ever fails
  --rot         bits rot in the store; then reads must be right or fail, and check must find it
  --at-once     devices read and write at the call, now and then, as from a page cache
  --about TOPIC  every plan is about it, and most crashes come while something is under way:
${Object.entries(TOPICS)
  .map(([topic, what]) => `                ${topic.padEnd(8)} ${what}`)
  .join('\n')}
  --small-blocks  in a copy of the engine whose table and location blocks are soon full
  --outcomes N  of each crash so many further outcomes: what it leaves is drawn again, opened and compared (default 0)
  --moments N   these also at so many moments of the work of each cycle, after which it goes on (default 0)
  --outcome C.N only outcome N of crash C of these, as failures name it
  --shrink      make the plan of --seed shorter while it fails, and print it
  --progress N  seconds between two lines of progress (default 10; on a terminal one line, all the time)
  --help

A seed that fails is printed with the command that runs it again.`;

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(Date.now() % 1_000_000_000) },
    runs: { type: 'string' },
    seconds: { type: 'string' },
    cycles: { type: 'string', default: '10' },
    jobs: { type: 'string', default: '1' },
    'no-faults': { type: 'boolean', default: false },
    rot: { type: 'boolean', default: false },
    'at-once': { type: 'boolean', default: false },
    about: { type: 'string' },
    'small-blocks': { type: 'boolean', default: false },
    outcomes: { type: 'string', default: '0' },
    moments: { type: 'string', default: '0' },
    outcome: { type: 'string' },
    shrink: { type: 'boolean', default: false },
    progress: { type: 'string', default: '10' },
    help: { type: 'boolean', default: false },
    // Between a run and its jobs.
    stride: { type: 'string', default: '1' },
    report: { type: 'boolean', default: false },
  },
});

function whole(name: string, text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw new Error(`--${name} must be a whole number, got ${text}`);
}

function topicOf(text: string | undefined): Topic | undefined {
  const topics = Object.keys(TOPICS) as Topic[];
  const topic = topics.find((known) => known === text);
  if (topic === undefined && text !== undefined)
    throw new Error(`--about must be one of ${topics.join(', ')}, got ${text}`);
  return topic;
}

function optionsOf(): SimulationOptions {
  return {
    seed: whole('seed', values.seed),
    runs: whole('runs', values.runs ?? (values.seconds === undefined ? '100' : '1000000000')),
    seconds: values.seconds === undefined ? Infinity : whole('seconds', values.seconds),
    cycles: whole('cycles', values.cycles),
    stride: whole('stride', values.stride),
    faults: !values['no-faults'],
    rot: values.rot,
    atOnce: values['at-once'],
    about: topicOf(values.about),
    outcomes: whole('outcomes', values.outcomes),
    moments: whole('moments', values.moments),
    outcome: outcomeOf(values.outcome),
  };
}

function outcomeOf(text: string | undefined): OutcomeName | undefined {
  if (text === undefined) return undefined;
  const [crash = '', outcome = ''] = text.split('.');
  return { crash: whole('outcome', crash), outcome: whole('outcome', outcome) };
}

async function main(): Promise<void> {
  if (values.help) return console.log(HELP);
  if (values['small-blocks']) {
    const args = process.argv.slice(2).filter((argument) => argument !== '--small-blocks');
    process.exitCode = await runOnSmallBlocks('simulate.ts', args);
    return;
  }
  const options = optionsOf();
  if (values.shrink) return printShortest(options);
  const jobs = whole('jobs', values.jobs);
  const started = performance.now();
  const secondsSince = () => (performance.now() - started) / 1000;
  const counters = noCounters();
  const progress = new Progress(whole('progress', values.progress), secondsSince);
  const done = values.report
    ? await reportTo(options)
    : jobs > 1
      ? await simulateInJobs(argsForJobs(), options, jobs, counters, (seed) => progress.show(seed, counters))
      : await simulate(options, counters, (seed) => progress.show(seed, counters));
  if (values.report) return;
  progress.end();
  console.log(`${done} seeds from ${options.seed}: nothing lost, in ${secondsSince().toFixed(1)} s`);
  console.log(JSON.stringify(counters));
}

const argsForJobs = (): string[] => [
  '--cycles',
  values.cycles,
  ...(values.seconds === undefined ? [] : ['--seconds', values.seconds]),
  ...(values['no-faults'] ? ['--no-faults'] : []),
  ...(values.rot ? ['--rot'] : []),
  ...(values['at-once'] ? ['--at-once'] : []),
  ...(values.about === undefined ? [] : ['--about', values.about]),
  ...['--outcomes', values.outcomes, '--moments', values.moments],
];

/** As a job: tells the parent process of every seed. */
async function reportTo(options: SimulationOptions): Promise<number> {
  const counters = noCounters();
  return simulate(options, counters, (seed) => {
    process.send?.({ seed, counters: { ...counters } } satisfies Report);
    Object.assign(counters, noCounters());
  });
}

class Progress {
  readonly #everyMs: number;
  readonly #seconds: () => number;
  #last = performance.now();
  #runs = 0;

  constructor(everySeconds: number, seconds: () => number) {
    this.#everyMs = process.stderr.isTTY ? 200 : everySeconds * 1000;
    this.#seconds = seconds;
  }

  show(seed: number, { cycles, crashes, outcomes, snapshotsVerified }: RunCounters): void {
    this.#runs++;
    if (performance.now() - this.#last < this.#everyMs) return;
    this.#last = performance.now();
    const text = `seed ${seed}: ${this.#runs} seeds, ${cycles} cycles, ${crashes} crashes, ${outcomes} further outcomes, ${snapshotsVerified} snapshots read, ${this.#seconds().toFixed(0)} s`;
    process.stderr.write(process.stderr.isTTY ? `\r${text}\x1b[K` : `${text}\n`);
  }

  end(): void {
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  }
}

async function printShortest(options: SimulationOptions): Promise<void> {
  const plan = await shortest(drawPlan(String(options.seed), options));
  console.log(describePlan(plan));
  await runPlan(plan);
}

main().catch((error: unknown) => {
  console.error(error instanceof SeedFailed ? `${error.message}\n` : '', error);
  process.exitCode = 1;
});
