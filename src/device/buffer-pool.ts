/**
 * Buffers that are used again. Allocating 4 MiB for each batch costs more in clearing and garbage collection than
 * copying them to a file does.
 *
 * Buffers come in powers of two; what is given back is kept up to a limit. Their content is whatever was there.
 * Those for large reads are shared memory, so that the thread that works on files can fill them.
 */
import type { ByteLength } from '../units.js';
import { SHARED_READ_MIN, SharedMemory } from './shared-memory.js';

/** Bytes of the buffer that a pool gives for `length` bytes. */
export const pooledSize = (length: ByteLength): ByteLength =>
  length <= 1 ? 1 : (1 << (32 - Math.clz32(length - 1))) >>> 0;

/** A buffer of a pool, given away: whoever has it gives it back there, whole, when its content is needed no more. */
export interface Lent {
  readonly memory: Uint8Array;
  readonly pool: BufferPool;
}

export const giveBack = (lent: Lent | undefined): void => lent?.pool.give(lent.memory);

export class BufferPool {
  readonly #limit: ByteLength;
  readonly #free = new Map<ByteLength, Uint8Array[]>();
  #kept = 0;

  /** @param limit bytes of buffers not in use that are kept */
  constructor(limit: ByteLength) {
    this.#limit = limit;
  }

  /** A buffer of at least `length` bytes. */
  take(length: ByteLength): Uint8Array {
    const size = pooledSize(length);
    const buffer = this.#free.get(size)?.pop();
    if (buffer === undefined) return Buffer.allocUnsafeSlow(size);
    this.#kept -= size;
    return buffer;
  }

  /** The same for a read, to be given back for certain: of memory that is shared if the read is large and there is any. */
  takeForRead(length: ByteLength): Uint8Array {
    return (length < SHARED_READ_MIN ? undefined : SharedMemory.get()?.take(length)) ?? this.take(length);
  }

  /** A copy of `source`, in a buffer from here. */
  copyOf(source: Uint8Array): { readonly lent: Lent; readonly bytes: Uint8Array } {
    const memory = this.take(source.byteLength);
    const bytes = memory.subarray(0, source.byteLength);
    bytes.set(source);
    return { lent: { memory, pool: this }, bytes };
  }

  /** Gives a buffer back, whole, as it came from `take` or `takeForRead`. */
  give(buffer: Uint8Array): void {
    if (SharedMemory.holds(buffer)) {
      SharedMemory.get()?.give(buffer);
      return;
    }
    const size = buffer.byteLength;
    if (this.#kept + size > this.#limit) return;
    const list = this.#free.get(size);
    if (list === undefined) this.#free.set(size, [buffer]);
    else list.push(buffer);
    this.#kept += size;
  }
}
