/**
 * The transmission phase of one connection: requests in, answers out.
 *
 * Requests are worked on side by side, and answered as they get done. State changes between awaits only; `#parse` is never
 * entered twice, as it awaits nothing.
 */
import type { Duplex } from 'node:stream';
import type { BufferPool } from '../../device/buffer-pool.js';
import type { Clock } from '../../environment.js';
import { assert } from '../../errors.js';
import { encodeBlockStatus } from '../wire/block-status.js';
import { ErrorValue, PAYLOAD_MAX, RequestFlag, RequestType } from '../wire/constants.js';
import { encodeDataHeader, encodeDone, encodeErrorChunk, encodeSimpleReply } from '../wire/reply.js';
import { decodeRequest, type Request, requestSize } from '../wire/request.js';
import { failureOf } from './failure.js';
import type { NbdFigures } from './figures.js';
import type { Holder, MemoryLimit, NbdLimits } from './limits.js';
import type { Agreement } from './negotiation.js';
import { Outgoing } from './outgoing.js';
import { checkRequest, hasPayload, kindOf, statusQuery, warmCache } from './requests.js';
import { collectExtents } from './status.js';

/** Answers to reads up to this are one piece, header and data. */
const SMALL_READ = 32_768;
/** What a request costs besides its bytes. */
const REQUEST_OVERHEAD = 512;

/** What connections share. */
export interface TransmissionHost {
  readonly limits: NbdLimits;
  readonly memory: MemoryLimit;
  readonly buffers: BufferPool;
  readonly figures: NbdFigures;
  readonly clock: Clock;
  /** An error that is not the client's fault. */
  readonly onError: (error: unknown) => void;
}

/** A request whose payload is still coming. */
interface Incoming {
  readonly request: Request;
  readonly memory: number;
  /** Undefined where nothing follows. */
  readonly payload: Buffer | undefined;
  /** What to give back to the pool. */
  readonly pooled: Uint8Array | undefined;
  filled: number;
}

export class Transmission implements Holder {
  readonly #stream: Duplex;
  readonly #agreement: Agreement;
  readonly #host: TransmissionHost;
  readonly #outgoing: Outgoing;
  readonly #extended: boolean;
  /** Received and not understood yet: a chunk, and the place in it. */
  #chunk: Buffer = Buffer.alloc(0);
  #at = 0;
  /** A header whose request waits for room. */
  #held: Request | undefined;
  #incoming: Incoming | undefined;
  #inFlight = 0;
  #memory = 0;
  #ending = false;
  #lastProgress: number;
  #end: (() => void) | undefined;
  /** Resolves when nothing is under way and nothing more will come. */
  readonly ended = new Promise<void>((resolve) => {
    this.#end = resolve;
  });

