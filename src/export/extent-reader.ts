/**
 * Bytes of some extents of a source in order, a batch at a time, the next one being read while one is used.
 *
 * What changed often lies in many small places, so a batch gathers pieces of several extents and reads them together.
 */
import type { ByteSource } from '../snapshot/snapshot.js';
import { type ByteLength, type ByteOffset, roundUp } from '../units.js';
import type { ChangedExtent } from '../volume/changed-blocks.js';

/** Bytes read, and later written, together. */
export const BATCH_SIZE = 1024 * 1024;

/** `unit` bytes of the source; zeros behind its end. */
export interface Unit {
  readonly offset: ByteOffset;
  /** Valid until the next batch is asked for. */
  readonly bytes: Buffer;
}

interface Batch {
  readonly units: readonly Unit[];
  readonly filled: Promise<unknown>;
}

/**
 * @param extents ascending, beginning at multiples of `unit`; only the end of the source may be no multiple
 * @param unit a divisor of `BATCH_SIZE`
 * @throws the reason of an abort, and what the source and `extents` throw
 */
export async function* unitsOf(
  source: ByteSource,
  extents: AsyncIterable<ChangedExtent>,
  unit: ByteLength,
  signal: AbortSignal | undefined,
): AsyncGenerator<readonly Unit[]> {
  const buffers = [Buffer.allocUnsafeSlow(BATCH_SIZE), Buffer.allocUnsafeSlow(BATCH_SIZE)] as const;
  const batches = batchesOf(extents);
  let turn = 0;
  const startReading = async (): Promise<Batch | undefined> => {
    const { value: pieces, done } = await batches.next();
    if (done === true) return undefined;
    const buffer = turn++ % 2 === 0 ? buffers[0] : buffers[1];
    const filled = Promise.all(fill(source, pieces, unit, buffer));
    filled.catch(() => undefined); // It is waited for below, but perhaps only after something else has failed.
    return { units: [...unitsIn(pieces, unit, buffer)], filled };
  };
  let next: Batch | undefined;
  try {
    next = await startReading();
    while (next !== undefined) {
      signal?.throwIfAborted();
      const { units, filled } = next;
      await filled;
      next = await startReading();
      yield units;
    }
  } finally {
    await next?.filled.catch(() => undefined);
    await batches.return(undefined);
  }
}

/** Extents cut and gathered, at most `BATCH_SIZE` bytes together. */
async function* batchesOf(
  extents: AsyncIterable<ChangedExtent>,
): AsyncGenerator<readonly ChangedExtent[], undefined> {
  let pieces: ChangedExtent[] = [];
  let room = BATCH_SIZE;
  for await (const { offset, length } of extents) {
    for (let done = 0; done < length; ) {
      const taken = Math.min(room, length - done);
      pieces.push({ offset: offset + done, length: taken });
      done += taken;
      room -= taken;
      if (room > 0) continue;
      yield pieces;
      pieces = [];
      room = BATCH_SIZE;
    }
  }
  if (pieces.length > 0) yield pieces;
  return undefined;
}

function* fill(
  source: ByteSource,
  pieces: readonly ChangedExtent[],
  unit: ByteLength,
  buffer: Buffer,
): Generator<Promise<unknown>> {
  let at = 0;
  for (const { offset, length } of pieces) {
    yield source.read(offset, buffer.subarray(at, at + length));
    const end = at + roundUp(length, unit);
    buffer.fill(0, at + length, end);
    at = end;
  }
}

function* unitsIn(pieces: readonly ChangedExtent[], unit: ByteLength, buffer: Buffer): Generator<Unit> {
  let at = 0;
  for (const { offset, length } of pieces) {
    for (let inside = 0; inside < length; inside += unit, at += unit) {
      yield { offset: offset + inside, bytes: buffer.subarray(at, at + unit) };
    }
  }
}
