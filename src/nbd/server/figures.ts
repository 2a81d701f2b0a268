/** What a server has done, cheap enough to count for every request. */
import type { RequestType } from '../wire/constants.js';

/** Upper ends of the buckets of latency, in milliseconds: 2^-6 (16 µs) to 2^13 (8 s). */
export const LATENCY_BUCKETS_MS: readonly number[] = Array.from({ length: 20 }, (_, i) => 2 ** (i - 6));

export type RequestKind = Exclude<keyof typeof RequestType, 'disconnect'>;

export const REQUEST_KINDS: readonly RequestKind[] = [
  'read',
  'write',
  'flush',
  'trim',
  'cache',
  'writeZeroes',
  'blockStatus',
];

/** Of one kind of request. */
export class RequestFigures {
  requests = 0;
  errors = 0;
  bytes = 0;
  /** Milliseconds in all. */
  totalMs = 0;
  /** Requests that took no longer than `LATENCY_BUCKETS_MS[i]`, and longer than the bucket before. */
  readonly latency = new Float64Array(LATENCY_BUCKETS_MS.length + 1);

  count(bytes: number, ms: number, failed: boolean): void {
    this.requests++;
    if (failed) this.errors++;
    else this.bytes += bytes;
    this.totalMs += ms;
    const bucket = Math.min(Math.max(Math.ceil(Math.log2(ms)) + 6, 0), LATENCY_BUCKETS_MS.length);
    this.latency[bucket] = (this.latency[bucket] ?? 0) + 1;
  }
}

export class NbdFigures {
  /** Connections open now. */
  connections = 0;
  /** Connections accepted since the start. */
  accepted = 0;
  /** Connections refused or cut off. */
  rejected = 0;
  /** Requests being worked on. */
  inFlight = 0;
  readonly requests: Readonly<Record<RequestKind, RequestFigures>> = {
    read: new RequestFigures(),
    write: new RequestFigures(),
    flush: new RequestFigures(),
    trim: new RequestFigures(),
    cache: new RequestFigures(),
    writeZeroes: new RequestFigures(),
    blockStatus: new RequestFigures(),
  };
}
