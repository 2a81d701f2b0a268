/**
 * Fuzzes the NBD server: broken negotiations and requests, from clients that also vanish or do not read.
 *
 *     npx tsx test/fuzz/nbd-fuzz.ts --cases 100000 --seed 1 [--workers 2] [--from 4000]
 *     npx tsx test/fuzz/nbd-fuzz.ts --seed 1 --only 4711        one case again, told in full
 *
 * Case `i` of a seed always sends the same bytes in the same pieces. Workers are processes of their own: one that says
 * nothing for the time limit is killed and counts as a hang, one that dies counts as a crash. What is right, says
 * nbd-trial.ts.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { planOf } from './nbd-plan.ts';
import { Arena, type Outcome } from './nbd-trial.ts';

/** Wall time; the server's own limits are far below. */
const SILENCE_LIMIT_MS = 30_000;
const CHUNK = 200;
const WARM_CHUNKS = 5;
/** Growth of what is left after a full collection, from a worker's first chunks to any later one. */
export const HEAP_GROWTH_LIMIT = 8 * 1024 * 1024;

export interface FuzzOptions {
  readonly seed: string;
  /** The first one; 0 unless given. */
  readonly from?: number;
  readonly cases: number;
  readonly workers: number;
  readonly onProgress?: (done: number) => void;
}

export interface Finding {
  readonly index: number;
  readonly kind: 'wrong' | 'hang' | 'died' | 'leak';
  readonly description: string;
  readonly detail: string;
}

export interface FuzzReport {
  readonly seed: string;
  readonly cases: number;
  readonly milliseconds: number;
  /** Options and requests whose answers were looked at. */
  readonly options: number;
  readonly replies: number;
  readonly slowestMs: number;
  /** Most that one worker's heap grew, after collection, bytes. */
  readonly heapGrowth: number;
  readonly findings: readonly Finding[];
}

interface ChunkDone {
  readonly next: number;
  readonly findings: readonly Finding[];
  readonly options: number;
  readonly replies: number;
  readonly slowestMs: number;
  readonly heap: number;
}

type FromWorker = { readonly ready: true } | ChunkDone;

interface Work {
  from: number;
  to: number;
}

export async function fuzz(options: FuzzOptions): Promise<FuzzReport> {
  const started = performance.now();
  const run = new Run(options);
  await Promise.all(Array.from({ length: options.workers }, () => run.worker()));
  return run.report(performance.now() - started);
}

class Run {
  readonly #options: FuzzOptions;
  readonly #findings: Finding[] = [];
  #next: number;
  readonly #end: number;
  #done = 0;
  #sums = { options: 0, replies: 0, slowestMs: 0, heapGrowth: 0 };

  constructor(options: FuzzOptions) {
    this.#options = options;
    this.#next = options.from ?? 0;
    this.#end = this.#next + options.cases;
  }

  /** Keeps a worker running for as long as there is work, a new one where the last was lost. */
  async worker(): Promise<void> {
    let rest: Work | undefined;
    while (rest !== undefined || this.#next < this.#end) {
      const child = fork(fileURLToPath(import.meta.url), ['--worker', '--seed', this.#options.seed], {
        execArgv: ['--import', 'tsx', '--expose-gc', '--max-old-space-size=600'],
        stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      });
      rest = await this.#serve(child, rest);
    }
  }

  report(milliseconds: number): FuzzReport {
    const findings = this.#findings.sort((a, b) => a.index - b.index);
    return { seed: this.#options.seed, cases: this.#done, milliseconds, ...this.#sums, findings };
  }

  #chunk(): Work {
    const from = this.#next;
    this.#next = Math.min(this.#end, from + CHUNK);
    return { from, to: this.#next };
  }

  #add({ findings, options, replies, slowestMs }: ChunkDone, cases: number): void {
    this.#findings.push(...findings);
    this.#sums.options += options;
    this.#sums.replies += replies;
    this.#sums.slowestMs = Math.max(this.#sums.slowestMs, slowestMs);
    this.#done += cases;
    this.#options.onProgress?.(this.#done);
  }

