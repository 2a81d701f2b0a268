/**
 * A thread of its own for work on files that would keep the main thread busy: reading with checksums, and copying blocks from
 * one file to another. One for each role in the process, there while anybody uses it.
 *
 *     main thread   request into place n of a ring ─► SUBMITTED = n + 1, wakes the thread
 *     thread        works on the places in turn    ─► ANSWERED = n + 1, wakes the main thread
 *
 * Both sides see the ring, so a request costs two wake-ups and no message (a message there and back takes 50 µs of processor time,
 * this 16). What is read for a copy stays in the thread, in its processor's cache: it is less work in all, and the main thread
 * has none of it.
 *
 * Nothing depends on the thread: where it cannot be had, is behind, has died or has failed at anything, the answer is `undefined`,
 * and whoever asked does the work himself, and explains what is wrong.
 *
 * Shared state: a place of the ring belongs to the main thread until SUBMITTED is beyond it, then to the thread until ANSWERED
 * is. `current`, its users and those who wait change between awaits only. Memory and files named in a request are the thread's until it
 * answers, as the buffers of any read or write are the device's.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { makeCrc32InPlace } from '../crc32.js';
import { assert } from '../errors.js';
import { BLOCK_SIZE, type ByteLength, type ByteOffset } from '../units.js';
import { SharedMemory, THREAD_BUFFER } from './shared-memory.js';

/** Blocks that are read, looked at and written while they are in the processor's cache; and of those that are only looked at. */
const STEP = THREAD_BUFFER / BLOCK_SIZE;
/** Blocks of one request. */
export const BLOCKS_MAX = 128;
/** Requests that are not answered yet. */
const PLACES = 16;
/** The two counters, 32-bit, which wrap around. */
const SUBMITTED = 0;
const ANSWERED = 1;
/**
 * 64-bit words of a place: a head, then where things are and where they go, `count` of them: blocks that are copied, or runs that are read,
 * of which the file and the length are said too; then for each block its checksum.
 */
const Head = { kind: 0, from: 1, to: 2, count: 3, lastLength: 4, done: 5, slowReads: 6, reads: 7 } as const;
const HEAD_WORDS = 8;
/** Where these begin. */
const SOURCES = HEAD_WORDS;
const TARGETS = HEAD_WORDS + BLOCKS_MAX;
const FILES = HEAD_WORDS + 2 * BLOCKS_MAX;
const LENGTHS = HEAD_WORDS + 3 * BLOCKS_MAX;
const SUMS = HEAD_WORDS + 4 * BLOCKS_MAX;
const PLACE_WORDS = HEAD_WORDS + 5 * BLOCKS_MAX;
const KIND_COPY = 1;
/** Blocks go to positions of the shared memory. */
const KIND_SUM = 2;
/** In place of a checksum: the block is all zero, and was not copied. */
const ZERO_BLOCK = -1;
/** Milliseconds of a read call, and of a block, beyond which it was no mere copy from the page cache. */
const SLOW_CALL = 0.04;
const SLOW_BLOCK = 0.008;

