/**
 * The bound on memory in flight: buffers of copies that are not committed yet.
 *
 * Whoever needs memory waits in order; nothing is allocated before its turn. A request of any size is served
 * once nothing else is in flight, so one copy can always go on: that is the reserve of last resort.
 */
import { assert } from '../errors.js';
import type { ByteLength } from '../units.js';

export class MemoryBudget {
  readonly #limit: ByteLength;
  #used = 0;
  readonly #waiting: { length: ByteLength; go: () => void }[] = [];

  constructor(limit: ByteLength) {
    this.#limit = limit;
  }

  get usedBytes(): ByteLength {
    return this.#used;
  }

  /** When `length` bytes may be used, `undefined`: at once; they are in use from then until `release`. */
  acquire(length: ByteLength): Promise<void> | undefined {
    if (this.#waiting.length === 0 && this.#fits(length)) {
      this.#used += length;
      return undefined;
    }
    return new Promise<void>((go) => this.#waiting.push({ length, go }));
  }

  release(length: ByteLength): void {
    assert(length <= this.#used, () => `releasing ${length} of ${this.#used} bytes`);
    this.#used -= length;
    for (
      let next = this.#waiting[0];
      next !== undefined && this.#fits(next.length);
      next = this.#waiting[0]
    ) {
      this.#waiting.shift();
      this.#used += next.length;
      next.go();
    }
  }

  #fits(length: ByteLength): boolean {
    return this.#used === 0 || this.#used + length <= this.#limit;
  }
}
