/**
 * An NBD server.
 *
 *     const server = new NbdServer(catalog);
 *     await server.listen({ path: '/run/disk.sock' });
 *
 * Shared state: the set of connections, changed between awaits only.
 */
import type { Socket } from 'node:net';
import { BufferPool } from '../../device/buffer-pool.js';
import { type Environment, systemEnvironment } from '../../environment.js';
import { ClosedError, InvalidArgumentError } from '../../errors.js';
import { Connection, type ConnectionHost } from './connection.js';
import type { ExportCatalog } from './export.js';
import { NbdFigures } from './figures.js';
import { DEFAULT_LIMITS, Memory, type NbdLimits } from './limits.js';
import { isLoopback, Listener, type NbdAddress } from './listener.js';
import { type NbdTls, TlsUpgrade } from './tls.js';

export interface NbdServerOptions {
  readonly limits?: Partial<NbdLimits>;
  /** Then nothing is said to a client before TLS. */
  readonly tls?: NbdTls;
  readonly environment?: Environment;
  /** Told of errors that are not a client's fault; default: nobody. */
  readonly onError?: (error: unknown) => void;
}

export type { NbdAddress } from './listener.js';

/** Buffers kept for the next requests, in bytes. */
const KEPT_BUFFERS = 64 * 1024 * 1024;

export class NbdServer {
  readonly #host: ConnectionHost;
  readonly #connections = new Set<Connection>();
  readonly #listeners: Listener[] = [];
  #closed = false;

  constructor(catalog: ExportCatalog, options: NbdServerOptions = {}) {
    const { tls, environment = systemEnvironment, onError = () => undefined } = options;
    const limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#host = {
      catalog,
      limits,
      memory: new Memory(limits, environment.clock),
      buffers: new BufferPool(KEPT_BUFFERS),
      figures: new NbdFigures(),
      clock: environment.clock,
      tls: tls === undefined ? undefined : new TlsUpgrade(tls),
      onError,
    };
  }

  get figures(): Readonly<NbdFigures> {
    return this.#host.figures;
  }

  /** Bytes of requests and of answers not yet sent. */
  get memoryBytes(): number {
    return this.#host.memory.usedBytes;
  }

  /**
   * Accepts clients there until `close`; may be called for several addresses.
   * @returns the address, with the port that was chosen
   * @throws InvalidArgumentError for TCP without TLS or a path that is no place for a socket, InUseError, DeviceError if the address cannot be had
   */
  async listen(address: NbdAddress): Promise<NbdAddress> {
    if (this.#closed) throw new ClosedError('the NBD server is closed');
    if (!('path' in address)) this.#checkPlain(address);
    const listener = await Listener.open(address, (socket) => this.accept(socket), this.#host.onError);
    this.#listeners.push(listener);
    return listener.address;
  }

  /** Serves a client whose connection came from elsewhere. */
  accept(socket: Socket): void {
    const { figures, limits } = this.#host;
    figures.accepted++;
    if (this.#closed || !this.#makeRoom(limits.connections)) {
      figures.rejected++;
      socket.on('error', () => undefined);
      socket.destroy();
      return;
    }
    const connection = new Connection(socket, this.#host);
    this.#connections.add(connection);
    figures.connections++;
    void connection.ended.then(() => {
      this.#connections.delete(connection);
      figures.connections--;
    });
  }

  /** Lets requests under way finish, answers them, then closes all connections. May be called repeatedly. */
  async close(): Promise<void> {
    this.#closed = true;
    const { clock, limits } = this.#host;
    const stopped = this.#listeners.splice(0).map((listener) => listener.close());
    const ended = [...this.#connections].map((connection) => {
      connection.finish();
      return connection.ended;
    });
    const cancel = clock.after(limits.closeMs, () => {
      for (const connection of this.#connections) connection.destroy();
    });
    await Promise.all(ended);
    await Promise.all(stopped);
    cancel();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** A client that has yet to say what it wants gives way to a new one. */
  #makeRoom(most: number): boolean {
    if (this.#connections.size < most) return true;
    for (const connection of this.#connections) {
      if (!connection.negotiating) continue;
      this.#connections.delete(connection);
      this.#host.figures.rejected++;
      connection.destroy();
      return true;
    }
    return false;
  }

  /** @throws InvalidArgumentError */
  #checkPlain({ host, port, insecure = false }: Exclude<NbdAddress, { path: string }>): void {
    if (this.#host.tls !== undefined) return;
    if (!insecure) {
      const others = isLoopback(host)
        ? 'everybody on this machine: give TLS certificates or keys, use a Unix socket, or say that this is meant (insecure)'
        : 'others: give TLS certificates or keys, or use a Unix socket';
      throw new InvalidArgumentError(`${host}:${port} can be reached by ${others}`);
    }
    if (!isLoopback(host)) {
      throw new InvalidArgumentError(
        `without TLS only loopback addresses are served, and ${host} is none: use 127.0.0.1, ::1, or TLS`,
      );
    }
  }
}