/** What the thread runs. Text, as a file of its own would have to be found from TypeScript sources as well as from what was built of them. */
const PROGRAM = `
const { workerData: { state, places, crc32, position: BUFFER, nice } } = require('node:worker_threads');
const { readSync, writeSync } = require('node:fs');
const { getPriority, setPriority } = require('node:os');
const crc32At = (${makeCrc32InPlace})(crc32, require('node:zlib').crc32);
const BLOCK = ${BLOCK_SIZE}, STEP = ${STEP}, SOURCES = ${SOURCES}, TARGETS = ${TARGETS}, SUMS = ${SUMS}, FILES = ${FILES}, LENGTHS = ${LENGTHS};
const bytes = Buffer.from(crc32.buffer);
try {
  // On Linux that is the priority of the thread alone.
  if (nice > 0 && process.platform === 'linux') setPriority(0, Math.min(getPriority(0) + nice, 19));
} catch {} // Then it has the one of the process.
const buffer = bytes.subarray(BUFFER, BUFFER + STEP * BLOCK);
const blocks = Array.from({ length: STEP }, (_, i) => buffer.subarray(i * BLOCK, (i + 1) * BLOCK));
const zero = Buffer.alloc(BLOCK);

const isSlow = (began, blocks) => performance.now() - began > ${SLOW_CALL} + ${SLOW_BLOCK} * blocks;

// A few blocks at a time, to have them in the cache.
function sum(place) {
  const count = place[${Head.count}];
  let slowReads = 0, reads = 0, sums = SUMS;
  for (let run = 0; run < count; run++) {
    const file = place[FILES + run], end = place[TARGETS + run] + place[LENGTHS + run];
    for (let at = place[SOURCES + run], to = place[TARGETS + run], next; to < end; at += next - to, to = next) {
      next = Math.min(end, to + STEP * BLOCK);
      const began = performance.now();
      if (readSync(file, bytes, to, next - to, at) !== next - to) return false;
      if (isSlow(began, (next - to) / BLOCK)) slowReads++;
      reads++;
      for (let block = to; block < next; block += BLOCK) place[sums++] = crc32At(block);
    }
  }
  place[${Head.slowReads}] = slowReads;
  place[${Head.reads}] = reads;
  return true;
}

function copy(place) {
  const from = place[${Head.from}], to = place[${Head.to}], count = place[${Head.count}];
  const missing = BLOCK - place[${Head.lastLength}];
  let slowReads = 0, reads = 0;
  for (let start = 0, end; start < count; start = end) {
    end = Math.min(start + STEP, count);
    for (let i = start, next; i < end; i = next) {
      const source = place[SOURCES + i];
      for (next = i + 1; next < end && place[SOURCES + next] === source + (next - i) * BLOCK; ) next++;
      const length = (next - i) * BLOCK - (next === count ? missing : 0);
      const at = (i - start) * BLOCK;
      const began = performance.now();
      if (readSync(from, buffer, at, length, source) !== length) return false;
      if (isSlow(began, next - i)) slowReads++;
      if (next === count) buffer.fill(0, at + length, at + (next - i) * BLOCK);
      reads++;
    }
    for (let i = start; i < end; i++) {
      const block = blocks[i - start];
      place[SUMS + i] = block[0] === 0 && zero.equals(block) ? ${ZERO_BLOCK} : crc32At(BUFFER + (i - start) * BLOCK);
    }
    for (let i = start, next; i < end; i = next) {
      next = i + 1;
      if (place[SUMS + i] === ${ZERO_BLOCK}) continue;
      const target = place[TARGETS + i];
      while (next < end && place[SUMS + next] !== ${ZERO_BLOCK} && place[TARGETS + next] === target + (next - i) * BLOCK) next++;
      const length = (next - i) * BLOCK;
      if (writeSync(to, buffer, (i - start) * BLOCK, length, target) !== length) return false;
    }
  }
  place[${Head.slowReads}] = slowReads;
  place[${Head.reads}] = reads;
  return true;
}

for (let answered = 0; ; ) {
  Atomics.wait(state, ${SUBMITTED}, answered);
  while (answered !== Atomics.load(state, ${SUBMITTED})) {
    const place = places[(answered >>> 0) % ${PLACES}];
    let done = false;
    try {
      done = place[${Head.kind}] === ${KIND_COPY} ? copy(place) : sum(place);
    } catch {} // Whoever asked does it again, and explains what is wrong.
    place[${Head.done}] = done ? 1 : 0;
    answered = (answered + 1) | 0;
    Atomics.store(state, ${ANSWERED}, answered);
    Atomics.notify(state, ${ANSWERED});
  }
}`;

/** Whole blocks that lie together in a file, and go to a place in `SharedMemory`. */
export interface FileRun {
  readonly descriptor: number;
  readonly source: ByteOffset;
  /** Position in the memory. */
  readonly target: number;
  readonly length: ByteLength;
}

