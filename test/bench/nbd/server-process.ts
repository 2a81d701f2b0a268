/** A server in a process of its own: started, waited for, its processor time read, stopped. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { setTimeout } from 'node:timers/promises';

/** Within this time a server listens, and is gone once told to stop; milliseconds. */
const PATIENCE = 20_000;
const TICKS_A_SECOND = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));

export class ServerProcess implements AsyncDisposable {
  #messages = '';
  readonly #gone: Promise<unknown>;

  private constructor(
    private readonly child: ChildProcess,
    readonly socket: string,
  ) {
    this.#gone = Promise.allSettled([once(child, 'exit')]);
    for (const stream of [child.stdout, child.stderr])
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#messages = (this.#messages + text).slice(-4000);
      });
  }

  /**
   * Starts a program in `folder` and resolves once it accepts connections on `socket`.
   * @throws with what the program said, when it ends before or takes too long
   */
  static async start(folder: string, socket: string, command: readonly string[]): Promise<ServerProcess> {
    const [program = '', ...given] = command;
    const child = spawn(program, given, {
      cwd: folder,
      env: { ...process.env, TMPDIR: folder },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const server = new ServerProcess(child, socket);
    const deadline = performance.now() + PATIENCE;
    while (!(await accepts(socket))) {
      const ended = child.exitCode ?? child.signalCode;
      if (ended !== null || child.pid === undefined || performance.now() > deadline) {
        await server[Symbol.asyncDispose]();
        throw new Error(`${command.join(' ')} does not serve (${ended}): ${server.#messages.trim()}`);
      }
      await setTimeout(10);
    }
    return server;
  }

  /** The URI of an export, as fio and libnbd take it. */
  uri(name: string): string {
    return `nbd+unix:///${name}?socket=${this.socket}`;
  }

  /** Seconds that the process has spent on a processor so far, for itself and in the kernel. Linux only. */
  async processorSeconds(): Promise<number> {
    const status = await readFile(`/proc/${this.child.pid}/stat`, 'utf8');
    // Fields 14 and 15; the second one, the program's name, may hold anything but ends with the last parenthesis.
    const fields = status.slice(status.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.child.pid === undefined) return;
    this.child.kill('SIGTERM');
    const patience = new AbortController();
    const killed = setTimeout(PATIENCE, undefined, { signal: patience.signal }).then(
      () => this.child.kill('SIGKILL'),
      () => false,
    );
    await this.#gone;
    patience.abort();
    await killed;
  }
}

/** Does somebody listen on the socket? */
function accepts(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const settle = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => settle(true)).once('error', () => settle(false));
  });
}
