/**
 * The side that asks: requests with answers, any number at once, over one socket.
 *
 * Shared state: the requests under way; changed between awaits only.
 */
import type { Socket } from 'node:net';
import type { ByteLength } from '../../units.js';
import { PeerGoneError, receivedError } from './errors.js';
import { encodeFrame, type Frame, FrameDecoder, FrameKind, ProtocolError } from './frame.js';

/** What an answer may hold: 512 snapshots with 16 KB of information each, and the bytes of one read. */
const ANSWER_LIMITS = { json: 64 * 1024 * 1024, bytes: 16 * 1024 * 1024 };

export interface RequestOptions {
  /** Sent along. */
  readonly bytes?: Uint8Array;
  /** Where the bytes of the answer go, if there are exactly as many. */
  readonly target?: Uint8Array;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((done: ByteLength, total: ByteLength) => void) | undefined;
}

export interface Answer {
  readonly value: unknown;
  readonly bytes: Uint8Array;
}

interface Pending {
  readonly options: RequestOptions;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: unknown) => void;
}

export class RpcClient {
  readonly #socket: Socket;
  readonly #peer: string;
  readonly #onEvent: (value: unknown) => void;
  readonly #pending = new Map<number, Pending>();
  readonly #decoder = new FrameDecoder(ANSWER_LIMITS, (id) => this.#pending.get(id)?.options.target);
  #nextId = 1;
  #failure: Error | undefined;
  /** Resolves when the connection is over, whoever ended it. */
  readonly ended: Promise<void>;

  /** @param socket connected; @param peer what messages call the other side */
  constructor(socket: Socket, peer: string, onEvent: (value: unknown) => void) {
    this.#socket = socket;
    this.#peer = peer;
    this.#onEvent = onEvent;
    socket.on('error', (error) => this.#fail(error));
    this.ended = new Promise((resolve) => {
      socket.on('close', () => {
        this.#fail(undefined);
        resolve();
      });
    });
  }

  /** Takes what came in. */
  receive(chunk: Uint8Array): void {
    try {
      for (const frame of this.#decoder.push(chunk)) this.#take(frame);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#fail(error);
    }
  }

  /** @throws what the other side threw; PeerGoneError; the signal's reason */
  request(method: string, params: unknown, options: RequestOptions = {}): Promise<Answer> {
    const { bytes, signal } = options;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      if (this.#failure !== undefined) return reject(this.#failure);
      const id = this.#nextId++;
      const stop = () => {
        if (!this.#pending.delete(id)) return;
        this.#decoder.release(id);
        this.#socket.write(encodeFrame(FrameKind.cancel, id));
        reject(signal?.reason);
      };
      const over =
        <T>(then: (outcome: T) => void) =>
        (outcome: T) => {
          signal?.removeEventListener('abort', stop);
          then(outcome);
        };
      signal?.addEventListener('abort', stop, { once: true });
      this.#pending.set(id, { options, resolve: over(resolve), reject: over(reject) });
      this.#socket.cork();
      this.#socket.write(encodeFrame(FrameKind.request, id, { method, params }, bytes?.byteLength));
      // The caller's bytes are the caller's again when the answer is there, which comes after they are sent.
      if (bytes !== undefined && bytes.byteLength > 0) this.#socket.write(bytes);
      this.#socket.uncork();
    });
  }

  #take({ kind, id, value, bytes }: Frame): void {
    if (kind === FrameKind.event) {
      this.#onEvent(value);
      return;
    }
    const pending = this.#pending.get(id);
    if (pending === undefined) return; // It was given up.
    if (kind === FrameKind.progress) {
      const { done = 0, total = 0 } = (value ?? {}) as { done?: ByteLength; total?: ByteLength };
      pending.options.onProgress?.(done, total);
    } else if (kind === FrameKind.result || kind === FrameKind.error) {
      const error = kind === FrameKind.error ? receivedError(value) : undefined;
      this.#pending.delete(id);
      if (error === undefined) pending.resolve({ value, bytes });
      else pending.reject(error);
    } else {
      throw new ProtocolError(`an answer of kind ${kind}`);
    }
  }

  #fail(cause: Error | undefined): void {
    this.#failure ??= new PeerGoneError(
      `${this.#peer} went away${cause === undefined ? '' : ` (${cause.message})`}: try again`,
      cause === undefined ? {} : { cause },
    );
    this.#socket.destroy();
    for (const { reject } of this.#pending.values()) reject(this.#failure);
    this.#pending.clear();
  }

  /** Ends the connection; the other side gives up what is under way. */
  async close(): Promise<void> {
    this.#socket.destroy();
    await this.ended;
  }
}