/** Copies blocks that are not all zero, at most `BLOCKS_MAX`: each from its place in one file to its place in another. */
export interface CopyRequest {
  readonly from: number;
  readonly to: number;
  /** Positions, ascending. */
  readonly sources: ArrayLike<ByteOffset>;
  readonly targets: ArrayLike<ByteOffset>;
  /** Bytes of the last block that are there; the rest is copied as zeros. */
  readonly lastLength: ByteLength;
}

/** `isSlow`, here and below: reading took longer than copying from the page cache does. */
export interface CopyAnswer {
  /** The CRC-32 of each block; of one of zeros 0. */
  readonly sums: number[];
  /** Indexes of blocks of zeros, which were not copied; ascending. */
  readonly zeros: readonly number[];
  readonly isSlow: boolean;
}

export interface SumAnswer {
  /** The CRC-32 of each block, to be looked at at once: then they are others. */
  readonly sums: Float64Array;
  readonly isSlow: boolean;
}

/**
 * The threads of a process: one that copies, which writers may wait for, and two that read, which do so where there is a processor to
 * spare: a thread that reads all the time otherwise keeps the main thread waiting for a processor, and with it whatever that serves.
 * `slowShare`: of so many calls that take long, it is the disk; one of low priority loses its processor often.
 */
export const ThreadRole = {
  copies: { thread: 1, nice: 0, slowShare: 1 / 2 },
  reads: { thread: 2, nice: 7, slowShare: 3 / 4 },
  moreReads: { thread: 3, nice: 7, slowShare: 3 / 4 },
} as const;
export type ThreadRole = (typeof ThreadRole)[keyof typeof ThreadRole];

/** Those that are there, which all share. */
const current = new Map<ThreadRole, FileThread>();

