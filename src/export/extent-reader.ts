/**
 * Bytes of some parts of a source in order, a batch at a time, the next ones being read while one is used.
 *
 * What changed often lies in many small places, so a batch gathers pieces of several parts and reads them together. Parts
 * that are known to be zero are passed on, not read.
 */
import type { ByteSource } from '../snapshot/snapshot.js';
import { type ByteLength, type ByteOffset, roundUp } from '../units.js';
import type { Part } from './zero-parts.js';

/** Bytes read, and later written, together. */
const BATCH_SIZE = 1024 * 1024;
/** Batches being read while one is used: enough to keep a process that serves the volume busy. */
const READS_AHEAD = 3;
/** Bytes of a piece of zeros, for whoever describes or writes them unit by unit, and may be stopped in between. */
const ZEROS_MAX = 256 * 1024 * 1024;

export interface PieceOptions {
  /** A divisor of 1 MiB. */
  readonly unit: ByteLength;
  /** Nothing is done about zeros, so a piece of them may be as long as there are any. */
  readonly skipsZeros: boolean;
  readonly signal: AbortSignal | undefined;
}

/** A part of a source with its bytes. */
export interface Piece {
  readonly offset: ByteOffset;
  readonly length: ByteLength;
  /** Whole units, zeros behind the end of the source; valid until the next batch is asked for. `undefined`: all zeros. */
  readonly bytes: Buffer | undefined;
}

interface Batch {
  readonly pieces: readonly Piece[];
  readonly filled: Promise<unknown>;
}

/**
 * @param parts ascending, beginning at multiples of the unit; only the end of the source may be no multiple
 * @throws the reason of an abort, and what the source and `parts` throw
 */
export async function* piecesOf(
  source: ByteSource,
  parts: AsyncIterable<Part>,
  { unit, skipsZeros, signal }: PieceOptions,
): AsyncGenerator<readonly Piece[]> {
  const buffers = Array.from({ length: READS_AHEAD + 1 }, () => Buffer.allocUnsafeSlow(BATCH_SIZE));
  const batches = batchesOf(parts, unit, skipsZeros ? Number.POSITIVE_INFINITY : ZEROS_MAX);
  const underWay: Batch[] = [];
  let turn = 0;
  const readAhead = async (): Promise<void> => {
    while (underWay.length < READS_AHEAD) {
      const { value, done } = await batches.next();
      if (done === true) return;
      const pieces = placed(value, unit, buffers[turn++ % buffers.length] ?? Buffer.alloc(BATCH_SIZE));
      const filled = Promise.all(pieces.map((piece) => fill(source, piece)));
      filled.catch(() => undefined); // It is waited for below, but perhaps only after another one has failed.
      underWay.push({ pieces, filled });
    }
  };
  try {
    await readAhead();
    for (let next = underWay[0]; next !== undefined; next = underWay[0]) {
      signal?.throwIfAborted();
      await next.filled;
      underWay.shift();
      await readAhead();
      yield next.pieces;
    }
  } finally {
    await Promise.allSettled(underWay.map(({ filled }) => filled));
    await batches.return(undefined);
  }
}

/** Parts cut and gathered: `BATCH_SIZE` bytes to be read, a piece of zeros counting as a unit. */
async function* batchesOf(
  parts: AsyncIterable<Part>,
  unit: ByteLength,
  zerosMax: ByteLength,
): AsyncGenerator<readonly Part[], undefined> {
  let batch: Part[] = [];
  let room = BATCH_SIZE;
  for await (const { offset, length, zero } of parts) {
    for (let done = 0; done < length; ) {
      const taken = Math.min(zero ? zerosMax : room, length - done);
      batch.push({ offset: offset + done, length: taken, zero });
      done += taken;
      room -= zero ? unit : roundUp(taken, unit);
      if (room > 0) continue;
      yield batch;
      batch = [];
      room = BATCH_SIZE;
    }
  }
  if (batch.length > 0) yield batch;
  return undefined;
}

/** Gives each part that has to be read its place in the buffer. */
function placed(parts: readonly Part[], unit: ByteLength, buffer: Buffer): Piece[] {
  let end = 0;
  return parts.map(({ offset, length, zero }) => {
    const start = end;
    if (!zero) end += roundUp(length, unit);
    return { offset, length, bytes: zero ? undefined : buffer.subarray(start, end) };
  });
}

async function fill(source: ByteSource, { offset, length, bytes }: Piece): Promise<void> {
  if (bytes === undefined) return;
  bytes.fill(0, length);
  await source.read(offset, bytes.subarray(0, length));
}
