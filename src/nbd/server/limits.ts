/**
 * Bounds on what clients may take, for each connection and in total.
 *
 * A connection asks before it takes a request in; without room it reads no further, until something is given back. When
 * somebody has waited for a while, connections whose own peer keeps them from going on (half a request sent, answers not
 * read) are cut off: so a stalled client never starves the others.
 *
 * Shared state: counts and the queue, changed between awaits only.
 */
import type { Clock } from '../../environment.js';
import { assert } from '../../errors.js';
import type { ByteLength } from '../../units.js';

export interface NbdLimits {
  /** Connections at once. One more pushes out the oldest that has not finished its negotiation, or is refused. */
  readonly connections: number;
  /** Requests of one connection that are being worked on. */
  readonly requestsEach: number;
  /** Bytes of payload and of answers not yet sent of one connection; one request may always go on. */
  readonly memoryEach: ByteLength;
  /** The same of all connections; a quarter of it is for small requests only, which so get through beside large ones. */
  readonly memoryTotal: ByteLength;
  /** Bytes of data of one option. */
  readonly optionBytes: ByteLength;
  /** Milliseconds for the whole negotiation, TLS included. */
  readonly handshakeMs: number;
  /** Milliseconds after which a stalled connection is cut off if others wait for its memory. */
  readonly stallMs: number;
  /** Milliseconds that requests under way have to finish when the server is closed. */
  readonly closeMs: number;
}

export const DEFAULT_LIMITS: NbdLimits = {
  connections: 256,
  requestsEach: 128,
  memoryEach: 64 * 1024 * 1024,
  memoryTotal: 256 * 1024 * 1024,
  optionBytes: 64 * 1024,
  handshakeMs: 60_000,
  stallMs: 10_000,
  closeMs: 10_000,
};

/** What one connection holds. */
export interface Holder {
  /** Reads on: there may be room now. */
  resume(): void;
  /** Cut off: its peer stalls, and others wait. */
  cutOff(reason: string): void;
  /** Milliseconds (monotonic) since which it waits for its peer, to send the rest or to read; `undefined` if it does not. */
  stalledSince(): number | undefined;
}

/** Memory of all connections: small requests and large ones do not wait for each other. */
export class Memory {
  readonly #small: MemoryLimit;
  readonly #large: MemoryLimit;

  constructor({ memoryTotal, stallMs }: NbdLimits, clock: Clock) {
    this.#small = new MemoryLimit(memoryTotal / 4, stallMs, clock);
    this.#large = new MemoryLimit(memoryTotal - memoryTotal / 4, stallMs, clock);
  }

  get usedBytes(): ByteLength {
    return this.#small.usedBytes + this.#large.usedBytes;
  }

  add(holder: Holder): void {
    this.#small.add(holder);
    this.#large.add(holder);
  }

  /** The connection is over; it holds nothing any more. */
  remove(holder: Holder): void {
    this.#small.remove(holder);
    this.#large.remove(holder);
  }

  /** Takes memory if there is room; else `holder` is resumed when there may be. */
  tryTake(holder: Holder, length: ByteLength): boolean {
    return this.#limitFor(length).tryTake(holder, length);
  }

  /** @param length the same as it was taken */
  give(length: ByteLength): void {
    this.#limitFor(length).give(length);
  }

  #limitFor(length: ByteLength): MemoryLimit {
    return length <= SMALL_MAX ? this.#small : this.#large;
  }
}

const SMALL_MAX = 128 * 1024;

/** Memory for one kind of request. */
export class MemoryLimit {
  readonly #limit: ByteLength;
  readonly #stallMs: number;
  readonly #clock: Clock;
  #used = 0;
  readonly #holders = new Set<Holder>();
  readonly #waiting = new Set<Holder>();
  #cancelTimer: (() => void) | undefined;

  constructor(limit: ByteLength, stallMs: number, clock: Clock) {
    this.#limit = limit;
    this.#stallMs = stallMs;
    this.#clock = clock;
  }

  get usedBytes(): ByteLength {
    return this.#used;
  }

  add(holder: Holder): void {
    this.#holders.add(holder);
  }

  /** The connection is over; it holds nothing any more. */
  remove(holder: Holder): void {
    this.#holders.delete(holder);
    this.#forget(holder);
  }

  /** Takes memory if there is room; else `holder` is resumed when there may be. */
  tryTake(holder: Holder, length: ByteLength): boolean {
    const isNext = this.#waiting.size === 0 || this.#waiting.values().next().value === holder;
    if (this.#used === 0 || (isNext && this.#used + length <= this.#limit)) {
      this.#used += length;
      this.#forget(holder);
      return true;
    }
    this.#waiting.add(holder);
    this.#cancelTimer ??= this.#clock.after(this.#stallMs, () => this.#cutStalled());
    return false;
  }

  give(length: ByteLength): void {
    assert(length <= this.#used, () => `giving back ${length} of ${this.#used} bytes`);
    this.#used -= length;
    this.#wakeNext();
  }

  #forget(holder: Holder): void {
    if (!this.#waiting.delete(holder)) return;
    if (this.#waiting.size === 0) {
      this.#cancelTimer?.();
      this.#cancelTimer = undefined;
    }
    this.#wakeNext();
  }

  #wakeNext(): void {
    const [next] = this.#waiting;
    if (next !== undefined && this.#used < this.#limit) queueMicrotask(() => next.resume());
  }

  #cutStalled(): void {
    const limit = this.#clock.monotonic() - this.#stallMs;
    for (const holder of [...this.#holders]) {
      const since = holder.stalledSince();
      if (since !== undefined && since <= limit)
        holder.cutOff('it stalled while other connections waited for memory');
    }
    this.#cancelTimer =
      this.#waiting.size === 0 ? undefined : this.#clock.after(this.#stallMs, () => this.#cutStalled());
  }
}
