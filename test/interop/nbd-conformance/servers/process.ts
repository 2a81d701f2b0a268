/** A server program as a child process, from its start until it listens, and its end. */
import { type ChildProcess, spawn } from 'node:child_process';
import { connect } from 'node:net';

const START_MS = 20_000;
const RETRY_MS = 20;

export class ServerProcess {
  readonly #child: ChildProcess;
  #output = '';

  private constructor(child: ChildProcess) {
    this.#child = child;
    for (const stream of [child.stdout, child.stderr])
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#output = (this.#output + text).slice(-4000);
      });
  }

  /** Resolves when something accepts connections at every one of `sockets`. */
  static async start(
    program: string,
    given: readonly string[],
    sockets: readonly string[],
  ): Promise<ServerProcess> {
    const child = spawn(program, given, { stdio: ['ignore', 'pipe', 'pipe'] });
    const server = new ServerProcess(child);
    const failed = new Promise<never>((_, reject) => {
      child.once('error', reject);
      child.once('exit', (code) => reject(new Error(`${program} ended with ${code}: ${server.#output}`)));
    });
    // Nobody may be waiting any more when it ends at last.
    failed.catch(() => undefined);
    try {
      for (const path of sockets) await Promise.race([listens(path), failed]);
    } catch (error) {
      await server.stop();
      throw error;
    }
    return server;
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    await ended;
  }
}

async function listens(path: string): Promise<void> {
  const until = performance.now() + START_MS;
  for (;;) {
    const accepted = await new Promise<boolean>((resolve) => {
      const socket = connect(path);
      socket.once('connect', () => {
        socket.destroy();
        resolve(true);
      });
      socket.once('error', () => resolve(false));
    });
    if (accepted) return;
    if (performance.now() > until) throw new Error(`nothing listens at ${path} after ${START_MS / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}