  /** @param received what followed the last option */
  constructor(stream: Duplex, agreement: Agreement, host: TransmissionHost, received: Buffer) {
    this.#stream = stream;
    this.#agreement = agreement;
    this.#host = host;
    this.#extended = agreement.style === 'extended';
    this.#outgoing = new Outgoing(stream);
    this.#lastProgress = host.clock.monotonic();
    host.memory.add(this);
    stream.on('data', (chunk: Buffer) => this.#receive(chunk));
    stream.on('end', () => this.finish());
    stream.on('close', () => this.finish());
    this.#receive(received);
    stream.resume();
  }

  /** Takes no more requests; what is under way is finished and answered. */
  finish(): void {
    if (this.#ending) return;
    this.#ending = true;
    this.#held = undefined;
    this.#dropIncoming();
    this.#host.memory.remove(this);
    this.#settle();
  }

  stalledSince(): number | undefined {
    const byPeer = this.#incoming !== undefined || this.#outgoing.waiting;
    return byPeer && this.#memory > 0 ? this.#lastProgress : undefined;
  }

  cutOff(reason: string): void {
    this.#host.figures.rejected++;
    this.#stream.destroy(new Error(reason));
  }

  resume(): void {
    if (this.#held !== undefined) this.#parse();
  }

  #receive(chunk: Buffer): void {
    if (this.#ending) return;
    this.#lastProgress = this.#host.clock.monotonic();
    const rest = this.#chunk.byteLength - this.#at;
    if (rest === 0) this.#chunk = chunk;
    else this.#chunk = Buffer.concat([this.#chunk.subarray(this.#at), chunk]);
    this.#at = 0;
    if (this.#held === undefined) this.#parse();
  }

  /** Understands what was received, until it is used up or there is no room for more. */
  #parse(): void {
    while (!this.#ending) {
      if (this.#incoming !== undefined && !this.#fill(this.#incoming)) break;
      const request = this.#held ?? this.#nextHeader();
      if (request === undefined) break;
      this.#held = undefined;
      if (!this.#begin(request)) {
        this.#held = request;
        this.#stream.pause();
        return;
      }
    }
    if (this.#stream.isPaused()) this.#stream.resume();
  }

  /** @returns `undefined` if there is none yet, or none any more */
  #nextHeader(): Request | undefined {
    const size = requestSize(this.#extended);
    if (this.#chunk.byteLength - this.#at < size) return undefined;
    const request = decodeRequest(this.#chunk, this.#at, this.#extended);
    this.#at += size;
    if (request === undefined) this.#drop('a request without its magic number');
    else if (request.type === RequestType.disconnect && !hasPayload(request, this.#agreement.style))
      this.finish();
    else return request;
    return undefined;
  }

  /** @returns whether there was room for the request */
  #begin(request: Request): boolean {
    const { limits, memory } = this.#host;
    const payload = hasPayload(request, this.#agreement.style);
    if (payload && request.length > PAYLOAD_MAX) {
      this.#drop(`a payload of ${request.length} bytes`);
      return true;
    }
    const bytes = payload || request.type === RequestType.read ? Math.min(request.length, PAYLOAD_MAX) : 0;
    const cost = REQUEST_OVERHEAD + bytes;
    const fits = this.#memory === 0 || this.#memory + cost <= limits.memoryEach;
    if (this.#inFlight >= limits.requestsEach || !fits || !memory.tryTake(this, cost)) return false;
    this.#memory += cost;
    if (!payload || request.length === 0) {
      this.#start({ request, memory: cost, payload: undefined, pooled: undefined, filled: 0 });
      return true;
    }
    this.#incoming = this.#expect(request, cost);
    return true;
  }

  /** Where the payload goes: it stays in the chunk if it is there already, whole. */
  #expect(request: Request, memory: number): Incoming {
    const { length } = request;
    if (this.#chunk.byteLength - this.#at >= length) {
      const payload = this.#chunk.subarray(this.#at, this.#at + length);
      this.#at += length;
      return { request, memory, payload, pooled: undefined, filled: length };
    }
    const pooled = this.#host.buffers.take(length);
    const payload = Buffer.from(pooled.buffer, pooled.byteOffset, length);
    return { request, memory, payload, pooled, filled: 0 };
  }

  /** @returns whether the payload is there */
  #fill(incoming: Incoming): boolean {
    const { payload } = incoming;
    assert(payload !== undefined, () => 'a payload that nobody expects');
    const missing = payload.byteLength - incoming.filled;
    if (missing > 0) {
      const length = Math.min(missing, this.#chunk.byteLength - this.#at);
      this.#chunk.copy(payload, incoming.filled, this.#at, this.#at + length);
      this.#at += length;
      incoming.filled += length;
      if (length < missing) return false;
    }
    this.#incoming = undefined;
    this.#start(incoming);
    return true;
  }

  #dropIncoming(): void {
    const incoming = this.#incoming;
    this.#incoming = undefined;
    if (incoming === undefined) return;
    if (incoming.pooled !== undefined) this.#host.buffers.give(incoming.pooled);
    this.#release(incoming.memory);
  }

  #drop(what: string): void {
    this.cutOff(`the client sent ${what}`);
    this.finish();
  }

  #start(incoming: Incoming): void {
    const { figures, buffers, clock, onError } = this.#host;
    const { request, pooled } = incoming;
    const kind = kindOf(request.type);
    const begin = clock.monotonic();
    this.#inFlight++;
    figures.inFlight++;
    const end = (failed: boolean) => {
      if (pooled !== undefined) buffers.give(pooled);
      this.#inFlight--;
      figures.inFlight--;
      if (kind !== undefined) figures.requests[kind].count(request.length, clock.monotonic() - begin, failed);
      this.#release(request.type === RequestType.read && !failed ? 0 : incoming.memory);
      this.#settle();
    };
    this.#perform(incoming).then(
      () => end(false),
      (error: unknown) => {
        const { value, message } = failureOf(error);
        if (value === ErrorValue.io) onError(error);
        this.#sendError(request, value, message);
        end(true);
      },
    );
  }

  /** @throws RequestError, or what the export throws */
  async #perform({ request, payload, memory }: Incoming): Promise<void> {
    const { export: exported, style, contexts } = this.#agreement;
    const { offset, length, flags } = request;
    switch (checkRequest(request, style, exported, contexts)) {
      case 'read':
        return this.#read(request, memory);
      case 'write':
        if (payload !== undefined) await exported.write(offset, payload);
        break;
      case 'writeZeroes':
        await exported.writeZeroes(offset, length, (flags & RequestFlag.noHole) !== 0);
        break;
      case 'trim':
        await exported.discard(offset, length);
        break;
      case 'flush':
        await exported.flush();
        break;
      case 'cache':
        await warmCache(exported, offset, length);
        break;
      case 'blockStatus':
        return this.#blockStatus(request, payload);
    }
    if ((flags & RequestFlag.fua) !== 0 && exported.writable) await exported.flush();
    this.#outgoing.send(this.#extended ? encodeDone(request, true) : encodeSimpleReply(request, 0));
  }

  async #read(request: Request, memory: number): Promise<void> {
    const { export: exported, style } = this.#agreement;
    const { offset, length } = request;
    const { buffers } = this.#host;
    if (length === 0) {
      this.#release(memory);
      this.#outgoing.send(
        style === 'simple' ? encodeSimpleReply(request, 0) : encodeDone(request, this.#extended),
      );
      return;
    }
    const header =
      style === 'simple'
        ? encodeSimpleReply(request, 0)
        : encodeDataHeader(request, this.#extended, { offset, length, done: true });
    const before = length <= SMALL_READ ? header.byteLength : 0;
    const pooled = buffers.take(before + length);
    const answer = Buffer.from(pooled.buffer, pooled.byteOffset, before + length);
    const sent = () => {
      buffers.give(pooled);
      this.#release(memory);
    };
    try {
      await exported.read(offset, answer.subarray(before));
    } catch (error) {
      buffers.give(pooled);
      throw error;
    }
    if (before > 0) header.copy(answer);
    else this.#outgoing.send(header);
    this.#outgoing.send(answer, sent);
  }

  async #blockStatus(request: Request, payload: Buffer | undefined): Promise<void> {
    const { export: exported, contexts } = this.#agreement;
    const { offset, flags } = request;
    const { length, ids } = statusQuery(request, payload, contexts, exported.size);
    const reqOne = (flags & RequestFlag.reqOne) !== 0;
    const extended = this.#extended;
    const answers: Buffer[] = [];
    for (const [i, id] of ids.entries()) {
      const context = contexts[id - 1];
      assert(context !== undefined, () => `context ${id} of ${contexts.length}`);
      const range = { offset, length, size: exported.size };
      const extents = await collectExtents(context, range, { reqOne, extended });
      answers.push(encodeBlockStatus(request, extended, { id, extents, done: i === ids.length - 1 }));
    }
    // Together: an error halfway would otherwise come after a part of the answer.
    for (const answer of answers) this.#outgoing.send(answer);
  }

  #sendError(request: Request, value: number, message: string): void {
    const { style } = this.#agreement;
    this.#outgoing.send(
      style === 'simple'
        ? encodeSimpleReply(request, value)
        : encodeErrorChunk(request, this.#extended, value, message),
    );
  }

  #release(memory: number): void {
    if (memory === 0) return;
    this.#memory -= memory;
    this.#lastProgress = this.#host.clock.monotonic();
    this.#host.memory.give(memory);
    if (this.#held !== undefined) this.#parse();
  }

  #settle(): void {
    if (this.#ending && this.#inFlight === 0) this.#end?.();
    else if (this.#held !== undefined) this.#parse();
  }
}
