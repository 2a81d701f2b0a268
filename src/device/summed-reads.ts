/**
 * Reads that compute checksums on the way, in a thread of its own.
 *
 * To verify what was read costs the main thread more than everything else about a large read, most of it in fetching bytes that a
 * thread of the pool has just put into another processor's cache. Here one thread reads a piece and looks at it while it is in its
 * own cache.
 */
import type { ByteLength, ByteOffset } from '../units.js';
import { FileThread } from './file-thread.js';

/** From this many bytes on a read is worth a message to the thread and back. */
const SMALLEST: ByteLength = 262_144;
/** Requests that the thread may have before it: enough to keep it busy. With more it is behind, perhaps for a disk that does better with several. */
const WAITING_MAX = 4;

/** CRC-32s, one for each part of what was read; `undefined`: it was not. */
export type Sums = Uint32Array | undefined;

/** The reads of one file. */
export class SummedReads {
  readonly #descriptor: number;
  readonly #processors: number | undefined;
  #thread: FileThread | undefined;

  /** @param descriptor open for reading; it must stay open while a read is under way */
  constructor(descriptor: number, processors?: number) {
    this.#descriptor = descriptor;
    this.#processors = processors;
  }

  /**
   * Fills `target`, if it is shared memory and large, and computes the CRC-32 of as many equal parts of it as there are `seeds`.
   * @param seeds gives for each part the CRC-32 that it continues; asked only if the read is made
   * @returns `undefined`: the caller has to read; `target` may have been written to
   */
  async read(position: ByteOffset, target: Uint8Array, seeds: () => Uint32Array): Promise<Sums> {
    const { buffer, byteLength } = target;
    if (byteLength < SMALLEST || !(buffer instanceof SharedArrayBuffer)) return undefined;
    this.#thread ??= FileThread.join(this.#processors);
    if (this.#thread === undefined || this.#thread.waiting >= WAITING_MAX) return undefined;
    const descriptor = this.#descriptor;
    return this.#thread.sum({ descriptor, position, target, sums: seeds() });
  }

  /** Ends the thread after its last user. No read may be under way. */
  async close(): Promise<void> {
    const thread = this.#thread;
    this.#thread = undefined;
    await thread?.leave();
  }
}
