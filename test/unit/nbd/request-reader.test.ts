/** Requests come out as they went in, however the bytes are cut and however often there is no room. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BufferPool } from '../../../src/device/buffer-pool.ts';
import { type Arrived, type RequestHandler, RequestReader } from '../../../src/nbd/server/request-reader.ts';
import { PAYLOAD_MAX, RequestFlag, RequestType } from '../../../src/nbd/wire/constants.ts';
import { encodeRequest, type NewRequest, type Request } from '../../../src/nbd/wire/request.ts';

const withoutWords = ({ offsetHigh: _high, offsetLow: _low, ...rest }: Request): NewRequest => rest;

class Recorder implements RequestHandler {
  readonly arrived: { request: NewRequest; payload: string | undefined }[] = [];
  readonly said: string[] = [];
  /** How often there is no room before each request. */
  readonly refusals: number[];

  constructor(refusals: readonly number[] = []) {
    this.refusals = [...refusals];
  }

  admit(): boolean {
    const left = this.refusals[0] ?? 0;
    if (left === 0) {
      this.refusals.shift();
      return true;
    }
    this.refusals[0] = left - 1;
    return false;
  }

  handle({ request, payload }: Arrived): void {
    this.arrived.push({ request: withoutWords(request), payload: payload?.toString('latin1') });
  }

  disconnected(): void {
    this.said.push('disconnected');
  }

  violated(what: string): void {
    this.said.push(what);
  }
}

/** As a socket with buffers of the reader's own does it: the target is asked for once a piece is told of, and kept until the next. */
function feed(reader: RequestReader, bytes: Buffer, cuts: readonly number[]): void {
  let target = reader.target();
  let more = true;
  let at = 0;
  for (let i = 0; at < bytes.byteLength; i++) {
    while (!more) more = reader.resume();
    expect(target.byteLength).toBeGreaterThan(0);
    const length = Math.min(target.byteLength, bytes.byteLength - at, cuts[i % cuts.length] ?? 1);
    target.set(bytes.subarray(at, at + length));
    at += length;
    more = reader.received(length);
    target = reader.target();
  }
  while (!more) more = reader.resume();
}

const request = fc.record({
  flags: fc.constant(0),
  type: fc.constantFrom(RequestType.read, RequestType.write, RequestType.flush, 99),
  cookieHigh: fc.nat(0xffff_ffff),
  cookieLow: fc.nat(0xffff_ffff),
  offset: fc.maxSafeNat(),
  length: fc.oneof(fc.nat(100), fc.constantFrom(4096, 32_768, 40_000, 131_072, 200_000)),
});

function onTheWire(requests: readonly NewRequest[]): { bytes: Buffer; expected: Recorder['arrived'] } {
  const parts: Buffer[] = [];
  const expected: Recorder['arrived'] = [];
  for (const [i, each] of requests.entries()) {
    parts.push(encodeRequest(each, false));
    const payload = each.type === RequestType.write ? Buffer.alloc(each.length, i + 1) : undefined;
    if (payload !== undefined) parts.push(payload);
    expected.push({ request: each, payload: each.length === 0 ? undefined : payload?.toString('latin1') });
  }
  return { bytes: Buffer.concat(parts), expected };
}

describe('RequestReader', () => {
  test('finds the requests in any pieces, with any waits for room', () => {
    fc.assert(
      fc.property(
        fc.array(request, { minLength: 1, maxLength: 12 }),
        fc.array(fc.oneof(fc.integer({ min: 1, max: 64 }), fc.integer({ min: 1, max: 300_000 })), {
          minLength: 1,
          maxLength: 5,
        }),
        fc.array(fc.nat(2), { maxLength: 12 }),
        (requests, cuts, refusals) => {
          const { bytes, expected } = onTheWire(requests);
          const recorder = new Recorder(refusals);
          feed(new RequestReader('simple', new BufferPool(0), recorder), bytes, cuts);
          expect(recorder.arrived).toEqual(expected);
          expect(recorder.said).toEqual([]);
        },
      ),
      { numRuns: 300 },
    );
  });

  test('takes the payload of any extended request that says it has one', () => {
    const recorder = new Recorder();
    const odd = {
      flags: RequestFlag.payloadLength,
      type: RequestType.flush,
      cookieHigh: 0,
      cookieLow: 1,
      offset: 0,
      length: 3,
    };
    const flush = { flags: 0, type: RequestType.flush, cookieHigh: 0, cookieLow: 2, offset: 0, length: 0 };
    const bytes = Buffer.concat([encodeRequest(odd, true), Buffer.from('abc'), encodeRequest(flush, true)]);
    feed(new RequestReader('extended', new BufferPool(0), recorder), bytes, [7]);
    expect(recorder.arrived).toEqual([
      { request: odd, payload: 'abc' },
      { request: flush, payload: undefined },
    ]);
  });

  test('tells of a goodbye, a wrong magic number, a payload beyond the limit', () => {
    const base = {
      flags: 0,
      type: RequestType.disconnect,
      cookieHigh: 0,
      cookieLow: 0,
      offset: 0,
      length: 0,
    };
    const said = (bytes: Buffer) => {
      const recorder = new Recorder();
      feed(new RequestReader('simple', new BufferPool(0), recorder), bytes, [1000]);
      return recorder.said;
    };
    expect(said(encodeRequest(base, false))).toEqual(['disconnected']);
    expect(said(Buffer.alloc(28))).toEqual(['a request without its magic number']);
    const long = { ...base, type: RequestType.write, length: PAYLOAD_MAX + 1 };
    expect(said(encodeRequest(long, false))).toEqual([`a payload of ${PAYLOAD_MAX + 1} bytes`]);
  });

  test('understands nothing after it was stopped, and names the request whose payload will not come', () => {
    const recorder = new Recorder();
    const reader = new RequestReader('simple', new BufferPool(0), recorder);
    const write = { flags: 0, type: RequestType.write, cookieHigh: 0, cookieLow: 0, offset: 0, length: 10 };
    const bytes = Buffer.concat([encodeRequest(write, false), Buffer.alloc(4)]);
    reader.target().set(bytes);
    expect(reader.received(bytes.byteLength)).toBe(true);
    expect(reader.expecting).toBe(true);
    expect(reader.stop()).toMatchObject(write);
    reader.target().set(Buffer.alloc(6));
    expect(reader.received(6)).toBe(false);
    expect(recorder.arrived).toEqual([]);
  });
});
