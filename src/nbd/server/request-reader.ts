/**
 * From bytes to requests with their payloads. Long payloads are received where they stay; everything else by way of one buffer.
 *
 * State changes between awaits only, and nothing here awaits.
 */
import type { BufferPool } from '../../device/buffer-pool.js';
import type { ByteLength } from '../../units.js';
import { PAYLOAD_MAX, type ReplyStyle, RequestType } from '../wire/constants.js';
import { decodeRequest, type Request, requestSize } from '../wire/request.js';
import type { Sink } from './receiver.js';
import { hasPayload } from './requests.js';

const BUFFER_SIZE = 128 * 1024;
/** A payload of which more than this is missing is received in place. */
const IN_PLACE_MIN = 32 * 1024;

/** A request that is there, whole. */
export interface Arrived {
  readonly request: Request;
  /** Undefined where nothing followed it. */
  readonly payload: Buffer | undefined;
  /** Belongs to the pool, once the payload is not needed any more. */
  readonly pooled: Uint8Array | undefined;
}

export interface RequestHandler {
  /** Is there room for the request? If not, nothing more is taken in until `resume`. */
  admit(request: Request): boolean;
  /** An admitted request, with its payload. */
  handle(arrived: Arrived): void;
  /** The client says goodbye. */
  disconnected(): void;
  /** The client does what cannot be understood or allowed. */
  violated(what: string): void;
}

export class RequestReader implements Sink {
  readonly #style: ReplyStyle;
  readonly #headerSize: ByteLength;
  readonly #buffers: BufferPool;
  readonly #handler: RequestHandler;
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER_SIZE);
  /** What was received and not understood yet lies between the two. */
  #start = 0;
  #end = 0;
  #inPlace = false;
  /** Waits for room. */
  #held: Request | undefined;
  /** Admitted; its payload is coming. */
  #incoming: { readonly request: Request; readonly payload: Buffer; readonly pooled: Uint8Array } | undefined;
  #filled = 0;
  #stopped = false;

  constructor(style: ReplyStyle, buffers: BufferPool, handler: RequestHandler) {
    this.#style = style;
    this.#headerSize = requestSize(style === 'extended');
    this.#buffers = buffers;
    this.#handler = handler;
  }

  /** Has half a request been received? */
  get expecting(): boolean {
    return this.#incoming !== undefined;
  }

  target(): Uint8Array {
    this.#compact();
    const payload = this.#incoming?.payload;
    this.#inPlace = payload !== undefined && payload.byteLength - this.#filled >= IN_PLACE_MIN;
    return this.#inPlace && payload !== undefined
      ? payload.subarray(this.#filled)
      : this.#buffer.subarray(this.#end);
  }

  received(length: ByteLength): boolean {
    if (this.#inPlace) this.#filled += length;
    else this.#end += length;
    return this.resume();
  }

  /** Goes on where room was missing. @returns whether more bytes are wanted */
  resume(): boolean {
    while (!this.#stopped) {
      if (this.#incoming !== undefined && !this.#fill()) break;
      const request = this.#held ?? this.#nextHeader();
      if (request === undefined) break;
      // Admitting may lead back here.
      this.#held = undefined;
      if (!this.#handler.admit(request)) {
        this.#held = request;
        return false;
      }
      this.#admitted(request);
    }
    return !this.#stopped;
  }

  /** Understands nothing more. @returns the request whose payload will not come, if it was admitted */
  stop(): Request | undefined {
    this.#stopped = true;
    this.#held = undefined;
    const incoming = this.#incoming;
    this.#incoming = undefined;
    // Its buffer is not given back: the operating system may still be writing to it.
    return incoming?.request;
  }

  #nextHeader(): Request | undefined {
    if (this.#end - this.#start < this.#headerSize) return undefined;
    const request = decodeRequest(this.#buffer, this.#start, this.#style === 'extended');
    this.#start += this.#headerSize;
    if (request === undefined) {
      this.#handler.violated('a request without its magic number');
      return undefined;
    }
    const payload = hasPayload(request, this.#style);
    if (payload && request.length > PAYLOAD_MAX) {
      this.#handler.violated(`a payload of ${request.length} bytes`);
      return undefined;
    }
    if (request.type === RequestType.disconnect && !payload) {
      this.#handler.disconnected();
      return undefined;
    }
    return request;
  }

  #admitted(request: Request): void {
    const { length } = request;
    if (length === 0 || !hasPayload(request, this.#style)) {
      this.#handler.handle({ request, payload: undefined, pooled: undefined });
      return;
    }
    const pooled = this.#buffers.take(length);
    const payload =
      pooled.byteLength === length && Buffer.isBuffer(pooled)
        ? pooled
        : Buffer.from(pooled.buffer, pooled.byteOffset, length);
    this.#filled = 0;
    this.#incoming = { request, payload, pooled };
  }

  /** @returns whether the payload is there */
  #fill(): boolean {
    const incoming = this.#incoming;
    if (incoming === undefined) return true;
    const { payload } = incoming;
    const length = Math.min(payload.byteLength - this.#filled, this.#end - this.#start);
    this.#buffer.copy(payload, this.#filled, this.#start, this.#start + length);
    this.#start += length;
    this.#filled += length;
    if (this.#filled < payload.byteLength) return false;
    this.#incoming = undefined;
    this.#handler.handle(incoming);
    return true;
  }

  /** Whatever is left then is less than the buffer: at least a header was taken out of a full one. */
  #compact(): void {
    if (this.#start === 0) return;
    if (this.#start < this.#end) this.#buffer.copyWithin(0, this.#start, this.#end);
    this.#end -= this.#start;
    this.#start = 0;
  }
}
