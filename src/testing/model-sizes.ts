/**
 * How long a volume may be, in bytes: as long as it is known to be, or as a growth may have made it.
 *
 * A growth that returned is durable. One that was cut off, or failed, leaves the old size or the new one; after a killed process the new
 * one may still be lost in a power cut, until the volume is opened, which makes what it finds durable.
 */
import type { ByteLength } from '../units.js';
import type { CrashModel } from './crash-model.js';
import { report } from './model-mismatch.js';

export class ModelSizes {
  #possible: Set<ByteLength>;

  constructor(possible: Iterable<ByteLength>) {
    this.#possible = new Set(possible);
  }

  clone(): ModelSizes {
    return new ModelSizes(this.#possible);
  }

  /** It may become so long. */
  add(size: ByteLength): void {
    this.#possible.add(size);
  }

  /** It is so long, durably. */
  settle(size: ByteLength): void {
    this.#possible = new Set([size]);
  }

  /** It was found to be so long. @throws ModelMismatch */
  check(what: string, size: ByteLength): void {
    if (!this.#possible.has(size))
      report([`${what} has ${size} bytes, it can only have ${[...this.#possible].join(' or ')}`]);
  }

  /** The same after a crash. @throws ModelMismatch */
  found(size: ByteLength, model: CrashModel): void {
    this.check('the volume', size);
    // What a killed process left may be less after a power cut.
    this.#possible = new Set(
      model === 'kill' ? [...this.#possible].filter((known) => known <= size) : [size],
    );
  }
}
