/**
 * Letting a batch grow while nobody waits for it.
 *
 * What was acknowledged from the write buffer is in no hurry, and a large batch takes less of the processor for each block than several
 * small ones, as does its flush. So a batch waits a moment for more, until it is full, or somebody waits for it to be over. One that
 * writers wait for grows only while a commit is under way.
 *
 * Shared state: changes between awaits only.
 */
import { type Clock, turnOf } from '../environment.js';

/** Writers 16 deep fill a batch in about that time. */
const GATHER_MS = 3;
/** Turns of the event loop for which a batch grows although writers wait for it. */
const TURNS = 6;
/** Blocks with which such a batch is large enough. */
const ENOUGH_BLOCKS = 16;

export class Gathering {
  readonly #clock: Clock;
  readonly #growing = new Map<object, () => void>();
  #hurries = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** When the batch is to be copied; `undefined`: at once. */
  grow(batch: object): Promise<void> | undefined {
    if (this.#hurries > 0) return undefined;
    return new Promise((resolve) => {
      const cancel = this.#clock.after(GATHER_MS, () => this.end(batch));
      this.#growing.set(batch, () => {
        cancel();
        resolve();
      });
    });
  }

  /**
   * Lets a batch grow that writers wait for, while they would have to wait for a commit under way all the same: some turns, no more, so
   * that its copies are there when that ends.
   */
  async growMeanwhile({ blocks }: { readonly blocks: readonly unknown[] }, isCommitting: () => boolean) {
    for (let turn = 0; turn < TURNS; turn++) {
      if (this.#hurries > 0 || blocks.length >= ENOUGH_BLOCKS || !isCommitting()) return;
      await turnOf(this.#clock);
    }
  }

  /** The batch is full, or takes no more for another reason. */
  end(batch: object): void {
    const end = this.#growing.get(batch);
    this.#growing.delete(batch);
    end?.();
  }

  /** From now on somebody waits; until the returned function is called nothing grows. */
  readonly hurry = (): (() => void) => {
    this.#hurries++;
    for (const batch of [...this.#growing.keys()]) this.end(batch);
    let isOver = false;
    return () => {
      if (!isOver) this.#hurries--;
      isOver = true;
    };
  };
}
