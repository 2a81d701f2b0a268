/**
 * Fuzzes the opening and reading of stores.
 *
 *     npx tsx test/fuzz/store-fuzz.ts --count 100000 --seed S [--workers 2]
 *     npx tsx test/fuzz/store-fuzz.ts --seed S --only 4711        one image again, told in full
 *
 * Image `i` of seed S is always the same. Workers are processes of their own; one that says nothing for the time limit is
 * killed and counts as a hang. What counts as right is said in trial.ts.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { SeededRandom } from '../../src/testing/seeded-random.ts';
import { type Base, makeBases } from './bases.ts';
import { interesting, type Mutation, mutate, placesOf } from './mutate.ts';
import { type Outcome, tryImage, type Verdict } from './trial.ts';

export const TIME_LIMIT_MS = 2000;
export const MEMORY_LIMIT = 200 * 1024 * 1024;
/** A worker is given this much longer than the limit, so that it can tell of a slow image itself. */
const SILENCE_LIMIT_MS = 10_000;

export interface FuzzOptions {
  readonly seed: string;
  readonly count: number;
  readonly workers: number;
  readonly onProgress?: (done: number) => void;
}

/** One image that is not plainly right. */
export interface Finding {
  readonly index: number;
  readonly kind: Verdict | 'slow' | 'hang' | 'memory' | 'died';
  readonly base: string;
  readonly structures: readonly string[];
  readonly mutation: string;
  readonly detail: string;
}

export interface FuzzReport {
  readonly seed: string;
  readonly count: number;
  readonly milliseconds: number;
  readonly verdicts: Record<string, number>;
  /** How often each error code came out, and how often a store opened. */
  readonly codes: Record<string, number>;
  readonly slowestMs: number;
  readonly mostBytes: number;
  /** All but `right` and `forged`. */
  readonly findings: Finding[];
}

interface Case extends Finding {
  readonly verdict: Verdict;
  readonly codes: readonly string[];
  readonly milliseconds: number;
  readonly bytes: number;
}

type FromWorker = { readonly ready: true } | { readonly cases: readonly Case[]; readonly next: number };

export class Fuzzer {
  readonly #seed: string;
  readonly #bases: { base: Base; places: ReturnType<typeof placesOf> }[];

  private constructor(seed: string, bases: readonly Base[]) {
    this.#seed = seed;
    this.#bases = bases.map((base) => ({ base, places: interesting(base, placesOf(base)) }));
  }

  static async create(seed: string): Promise<Fuzzer> {
    return new Fuzzer(seed, await makeBases(seed));
  }

  get bases(): readonly Base[] {
    return this.#bases.map(({ base }) => base);
  }

  make(index: number): { base: Base; mutation: Mutation; random: SeededRandom } {
    const random = new SeededRandom(`${this.#seed}/${index}`);
    // Large ones are ten times as slow: they get their turn less often.
    const isLarge = ({ base }: { base: Base }) => base.size > 4 * 2 ** 20;
    const large = random.chance(0.06);
    const chosen = random.pick(this.#bases.filter((one) => isLarge(one) === large));
    const { base, places } = chosen;
    return { base, mutation: mutate(base, places, random), random };
  }

  async run(index: number): Promise<Case> {
    const { base, mutation, random } = this.make(index);
    const before = process.memoryUsage.rss();
    const peak = process.resourceUsage().maxRSS;
    // Time of the processor, so that what else the machine does changes no verdict; a hang is the parent's to find.
    const started = process.cpuUsage();
    const outcome: Outcome = await tryImage(base, mutation, random);
    const { user, system } = process.cpuUsage(started);
    const milliseconds = (user + system) / 1000;
    // Only a new peak can be laid to this image.
    const { maxRSS } = process.resourceUsage();
    const bytes = maxRSS > peak ? Math.max(0, maxRSS * 1024 - before) : 0;
    const kind = milliseconds > TIME_LIMIT_MS ? 'slow' : outcome.verdict;
    return {
      index,
      kind,
      base: base.name,
      structures: mutation.structures,
      mutation: mutation.description,
      detail: outcome.detail,
      verdict: outcome.verdict,
      codes: outcome.codes,
      milliseconds,
      bytes,
    };
  }
}

export async function fuzz(options: FuzzOptions): Promise<FuzzReport> {
  const started = performance.now();
  const tally = new Tally(options);
  const next = { index: 0 };
  await Promise.all(Array.from({ length: options.workers }, () => runWorker(options, next, tally)));
  return tally.report(performance.now() - started);
}

class Tally {
  readonly #options: FuzzOptions;
  readonly #verdicts: Record<string, number> = {};
  readonly #codes: Record<string, number> = {};
  readonly #findings: Finding[] = [];
  #done = 0;
  #slowest = 0;
  #most = 0;

  constructor(options: FuzzOptions) {
    this.#options = options;
  }

  add(one: Case): void {
    this.#verdicts[one.kind] = (this.#verdicts[one.kind] ?? 0) + 1;
    for (const code of one.codes) this.#codes[code] = (this.#codes[code] ?? 0) + 1;
    this.#slowest = Math.max(this.#slowest, one.milliseconds);
    this.#most = Math.max(this.#most, one.bytes);
    if (one.bytes > MEMORY_LIMIT) this.#findings.push({ ...one, kind: 'memory' });
    else if (one.kind !== 'right' && one.kind !== 'forged') this.#findings.push(one);
    this.#done++;
    this.#options.onProgress?.(this.#done);
  }

  /** The worker said nothing more while it tried this image. */
  lost(index: number, kind: 'hang' | 'died', detail: string): void {
    this.#verdicts[kind] = (this.#verdicts[kind] ?? 0) + 1;
    this.#findings.push({ index, kind, base: '', structures: [], mutation: '', detail });
    this.#done++;
  }