  /** @returns what a lost worker had still to do, without the case that it was lost in */
  #serve(child: ChildProcess, first: Work | undefined): Promise<Work | undefined> {
    return new Promise((resolve) => {
      let work: Work | undefined = first;
      let heapAtFirst = 0;
      let chunks = 0;
      let errors = '';
      let kind: 'hang' | 'died' = 'died';
      let timer: NodeJS.Timeout | undefined;
      const watch = () => {
        clearTimeout(timer);
        timer = setTimeout(() => {
          kind = 'hang';
          child.kill('SIGKILL');
        }, SILENCE_LIMIT_MS);
      };
      child.stderr?.setEncoding('utf8').on('data', (text: string) => {
        errors = (errors + text).slice(-3000);
      });
      const give = () => {
        if (work === undefined || work.from >= work.to) work = this.#chunk();
        if (work.from < work.to) child.send(work);
        else child.disconnect();
      };
      child.on('message', (message: FromWorker) => {
        watch();
        if ('ready' in message || work === undefined) return give();
        this.#add(message, message.next - work.from);
        work.from = message.next;
        // What is compiled and cached on the way comes first; then it must stay as it is.
        if (++chunks <= WARM_CHUNKS) heapAtFirst = message.heap;
        this.#sums.heapGrowth = Math.max(this.#sums.heapGrowth, message.heap - heapAtFirst);
        if (work.from >= work.to) give();
      });
      watch();
      child.on('exit', () => {
        clearTimeout(timer);
        if (work === undefined || work.from >= work.to) return resolve(undefined);
        // Which case of its chunk it was lost in is not known: said is the first.
        const description = `one of ${work.from} to ${work.to - 1}`;
        this.#findings.push({ index: work.from, kind, description, detail: errors });
        this.#done += work.to - work.from;
        resolve(undefined);
      });
    });
  }
}

/** Runs cases until told otherwise, in this process. */
async function work(seed: string): Promise<void> {
  const unhandled: string[] = [];
  const note = (error: unknown) =>
    unhandled.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
  process.on('unhandledRejection', note);
  process.on('uncaughtException', note);
  let arena = await Arena.create();
  process.once('disconnect', () => process.exit());
  process.on('message', async ({ from, to }: Work) => {
    const findings: Finding[] = [];
    const sums = { options: 0, replies: 0, slowestMs: 0 };
    for (let index = from; index < to; index++) {
      const plan = planOf(seed, index);
      const outcome: Outcome = await arena.run(plan);
      if (outcome.wrong !== '') {
        // What it left behind would be laid to every case that follows.
        await arena.close();
        arena = await Arena.create();
      }
      sums.options += outcome.options;
      sums.replies += outcome.replies;
      sums.slowestMs = Math.max(sums.slowestMs, outcome.milliseconds);
      const detail = [outcome.wrong, ...unhandled.splice(0).map((text) => `unhandled: ${text}`)]
        .filter((text) => text !== '')
        .join('; ');
      const company = plan.others.length > 0 ? ` with ${plan.others.length} others` : '';
      const description = `${plan.channel}, ${plan.manner}${company}: ${plan.description}`;
      if (detail !== '') findings.push({ index, kind: 'wrong', description, detail });
    }
    globalThis.gc?.();
    // Without what buffers take: the server keeps some for the next requests, and counts the others itself.
    const { heapUsed } = process.memoryUsage();
    process.send?.({ next: to, findings, ...sums, heap: heapUsed } satisfies ChunkDone);
  });
  process.send?.({ ready: true } satisfies FromWorker);
}

export function print(report: FuzzReport): void {
  const seconds = report.milliseconds / 1000;
  console.log(
    `${report.cases} cases of seed ${report.seed} in ${seconds.toFixed(0)} s (${(report.cases / seconds).toFixed(0)} a second); ` +
      `${report.options} answers to options and ${report.replies} replies checked; slowest case ${report.slowestMs.toFixed(0)} ms; ` +
      `heap grew by ${(report.heapGrowth / 2 ** 20).toFixed(1)} MiB; ${report.findings.length} findings`,
  );
  const groups = new Map<string, Finding[]>();
  for (const finding of report.findings) {
    const key = `${finding.kind} | ${finding.detail.replace(/\d+/g, '#').slice(0, 160)}`;
    groups.set(key, [...(groups.get(key) ?? []), finding]);
  }
  for (const [key, list] of [...groups].sort((a, b) => b[1].length - a[1].length)) {
    console.log(`${list.length} × ${key}`);
    for (const { index, description } of list.slice(0, 3))
      console.log(`     --only ${index}: ${description.slice(0, 300)}`);
  }
}

async function only(seed: string, index: number): Promise<void> {
  const plan = planOf(seed, index);
  console.log({
    ...plan,
    bytes: plan.bytes.length,
    others: plan.others.map(({ description }) => description),
  });
  console.log(plan.bytes.toString('hex').slice(0, 1000));
  const arena = await Arena.create();
  console.log(await arena.run(plan));
  await arena.close();
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      cases: { type: 'string', default: '1000' },
      from: { type: 'string', default: '0' },
      seed: { type: 'string', default: '1' },
      workers: { type: 'string', default: '1' },
      only: { type: 'string' },
      worker: { type: 'boolean', default: false },
    },
  });
  if (values.worker) return work(values.seed);
  if (values.only !== undefined) return only(values.seed, Number(values.only));
  const report = await fuzz({
    seed: values.seed,
    from: Number(values.from),
    cases: Number(values.cases),
    workers: Number(values.workers),
    onProgress: (done) => {
      if (done % 10_000 === 0) console.error(`${done} of ${values.cases}`);
    },
  });
  print(report);
  if (report.findings.length > 0 || report.heapGrowth > HEAP_GROWTH_LIMIT) process.exitCode = 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
