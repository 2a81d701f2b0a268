/**
 * The transmission phase of one connection: requests in, answers out.
 *
 * Requests are worked on side by side, and answered as they get done. State changes between awaits only.
 */
import type { Duplex } from 'node:stream';
import type { BufferPool } from '../../device/buffer-pool.js';
import type { Clock } from '../../environment.js';
import type { ByteLength } from '../../units.js';
import { ErrorValue, PAYLOAD_MAX, RequestFlag, RequestType } from '../wire/constants.js';
import { encodeDataHeader, encodeDone, encodeErrorChunk, encodeSimpleReply } from '../wire/reply.js';
import type { Request } from '../wire/request.js';
import { failureOf } from './failure.js';
import type { NbdFigures } from './figures.js';
import type { Holder, Memory, NbdLimits } from './limits.js';
import type { Agreement } from './negotiation.js';
import { Outgoing } from './outgoing.js';
import { type Receiver, receive } from './receiver.js';
import { type Arrived, type RequestHandler, RequestReader } from './request-reader.js';
import { checkRequest, kindOf, warmCache } from './requests.js';
import { StatusAnswers } from './status-answers.js';

/** Answers to reads up to this are one piece, header and data. */
const SMALL_READ = 32_768;
/** What a request costs besides its bytes. */
const REQUEST_OVERHEAD = 512;
/** Bytes of answers that count with no request, and that the peer has not read, before no more requests are taken. */
const LOOSE_MAX = 1024 * 1024;
/** Requests after which other connections have their turn. */
const REQUESTS_A_TURN = 256;

/** What connections share. */
export interface TransmissionHost {
  readonly limits: NbdLimits;
  readonly memory: Memory;
  readonly buffers: BufferPool;
  readonly figures: NbdFigures;
  readonly clock: Clock;
  /** An error that is not the client's fault. */
  readonly onError: (error: unknown) => void;
}

export class Transmission implements Holder, RequestHandler {
  readonly #receiver: Receiver;
  readonly #requests: RequestReader;
  readonly #agreement: Agreement;
  readonly #host: TransmissionHost;
  readonly #outgoing: Outgoing;
  readonly #status: StatusAnswers;
  readonly #extended: boolean;
  #inFlight = 0;
  #memory = 0;
  /** A request waits for room, and reading with it. */
  #waiting = false;
  #ending = false;
  #peerEnded = false;
  /** Requests since others had their turn, and whether that is on its way. */
  #sinceTurn = 0;
  #turnIsDue = false;
  /** When the request began whose payload is coming. */
  #arrivingSince: number | undefined;
  #end: (() => void) | undefined;
  /** Resolves when nothing is under way and nothing more will come. */
  readonly ended = new Promise<void>((resolve) => {
    this.#end = resolve;
  });

  /** @param received what followed the last option */
  constructor(stream: Duplex, agreement: Agreement, host: TransmissionHost, received: Uint8Array) {
    this.#agreement = agreement;
    this.#host = host;
    this.#extended = agreement.style === 'extended';
    this.#requests = new RequestReader(agreement.style, host.buffers, this);
    this.#receiver = receive(stream, received, this.#requests);
    this.#outgoing = new Outgoing(this.stream, host.clock, () => this.#sent());
    this.#status = new StatusAnswers(agreement, this.#outgoing, LOOSE_MAX);
    host.memory.add(this);
    this.stream.on('end', () => {
      this.#peerEnded = true;
      this.#finishIfAllTaken();
    });
    this.stream.on('close', () => this.finish());
    this.#receiver.resume();
  }

  /** Where answers go. */
  get stream(): Duplex {
    return this.#receiver.stream;
  }

