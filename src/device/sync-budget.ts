/**
 * Whether a small read or write is worth making on the main thread.
 *
 * A call that only copies to or from the page cache takes less time than handing it to the thread pool; one that
 * waits for a disk would stop the whole process. Nobody can ask Linux from Node.js which of the two a call will be, so
 * this tries, times, and learns:
 * - After calls that took longer than a copy can, the next ones go to the pool (see `Backoff`).
 * - A millisecond of synchronous work must be followed by a turn of the event loop, so a caller that awaits one small
 *   call after the other cannot starve sockets and timers. Waiting for that turn is cheaper than a call through the pool.
 *
 * Microseconds a call by test/bench/device-calls.ts (2 cores, ext4, Node.js 20; "deep": 16 in flight):
 *
 * | bytes     | cached read: sync | pool, deep | pool, alone | write: sync | pool, deep | pool, alone |
 * | --------- | ----------------- | ---------- | ----------- | ----------- | ---------- | ----------- |
 * | 4,096     | 1.2               | 2.5        | 48          | 19          | 62         | 89          |
 * | 16,384    | 2.6               | 4.0        | 55          | 21          | 52         | 87          |
 * | 65,536    | 7.8               | 9.3        | 60          | 33          | 66         | 89          |
 * | 262,144   | 29                | 27         | 73          | 72          | 90         | 156         |
 * | 1,048,576 | 116               | 102        | 184         | 188         | 203        | 237         |
 *
 * With this budget the same calls, deep, take 1.9 to 10 (reads) and 24 to 65 (writes) up to the limits set in
 * descriptor.ts. Above those the pool is as fast, and its copying runs beside the main thread. A cold 4 KiB read takes
 * 60 to 140 alone, and 23 to 37 each at 16 deep in the pool, with this budget too.
 *
 * Left out: a disk that hangs for seconds stops the process during a trial. The pool's four threads would be stuck
 * only a little later.
 */
import { type Clock, systemEnvironment } from '../environment.js';
import type { ByteLength } from '../units.js';
import { Backoff } from './backoff.js';

export interface SyncBudgetOptions {
  /** The largest call made synchronously, in bytes. */
  readonly largest: ByteLength;
  /** A call longer than this was no mere copy, in milliseconds. */
  readonly slow: number;
  readonly clock?: Clock;
}

/** Milliseconds of synchronous work between two turns of the event loop. */
const TURN = 1;

export class SyncBudget {
  readonly #largest: ByteLength;
  readonly #slow: number;
  readonly #clock: Clock;
  /** Milliseconds left until the event loop must turn. */
  #left = TURN;
  #turning: Promise<void> | undefined;
  readonly #backoff = new Backoff();

  constructor(options: SyncBudgetOptions) {
    this.#largest = options.largest;
    this.#slow = options.slow;
    this.#clock = options.clock ?? systemEnvironment.clock;
  }

  /** Whether the next call, of this many bytes, should be synchronous: after `ready`. */
  allows(bytes: ByteLength): boolean {
    return bytes <= this.#largest && this.#backoff.allows();
  }

  /** Whether a call of this many bytes may be synchronous, and at once. Asking counts for nothing. */
  admits(bytes: ByteLength): boolean {
    return bytes <= this.#largest && this.#backoff.isOver && this.ready;
  }

  /** Whether a synchronous call may be made at once; if not, `turn` comes first, and then this is asked again. */
  get ready(): boolean {
    return this.#left > 0;
  }

  /** Resolves when the event loop has turned. */
  turn(): Promise<void> {
    this.#turning ??= new Promise((resolve) => {
      setImmediate(() => {
        this.#left = TURN;
        this.#turning = undefined;
        resolve();
      });
    });
    return this.#turning;
  }

  /** When a synchronous call begins: what `finished` wants to know. */
  started(): number {
    return this.#clock.monotonic();
  }

  /** A synchronous call that `started` then has just returned. */
  finished(started: number): void {
    const elapsed = this.#clock.monotonic() - started;
    this.#left -= elapsed;
    this.#backoff.report(elapsed > this.#slow);
  }
}
