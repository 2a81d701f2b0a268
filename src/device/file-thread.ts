/**
 * A thread of its own for work on files that would keep the main thread busy: reading with checksums, copying blocks from one
 * file to another, writing what is scattered. One for the process, there while anybody uses it.
 *
 * The main thread hands over a description of a few hundred bytes; what is read for a copy stays in the thread, in its processor's
 * cache. So it is less work in all, and the main thread has none of it.
 *
 * Nothing depends on the thread: where it cannot be had, is behind, has died or has failed at anything, the answer is `undefined`,
 * and whoever asked does the work himself, and explains what is wrong.
 *
 * Shared state: `current`, its users and those who wait, changed between awaits only. Memory and files named in a message are the
 * thread's until it answers, as the buffers of any read or write are the device's.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { BLOCK_SIZE, type ByteLength, type ByteOffset } from '../units.js';

/** Blocks that are read, looked at and written while they are in the processor's cache. */
const STEP = 16;

/**
 * What the thread runs. Text, as a file of its own would have to be found from TypeScript sources as well as from what was built of them.
 * Every answer is what the kind of request says, or undefined when anything went wrong.
 */
const PROGRAM = `
const { parentPort } = require('node:worker_threads');
const { readSync, writeSync, writevSync } = require('node:fs');
const { crc32 } = require('node:zlib');
const BLOCK = ${BLOCK_SIZE}, STEP = ${STEP};
const buffer = Buffer.allocUnsafeSlow(STEP * BLOCK);
const blocks = Array.from({ length: STEP }, (_, i) => buffer.subarray(i * BLOCK, (i + 1) * BLOCK));
const zero = Buffer.alloc(BLOCK);
const memories = new Map();

// 64 KiB at a time, to have them in the cache.
function sum({ descriptor, position, target, sums }) {
  const unit = target.byteLength / sums.length;
  const step = Math.max(unit, unit * Math.floor(65536 / unit));
  for (let done = 0, end; done < target.byteLength; done = end) {
    end = Math.min(done + step, target.byteLength);
    if (readSync(descriptor, target, done, end - done, position + done) !== end - done) return undefined;
    for (let at = done; at < end; at += unit) sums[at / unit] = crc32(target.subarray(at, at + unit), sums[at / unit]);
  }
  return sums;
}

function copy({ from, to, sources, targets, sums, lastLength }) {
  const zeros = [];
  let readMs = 0, reads = 0;
  for (let start = 0, end; start < sources.length; start = end) {
    end = Math.min(start + STEP, sources.length);
    const began = performance.now();
    for (let i = start, next; i < end; i = next) {
      for (next = i + 1; next < end && sources[next] === sources[next - 1] + BLOCK; ) next++;
      const length = (next - i) * BLOCK - (next === sources.length ? BLOCK - lastLength : 0);
      const at = (i - start) * BLOCK;
      if (readSync(from, buffer, at, length, sources[i]) !== length) return undefined;
      buffer.fill(0, at + length, at + (next - i) * BLOCK);
      reads++;
    }
    readMs += performance.now() - began;
    for (let i = start; i < end; i++) {
      const block = blocks[i - start];
      if (block[0] === 0 && zero.equals(block)) zeros.push(i);
      else sums[i] = crc32(block, sums[i]);
    }
    let nextZero = zeros.findIndex((i) => i >= start);
    for (let i = start, next; i < end; i = next) {
      next = i + 1;
      if (i === zeros[nextZero]) { nextZero++; continue; }
      while (next < end && next !== zeros[nextZero] && targets[next] === targets[next - 1] + BLOCK) next++;
      const length = (next - i) * BLOCK;
      if (writeSync(to, buffer, (i - start) * BLOCK, length, targets[i]) !== length) return undefined;
    }
  }
  return { sums, zeros, readMs, reads };
}

// Pieces as numbers: memory, its offset, length, position; those that follow each other in the file go in one call.
function write({ to, pieces }) {
  for (let i = 0, next; i < pieces.length; i = next) {
    const position = pieces[i + 3];
    const views = [];
    let length = 0;
    for (next = i; next < pieces.length && pieces[next + 3] === position + length && views.length < 1024; next += 4) {
      views.push(new Uint8Array(memories.get(pieces[next]), pieces[next + 1], pieces[next + 2]));
      length += pieces[next + 2];
    }
    const written = views.length === 1 ? writeSync(to, views[0], 0, length, position) : writevSync(to, views, position);
    if (written !== length) return undefined;
  }
  return true;
}

const kinds = { sum, copy, write };
parentPort.on('message', (message) => {
  if (message.kind === 'memory') {
    if (message.buffer === undefined) memories.delete(message.id);
    else memories.set(message.id, message.buffer);
    return;
  }
  let answer;
  try {
    answer = kinds[message.kind](message);
  } catch {} // Whoever asked does it again, and explains what is wrong.
  parentPort.postMessage(answer);
});`;

