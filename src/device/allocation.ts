/**
 * What is known to be zero without reading it.
 *
 * Holes of a file, blocks that a table knows as zeros: who copies, hashes or describes a volume may pass them over. Nobody
 * has to know anything, and everybody may know less than there is: `zero: false` promises nothing.
 */
import type { ByteLength, ByteOffset } from '../units.js';

/** A run of bytes; it begins where the one before it ends. */
export interface AllocationExtent {
  /** Bytes; never 0. */
  readonly length: ByteLength;
  /** The run surely reads as zeros; else it holds data, or nobody knows. */
  readonly zero: boolean;
}

/** Something that may know where its zeros are. */
export interface Allocated {
  readonly size: ByteLength;
  /**
   * Which parts of a range are known to be zero: consecutive extents that make up exactly the range; of an empty range
   * none. A zero extent read as zeros at some moment since the first one was asked for: a write acknowledged before that is
   * never missed, a later one may be.
   * @throws what `read` of the range would; the iterator, not the call itself
   */
  allocation?(offset: ByteOffset, length: ByteLength): AsyncIterable<AllocationExtent>;
}

/** The same of any source, neighbours of one kind merged; all data where the source does not know. */
export async function* allocationOf(
  source: Allocated,
  offset: ByteOffset = 0,
  length: ByteLength = source.size - offset,
): AsyncGenerator<AllocationExtent> {
  if (length === 0) return;
  if (source.allocation === undefined) yield { length, zero: false };
  else yield* merged(source.allocation(offset, length));
}

/** Neighbours of one kind as one extent. */
export async function* merged(
  extents: AsyncIterable<AllocationExtent> | Iterable<AllocationExtent>,
): AsyncGenerator<AllocationExtent> {
  let last: AllocationExtent | undefined;
  for await (const extent of extents) {
    if (last !== undefined && last.zero !== extent.zero) {
      yield last;
      last = undefined;
    }
    last = last === undefined ? extent : { length: last.length + extent.length, zero: extent.zero };
  }
  if (last !== undefined) yield last;
}
