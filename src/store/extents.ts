/**
 * A set of whole numbers kept as sorted, disjoint, never touching extents: free slots of a diff-area file, free blocks
 * of an in-volume reserve. Both are a handful of long extents, so a sorted array serves best.
 */
import { assert } from '../errors.js';

export interface Extent {
  readonly start: number;
  readonly length: number;
}

export class Extents {
  #extents: { start: number; length: number }[] = [];
  #total = 0;

  constructor(extents: Iterable<Extent> = []) {
    for (const { start, length } of extents) this.add(start, length);
  }

  /** How many numbers are in the set. */
  get total(): number {
    return this.#total;
  }

  *[Symbol.iterator](): Generator<Extent> {
    for (const { start, length } of this.#extents) yield { start, length };
  }

  /** Index of the first extent that ends after `number`. */
  #indexOf(number: number): number {
    let low = 0;
    let high = this.#extents.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const extent = this.#extents[middle];
      if (extent !== undefined && extent.start + extent.length <= number) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  has(number: number): boolean {
    const extent = this.#extents[this.#indexOf(number)];
    return extent !== undefined && extent.start <= number;
  }

  /** Is any number of `[start, start + length)` in the set? */
  overlaps(start: number, length: number): boolean {
    const extent = this.#extents[this.#indexOf(start)];
    return extent !== undefined && extent.start < start + length;
  }

  /** The extents that have a number of `[start, start + length)`, whole. */
  *within(start: number, length: number): Generator<Extent> {
    for (let index = this.#indexOf(start); ; index++) {
      const extent = this.#extents[index];
      if (extent === undefined || extent.start >= start + length) return;
      yield { ...extent };
    }
  }

  /** The same, cut to `[start, start + length)`. */
  *partsWithin(start: number, length: number): Generator<Extent> {
    for (const extent of this.within(start, length)) {
      const from = Math.max(start, extent.start);
      yield { start: from, length: Math.min(start + length, extent.start + extent.length) - from };
    }
  }

  /** Are all numbers of `[start, start + length)` in the set? */
  contains(start: number, length: number): boolean {
    const extent = this.#extents[this.#indexOf(start)];
    return extent !== undefined && extent.start <= start && start + length <= extent.start + extent.length;
  }

  /** Adds numbers, none of which may be in the set yet. */
  add(start: number, length: number): void {
    if (length === 0) return;
    assert(!this.overlaps(start, length), () => `[${start}, +${length}) overlaps what is in the set already`);
    const index = this.#indexOf(start);
    const before = this.#extents[index - 1];
    const after = this.#extents[index];
    const joinsBefore = before !== undefined && before.start + before.length === start;
    const joinsAfter = after !== undefined && after.start === start + length;
    if (joinsBefore && joinsAfter) {
      before.length += length + after.length;
      this.#extents.splice(index, 1);
    } else if (joinsBefore) {
      before.length += length;
    } else if (joinsAfter) {
      after.start = start;
      after.length += length;
    } else {
      this.#extents.splice(index, 0, { start, length });
    }
    this.#total += length;
  }

  /** Removes numbers, all of which must be in the set. */
  remove(start: number, length: number): void {
    if (length === 0) return;
    const index = this.#indexOf(start);
    const extent = this.#extents[index];
    assert(
      extent !== undefined && extent.start <= start && start + length <= extent.start + extent.length,
      () => `[${start}, +${length}) is not wholly in the set`,
    );
    const rest = extent.start + extent.length - (start + length);
    const pieces = [];
    if (start > extent.start) pieces.push({ start: extent.start, length: start - extent.start });
    if (rest > 0) pieces.push({ start: start + length, length: rest });
    this.#extents.splice(index, 1, ...pieces);
    this.#total -= length;
  }

  /**
   * Takes `length` numbers out of the set, lowest first, in as few extents as there are.
   * @returns `undefined`, taking nothing, if the set holds fewer.
   */
  take(length: number): Extent[] | undefined {
    if (length > this.#total) return undefined;
    const taken: Extent[] = [];
    let missing = length;
    while (missing > 0) {
      const first = this.#extents[0];
      assert(first !== undefined, () => `total ${this.#total} but no extents`);
      const piece = { start: first.start, length: Math.min(first.length, missing) };
      this.remove(piece.start, piece.length);
      taken.push(piece);
      missing -= piece.length;
    }
    return taken;
  }
}
