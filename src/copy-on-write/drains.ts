/** Those who wait until all changes up to one are settled. */

interface Drain {
  readonly upTo: number;
  /** Changes up to that one that are not settled. */
  left: number;
  readonly done: Promise<void>;
  readonly resolve: () => void;
}

export class Drains {
  readonly #drains: Drain[] = [];
  readonly #hurry: () => () => void;

  /** @param hurry lets no change wait for others, until what it returns is called */
  constructor(hurry: () => () => void) {
    this.#hurry = hurry;
  }

  /**
   * Resolves when the changes that are under way now are settled.
   * @param upTo sequence number of the last of them
   * @param count how many there are, at least one
   */
  wait(upTo: number, count: number): Promise<void> {
    const last = this.#drains.at(-1);
    if (last?.upTo === upTo) return last.done;
    const leisure = this.#hurry();
    let settle: () => void = () => undefined;
    const done = new Promise<void>((resolve) => {
      settle = resolve;
    });
    const resolve = () => {
      leisure();
      settle();
    };
    this.#drains.push({ upTo, left: count, done, resolve });
    return done;
  }

  /** To be called once for each change. */
  settled(sequence: number): void {
    for (let i = this.#drains.length - 1; i >= 0; i--) {
      const drain = this.#drains[i];
      if (drain === undefined || sequence > drain.upTo || --drain.left > 0) continue;
      this.#drains.splice(i, 1);
      drain.resolve();
    }
  }
}
