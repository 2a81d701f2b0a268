/**
 * Counts who reads something, so that one can wait for all who read now while others come and go.
 *
 * They are counted in two shifts: a new one begins, and the old one is over when nobody of it is left.
 *
 * Shared state: the counts, changed between awaits only; `#changing` lets one wait at a time.
 */
import { Mutex } from 'async-mutex';

export class Readers {
  readonly #inside = { 0: 0, 1: 0 };
  #shift: 0 | 1 = 0;
  readonly #changing = new Mutex();
  #onShiftOver: (() => void) | undefined;

  /** Runs `read` as a reader. */
  async run<T>(read: () => Promise<T>): Promise<T> {
    const shift = this.#shift;
    this.#inside[shift]++;
    try {
      return await read();
    } finally {
      this.#inside[shift]--;
      if (this.#inside[shift] === 0 && shift !== this.#shift) this.#onShiftOver?.();
    }
  }

  /** Resolves when everybody who is reading now has ended. */
  async whenLeft(): Promise<void> {
    if (this.#inside[0] + this.#inside[1] === 0) return;
    await this.#changing.runExclusive(async () => {
      const old = this.#shift;
      this.#shift = old === 0 ? 1 : 0;
      if (this.#inside[old] === 0) return;
      await new Promise<void>((resolve) => {
        this.#onShiftOver = resolve;
      });
      this.#onShiftOver = undefined;
    });
  }
}
