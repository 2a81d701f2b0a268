/** Bytes of a volume or a snapshot in order, a piece at a time, the next one being read while one is used. */
import type { ByteLength, ByteOffset, ByteSource } from '../index.js';

export const CHUNK_SIZE = 1024 * 1024;
/** Zeros are left out in this unit: the block of most file systems. */
const HOLE_SIZE = 4096;
const ZEROS = Buffer.alloc(HOLE_SIZE);

export interface Chunk {
  readonly offset: ByteOffset;
  /** Valid until the next chunk is asked for. */
  readonly data: Buffer;
}

export interface ChunkRange {
  readonly offset: ByteOffset;
  readonly length: ByteLength;
  readonly signal: AbortSignal;
}

/** Chunks end at multiples of `CHUNK_SIZE`. @throws AbortError, and what the source throws */
export async function* chunksOf(
  source: ByteSource,
  { offset, length, signal }: ChunkRange,
): AsyncGenerator<Chunk> {
  const end = offset + length;
  const buffers = [Buffer.allocUnsafeSlow(CHUNK_SIZE), Buffer.allocUnsafeSlow(CHUNK_SIZE)] as const;
  let turn = 0;
  const startReading = (at: ByteOffset) => {
    if (at >= end) return undefined;
    const size = Math.min(CHUNK_SIZE - (at % CHUNK_SIZE), end - at);
    const data = (turn++ % 2 === 0 ? buffers[0] : buffers[1]).subarray(0, size);
    const filled = source.read(at, data);
    filled.catch(() => undefined); // It is waited for below, but perhaps only after the other one has failed.
    return { offset: at, data, filled };
  };
  let next = startReading(offset);
  try {
    while (next !== undefined) {
      signal.throwIfAborted();
      const { offset: at, data, filled } = next;
      await filled;
      next = startReading(at + data.byteLength);
      yield { offset: at, data };
    }
  } finally {
    await next?.filled.catch(() => undefined);
  }
}

/** The parts of `data` that are not zeros, in units of 4 KiB, as ranges within it. */
export function* dataRuns(data: Buffer): Generator<{ readonly start: number; readonly end: number }> {
  let start: number | undefined;
  for (let at = 0; at < data.byteLength; at += HOLE_SIZE) {
    const end = Math.min(at + HOLE_SIZE, data.byteLength);
    const isHole = ZEROS.compare(data, at, end, 0, end - at) === 0;
    if (!isHole) start ??= at;
    else if (start !== undefined) {
      yield { start, end: at };
      start = undefined;
    }
  }
  if (start !== undefined) yield { start, end: data.byteLength };
}
