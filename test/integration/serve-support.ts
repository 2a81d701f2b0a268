/** A `volsnap serve` that runs beside a test. */
import { type ChildProcess, spawn } from 'node:child_process';
import { onTestFinished } from 'vitest';
import { NbdDevice } from '../../src/index.js';
import { type Bench, ended, noise, type Outcome, PROGRAM } from './cli-support.js';

/** What a server may take to be ready, or to end, in milliseconds. */
const PATIENCE_MS = 30_000;

export interface Ready {
  readonly uri: string;
  readonly uris: readonly string[];
  readonly exports: readonly string[];
  readonly pid: number;
  readonly metrics?: string;
}

export interface Server {
  readonly child: ChildProcess;
  readonly ready: Ready;
  /** What it said on standard error so far. */
  errors(): string;
  /** Asks it to end, and waits for that. */
  stop(signal?: NodeJS.Signals): Promise<{ status: number | null; signal: string | null }>;
}

interface StartOptions {
  readonly env?: Readonly<Record<string, string>>;
}

/** Starts `volsnap serve ARGS`; resolves when it says that it is ready. It ends with the test. */
export async function serve(
  bench: Bench,
  args: readonly string[],
  { env = {} }: StartOptions = {},
): Promise<Server> {
  const child = spawn(process.execPath, [PROGRAM, 'serve', ...args, '--json'], {
    cwd: bench.folder,
    env: { ...process.env, ...env },
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  let [out, errors] = ['', ''];
  child.stderr.on('data', (text: Buffer) => {
    errors += text;
  });
  const end = ended(child);
  const line = new Promise<string>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`serve is not ready: ${out} ${errors}`)), PATIENCE_MS);
    child.stdout.on('data', (text: Buffer) => {
      out += text;
      if (!out.includes('\n')) return;
      clearTimeout(timer);
      resolve(out);
    });
    void end.then(({ status }) => {
      clearTimeout(timer);
      reject(new Error(`serve ended with ${status}: ${errors}`));
    });
  });
  const ready = JSON.parse(await line) as Ready;
  return {
    child,
    ready,
    errors: () => errors,
    stop: async (signal = 'SIGTERM') => {
      child.kill(signal);
      return end;
    },
  };
}

/** Starts one that has to fail, and gives what it says. */
export function failsToServe(bench: Bench, args: readonly string[], status = 1): string {
  return bench.fails(['serve', ...args], status);
}

/** The URI of another export of the same server. */
export const exportAt = (uri: string, name: string): string =>
  uri.replace(/^(\w+\+unix:\/\/\/)[^?]*/, `$1${name}`);

/** Writes without end to `[offset, offset + length)` through an NBD connection of its own. */
export class Load {
  writes = 0;
  #isOver = false;
  #failure: unknown;
  readonly #done: Promise<void>;

  private constructor(device: NbdDevice, offset: number, length: number) {
    this.#done = this.#run(device, offset, length).catch((error: unknown) => {
      this.#failure = error;
    });
  }

  static async start(uri: string, offset: number, length: number): Promise<Load> {
    const load = new Load(await NbdDevice.open(uri, { writable: true }), offset, length);
    onTestFinished(() => load.stop().catch(() => undefined));
    return load;
  }

  async #run(device: NbdDevice, offset: number, length: number): Promise<void> {
    const bytes = noise(65_536, 99);
    try {
      for (let i = 0; !this.#isOver; i++) {
        const at = (i * 7 * 4096) % (length - bytes.byteLength);
        await Promise.all([device.write(offset + at, bytes), device.write(offset + at / 2, bytes)]);
        this.writes += 2;
        if (i % 50 === 0) await device.flush();
      }
    } finally {
      await device.close();
    }
  }

  /** @throws why it failed, if it did */
  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#done;
    if (this.#failure !== undefined) throw this.#failure;
  }
}

/** Runs the program without keeping this process from its own work. */
export function runBeside(bench: Bench, args: readonly string[]): Promise<Outcome> {
  const child = bench.start(args);
  const [out, errors]: [Buffer[], Buffer[]] = [[], []];
  child.stdout?.on('data', (bytes: Buffer) => out.push(bytes));
  child.stderr?.on('data', (bytes: Buffer) => errors.push(bytes));
  child.stdin?.end();
  return new Promise((resolve) => {
    child.once('close', (status, signal) => {
      const bytes = Buffer.concat(out);
      resolve({
        status,
        signal,
        bytes,
        stdout: bytes.toString(),
        stderr: Buffer.concat(errors).toString(),
      });
    });
  });
}
