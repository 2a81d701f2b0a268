/** One client, from the greeting to the end. */
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { ByteReader } from './byte-reader.js';
import type { ExportCatalog } from './export.js';
import { type Agreement, greet, Negotiation } from './negotiation.js';
import type { TlsUpgrade } from './tls.js';
import { Transmission, type TransmissionHost } from './transmission.js';

export interface ConnectionHost extends TransmissionHost {
  readonly catalog: ExportCatalog;
  readonly tls: TlsUpgrade | undefined;
}

export class Connection {
  readonly #host: ConnectionHost;
  readonly #socket: Socket;
  /** The socket, or TLS over it. */
  #stream: Duplex;
  #transmission: Transmission | undefined;
  /** Resolves when it is over and everything is given back. Never rejects. */
  readonly ended: Promise<void>;

  constructor(socket: Socket, host: ConnectionHost) {
    this.#socket = socket;
    this.#stream = socket;
    this.#host = host;
    // A peer that goes away is no news; `close` follows.
    socket.on('error', () => undefined);
    socket.setNoDelay(true);
    this.ended = this.#run();
  }

  get negotiating(): boolean {
    return this.#transmission === undefined;
  }

  /** Finishes what is under way, then closes. */
  finish(): void {
    if (this.#transmission === undefined) this.#socket.destroy();
    else this.#transmission.finish();
  }

  /** Closes at once. */
  destroy(): void {
    this.#socket.destroy();
  }

  async #run(): Promise<void> {
    const { clock, limits, figures, onError } = this.#host;
    const cancel = clock.after(limits.handshakeMs, () => {
      figures.rejected++;
      this.destroy();
    });
    let agreement: Agreement | undefined;
    try {
      const reader = new ByteReader(this.#stream);
      const negotiated = await this.#negotiate(reader);
      cancel();
      if (negotiated === undefined) return;
      agreement = negotiated.agreement;
      if (this.#stream.destroyed) return;
      this.#transmission = new Transmission(this.#stream, agreement, this.#host, negotiated.rest);
      this.#stream = this.#transmission.stream;
      await this.#transmission.ended;
    } catch (error) {
      onError(error);
    } finally {
      cancel();
      agreement?.export.release();
      this.#hangUp();
    }
  }

  async #negotiate(first: ByteReader): Promise<{ agreement: Agreement; rest: Buffer } | undefined> {
    const { catalog, limits, tls } = this.#host;
    let reader = first;
    const send = (bytes: Buffer) => void (this.#stream.destroyed || this.#stream.write(bytes));
    const clientFlags = await greet(reader, send);
    if (clientFlags === undefined) return undefined;
    for (let overTls = false; ; ) {
      const outcome = await new Negotiation(reader, {
        catalog,
        needsTls: tls !== undefined && !overTls,
        offersTls: tls !== undefined,
        overTls,
        clientFlags,
        optionBytes: limits.optionBytes,
        send,
        drained: () => drained(this.#stream),
      }).run();
      if (outcome === 'close') return undefined;
      const rest = reader.detach();
      if (outcome !== 'tls') return { agreement: outcome, rest };
      // What came before TLS must not count as said under its protection.
      if (rest.byteLength > 0 || tls === undefined) return undefined;
      this.#stream = await tls.upgrade(this.#socket, limits.handshakeMs);
      this.#stream.on('error', () => undefined);
      reader = new ByteReader(this.#stream);
      overTls = true;
    }
  }

  /** What was sent still arrives; then the connection is closed whether the peer likes it or not. */
  #hangUp(): void {
    if (this.#stream.destroyed) {
      this.destroy();
      return;
    }
    const { clock, limits } = this.#host;
    const cancel = clock.after(limits.stallMs, () => this.destroy());
    this.#socket.once('close', cancel);
    this.#stream.resume();
    this.#stream.end(() => this.destroy());
  }
}

function drained(stream: Duplex): Promise<boolean> {
  if (!stream.writableNeedDrain || stream.destroyed) return Promise.resolve(!stream.destroyed);
  return new Promise((resolve) => {
    const done = () => {
      stream.off('drain', done);
      stream.off('close', done);
      resolve(!stream.destroyed);
    };
    stream.on('drain', done);
    stream.on('close', done);
  });
}
