/** A volume that a process of its own serves, as users do it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { onTestFinished } from 'vitest';
import { type Bench, PROGRAM } from '../../integration/cli-support.ts';

export class Served {
  readonly #child: ChildProcess;
  readonly #socket: string;

  private constructor(child: ChildProcess, socket: string) {
    this.#child = child;
    this.#socket = socket;
  }

  /** Resolves when clients can connect. */
  static async start(bench: Bench, volume: string, ...options: readonly string[]): Promise<Served> {
    const socket = bench.path(`${volume}.nbd`);
    const child = spawn(process.execPath, [PROGRAM, 'serve', volume, '--socket', socket, ...options], {
      cwd: bench.folder,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const served = new Served(child, socket);
    onTestFinished(() => served.end('SIGKILL'));
    const ready = once(createInterface({ input: child.stdout }), 'line');
    const failed = once(child, 'exit').then(([status]) => {
      throw new Error(`serve ended with ${status} before it was ready`);
    });
    await Promise.race([ready, failed]);
    failed.catch(() => undefined);
    return served;
  }

  /** @param name of the export */
  uri(name = ''): string {
    return `nbd+unix:///${name}?socket=${this.#socket}`;
  }

  /** Sends a signal and waits for the end. */
  async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill(signal);
    await gone;
  }
}
