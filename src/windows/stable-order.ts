/** Sorting millions of numbers without losing the order of equal ones, and without an object for any of them. */

const DIGIT_BITS = 16;
const DIGITS = 1 << DIGIT_BITS;

/** The indexes of `values` in ascending order of their values; equal values keep their order. Radix sort, two passes. */
export function stableOrder(values: Uint32Array): Uint32Array {
  let order = new Uint32Array(values.length).map((_, index) => index);
  let other = new Uint32Array(values.length);
  for (const shift of [0, DIGIT_BITS]) {
    const starts = new Uint32Array(DIGITS + 1);
    const digitOf = (index: number): number => ((values[index] ?? 0) >>> shift) & (DIGITS - 1);
    for (let index = 0; index < values.length; index++) increment(starts, digitOf(index) + 1);
    for (let digit = 1; digit <= DIGITS; digit++)
      starts[digit] = (starts[digit] ?? 0) + (starts[digit - 1] ?? 0);
    for (const index of order) {
      const digit = digitOf(index);
      other[starts[digit] ?? 0] = index;
      increment(starts, digit);
    }
    [order, other] = [other, order];
  }
  return order;
}

function increment(counts: Uint32Array, at: number): void {
  counts[at] = (counts[at] ?? 0) + 1;
}
