/** Runs the built program as its users do, in folders of its own. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { expect, onTestFinished } from 'vitest';
import { DirectoryStore, FileDevice, Volume } from '../../src/index.js';

const ROOT = resolve(import.meta.dirname, '../..');
/** Another build of the program may be named for a try. */
export const PROGRAM = process.env.VOLSNAP_PROGRAM ?? join(ROOT, 'dist/cli/main.js');
if (!existsSync(PROGRAM)) execFileSync('npm', ['run', '--silent', 'build'], { cwd: ROOT, stdio: 'inherit' });

export const MEBIBYTE = 1024 * 1024;
/** No command may take longer, milliseconds. */
const PATIENCE = 30_000;

export interface Outcome {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly bytes: Buffer;
  readonly stderr: string;
}

interface RunOptions {
  readonly input?: Uint8Array | string;
  readonly env?: Readonly<Record<string, string>>;
}

/** A folder with volumes, and the program running in it. */
export class Bench {
  readonly folder = mkdtempSync(join(tmpdir(), 'volsnap-cli-'));

  constructor() {
    onTestFinished(() => rmSync(this.folder, { recursive: true, force: true }));
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** A new image of zeros, or of `content`. */
  image(name: string, content: number | Uint8Array): string {
    writeFileSync(this.path(name), typeof content === 'number' ? '' : content);
    if (typeof content === 'number') truncateSync(this.path(name), content);
    return name;
  }

  /** An image with an empty store, as `volsnap init` makes it: with `options` it does, without them the library, which is much faster. */
  async volume(name: string, content: number | Uint8Array, ...options: readonly string[]): Promise<string> {
    this.image(name, content);
    if (options.length > 0) this.ok(['init', name, ...options]);
    else {
      await using device = await FileDevice.open(this.path(name), { writable: true });
      await Volume.initialize(device, { store: new DirectoryStore(`${device.name}.volsnap`) });
    }
    return name;
  }

  run(args: readonly string[], { input = '', env = {} }: RunOptions = {}): Outcome {
    const { status, signal, stdout, stderr } = spawnSync(process.execPath, [PROGRAM, ...args], {
      cwd: this.folder,
      input,
      env: { ...process.env, ...env },
      timeout: PATIENCE,
      killSignal: 'SIGKILL',
      maxBuffer: 256 * MEBIBYTE,
    });
    return { status, signal, stdout: stdout.toString(), bytes: stdout, stderr: stderr.toString() };
  }

  /** Runs a command that has to succeed and to say nothing on standard error. */
  ok(args: readonly string[], input?: Uint8Array | string): Outcome {
    const outcome = this.run(args, input === undefined ? {} : { input });
    expect({ args, status: outcome.status, stderr: outcome.stderr }).toEqual({ args, status: 0, stderr: '' });
    return outcome;
  }

  /** Runs a command that has to fail with one line, without a stack trace, on standard error. */
  fails(args: readonly string[], status: number, options?: RunOptions): string {
    const outcome = this.run(args, options);
    expect({ args, status: outcome.status }).toEqual({ args, status });
    expect(outcome.stdout).toBe('');
    expect(outcome.stderr).toMatch(/^volsnap: .+\n$/);
    expect(outcome.stderr).not.toMatch(/\n\s+at |internal error/);
    return outcome.stderr;
  }

  // biome-ignore lint/suspicious/noExplicitAny: what JSON holds is for the test to say.
  json(args: readonly string[]): any {
    return JSON.parse(this.ok([...args, '--json']).stdout);
  }

  /** Takes a snapshot. @returns its id */
  snapshot(volume: string, ...options: readonly string[]): string {
    return this.ok(['create', volume, ...options]).stdout.trim();
  }

  /** The bytes of a volume, or of a snapshot of it. */
  read(source: string, ...options: readonly string[]): Buffer {
    return this.ok(['read', source, ...options]).bytes;
  }

  /** Starts a command and leaves it running; it is killed when the test ends. */
  start(args: readonly string[]): ChildProcess {
    const child = spawn(process.execPath, [PROGRAM, ...args], { cwd: this.folder });
    child.stdin?.on('error', () => undefined);
    onTestFinished(() => void child.kill('SIGKILL'));
    return child;
  }

  /** A line for the shell, in which `volsnap` is the program. */
  shell(line: string): Outcome {
    const script = `set -o pipefail; volsnap() { '${process.execPath}' '${PROGRAM}' "$@"; }; ${line}`;
    const { status, signal, stdout, stderr } = spawnSync('bash', ['-c', script], {
      cwd: this.folder,
      timeout: PATIENCE,
    });
    return { status, signal, stdout: stdout.toString(), bytes: stdout, stderr: stderr.toString() };
  }
}

/** Bytes that differ from place to place and from seed to seed. */
export function noise(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = (seed * 2_654_435_761 + 1) >>> 0;
  for (let at = 0; at + 4 <= length; at += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes.writeUInt32LE(state, at);
  }
  return bytes;
}

/** Fails unless the bytes are equal. (What `toEqual` says of two buffers of megabytes takes gigabytes.) */
export function expectSame(bytes: Buffer, expected: Buffer): void {
  expect(bytes.byteLength).toBe(expected.byteLength);
  expect(bytes.equals(expected)).toBe(true);
}

/** Gives the child more than pipes hold; when that is gone the child is at work. */
export async function feed(child: ChildProcess, bytes: Buffer): Promise<void> {
  await new Promise((resolve) => child.stdin?.write(bytes, resolve));
}

export const ended = (child: ChildProcess): Promise<{ status: number | null; signal: string | null }> =>
  new Promise((resolve) => {
    child.once('exit', (status, signal) => resolve({ status, signal }));
  });

/** Is there a program of that name? */
export const hasProgram = (name: string): boolean =>
  spawnSync(name, ['--version'], { stdio: 'ignore' }).error === undefined;