  report(milliseconds: number): FuzzReport {
    return {
      seed: this.#options.seed,
      count: this.#done,
      milliseconds,
      verdicts: this.#verdicts,
      codes: this.#codes,
      slowestMs: this.#slowest,
      mostBytes: this.#most,
      findings: this.#findings.sort((a, b) => a.index - b.index),
    };
  }
}

const CHUNK = 25;

/** Starts a worker for as long as there is something to try, a new one where the last was lost. */
async function runWorker(options: FuzzOptions, next: { index: number }, tally: Tally): Promise<void> {
  // The rest of a chunk whose worker was lost.
  let rest: { from: number; to: number } | undefined;
  while (rest !== undefined || next.index < options.count) {
    const child = fork(fileURLToPath(import.meta.url), ['--worker', '--seed', options.seed], {
      execArgv: ['--import', 'tsx', '--max-old-space-size=400'],
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    rest = await serve(child, options, next, tally, rest);
  }
}

/** Gives a worker its work; resolves, when it is lost, with what it had still to do. */
function serve(
  child: ChildProcess,
  options: FuzzOptions,
  next: { index: number },
  tally: Tally,
  first: { from: number; to: number } | undefined,
): Promise<{ from: number; to: number } | undefined> {
  return new Promise((resolve) => {
    let current = first ?? { from: 0, to: 0 };
    let errors = '';
    let reason: 'hang' | 'died' = 'died';
    let timer: NodeJS.Timeout | undefined;
    const watch = (milliseconds: number) => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        reason = 'hang';
        child.kill('SIGKILL');
      }, milliseconds);
    };
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      errors = (errors + text).slice(-2000);
    });
    const give = () => {
      if (current.from >= current.to) {
        const from = next.index;
        next.index = Math.min(options.count, from + CHUNK);
        current = { from, to: next.index };
      }
      if (current.from < current.to) child.send(current);
      else child.disconnect();
    };
    child.on('message', (message: FromWorker) => {
      watch(SILENCE_LIMIT_MS);
      if ('ready' in message) return give();
      for (const one of message.cases) tally.add(one);
      current = { from: message.next, to: current.to };
      if (current.from >= current.to) give();
    });
    watch(60_000); // it makes its base images first
    child.on('exit', () => {
      clearTimeout(timer);
      if (current.from >= current.to) return resolve(undefined);
      tally.lost(current.from, reason, errors);
      resolve(current.from + 1 < current.to ? { from: current.from + 1, to: current.to } : undefined);
    });
  });
}

async function work(seed: string): Promise<void> {
  let unhandled: string | undefined;
  process.on('unhandledRejection', (error) => {
    unhandled = error instanceof Error ? (error.stack ?? error.message) : String(error);
  });
  const fuzzer = await Fuzzer.create(seed);
  process.on('message', async ({ from, to }: { from: number; to: number }) => {
    for (let index = from; index < to; index++) {
      const one = await fuzzer.run(index);
      // Work in the background may go on; it is given a moment.
      await new Promise<void>((resolve) => setImmediate(resolve));
      const broken = unhandled;
      unhandled = undefined;
      const told: Case =
        broken === undefined ? one : { ...one, kind: 'broken', detail: `unhandled rejection: ${broken}` };
      process.send?.({ cases: [told], next: index + 1 } satisfies FromWorker);
    }
  });
  process.send?.({ ready: true } satisfies FromWorker);
}

function print(report: FuzzReport): void {
  const seconds = report.milliseconds / 1000;
  console.log(
    `${report.count} images of seed ${report.seed} in ${seconds.toFixed(0)} s (${(report.count / seconds).toFixed(0)} a second)`,
  );
  console.log('verdicts', JSON.stringify(report.verdicts));
  console.log('codes', JSON.stringify(report.codes));
  console.log(
    `slowest image ${report.slowestMs.toFixed(0)} ms, most memory above the start ${(report.mostBytes / 2 ** 20).toFixed(0)} MiB`,
  );
  const groups = new Map<string, Finding[]>();
  for (const finding of report.findings) {
    // Numbers and ids out, so that like comes to like.
    const text = finding.detail
      .split('\n', 1)[0]
      ?.replace(/[0-9a-f-]{36}|\d+/g, '#')
      .split(';', 1)[0];
    const key = `${finding.kind} | ${[...finding.structures].sort().join('+')} | ${text}`;
    groups.set(key, [...(groups.get(key) ?? []), finding]);
  }
  for (const [key, list] of [...groups].sort((a, b) => b[1].length - a[1].length)) {
    console.log(`${list.length} × ${key}`);
    for (const { index, mutation } of list.slice(0, 3)) console.log(`     --only ${index}: ${mutation}`);
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      count: { type: 'string', default: '1000' },
      seed: { type: 'string', default: 'fuzz' },
      workers: { type: 'string', default: '1' },
      only: { type: 'string' },
      worker: { type: 'boolean', default: false },
    },
  });
  if (values.worker) return work(values.seed);
  if (values.only !== undefined) {
    const fuzzer = await Fuzzer.create(values.seed);
    console.log(await fuzzer.run(Number(values.only)));
    return;
  }
  const report = await fuzz({
    seed: values.seed,
    count: Number(values.count),
    workers: Number(values.workers),
    onProgress: (done) => {
      if (done % 5000 === 0) console.error(`${done} of ${values.count}`);
    },
  });
  print(report);
  if (report.findings.some(({ kind }) => kind !== 'unclean')) process.exitCode = 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
