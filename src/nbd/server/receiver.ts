/**
 * Bytes from a client, put where they are wanted.
 *
 * A stream of Node makes a new 64 KiB buffer for each piece that arrives, which then has to be copied; a large write through NBD
 * spends half of its processor time there. A socket can be given buffers of the receiver's own (`onread`), but one
 * that a server accepted only by way of its handle, which Node does not document. So that is used where it is there as expected (plain
 * sockets of the Node versions that CI runs), and the stream everywhere else, TLS among it.
 */
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { TLSSocket } from 'node:tls';
import type { ByteLength } from '../../units.js';

/** Who wants the bytes. */
export interface Sink {
  /** Where the next bytes go, at least one; asked for after each piece, and good until the next one is told of. */
  target(): Uint8Array;
  /** So many bytes were put there. @returns `false` to get no more until `resume` */
  received(length: ByteLength): boolean;
}

export interface Receiver {
  /** Where answers go, and whose `end` and `close` tell that no more comes. */
  readonly stream: Duplex;
  resume(): void;
}

/** @param received what arrived before */
export function receive(stream: Duplex, received: Uint8Array, sink: Sink): Receiver {
  // Clients wait for the end of the negotiation; who does not gets the slower way, which has a place for what came early.
  const isPlain = stream instanceof Socket && !(stream instanceof TLSSocket);
  const handle = isPlain && received.byteLength === 0 ? handleOf(stream) : undefined;
  return stream instanceof Socket && handle !== undefined
    ? new SocketReceiver(stream, handle, sink)
    : new StreamReceiver(stream, received, sink);
}

/** Gives `sink` as much of `bytes` as it takes. @returns the rest */
function deliver(bytes: Uint8Array, sink: Sink): { readonly rest: Uint8Array; readonly more: boolean } {
  let rest = bytes;
  while (rest.byteLength > 0) {
    const target = sink.target();
    const length = Math.min(target.byteLength, rest.byteLength);
    target.set(length === rest.byteLength ? rest : rest.subarray(0, length));
    rest = rest.subarray(length);
    if (!sink.received(length)) return { rest, more: false };
  }
  return { rest, more: true };
}

class StreamReceiver implements Receiver {
  readonly stream: Duplex;
  readonly #sink: Sink;
  #rest: Uint8Array;

  constructor(stream: Duplex, received: Uint8Array, sink: Sink) {
    this.stream = stream;
    this.#sink = sink;
    this.#rest = received;
    stream.on('data', (chunk: Buffer) => {
      this.#rest = this.#rest.byteLength === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
      this.#deliver();
    });
    stream.pause();
  }

  resume(): void {
    if (this.#deliver()) this.stream.resume();
  }

  #deliver(): boolean {
    const { rest, more } = deliver(this.#rest, this.#sink);
    this.#rest = rest;
    if (!more) this.stream.pause();
    return more;
  }
}

/** The part of Node's own stream handles that is used here. */
interface Handle {
  reading: boolean;
  readStop(): unknown;
  useUserBuffer(buffer: Uint8Array): unknown;
}

function handleOf(socket: Socket): Handle | undefined {
  const handle: unknown = Reflect.get(socket, '_handle');
  return isHandle(handle) ? handle : undefined;
}

const isHandle = (value: unknown): value is Handle =>
  typeof value === 'object' &&
  value !== null &&
  'reading' in value &&
  'readStop' in value &&
  typeof value.readStop === 'function' &&
  'useUserBuffer' in value &&
  typeof value.useUserBuffer === 'function';

/** Node asks for the next target as soon as it has told of a piece, also if it then pauses. */
class SocketReceiver implements Receiver {
  readonly stream: Socket;

  constructor(accepted: Socket, handle: Handle, sink: Sink) {
    handle.readStop();
    handle.reading = false;
    const options = {
      handle,
      allowHalfOpen: true,
      manualStart: true,
      onread: {
        buffer: () => sink.target(),
        callback: (length: number) => sink.received(length),
      },
    };
    // `handle` is what the types do not know of.
    this.stream = new Socket(options as ConstructorParameters<typeof Socket>[0]);
    // The accepted socket stays as what its server counts.
    Reflect.set(accepted, '_handle', null);
    this.stream.once('close', () => accepted.destroy());
    accepted.once('close', () => this.stream.destroy());
    this.stream.on('error', () => undefined);
  }

  resume(): void {
    this.stream.resume();
  }
}
