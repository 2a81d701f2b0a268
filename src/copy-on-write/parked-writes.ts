/**
 * Writes that were acknowledged and find no room for their copies on the host, whatever was set aside for them in the diff
 * area: they are tried again once a second, and when somebody flushes.
 *
 * While there are any, or they are being tried, nothing more is acknowledged that needs room. So they are bounded.
 *
 * Shared state: changes between awaits only.
 */
import type { Clock } from '../environment.js';
import { NoSpaceError } from '../errors.js';
import type { BufferedWrite } from './buffered-write.js';

const TRY_AGAIN_MS = 1000;

export class ParkedWrites {
  readonly #deviceName: string;
  readonly #clock: Clock;
  readonly #again: (write: BufferedWrite) => void;
  readonly #parked = new Set<BufferedWrite>();
  /** These, and those of them that are being tried again. */
  readonly #short = new Set<BufferedWrite>();
  readonly #onParked = new Set<() => void>();
  /** Why; the newest reason. */
  #cause: unknown;
  #cancelTrial: (() => void) | undefined;
  #isClosed = false;

  /** @param again makes copies for the write, and writes it */
  constructor(deviceName: string, clock: Clock, again: (write: BufferedWrite) => void) {
    this.#deviceName = deviceName;
    this.#clock = clock;
    this.#again = again;
  }

  get count(): number {
    return this.#parked.size;
  }

  get isShort(): boolean {
    return this.#short.size > 0;
  }

  get error(): NoSpaceError {
    return new NoSpaceError(
      `writes that were acknowledged wait for room for copies of ${this.#deviceName}; give the file system of its snapshots some space, or raise their limit (volsnap resize-store)`,
      { cause: this.#cause },
    );
  }

  /** @returns changes that nobody has acknowledged and that would have to wait for it */
  add(write: BufferedWrite, cause: unknown): ReadonlySet<BufferedWrite> {
    write.state = 'parked';
    this.#parked.add(write);
    this.#short.add(write);
    this.#cause = cause;
    if (!this.#isClosed)
      this.#cancelTrial ??= this.#clock.after(TRY_AGAIN_MS, () => {
        this.#cancelTrial = undefined;
        this.tryAgain();
      });
    for (const tell of this.#onParked) tell();
    return awaitedBehind(write);
  }

  /** The write is in the volume, or never will be. */
  over(write: BufferedWrite): void {
    this.#short.delete(write);
  }

  /** There may be room now. */
  tryAgain(): void {
    if (this.#parked.size === 0) return;
    this.#cancelTrial?.();
    this.#cancelTrial = undefined;
    const parked = [...this.#parked];
    this.#parked.clear();
    for (const write of parked) {
      write.state = 'passed';
      this.#again(write);
    }
  }

  /** Resolves with `work`, or as soon as a write is parked. */
  async orParked(work: Promise<void>): Promise<void> {
    let tell: () => void = () => undefined;
    const parked = new Promise<void>((resolve) => {
      tell = resolve;
    });
    this.#onParked.add(tell);
    await Promise.race([work, parked]);
    this.#onParked.delete(tell);
  }

  /** Nothing is tried again by itself any more. */
  close(): void {
    this.#isClosed = true;
    this.#cancelTrial?.();
    this.#cancelTrial = undefined;
  }
}

/** Changes that were not acknowledged among those that wait for `write`, one behind the other. */
function awaitedBehind(write: BufferedWrite): ReadonlySet<BufferedWrite> {
  const found = new Set<BufferedWrite>();
  const seen = new Set<BufferedWrite>();
  const look = ({ followers = [] }: BufferedWrite) => {
    for (const follower of followers) {
      if (follower.state !== 'kept' || seen.has(follower)) continue;
      seen.add(follower);
      if (follower.action !== undefined) found.add(follower);
      look(follower);
    }
  };
  look(write);
  return found;
}
