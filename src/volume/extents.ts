/** Extents of a volume as those who copy it want them. */
import { allocationOf } from '../device/allocation.js';
import { InvalidArgumentError } from '../errors.js';
import type { ByteSource } from '../snapshot/snapshot.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { ChangedExtent } from './changed-blocks.js';

/**
 * Ascending extents made longer until they begin and end at multiples of `alignment`, or at the end of the source; each byte
 * at most once.
 * @param alignment default: as they are
 * @throws InvalidArgumentError, the iterator
 */
export async function* alignedExtents(
  extents: AsyncIterable<ChangedExtent>,
  source: Pick<ByteSource, 'size'>,
  alignment: ByteLength = 1,
): AsyncGenerator<ChangedExtent> {
  if (!Number.isSafeInteger(alignment) || alignment < 1)
    throw new InvalidArgumentError(`alignment must be a whole number from 1, got ${alignment}`);
  if (alignment === 1) return yield* extents;
  let start = 0;
  let end = 0;
  for await (const { offset, length } of extents) {
    const from = offset - (offset % alignment);
    if (from > end) {
      if (end > start) yield { offset: start, length: end - start };
      start = from;
    }
    end = Math.min(source.size, Math.ceil((offset + length) / alignment) * alignment);
  }
  if (end > start) yield { offset: start, length: end - start };
}

/** What is not known to be zero: what changed since the source was all zeros. */
export async function* extentsWithData(
  source: ByteSource,
  offset: ByteOffset = 0,
  length: ByteLength = Math.max(0, source.size - offset),
): AsyncGenerator<ChangedExtent> {
  const end = Math.min(source.size, offset + length);
  let at = offset;
  for await (const { length: run, zero } of allocationOf(source, at, Math.max(0, end - at))) {
    if (!zero) yield { offset: at, length: run };
    at += run;
  }
}

/** A source of so many zeros. */
export const zerosOf = (size: ByteLength): ByteSource => ({
  size,
  read: async (_offset, target) => target.fill(0),
});
