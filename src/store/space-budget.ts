/**
 * How much of the diff-area limit is taken. One for each attached store; counts bytes, knows no places.
 */
import { assert, NoSpaceError } from '../errors.js';
import type { ByteLength } from '../units.js';

export class SpaceBudget {
  readonly #maximum: () => ByteLength;
  #taken = 0;

  /** @param maximum tells the limit in force, in bytes; 0: none */
  constructor(maximum: () => ByteLength) {
    this.#maximum = maximum;
  }

  get taken(): ByteLength {
    return this.#taken;
  }

  get available(): ByteLength {
    const maximum = this.#maximum();
    return maximum === 0 ? Number.POSITIVE_INFINITY : Math.max(0, maximum - this.#taken);
  }

  /** @throws NoSpaceError, taking nothing */
  take(length: ByteLength): void {
    if (length > this.available) {
      throw new NoSpaceError(
        `diff areas hold ${this.#taken} of at most ${this.#maximum()} bytes, ${length} more are needed; raise the limit with: volsnap resize-store`,
      );
    }
    this.#taken += length;
  }

  /** Counts what was there before, or, below 0, what turned out to be less. May exceed the limit, which can be lowered at any time. */
  count(length: ByteLength): void {
    this.#taken += length;
  }

  giveBack(length: ByteLength): void {
    assert(length <= this.#taken, () => `giving back ${length} of ${this.#taken} bytes`);
    this.#taken -= length;
  }
}
