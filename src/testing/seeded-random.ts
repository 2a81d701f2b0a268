/**
 * Randomness that is a function of a seed: sfc32 (Chris Doty-Humphrey, PractRand), 128 bits of state.
 *
 * A stream is named by its seed, and `fork` names a stream of its own by adding a label to it. What one stream draws
 * never moves another, so a new draw in one part of a simulation leaves the others as they were.
 * Not for secrets.
 */
import type { Random } from '../environment.js';
import { assert } from '../errors.js';

const TWO_TO_32 = 2 ** 32;

export class SeededRandom implements Random {
  readonly seed: string;
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  constructor(seed: string | number | bigint) {
    this.seed = String(seed);
    this.#a = hashString(this.seed, 0x9e3779b9);
    this.#b = hashString(this.seed, 0x243f6a88);
    this.#c = hashString(this.seed, 0xb7e15162);
    // The state has weak bits at first where the hashes are alike; twelve rounds are what its author advises.
    for (let round = 0; round < 12; round++) this.next();
  }

  /** 32 random bits, as an unsigned number. */
  next(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum;
    this.#c |= 0;
    return sum >>> 0;
  }

  /** An integer from 0 to `limit` - 1. */
  below(limit: number): number {
    assert(Number.isSafeInteger(limit) && limit > 0, () => `a random number below ${limit} was asked for`);
    if (limit <= TWO_TO_32) return Math.floor((this.next() / TWO_TO_32) * limit);
    const fraction = (this.next() * 2 ** 21 + (this.next() >>> 11)) / 2 ** 53;
    return Math.min(limit - 1, Math.floor(fraction * limit));
  }

  /** An integer from `least` to `most`, both included. */
  between(least: number, most: number): number {
    return least + this.below(most - least + 1);
  }

  /** True with this probability. Always draws once, so that changing a probability moves nothing else. */
  chance(probability: number): boolean {
    return this.next() < probability * TWO_TO_32;
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)];
    // `T` may include undefined, so an absent element cannot be told by its value; the index is in range.
    return item as T;
  }

  /** Puts `items` in random order, in place, and returns it. */
  shuffle<T>(items: T[]): T[] {
    for (let last = items.length - 1; last > 0; last--) {
      const other = this.below(last + 1);
      const held = items[last] as T;
      items[last] = items[other] as T;
      items[other] = held;
    }
    return items;
  }

  fill(target: Uint8Array): Uint8Array {
    const whole = target.byteLength & ~3;
    this.#fillWords(new DataView(target.buffer, target.byteOffset, whole));
    if (whole < target.byteLength) {
      let rest = this.next();
      for (let at = whole; at < target.byteLength; at++, rest >>>= 8) target[at] = rest;
    }
    return target;
  }

  /** As `next` for each word, with the state at hand: a disk full of noise is half a million of them. */
  #fillWords(view: DataView): void {
    let [a, b, c, counter] = [this.#a, this.#b, this.#c, this.#counter];
    for (let at = 0; at < view.byteLength; at += 4) {
      const sum = (a + b + counter) | 0;
      counter = (counter + 1) | 0;
      a = b ^ (b >>> 9);
      b = (c + (c << 3)) | 0;
      c = (((c << 21) | (c >>> 11)) + sum) | 0;
      // Byte order is fixed, so that a seed gives the same bytes on every machine.
      view.setInt32(at, sum, true);
    }
    [this.#a, this.#b, this.#c, this.#counter] = [a, b, c, counter];
  }

  /** A stream of its own; the same label gives the same stream again. */
  fork(label: string | number): SeededRandom {
    return new SeededRandom(`${this.seed}/${label}`);
  }
}

/** A 32-bit hash of a string (FNV-1a with a final mix from MurmurHash3, so that short strings differ in all bits). */
export function hashString(text: string, start = 0x811c9dc5): number {
  let hash = start;
  for (let index = 0; index < text.length; index++)
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
