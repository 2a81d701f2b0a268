/**
 * Making long ranges of a file zero without writing them: `fallocate` of util-linux, as Node.js cannot.
 *
 * To start a program costs Node.js 1 ms, or 20 in a process of many hundred megabytes, and stops it for that time. So a shell is
 * started, which starts the tool for one range after the other, at 1.2 ms each beside the main thread. The shell ends a moment
 * after the last range.
 *
 * It inherits the descriptor. Killed in the middle of a range, this process so leaves its lock behind until the tool is
 * done, and nobody who opens the file then has a hole punched into it by a ghost.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { ByteLength, ByteOffset } from '../units.js';

/** `punch-hole` gives space back; `zero-range` keeps it, for writes to come. */
export type ZeroingMode = 'punch-hole' | 'zero-range';

const SCRIPT =
  'while read -r mode offset length; do' +
  ' fallocate "--$mode" --offset "$offset" --length "$length" /proc/self/fd/3; echo "$?"; done';
/** Milliseconds without work after which the shell ends: longer than a client takes to send its next request. */
const LINGER = 20;

export class HoleTool {
  readonly #descriptor: number;
  readonly #failing = new Set<ZeroingMode>();
  #shell: Shell | undefined;
  readonly #shells = new Set<Promise<void>>();

  /** @param descriptor open for writing; it must stay open until `close` has resolved */
  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  /**
   * Makes the range read as zeros. Resolves to false if that cannot be done, now or ever: then every part of the range is
   * as it was or zero. Offset and length should be multiples of the file system's block.
   */
  async zero(mode: ZeroingMode, offset: ByteOffset, length: ByteLength): Promise<boolean> {
    if (this.#failing.has(mode)) return false;
    const done = (await this.#running()?.run(`${mode} ${offset} ${length}\n`)) ?? false;
    // A file system that cannot do it will not learn it; whatever else it was, zeros can be written too.
    if (!done) this.#failing.add(mode);
    return done;
  }

  /** The shell, started if need be; `undefined` if there is not even memory for one. */
  #running(): Shell | undefined {
    if (this.#shell?.hasEnded === false) return this.#shell;
    try {
      this.#shell = new Shell(this.#descriptor);
    } catch {
      return undefined;
    }
    const { ended } = this.#shell;
    this.#shells.add(ended);
    void ended.then(() => this.#shells.delete(ended));
    return this.#shell;
  }

  /** Waits until no process is left. No range may be under way. */
  async close(): Promise<void> {
    this.#shell?.end();
    await Promise.all(this.#shells);
  }
}

/** One shell, from the first range to a pause. */
class Shell {
  readonly #child: ChildProcess;
  /** Those who wait for a range, in the order in which the shell was told. */
  readonly #waiting: ((done: boolean) => void)[] = [];
  #idle: NodeJS.Timeout | undefined;
  /** It takes no more work. */
  hasEnded = false;
  /** Resolves when the process is gone. */
  readonly ended: Promise<void>;

  constructor(descriptor: number) {
    this.#child = spawn('sh', ['-c', SCRIPT], {
      stdio: ['pipe', 'pipe', 'ignore', descriptor],
      // An interrupt from the terminal is for this process, which may want to finish what it does.
      detached: true,
    });
    this.ended = new Promise((resolve) => {
      const gone = () => {
        this.end();
        for (const tell of this.#waiting.splice(0)) tell(false);
        resolve();
      };
      this.#child.once('close', gone);
      this.#child.once('error', gone); // It could not be started.
    });
    this.#child.stdin?.on('error', () => this.end()); // It has died: `close` follows.
    let line = '';
    this.#child.stdout?.setEncoding('latin1').on('data', (text: string) => {
      const lines = (line + text).split('\n');
      line = lines.pop() ?? '';
      for (const status of lines) this.#waiting.shift()?.(status === '0');
      if (this.#waiting.length === 0) this.#idle = setTimeout(() => this.end(), LINGER);
    });
  }

  /** Resolves to whether the line's command succeeded. */
  run(line: string): Promise<boolean> {
    clearTimeout(this.#idle);
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.#child.stdin?.write(line);
    });
  }

  /** The shell ends when it has done what it was told. */
  end(): void {
    clearTimeout(this.#idle);
    if (this.hasEnded) return;
    this.hasEnded = true;
    this.#child.stdin?.end();
  }
}
