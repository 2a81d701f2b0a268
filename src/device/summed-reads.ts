/**
 * Reads that compute checksums on the way, in a thread of its own.
 *
 * To verify what was read costs the main thread more than everything else about a large read, most of it in fetching bytes that a
 * thread of the pool has just put into another processor's cache. Here one thread reads a piece and looks at it while it is in its
 * own cache, so it is less work in all, and the main thread has none of it.
 *
 * Nothing depends on the thread: where it cannot be had, is behind, has died or could not read, the caller does the work as ever.
 *
 * Shared state: `current` and its users, changed between awaits only. The bytes of a target are the thread's from `read` until the
 * promise settles, as those of any read are the device's.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { ByteOffset } from '../units.js';

/** From this many bytes on a read is worth a message to the thread and back. */
const SMALLEST = 262_144;
/** Reads that the thread may have before it: enough to keep it busy. With more it is behind, perhaps for a disk that does better with several. */
const WAITING_MAX = 4;

/**
 * What the thread runs. Text, as a file of its own would have to be found from TypeScript sources as well as from what was built of them.
 * It reads 64 KiB at a time, to have them in its cache; `sums` is undefined in the answer when it could not read everything.
 */
const PROGRAM = `
const { parentPort } = require('node:worker_threads');
const { readSync } = require('node:fs');
const { crc32 } = require('node:zlib');
parentPort.on('message', ({ descriptor, position, target, sums }) => {
  const unit = target.byteLength / sums.length;
  const step = Math.max(unit, unit * Math.floor(65536 / unit));
  let done = 0;
  try {
    for (let end; done < target.byteLength; done = end) {
      end = Math.min(done + step, target.byteLength);
      if (readSync(descriptor, target, done, end - done, position + done) !== end - done) break;
      for (let at = done; at < end; at += unit) sums[at / unit] = crc32(target.subarray(at, at + unit), sums[at / unit]);
    }
  } catch {} // Whoever asked reads it again, and explains what is wrong.
  parentPort.postMessage(done === target.byteLength ? sums : undefined);
});`;

/** CRC-32s, one for each part of what was read; `undefined`: it was not. */
export type Sums = Uint32Array | undefined;

class SummingThread {
  readonly #worker: Worker;
  /** Those who wait, in the order in which the thread answers. */
  readonly #waiting: ((sums: Sums) => void)[] = [];
  #running = false;
  users = 0;

  constructor() {
    this.#worker = new Worker(PROGRAM, { eval: true, execArgv: [], name: 'checksums' });
    this.#worker.on('online', () => {
      this.#running = true;
    });
    this.#worker.on('message', (sums: Sums) => {
      this.#waiting.shift()?.(sums);
      if (this.#waiting.length === 0) this.#worker.unref();
    });
    this.#worker.on('error', () => undefined); // `exit` follows; only then the thread touches no target any more.
    this.#worker.on('exit', () => {
      this.#running = false;
      for (const tell of this.#waiting.splice(0)) tell(undefined);
    });
    this.#worker.unref();
  }

  get isFree(): boolean {
    return this.#running && this.#waiting.length < WAITING_MAX;
  }

  run(descriptor: number, position: ByteOffset, target: Uint8Array, sums: Uint32Array): Promise<Sums> {
    return new Promise((resolve) => {
      // A process that waits for this has to stay; one that does not may end.
      if (this.#waiting.push(resolve) === 1) this.#worker.ref();
      this.#worker.postMessage({ descriptor, position, target, sums });
    });
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
  }
}

/** The thread that all share; there while anybody uses it. */
let current: SummingThread | undefined;

/** The reads of one file. */
export class SummedReads {
  readonly #descriptor: number;
  readonly #processors: number;
  #thread: SummingThread | undefined;

  /** @param descriptor open for reading; it must stay open while a read is under way */
  constructor(descriptor: number, processors = availableParallelism()) {
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
    if (byteLength < SMALLEST || !(buffer instanceof SharedArrayBuffer) || this.#processors < 2)
      return undefined;
    if (this.#thread === undefined) {
      this.#thread = current ??= new SummingThread();
      this.#thread.users++;
    }
    return this.#thread.isFree ? this.#thread.run(this.#descriptor, position, target, seeds()) : undefined;
  }

  /** Ends the thread after its last user. No read may be under way. */
  async close(): Promise<void> {
    const thread = this.#thread;
    this.#thread = undefined;
    if (thread === undefined || --thread.users > 0) return;
    if (current === thread) current = undefined;
    await thread.end();
  }
}