/** Reads all of `target`, shared memory, and continues one CRC-32 for each of as many equal parts of it as there are `sums`. */
export interface SumRequest {
  readonly kind: 'sum';
  readonly descriptor: number;
  readonly position: ByteOffset;
  readonly target: Uint8Array;
  readonly sums: Uint32Array;
}

/** Copies blocks that are not all zero: each from its place in one file to its place in another. */
export interface CopyRequest {
  readonly kind: 'copy';
  readonly from: number;
  readonly to: number;
  /** Positions, ascending. */
  readonly sources: Float64Array;
  readonly targets: Float64Array;
  /** The CRC-32 that that of each block continues. */
  readonly sums: Uint32Array;
  /** Bytes of the last block that are there; the rest is copied as zeros. */
  readonly lastLength: ByteLength;
}

export interface CopyAnswer {
  /** The CRC-32 of each block; meaningless for one of zeros. */
  readonly sums: Uint32Array;
  /** Indexes of blocks of zeros, which were not copied; ascending. */
  readonly zeros: readonly number[];
  /** Milliseconds that reading took, and calls. */
  readonly readMs: number;
  readonly reads: number;
}

/** Writes pieces of memory that was `lent`: for each its number, offset and length there, and its position in the file. */
export interface WriteRequest {
  readonly kind: 'write';
  readonly to: number;
  readonly pieces: Float64Array;
}

type Request = SumRequest | CopyRequest | WriteRequest;
type Answer<R extends Request> =
  | (R extends SumRequest ? Uint32Array : R extends CopyRequest ? CopyAnswer : true)
  | undefined;

/** The thread that all share. */
let current: FileThread | undefined;

export class FileThread {
  readonly #worker: Worker;
  /** Those who wait, in the order in which the thread answers. */
  readonly #waiting: ((answer: unknown) => void)[] = [];
  readonly #memories = new Map<SharedArrayBuffer, number>();
  #lastMemory = 0;
  #running = false;
  #users = 0;

  private constructor() {
    this.#worker = new Worker(PROGRAM, { eval: true, execArgv: [], name: 'files' });
    this.#worker.on('online', () => {
      this.#running = true;
    });
    this.#worker.on('message', (answer: unknown) => {
      this.#waiting.shift()?.(answer);
      if (this.#waiting.length === 0) this.#worker.unref();
    });
    this.#worker.on('error', () => undefined); // `exit` follows; only then the thread touches nothing any more.
    this.#worker.on('exit', () => {
      this.#running = false;
      for (const tell of this.#waiting.splice(0)) tell(undefined);
    });
    this.#worker.unref();
  }

  /** The thread, which stays until as many have left as have joined; `undefined` where there is but one processor for both. */
  static join(processors = availableParallelism()): FileThread | undefined {
    if (processors < 2) return undefined;
    current ??= new FileThread();
    current.#users++;
    return current;
  }

  /** To be called once by whoever has joined, when none of his requests is under way. */
  async leave(): Promise<void> {
    if (--this.#users > 0) return;
    if (current === this) current = undefined;
    await this.#worker.terminate();
  }

  /** Requests not answered yet; infinitely many while there is no thread to answer them. */
  get waiting(): number {
    return this.#running ? this.#waiting.length : Number.POSITIVE_INFINITY;
  }

  /** Not while `waiting` is infinite. `undefined`: it was not done, or not all of it. */
  run<R extends Request>(request: R): Promise<Answer<R>> {
    return new Promise((resolve) => {
      // A process that waits for this has to stay; one that does not may end.
      if (this.#waiting.push(resolve as (answer: unknown) => void) === 1) this.#worker.ref();
      this.#worker.postMessage(request);
    });
  }

  /** The number by which `WriteRequest`s name this memory, until it is taken back. */
  lend(buffer: SharedArrayBuffer): number {
    let id = this.#memories.get(buffer);
    if (id === undefined) {
      id = ++this.#lastMemory;
      this.#memories.set(buffer, id);
      this.#worker.postMessage({ kind: 'memory', id, buffer });
    }
    return id;
  }

  takeBack(buffer: SharedArrayBuffer): void {
    const id = this.#memories.get(buffer);
    if (id === undefined) return;
    this.#memories.delete(buffer);
    this.#worker.postMessage({ kind: 'memory', id, buffer: undefined });
  }
}
