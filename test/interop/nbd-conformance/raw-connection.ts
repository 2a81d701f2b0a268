/** One socket to a server, bytes in and bytes out, with a deadline for every wait. */
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { Deviation } from './verdict.ts';

/** Long enough for a busy machine; a server that hangs costs this once a case, milliseconds. */
export const DEADLINE_MS = 10_000;

export interface Address {
  readonly path: string;
}

export interface Psk {
  readonly identity: string;
  readonly key: Buffer;
}

/** The server closed the connection where it should have answered. */
export class PeerClosed extends Deviation {}
/** The server said nothing in time. */
export class Late extends Deviation {}

export class RawConnection {
  #socket: Socket;
  #received: Buffer[] = [];
  #length = 0;
  #closed = false;
  /** Called whenever bytes came or the connection ended; at most one wait at a time. */
  #wake: (() => void) | undefined;
  readonly #deadlineMs: number;

  private constructor(socket: Socket, deadlineMs: number) {
    this.#socket = socket;
    this.#deadlineMs = deadlineMs;
    this.#listen(socket);
  }

  static async open(address: Address, deadlineMs = DEADLINE_MS): Promise<RawConnection> {
    const socket = connect(address);
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        socket.destroy();
        reject(new Late('the connection is not accepted in time'));
      }, deadlineMs);
      socket.once('error', (error) => {
        clearTimeout(timer);
        reject(error);
      });
      socket.once('connect', () => {
        clearTimeout(timer);
        socket.removeAllListeners('error');
        resolve();
      });
    });
    return new RawConnection(socket, deadlineMs);
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  /** Hands bytes to the kernel. A connection that ended meanwhile shows at the next `receive`. */
  async send(...parts: readonly Uint8Array[]): Promise<void> {
    const bytes = Buffer.concat(parts);
    if (this.#closed || bytes.length === 0) return;
    await this.#bounded(
      new Promise<void>((resolve) => this.#socket.write(bytes, () => resolve())),
      `the server does not take ${bytes.length} bytes`,
    );
  }

  /** Like `send`, but waits for nothing: for peers that do not care. */
  push(bytes: Uint8Array): void {
    if (!this.#closed) this.#socket.write(bytes);
  }

  /** Sends every byte as a write of its own. */
  async drip(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at++) await this.send(bytes.subarray(at, at + 1));
  }

  /** @throws {PeerClosed} @throws {Late} */
  async receive(length: number, what = `${length} bytes`): Promise<Buffer> {
    while (this.#length < length) {
      if (this.#closed) throw new PeerClosed(`connection closed; wanted ${what}, ${this.#length} bytes came`);
      await this.#more(what);
    }
    return this.#take(length);
  }

  /** Waits until the server closes; what it sent before. */
  async untilClosed(limit = 1 << 20): Promise<Buffer> {
    while (!this.#closed) {
      if (this.#length > limit) throw new Deviation(`more than ${limit} bytes instead of closing`);
      await this.#more('the connection to be closed');
    }
    return this.#take(this.#length);
  }

  /** From now on nothing is taken from the socket: the server's answers pile up. */
  stopReading(): void {
    this.#socket.pause();
  }

  resumeReading(): void {
    this.#socket.resume();
  }

  /** No more bytes from here, as a client that has gone; answers can still come. */
  end(): void {
    this.#socket.end();
  }

  destroy(): void {
    this.#closed = true;
    this.#socket.destroy();
  }

  /** Upgrades to TLS with a pre-shared key. */
  async startTls(psk: Psk): Promise<void> {
    if (this.#length > 0) throw new Deviation(`${this.#length} plain bytes where TLS begins`, 'must');
    const plain = this.#socket;
    plain.removeAllListeners();
    const secure = connectTls({
      socket: plain,
      ciphers: 'PSK+HIGH',
      maxVersion: 'TLSv1.2',
      pskCallback: () => ({ psk: psk.key, identity: psk.identity }),
      checkServerIdentity: () => undefined,
    });
    await this.#bounded(
      new Promise<void>((resolve, reject) => {
        secure.once('secureConnect', resolve);
        secure.once('error', (error) => reject(new Deviation(`no TLS handshake: ${error.message}`)));
        secure.once('close', () => reject(new PeerClosed('connection closed in the TLS handshake')));
      }),
      'the TLS handshake does not end',
    );
    secure.removeAllListeners('error');
    secure.removeAllListeners('close');
    this.#socket = secure;
    this.#listen(secure);
  }

  #listen(socket: Socket): void {
    socket.setNoDelay(true);
    socket.on('data', (bytes: Buffer) => {
      this.#received.push(bytes);
      this.#length += bytes.length;
      this.#wake?.();
    });
    // A reset is a close: what was on its way is lost, and the reader finds that out.
    socket.on('error', () => this.#end());
    socket.on('end', () => this.#end());
    socket.on('close', () => this.#end());
  }

  #end(): void {
    this.#closed = true;
    this.#wake?.();
  }

  #more(what: string): Promise<void> {
    return this.#bounded(
      new Promise<void>((resolve) => {
        this.#wake = () => {
          this.#wake = undefined;
          resolve();
        };
      }),
      `nothing comes while waiting for ${what}`,
    );
  }

  #take(length: number): Buffer {
    const all = this.#received.length === 1 ? this.#received[0] : Buffer.concat(this.#received);
    const bytes = all ?? Buffer.alloc(0);
    this.#received = bytes.length > length ? [bytes.subarray(length)] : [];
    this.#length = bytes.length - length;
    return bytes.subarray(0, length);
  }

  async #bounded<T>(wait: Promise<T>, otherwise: string): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Late(`${otherwise} for ${this.#deadlineMs / 1000} s`)),
        this.#deadlineMs,
      );
    });
    try {
      return await Promise.race([wait, late]);
    } finally {
      clearTimeout(timer);
    }
  }
}
