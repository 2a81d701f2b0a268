/**
 * Reads that compute checksums on the way, in a thread of its own.
 *
 * To verify what was read costs the main thread more than everything else about a large read, most of it in fetching bytes that a
 * thread of the pool has just put into another processor's cache. Here one thread reads a piece and looks at it while it is in its
 * own cache.
 */
import { BLOCK_SIZE, type ByteOffset } from '../units.js';
import { Backoff } from './backoff.js';
import { BLOCKS_MAX, FileThread } from './file-thread.js';
import { SHARED_READ_MIN, SharedMemory } from './shared-memory.js';

/** Requests before it with which the thread is behind. */
const WAITING_MAX = 12;

/** CRC-32s, one for each block of what was read; `undefined`: it was not. */
export type Sums = Uint32Array | undefined;

/** The reads of one file. */
export class SummedReads {
  readonly #descriptor: number;
  readonly #processors: number | undefined;
  #thread: FileThread | undefined;
  /** From a cold disk several reads at a time are quicker than one thread. */
  readonly #backoff = new Backoff();

  /** @param descriptor open for reading; it must stay open while a read is under way */
  constructor(descriptor: number, processors?: number) {
    this.#descriptor = descriptor;
    this.#processors = processors;
  }

  /**
   * Fills `target`, if it lies in `SharedMemory` and is large, and computes the CRC-32 of each of its blocks.
   * @param target whole blocks
   * @param seeds gives for each block the CRC-32 that it continues; asked only if the read is made
   * @returns `undefined`: the caller has to read; `target` may have been written to
   */
  async read(position: ByteOffset, target: Uint8Array, seeds: () => Uint32Array): Promise<Sums> {
    const { byteLength } = target;
    if (byteLength < SHARED_READ_MIN || byteLength > BLOCKS_MAX * BLOCK_SIZE) return undefined;
    if (!SharedMemory.holds(target)) return undefined;
    this.#thread ??= FileThread.join(this.#processors);
    if (this.#thread === undefined || this.#thread.waiting >= WAITING_MAX || !this.#backoff.allows())
      return undefined;
    const request = { descriptor: this.#descriptor, position, target, seeds: seeds() };
    const answer = await this.#thread.sum(request);
    if (answer !== undefined) this.#backoff.report(answer.isSlow);
    return answer?.sums;
  }

  /** Ends the thread after its last user. No read may be under way. */
  async close(): Promise<void> {
    const thread = this.#thread;
    this.#thread = undefined;
    await thread?.leave();
  }
}
