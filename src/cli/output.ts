/**
 * Standard output and standard error.
 *
 * Standard output carries results: text, JSON, or the bytes of a volume. It is written with plain system calls outside
 * the main thread, so a slow reader holds back the command but not its signals. A reader that has had enough (`head`)
 * is no failure: what comes after is dropped, and `closed` lets the command stop early.
 * Standard error carries everything else.
 */
import { write, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { isatty } from 'node:tty';
import pc from 'picocolors';
import { explained } from './failure.js';
import { oneLine } from './text.js';

const STDOUT = 1;
const STDERR = 2;
const RETRY_MS = 5;
/** Warnings that are remembered, so that they are not said twice. */
const REMEMBERED_MAX = 1000;
const NARROWEST = 40;
const USUAL_WIDTH = 80;

export type Colors = ReturnType<typeof pc.createColors>;

/** Is it a terminal that somebody looks at? */
const isTerminal = (descriptor: number): boolean => isatty(descriptor);
const isColourful = (descriptor: number): boolean =>
  isTerminal(descriptor) && !process.env.NO_COLOR && process.env.TERM !== 'dumb';

export class Output {
  readonly colors: Colors = pc.createColors(isColourful(STDOUT));
  readonly isTerminal = isTerminal(STDOUT);
  readonly #signal: AbortSignal;
  #closed = false;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  /** Columns of the terminal. */
  get width(): number {
    return Math.max(NARROWEST, (this.isTerminal && process.stdout.columns) || USUAL_WIDTH);
  }

  /** Nobody reads any more. */
  get closed(): boolean {
    return this.#closed;
  }

  async print(...lines: readonly string[]): Promise<void> {
    await this.write(Buffer.from(lines.map((line) => `${line}\n`).join('')));
  }

  async json(value: unknown): Promise<void> {
    await this.print(JSON.stringify(value, undefined, 2));
  }

  /** Resolves when the bytes are out, or nobody wants them. @throws AbortError, DeviceError */
  async write(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.byteLength && !this.#closed; ) {
      this.#signal.throwIfAborted();
      done += await this.#some(bytes.subarray(done));
    }
  }

  async #some(bytes: Uint8Array): Promise<number> {
    try {
      return await explained('write to standard output', () => writeToDescriptor(bytes, this.#signal));
    } catch (error) {
      const code = codeBelow(error);
      if (code === 'EPIPE') this.#closed = true;
      else if (code !== 'EAGAIN') throw error;
      else await sleep(RETRY_MS);
      return 0;
    }
  }
}

/** Gives up waiting at an interruption: a reader that hangs must not keep the volume open. */
function writeToDescriptor(bytes: Uint8Array, signal: AbortSignal): Promise<number> {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
    write(STDOUT, bytes, (error, count) => {
      signal.removeEventListener('abort', stop);
      if (error === null) resolve(count);
      else reject(error);
    });
  });
}

function codeBelow(error: unknown): unknown {
  const cause = error instanceof Error ? error.cause : undefined;
  return cause instanceof Error && 'code' in cause ? cause.code : undefined;
}

/** What is said besides the result. */
export class Notes {
  readonly colors: Colors = pc.createColors(isColourful(STDERR));
  readonly isTerminal = isTerminal(STDERR);
  readonly #json: boolean;
  readonly #said = new Set<string>();

  constructor(json: boolean) {
    this.#json = json;
  }

  /** Something that the user should know; said once. */
  warn(text: string): void {
    if (this.#said.has(text)) return;
    // A server goes on for years, and may have a lot to say.
    if (this.#said.size >= REMEMBERED_MAX) this.#said.clear();
    this.#said.add(text);
    if (this.#json) this.#line(JSON.stringify({ warning: { message: text } }));
    else this.#line(`${this.colors.yellow('volsnap: warning:')} ${oneLine(text)}`);
  }

  /** Why the command failed. */
  error(code: string, message: string): void {
    if (this.#json) this.#line(JSON.stringify({ error: { code, message } }));
    else this.#line(`${this.colors.red('volsnap:')} ${message}`);
  }

  /** A line for people: not with `--json`. */
  say(text: string): void {
    if (!this.#json) this.#line(text);
  }

  #line(text: string): void {
    try {
      writeSync(STDERR, `${text}\n`);
    } catch {
      // Nobody can be told that nobody can be told.
    }
  }
}
