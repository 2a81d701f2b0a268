/**
 * The side that answers, for one connection.
 *
 * A peer that breaks the protocol, or asks for too much at once, harms nobody else: it is cut off, or not read from
 * until its earlier requests are answered and the answers have left.
 *
 * Shared state: the requests under way; changed between awaits only.
 */
import type { Socket } from 'node:net';
import type { ByteLength } from '../../units.js';
import { sentError } from './errors.js';
import { encodeFrame, type Frame, FrameDecoder, FrameKind, ProtocolError } from './frame.js';

/** Bytes of one read or write. */
export const TRANSFER_MAX = 4 * 1024 * 1024;
/** The longest text is that of a label, which nobody has cut yet. */
const REQUEST_LIMITS = { json: 1024 * 1024, bytes: TRANSFER_MAX };
/** With `TRANSFER_MAX`, what a connection can make this process hold. */
const REQUESTS_MAX = 16;
/** Somebody who does not take events has that many bytes of them kept, and is cut off then. */
const UNREAD_MAX = REQUESTS_MAX * TRANSFER_MAX * 2;
/** A peer has to say something within so many milliseconds. */
const SILENCE_MS = 10_000;
const PROGRESS_EVERY_MS = 50;

export interface Call {
  readonly params: unknown;
  readonly bytes: Uint8Array;
  /** Aborted when the peer gives the request up, or goes. */
  readonly signal: AbortSignal;
  /** May be called as often as one likes. */
  readonly onProgress: (done: ByteLength, total: ByteLength) => void;
  /** Calls `action` when the peer goes; at once if it has gone. */
  readonly onGone: (action: () => void) => void;
}

export interface Reply {
  readonly value?: unknown;
  readonly bytes?: Uint8Array;
  /** Called when `bytes` are not needed any more. */
  readonly sent?: () => void;
}

interface Request {
  readonly id: number;
  readonly method: string;
  readonly params: unknown;
  readonly bytes: Uint8Array;
}

/** @throws what the peer is to be told */
export type Answerer = (method: string, call: Call) => Promise<Reply>;

export class RpcConnection {
  readonly #socket: Socket;
  readonly #answer: Answerer;
  readonly #decoder = new FrameDecoder(REQUEST_LIMITS);
  readonly #underWay = new Map<number, AbortController>();
  /** Requests under way, and answers that have not left. */
  #load = 0;
  #isGreeted = false;
  /** Requests that came together with too many others. */
  readonly #waiting: Request[] = [];

  constructor(socket: Socket, answer: Answerer) {
    this.#socket = socket;
    this.#answer = answer;
    socket.setTimeout(SILENCE_MS, () => socket.destroy());
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', () => socket.destroy());
    socket.on('end', () => socket.destroy());
    socket.on('close', () => {
      this.giveUp(new DOMException('the client has gone', 'AbortError'));
    });
  }

  /** Tells of something that happened; nothing before the first request is answered. */
  tell(value: unknown): void {
    if (!this.#isGreeted) return;
    if (this.#socket.writableLength > UNREAD_MAX) this.#socket.destroy();
    else this.#send(encodeFrame(FrameKind.event, 0, value));
  }

  /** Gives up what is under way, where it can be. */
  giveUp(reason: Error): void {
    for (const controller of this.#underWay.values()) controller.abort(reason);
  }

  #receive(chunk: Buffer): void {
    try {
      for (const frame of this.#decoder.push(chunk)) {
        this.#socket.setTimeout(0);
        this.#take(frame);
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#socket.destroy();
    }
  }

  #take({ kind, id, value, bytes }: Frame): void {
    if (kind === FrameKind.cancel) {
      this.#underWay.get(id)?.abort(new DOMException('given up by the client', 'AbortError'));
      return;
    }
    const { method, params } = (value ?? {}) as { readonly method?: unknown; readonly params?: unknown };
    if (kind !== FrameKind.request || typeof method !== 'string' || this.#underWay.has(id)) {
      throw new ProtocolError('not a request');
    }
    this.#underWay.set(id, new AbortController());
    this.#waiting.push({ id, method, params, bytes });
    this.#startSome();
  }

  #startSome(): void {
    while (this.#load < REQUESTS_MAX) {
      const request = this.#waiting.shift();
      if (request === undefined) return void (this.#socket.isPaused() && this.#socket.resume());
      this.#load++;
      void this.#handle(request);
    }
    this.#socket.pause();
  }

  async #handle({ id, method, params, bytes }: Request): Promise<void> {
    const controller = this.#underWay.get(id) ?? new AbortController();
    const onGone = (action: () => void) => {
      if (this.#socket.destroyed) action();
      else this.#socket.once('close', action);
    };
    const call = { params, bytes, signal: controller.signal, onProgress: this.#progressOf(id), onGone };
    const outcome = await this.#answer(method, call).catch((error: unknown) => ({ error }));
    this.#underWay.delete(id);
    if ('error' in outcome) {
      this.#send(encodeFrame(FrameKind.error, id, sentError(outcome.error)), undefined, () => this.#unload());
      return;
    }
    this.#isGreeted = true;
    const { value, bytes: answer, sent } = outcome;
    this.#send(encodeFrame(FrameKind.result, id, value, answer?.byteLength), answer, () => {
      sent?.();
      this.#unload();
    });
  }

  #unload(): void {
    this.#load--;
    this.#startSome();
  }

  #progressOf(id: number): Call['onProgress'] {
    let last = Number.NEGATIVE_INFINITY;
    return (done, total) => {
      const now = performance.now();
      // Progress is for people; a peer that does not keep up misses some.
      if (now - last < PROGRESS_EVERY_MS || this.#socket.writableNeedDrain) return;
      last = now;
      this.#send(encodeFrame(FrameKind.progress, id, { done, total }));
    };
  }

  #send(frame: Buffer, bytes?: Uint8Array, sent: () => void = () => undefined): void {
    if (this.#socket.destroyed || this.#socket.writableEnded) {
      sent();
      return;
    }
    this.#socket.cork();
    const hasBytes = bytes !== undefined && bytes.byteLength > 0;
    this.#socket.write(frame, hasBytes ? undefined : sent);
    if (hasBytes) this.#socket.write(bytes, sent);
    this.#socket.uncork();
  }
}
