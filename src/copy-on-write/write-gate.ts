/**
 * The gate through which every write of a volume passes: it can be held, and then counts as empty once the writes
 * that had passed are done.
 *
 * Shared state: the number inside and the queue; both change only between awaits.
 */
import type { Clock } from '../environment.js';
import { assert, HoldTimeoutError } from '../errors.js';

export class WriteGate {
  readonly #clock: Clock;
  #inside = 0;
  #held = false;
  #failure: Error | undefined;
  readonly #queue: { resolve: () => void; reject: (error: Error) => void }[] = [];
  #onEmpty: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Why nothing passes any more; `undefined` while it does. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Writes waiting to pass. */
  get queued(): number {
    return this.#queue.length;
  }

  /**
   * Asks to pass. `leave` must be called once afterwards.
   * @returns `undefined` if the write may go on at once; else a promise that resolves when it may
   */
  enter(): Promise<void> | undefined {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (!this.#held) {
      this.#inside++;
      return undefined;
    }
    return new Promise((resolve, reject) => this.#queue.push({ resolve, reject }));
  }

  leave(): void {
    assert(this.#inside > 0, () => 'leaving an empty gate');
    this.#inside--;
    if (this.#inside === 0) this.#onEmpty?.();
  }

  /**
   * Holds new writes and waits for those inside.
   * @param limitMs how long to wait; `undefined`: as long as it takes
   * @throws HoldTimeoutError; then the gate is open again
   */
  async hold(limitMs: number | undefined): Promise<void> {
    assert(!this.#held, () => 'the gate is held already');
    this.#held = true;
    if (this.#inside === 0) return;
    const empty = new Promise<void>((resolve) => {
      this.#onEmpty = resolve;
    });
    try {
      await withinLimit(this.#clock, limitMs, empty, 'writes in flight did not finish');
    } catch (error) {
      this.release();
      throw error;
    } finally {
      this.#onEmpty = undefined;
    }
  }

  /** Lets the queued writes pass, in the order in which they came. */
  release(): void {
    assert(this.#held, () => 'the gate is not held');
    this.#held = false;
    for (const { resolve } of this.#queue.splice(0)) {
      this.#inside++;
      resolve();
    }
  }

  /** Lets nothing pass any more. */
  shut(failure: Error): void {
    this.#failure = failure;
    for (const { reject } of this.#queue.splice(0)) reject(failure);
  }
}

/** Waits for `promise`, but no longer than `limitMs`. A later rejection of it is nobody's business any more. */
export async function withinLimit<T>(
  clock: Clock,
  limitMs: number | undefined,
  promise: Promise<T>,
  what: string,
): Promise<T> {
  if (limitMs === undefined) return promise;
  let cancel: (() => void) | undefined;
  const limit = new Promise<never>((_, reject) => {
    cancel = clock.after(limitMs, () =>
      reject(
        new HoldTimeoutError(
          `${what} within the hold limit (${Math.round(limitMs)} ms left of it); try again, or raise holdTimeoutMs`,
        ),
      ),
    );
  });
  try {
    return await Promise.race([promise, limit]);
  } finally {
    cancel?.();
    promise.catch(() => undefined);
  }
}