export class FileThread {
  readonly #worker: Worker;
  readonly #role: ThreadRole;
  readonly #state = new Int32Array(new SharedArrayBuffer(8));
  readonly #places = Array.from(
    { length: PLACES },
    () => new Float64Array(new SharedArrayBuffer(8 * PLACE_WORDS)),
  );
  /** Those who wait, in the order in which the thread answers. */
  readonly #waiting: ((place: Float64Array | undefined) => void)[] = [];
  #submitted = 0;
  #answered = 0;
  #isWatching = false;
  #running = false;
  #users = 0;

  private constructor(role: ThreadRole, memory: SharedMemory) {
    this.#role = role;
    const { crc32, buffer: position } = memory.placeOf(role.thread);
    const workerData = { state: this.#state, places: this.#places, crc32, position, nice: role.nice };
    this.#worker = new Worker(PROGRAM, { eval: true, execArgv: [], name: 'files', workerData });
    this.#worker.on('online', () => {
      this.#running = true;
    });
    this.#worker.on('error', () => undefined); // `exit` follows; only then the thread touches nothing any more.
    this.#worker.on('exit', () => {
      this.#running = false;
      for (const tell of this.#waiting.splice(0)) tell(undefined);
      Atomics.notify(this.#state, ANSWERED);
    });
    this.#worker.unref();
  }

  /** The thread, which stays until as many have left as have joined; `undefined` where there is but one processor for both, or no memory. */
  static join(role: ThreadRole, processors = availableParallelism()): FileThread | undefined {
    const memory = processors < 2 ? undefined : SharedMemory.get();
    if (memory === undefined) return undefined;
    const thread = current.get(role) ?? new FileThread(role, memory);
    current.set(role, thread);
    thread.#users++;
    return thread;
  }

  /** To be called once by whoever has joined, when none of his requests is under way. */
  async leave(): Promise<void> {
    if (--this.#users > 0) return;
    if (current.get(this.#role) === this) current.delete(this.#role);
    await this.#worker.terminate();
  }

  /** Requests not answered yet; infinitely many while there is no thread to answer them. */
  get waiting(): number {
    return this.#running ? this.#waiting.length : Number.POSITIVE_INFINITY;
  }

  /**
   * Reads runs of at most `BLOCKS_MAX` blocks in all, and computes the CRC-32 of each block.
   * @param take is called once, when that is done; `undefined`: it was not, or not all of it
   * @returns what `take` returns
   */
  sum<T>(runs: readonly FileRun[], take: (answer: SumAnswer | undefined) => T): Promise<T> {
    return new Promise((resolve, reject) => {
      const describe = (place: Float64Array) => {
        place[Head.kind] = KIND_SUM;
        place[Head.count] = runs.length;
        let blocks = 0;
        for (const [i, { descriptor, source, target, length }] of runs.entries()) {
          place[FILES + i] = descriptor;
          place[SOURCES + i] = source;
          place[TARGETS + i] = target;
          place[LENGTHS + i] = length;
          blocks += length / BLOCK_SIZE;
        }
        assert(blocks > 0 && blocks <= BLOCKS_MAX, () => `a read of ${blocks} blocks`);
      };
      this.#submit(describe, (place) => {
        try {
          resolve(take(place && { sums: place.subarray(SUMS), isSlow: wasSlow(place, this.#role) }));
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  /** `undefined`: it was not done, or not all of it. */
  copy({ from, to, sources, targets, lastLength }: CopyRequest): Promise<CopyAnswer | undefined> {
    const count = sources.length;
    assert(count > 0 && count <= BLOCKS_MAX, () => `a copy of ${count} blocks`);
    return new Promise((resolve) => {
      const describe = (place: Float64Array) => {
        place[Head.kind] = KIND_COPY;
        place[Head.from] = from;
        place[Head.to] = to;
        place[Head.count] = count;
        place[Head.lastLength] = lastLength;
        place.set(sources, SOURCES);
        place.set(targets, TARGETS);
      };
      this.#submit(describe, (place) => resolve(place && answerIn(place, count, this.#role)));
    });
  }

  /** @param answer is called once; the place is its own until it returns */
  #submit(describe: (place: Float64Array) => void, answer: (place: Float64Array | undefined) => void): void {
    const place = this.#places[(this.#submitted >>> 0) % PLACES];
    if (place === undefined || this.waiting >= PLACES) {
      answer(undefined);
      return;
    }
    describe(place);
    this.#submitted = (this.#submitted + 1) | 0;
    Atomics.store(this.#state, SUBMITTED, this.#submitted);
    Atomics.notify(this.#state, SUBMITTED);
    // A process that waits for this has to stay; one that does not may end.
    if (this.#waiting.push(answer) === 1) this.#worker.ref();
    this.#watch();
  }

  /** Sees to it that answers are taken in when the thread tells of one. */
  #watch(): void {
    if (this.#isWatching) return;
    const { async, value } = Atomics.waitAsync(this.#state, ANSWERED, this.#answered);
    this.#isWatching = true;
    const told = async ? value : Promise.resolve();
    void told.then(() => {
      this.#isWatching = false;
      this.takeAnswers();
      if (this.#waiting.length > 0) this.#watch();
    });
  }

  /** Takes in what is answered already, for those who cannot wait for the event loop to turn. */
  takeAnswers(): void {
    const answered = Atomics.load(this.#state, ANSWERED);
    while (this.#answered !== answered) {
      const place = this.#places[(this.#answered >>> 0) % PLACES];
      this.#answered = (this.#answered + 1) | 0;
      this.#waiting.shift()?.(place?.[Head.done] === 1 ? place : undefined);
    }
    if (this.#waiting.length === 0) this.#worker.unref();
  }
}

function answerIn(place: Float64Array, count: number, role: ThreadRole): CopyAnswer {
  const sums: number[] = [];
  const zeros: number[] = [];
  for (let i = 0; i < count; i++) {
    const sum = place[SUMS + i] ?? ZERO_BLOCK;
    if (sum === ZERO_BLOCK) zeros.push(i);
    sums.push(sum === ZERO_BLOCK ? 0 : sum);
  }
  return { sums, zeros, isSlow: wasSlow(place, role) };
}

/** A call alone says nothing: the thread may have lost its processor meanwhile. From a disk most are slow. */
function wasSlow(place: Float64Array, { slowShare }: ThreadRole): boolean {
  return (place[Head.slowReads] ?? 0) >= slowShare * (place[Head.reads] ?? 0);
}
