/**
 * Those who wait for room: until something has changed that may have made some, or for so long at most.
 *
 * Shared state: the set changes between awaits only.
 */
import type { Clock } from '../environment.js';

/** Nobody tells when another program gives the host space back, so one looks again now and then. */
const LOOK_AGAIN_MS = 1000;

/** How long one request has left; the same object for all of its attempts. */
export interface Patience {
  /** By the monotonic clock; set when it first waits. */
  until?: number;
  /** Does it wait for a merge, as long as that is at work, and not for so long? */
  isForMerge?: boolean;
}

export class SpaceWaiters {
  readonly #clock: Clock;
  readonly #waiting = new Set<() => void>();
  #isClosed = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get count(): number {
    return this.#waiting.size;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** They look again. */
  wake(): void {
    for (const go of [...this.#waiting]) go();
  }

  /** Nobody waits any more, nor will. */
  close(): void {
    this.#isClosed = true;
    this.wake();
  }

  /** Is it over: has `patience`, which began with `limitMs`, run out? */
  isOver(patience: Patience, limitMs: number): boolean {
    if (this.#isClosed) return true;
    patience.until ??= this.#clock.monotonic() + limitMs;
    return this.#clock.monotonic() >= patience.until;
  }

  /** Resolves when it is worth looking again. Only if it is not over. */
  async wait({ until = 0, isForMerge = false }: Patience): Promise<void> {
    const left = isForMerge ? LOOK_AGAIN_MS : Math.min(LOOK_AGAIN_MS, until - this.#clock.monotonic());
    await new Promise<void>((resolve) => {
      const go = () => {
        this.#waiting.delete(go);
        cancel();
        resolve();
      };
      const cancel = this.#clock.after(left, go);
      this.#waiting.add(go);
    });
  }
}
