/** Comparing two sources of bytes, to leave out of a difference what is equal after all. */
import type { ByteSource } from '../snapshot/snapshot.js';
import { BLOCK_SIZE, type ByteOffset } from '../units.js';
import type { ChangedExtent } from './changed-blocks.js';

/** The parts of `extent` that differ between `a` and `b`, in whole blocks. */
export async function* differing(
  a: ByteSource,
  b: ByteSource,
  extent: ChangedExtent,
): AsyncGenerator<ChangedExtent> {
  const [left, right] = [Buffer.alloc(BLOCK_SIZE), Buffer.alloc(BLOCK_SIZE)];
  let start: ByteOffset | undefined;
  const end = extent.offset + extent.length;
  for (let at = extent.offset; at < end; at += BLOCK_SIZE) {
    const length = Math.min(BLOCK_SIZE, end - at);
    await a.read(at, left.subarray(0, length));
    await b.read(at, right.subarray(0, length));
    if (left.compare(right, 0, length, 0, length) !== 0) start ??= at;
    else if (start !== undefined) {
      yield { offset: start, length: at - start };
      start = undefined;
    }
  }
  if (start !== undefined) yield { offset: start, length: end - start };
}

/** `extent`, which begins in the first block, without that block if it is equal in `a` and `b`. */
export async function* withoutEqualFirstBlock(
  a: ByteSource,
  b: ByteSource,
  extent: ChangedExtent,
): AsyncGenerator<ChangedExtent> {
  const first = { offset: 0, length: Math.min(BLOCK_SIZE, a.size, b.size) };
  for await (const _ of differing(a, b, first)) return yield extent;
  const end = extent.offset + extent.length;
  if (end > BLOCK_SIZE) yield { offset: BLOCK_SIZE, length: end - BLOCK_SIZE };
}
