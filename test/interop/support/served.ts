/** A volume that a process of its own serves, as users do it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { onTestFinished } from 'vitest';
import { type Bench, PROGRAM } from '../../integration/cli-support.ts';

export class Served {
  readonly #child: ChildProcess;
  readonly #base: string;

  private constructor(child: ChildProcess, base: string) {
    this.#child = child;
    this.#base = base;
  }

  /** On a Unix socket. Resolves when clients can connect. */
  static start(bench: Bench, volume: string, ...options: readonly string[]): Promise<Served> {
    return Served.#start(bench, volume, ['--socket', bench.path(`${volume}.nbd`), ...options]);
  }

  /** On TCP, at a port that is free. */
  static startTcp(bench: Bench, volume: string, ...options: readonly string[]): Promise<Served> {
    return Served.#start(bench, volume, ['--listen', '127.0.0.1:0', ...options]);
  }

  static async #start(bench: Bench, volume: string, options: readonly string[]): Promise<Served> {
    const child = spawn(process.execPath, [PROGRAM, 'serve', volume, ...options], {
      cwd: bench.folder,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    onTestFinished(() => end(child, 'SIGKILL'));
    const ready = once(createInterface({ input: child.stdout }), 'line');
    const failed = once(child, 'exit').then(([status]) => {
      throw new Error(`serve ended with ${status} before it was ready`);
    });
    const [line] = await Promise.race([ready, failed]);
    failed.catch(() => undefined);
    return new Served(child, String(line));
  }

  /** @param name of the export */
  uri(name = ''): string {
    const uri = new URL(this.#base);
    uri.pathname = `/${name}`;
    return uri.href;
  }

  /** Sends a signal and waits for the end. */
  end(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    return end(this.#child, signal);
  }
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill(signal);
  await gone;
}
