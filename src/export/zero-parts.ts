/**
 * Extents of a source, taken apart into what is known to be zero and what has to be read.
 *
 * Both come in whole units, so that neither needs the other: a unit that is zero in part is read.
 */
import { type Allocated, allocationOf } from '../device/allocation.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { ChangedExtent } from '../volume/changed-blocks.js';

export interface Part {
  readonly offset: ByteOffset;
  readonly length: ByteLength;
  /** Known to be zero. */
  readonly zero: boolean;
}

/** Of a shorter extent it is not asked what is zero: reading it takes less. */
const ASKED_FROM = 1024 * 1024;

/**
 * @param extents ascending, beginning at multiples of `unit`; only the end of the source may be no multiple
 * @returns parts of the same kind of shape, ascending, that make up the extents
 */
export async function* zeroParts(
  source: Allocated,
  extents: AsyncIterable<ChangedExtent>,
  unit: ByteLength,
): AsyncGenerator<Part> {
  for await (const { offset, length } of extents) {
    if (length < ASKED_FROM) yield { offset, length, zero: false };
    else yield* partsOf(source, offset, offset + length, unit);
  }
}

async function* partsOf(
  source: Allocated,
  start: ByteOffset,
  end: ByteOffset,
  unit: ByteLength,
): AsyncGenerator<Part> {
  let done = start;
  let at = start;
  for await (const { length, zero } of allocationOf(source, start, end - start)) {
    const from = Math.ceil(at / unit) * unit;
    at += length;
    // The last unit may be cut off by the end of the source.
    const to = at === end ? end : Math.floor(at / unit) * unit;
    if (!zero || from >= to) continue;
    if (done < from) yield { offset: done, length: from - done, zero: false };
    yield { offset: from, length: to - from, zero: true };
    done = to;
  }
  if (done < end) yield { offset: done, length: end - done, zero: false };
}

/** One extent: the whole source. */
export async function* everything({ size }: { readonly size: ByteLength }): AsyncGenerator<ChangedExtent> {
  yield { offset: 0, length: size };
}
