/** What is known to be zero under a write buffer: what the device knows, less what the buffer holds. */
import type { AllocationExtent } from '../device/allocation.js';
import type { ByteOffset } from '../units.js';

/** A range that the buffer holds a change of. */
export interface HeldRange {
  readonly offset: ByteOffset;
  readonly end: ByteOffset;
}

/**
 * @param extents of the device, from `offset` on
 * @param held in any order; may overlap
 */
export async function* lessHeld(
  extents: AsyncIterable<AllocationExtent>,
  offset: ByteOffset,
  held: readonly HeldRange[],
): AsyncGenerator<AllocationExtent> {
  const ascending = [...held].sort((a, b) => a.offset - b.offset);
  let past = 0;
  let at = offset;
  for await (const extent of extents) {
    const end = at + extent.length;
    while ((ascending[past]?.end ?? Number.POSITIVE_INFINITY) <= at) past++;
    for (let i = past; extent.zero && i < ascending.length; i++) {
      const range = ascending[i];
      if (range === undefined || range.offset >= end) break;
      if (range.end <= at) continue;
      if (range.offset > at) yield { length: range.offset - at, zero: true };
      const from = Math.max(range.offset, at);
      at = Math.min(range.end, end);
      yield { length: at - from, zero: false };
    }
    if (at < end) yield { length: end - at, zero: extent.zero };
    at = end;
  }
}