  /** Takes no more requests; what is under way is finished and answered. */
  finish(): void {
    if (this.#ending) return;
    this.#ending = true;
    const unfinished = this.#requests.stop();
    if (unfinished !== undefined) this.#release(costOf(unfinished));
    this.#host.memory.remove(this);
    this.#settle();
  }

  stalledSince(): number | undefined {
    const arriving = this.#requests.expecting ? this.#arrivingSince : undefined;
    const leaving = this.#outgoing.waitingSince;
    return arriving === undefined || leaving === undefined
      ? (arriving ?? leaving)
      : Math.min(arriving, leaving);
  }

  cutOff(reason: string): void {
    this.#host.figures.rejected++;
    this.stream.destroy(new Error(reason));
  }

  resume(): void {
    if (!this.#waiting || this.#ending) return;
    this.#waiting = false;
    if (!this.#requests.resume()) return;
    this.#receiver.resume();
    this.#finishIfAllTaken();
  }

  /** A peer that sends no more may still wait for answers, and even for requests to be taken in. */
  #finishIfAllTaken(): void {
    if (this.#peerEnded && !this.#waiting) this.finish();
  }

  admit(request: Request): boolean {
    const { limits, memory, clock } = this.#host;
    if (this.#outgoing.looseBytes > LOOSE_MAX || !this.#hasTurn()) {
      // Whoever waits for memory goes first meanwhile.
      memory.remove(this);
      memory.add(this);
      this.#waiting = true;
      return false;
    }
    const cost = costOf(request);
    const fits = this.#memory === 0 || this.#memory + cost <= limits.memoryEach;
    this.#waiting = this.#inFlight >= limits.requestsEach || !fits || !memory.tryTake(this, cost);
    if (!this.#waiting) {
      this.#memory += cost;
      this.#arrivingSince = clock.monotonic();
    }
    return !this.#waiting;
  }

  /** One client's requests, however many came at once, must not keep the others waiting. */
  #hasTurn(): boolean {
    if (this.#turnIsDue) return false;
    if (++this.#sinceTurn <= REQUESTS_A_TURN) return true;
    this.#turnIsDue = true;
    setImmediate(() => {
      this.#turnIsDue = false;
      this.#sinceTurn = 0;
      this.resume();
    });
    return false;
  }

  #sent(): void {
    this.#status.sent();
    this.resume();
  }

  disconnected(): void {
    this.finish();
  }

  violated(what: string): void {
    this.cutOff(`the client sent ${what}`);
    this.finish();
  }

  handle(arrived: Arrived): void {
    const { figures, buffers, clock, onError } = this.#host;
    const { request, pooled } = arrived;
    const kind = kindOf(request.type);
    const begin = clock.monotonic();
    this.#inFlight++;
    figures.inFlight++;
    const isTaken = request.type === RequestType.write && this.#agreement.export.take !== undefined;
    const end = (failed: boolean) => {
      if (pooled !== undefined && !isTaken) buffers.give(pooled);
      this.#inFlight--;
      figures.inFlight--;
      if (kind !== undefined) figures.requests[kind].count(request.length, clock.monotonic() - begin, failed);
      // The answer to a read keeps its memory until it is sent.
      if (failed || request.type !== RequestType.read) this.#release(costOf(request));
      this.#settle();
    };
    const succeed = () => {
      if (isTaken) this.#sendDone(request);
      end(false);
    };
    let performed: Promise<void> | undefined;
    try {
      performed = isTaken ? this.#take(arrived) : this.#perform(request, arrived.payload);
    } catch (error) {
      performed = Promise.reject(error);
    }
    if (performed === undefined) {
      succeed();
      return;
    }
    performed
      .then(succeed, (error: unknown) => {
        const { value, message } = failureOf(error);
        if (value === ErrorValue.io) onError(error);
        try {
          this.#sendError(request, value, message);
        } finally {
          end(true);
        }
      })
      .catch((error: unknown) => {
        onError(error);
        this.cutOff('it could not be answered');
      });
  }

  /**
   * A write to an export that keeps what it is given.
   * @returns `undefined` if it is done; its answer is not sent yet @throws RequestError, or what the export throws
   */
  #take({ request, payload, pooled }: Arrived): Promise<void> | undefined {
    const { export: exported, style, contexts } = this.#agreement;
    checkRequest(request, style, exported, contexts);
    const written =
      payload === undefined || pooled === undefined
        ? undefined
        : exported.take?.(request.offset, payload, { memory: pooled, pool: this.#host.buffers });
    if ((request.flags & RequestFlag.fua) === 0) return written;
    return written === undefined ? exported.flush() : written.then(() => exported.flush());
  }

  #sendDone(request: Request): void {
    this.#outgoing.send(this.#extended ? encodeDone(request, true) : encodeSimpleReply(request, 0));
  }

  /** @throws RequestError, or what the export throws */
  async #perform(request: Request, payload: Buffer | undefined): Promise<void> {
    const { export: exported, style, contexts } = this.#agreement;
    const { offset, length, flags } = request;
    switch (checkRequest(request, style, exported, contexts)) {
      case 'read':
        return this.#read(request);
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
        return this.#status.answer(request, payload);
    }
    if ((flags & RequestFlag.fua) !== 0 && exported.writable) await exported.flush();
    this.#sendDone(request);
  }

  async #read(request: Request): Promise<void> {
    const { export: exported, style } = this.#agreement;
    const { offset, length } = request;
    const { buffers } = this.#host;
    if (length === 0) {
      this.#release(costOf(request));
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
    const pooled = buffers.takeForRead(before + length);
    const answer = Buffer.from(pooled.buffer, pooled.byteOffset, before + length);
    const sent = () => {
      buffers.give(pooled);
      this.#release(costOf(request));
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

  #sendError(request: Request, value: number, message: string): void {
    const { style } = this.#agreement;
    this.#outgoing.send(
      style === 'simple'
        ? encodeSimpleReply(request, value)
        : encodeErrorChunk(request, this.#extended, value, message),
    );
  }

  #release(memory: number): void {
    this.#memory -= memory;
    this.#host.memory.give(memory);
    this.resume();
  }

  #settle(): void {
    if (this.#ending && this.#inFlight === 0) {
      this.#outgoing.flush();
      this.#end?.();
    } else {
      this.resume();
    }
  }
}

/** Memory that a request takes until it is answered: its payload, or that of its answer. */
const costOf = ({ type, flags, length }: Request): ByteLength => {
  const carries =
    type === RequestType.read || type === RequestType.write || (flags & RequestFlag.payloadLength) !== 0;
  return REQUEST_OVERHEAD + (carries ? Math.min(length, PAYLOAD_MAX) : 0);
};
