/**
 * The life of a device or a volume: open; closing, when calls under way finish and new ones are refused; closed.
 *
 * Invariant: what `close` releases is released once, and never under a call. A file descriptor closed too early
 * may have been given to another file by the time a thread of the pool writes to its number.
 */
import { ClosedError } from '../errors.js';

export class Lifetime {
  readonly #name: string;
  #calls = 0;
  #closed: Promise<void> | undefined;
  #idle: (() => void) | undefined;

  /** @param name what messages call it */
  constructor(name: string) {
    this.#name = name;
  }

  /** @throws ClosedError once `close` was called. */
  check(): void {
    if (this.#closed !== undefined) throw new ClosedError(`${this.#name} is closed: open it again`);
  }

  /** Begins a call, which must end with `leave`. @throws ClosedError once `close` was called. */
  enter(): void {
    this.check();
    this.#calls += 1;
  }

  /** Ends a call. */
  leave(): void {
    this.#calls -= 1;
    if (this.#calls === 0) this.#idle?.();
  }

  /** Runs `action` as one call. @throws ClosedError once `close` was called. */
  async run<T>(action: () => Promise<T>): Promise<T> {
    this.enter();
    try {
      return await action();
    } finally {
      this.leave();
    }
  }

  /** Refuses new calls, waits for those under way, then releases; may be repeated, with the same outcome. */
  close(release: () => Promise<void>): Promise<void> {
    this.#closed ??= this.#whenIdle().then(release);
    return this.#closed;
  }

  #whenIdle(): Promise<void> {
    if (this.#calls === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#idle = resolve;
    });
  }
}
