/**
 * The gate through which every write of a volume passes: it can be held, and then counts as empty once the writes
 * that had passed are done.
 *
 * Those inside are counted in two shifts, so that one can wait for all who are inside now while others come and go: a new
 * shift begins, and the old one is over when nobody of it is left.
 *
 * Shared state: the numbers inside and the queue; all change only between awaits.
 */
import { Mutex } from 'async-mutex';
import type { Clock } from '../environment.js';
import { assert, HoldTimeoutError } from '../errors.js';

/** Which shift a write belongs to: what `enter` gave, for `leave`. */
export type Shift = 0 | 1;

export class WriteGate {
  readonly #clock: Clock;
  #inside = 0;
  /** Of them, those of each shift. */
  readonly #ofShift: Record<Shift, number> = { 0: 0, 1: 0 };
  #shift: Shift = 0;
  readonly #changing = new Mutex();
  #onShiftOver: (() => void) | undefined;
  #held = false;
  #failure: Error | undefined;
  readonly #queue: { resolve: (shift: Shift) => void; reject: (error: Error) => void }[] = [];
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
   * @returns what to leave with if the write may go on at once; else a promise that resolves when it may
   */
  enter(): Promise<Shift> | Shift {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (!this.#held) {
      this.#inside++;
      this.#ofShift[this.#shift]++;
      return this.#shift;
    }
    return new Promise((resolve, reject) => this.#queue.push({ resolve, reject }));
  }

  leave(shift: Shift): void {
    assert(this.#ofShift[shift] > 0, () => 'leaving an empty gate');
    this.#inside--;
    this.#ofShift[shift]--;
    if (this.#inside === 0) this.#onEmpty?.();
    if (this.#ofShift[shift] === 0 && shift !== this.#shift) this.#onShiftOver?.();
  }

  /** Resolves when everybody who is inside now has left. */
  async whenLeft(): Promise<void> {
    await this.#changing.runExclusive(async () => {
      const old = this.#shift;
      this.#shift = old === 0 ? 1 : 0;
      if (this.#ofShift[old] === 0) return;
      await new Promise<void>((resolve) => {
        this.#onShiftOver = resolve;
      });
      this.#onShiftOver = undefined;
    });
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
      this.#ofShift[this.#shift]++;
      resolve(this.#shift);
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
