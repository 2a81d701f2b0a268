/** Bytes of a volume or a snapshot in order, a piece at a time, the next ones being read while one is used. */
import type { ByteLength, ByteOffset, ByteSource } from '../index.js';

export const CHUNK_SIZE = 1024 * 1024;
/** Reads under way while a chunk is used: enough to keep a process that serves the volume busy. */
const READS_AHEAD = 3;

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
  const buffers = Array.from({ length: READS_AHEAD + 1 }, () => Buffer.allocUnsafeSlow(CHUNK_SIZE));
  const underWay: {
    readonly offset: ByteOffset;
    readonly data: Buffer;
    readonly filled: Promise<unknown>;
  }[] = [];
  let at = offset;
  let turn = 0;
  const readAhead = () => {
    while (at < end && underWay.length < READS_AHEAD) {
      const size = Math.min(CHUNK_SIZE - (at % CHUNK_SIZE), end - at);
      const data = (buffers[turn++ % buffers.length] ?? Buffer.alloc(size)).subarray(0, size);
      const filled = source.read(at, data);
      filled.catch(() => undefined); // It is waited for below, but perhaps only after another one has failed.
      underWay.push({ offset: at, data, filled });
      at += size;
    }
  };
  try {
    readAhead();
    for (let next = underWay[0]; next !== undefined; next = underWay[0]) {
      signal.throwIfAborted();
      await next.filled;
      underWay.shift();
      readAhead();
      yield { offset: next.offset, data: next.data };
    }
  } finally {
    await Promise.allSettled(underWay.map(({ filled }) => filled));
  }
}
