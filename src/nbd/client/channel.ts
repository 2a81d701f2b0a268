/**
 * A socket, plain or with TLS, that puts what arrives where its reader wants it.
 *
 * A plain socket reads straight into the reader's buffers, without an array of its own in between; TLS has to decrypt
 * somewhere, so there it is copied. What is sent within one turn leaves in one system call.
 */
import { connect, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import { ConnectionEnd, lost } from './failure.js';
import type { NbdPlace } from './uri.js';

/** Who takes what arrives. */
export interface Reader {
  /** Where the next bytes go; at least one byte. */
  room(): Uint8Array;
  /** So many bytes were put at the beginning of the last `room`. */
  filled(count: number): void;
}

/** Milliseconds of silence after which TCP asks whether the peer is still there. */
const KEEP_ALIVE = 30_000;

export class Channel {
  #socket: Socket;
  #reader: Reader;
  /** Whose buffer the socket was given for what it reads next; asked for ahead, so it may be the former reader's. */
  #given: { readonly reader: Reader; readonly room: Uint8Array } | undefined;
  #corked = false;
  #end: ConnectionEnd | undefined;
  readonly #onEnd: (end: ConnectionEnd) => void;
  readonly #closed: Promise<void>;

  /** @param onEnd called once, when nothing can be read or sent any more */
  private constructor(place: NbdPlace, reader: Reader, onEnd: (end: ConnectionEnd) => void) {
    this.#reader = reader;
    this.#onEnd = onEnd;
    const onread = {
      buffer: () => {
        this.#given = { reader: this.#reader, room: this.#reader.room() };
        return this.#given.room;
      },
      callback: (count: number) => {
        this.#take(count);
        return true;
      },
    };
    this.#socket =
      place.kind === 'unix'
        ? connect({ path: place.path, onread })
        : connect({
            host: place.host,
            port: place.port,
            onread,
            keepAlive: true,
            keepAliveInitialDelay: KEEP_ALIVE,
          });
    this.#socket.setNoDelay(true);
    this.#closed = new Promise((resolve) => this.#socket.once('close', () => resolve()));
    this.#watch(this.#socket);
  }

  /** @throws ConnectionEnd if there is no connection to be had */
  static async connect(
    place: NbdPlace,
    reader: Reader,
    signal: AbortSignal,
    onEnd: (end: ConnectionEnd) => void,
  ): Promise<Channel> {
    signal.throwIfAborted();
    let failed: (end: ConnectionEnd) => void = onEnd;
    const channel = new Channel(place, reader, (end) => failed(end));
    const abort = () => {
      const { reason } = signal;
      channel.destroy(reason instanceof ConnectionEnd ? reason : lost('interrupted', reason));
    };
    signal.addEventListener('abort', abort);
    try {
      await new Promise<void>((resolve, reject) => {
        failed = reject;
        channel.#socket.once('connect', resolve);
      });
    } finally {
      signal.removeEventListener('abort', abort);
    }
    failed = onEnd;
    return channel;
  }

  /** Goes on in TLS. Nothing may have been read beyond the server's consent. @throws ConnectionEnd */
  async startTls(options: ConnectionOptions): Promise<void> {
    if (this.#end !== undefined) throw this.#end;
    const socket = connectTls({ ...options, socket: this.#socket });
    this.#socket = socket;
    this.#watch(socket);
    await new Promise<void>((resolve, reject) => {
      const refuse = () => reject(this.#end ?? lost('the connection was closed'));
      socket.once('secureConnect', resolve);
      socket.once('close', refuse);
    });
    socket.on('data', (chunk: Buffer) => this.#copy(chunk));
  }

  /** From now on `reader` takes what arrives. */
  set reader(reader: Reader) {
    this.#reader = reader;
  }

  /** Sends buffers, which must stay as they are until the peer has answered. */
  send(buffers: readonly Uint8Array[]): void {
    if (this.#end !== undefined) return;
    const socket = this.#socket;
    if (!this.#corked) {
      this.#corked = true;
      socket.cork();
      process.nextTick(() => {
        this.#corked = false;
        socket.uncork();
      });
    }
    for (const buffer of buffers) if (buffer.byteLength > 0) socket.write(buffer);
  }

  /** Lets go at once. */
  destroy(end: ConnectionEnd): void {
    this.#finish(end);
    this.#socket.destroy();
  }

  /** Sends what is still to be sent, then closes; resolves when the socket is closed. */
  close(): Promise<void> {
    this.#finish(lost('the connection was closed by us'));
    this.#socket.uncork();
    this.#socket.end();
    return this.#closed;
  }

  #finish(end: ConnectionEnd): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    this.#onEnd(end);
  }

  #watch(socket: Socket): void {
    socket.on('error', (error) => this.#finish(lost(error.message, error)));
    socket.on('end', () => this.#finish(lost('the server closed the connection')));
    socket.on('close', () => this.#finish(lost('the connection was closed')));
  }

  #take(count: number): void {
    const given = this.#given;
    // After the end the reader's buffers belong to others again.
    if (this.#end !== undefined || given === undefined) return;
    if (given.reader === this.#reader) this.#reader.filled(count);
    else this.#copy(given.room.subarray(0, count));
  }

  #copy(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.byteLength && this.#end === undefined; ) {
      const room = this.#reader.room();
      const part = chunk.subarray(at, at + room.byteLength);
      room.set(part);
      at += part.byteLength;
      this.#reader.filled(part.byteLength);
    }
  }
}
