/** Where a server accepts clients: a private socket of the Unix domain, or a TCP port. */
import { createServer, isIP, type Server, type Socket } from 'node:net';
import { resolve } from 'node:path';
import { DeviceError, InUseError, InvalidArgumentError } from '../../errors.js';
import { checkFree, SOCKET_PATH_MAX, SocketFile } from './socket-file.js';

export type NbdAddress =
  | {
      /** A Unix socket, which only its owner can connect to. */
      readonly path: string;
    }
  | {
      readonly host: string;
      /** 0: any free one. */
      readonly port: number;
      /** Allows TCP without TLS; on loopback only. */
      readonly insecure?: boolean;
    };

export const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));

export class Listener {
  /** With the port that was chosen. */
  readonly address: NbdAddress;
  readonly #server: Server;
  readonly #file: SocketFile | undefined;

  private constructor(address: NbdAddress, server: Server, file: SocketFile | undefined) {
    this.address = address;
    this.#server = server;
    this.#file = file;
  }

  /**
   * Listens; a socket that a killed process left behind is replaced.
   * @param onError told of clients that could not be accepted; the others go on
   * @throws InvalidArgumentError (no place for a socket), InUseError, DeviceError
   */
  static async open(
    address: NbdAddress,
    accept: (socket: Socket) => void,
    onError: (error: unknown) => void,
  ): Promise<Listener> {
    // A client may close its half and still wait for answers.
    const server = createServer({ allowHalfOpen: true }, accept);
    if ('path' in address) {
      const path = resolve(address.path);
      if (Buffer.byteLength(path) > SOCKET_PATH_MAX) {
        throw new InvalidArgumentError(
          `${path}: paths of sockets have at most ${SOCKET_PATH_MAX} bytes; choose a shorter one`,
        );
      }
      await checkFree(path, 'choose another path for the socket');
      return new Listener({ path }, server, await SocketFile.publish(server, path, onError));
    }
    await listenOnPort(server, address.host, address.port);
    server.on('error', onError);
    const bound = server.address();
    const port = typeof bound === 'object' && bound !== null ? bound.port : address.port;
    return new Listener({ ...address, port }, server, undefined);
  }

  /** Accepts nobody any more. Resolves when all who were accepted are gone. */
  async close(): Promise<void> {
    const closed = new Promise<void>((done) => {
      this.#server.close(() => done());
    });
    await this.#file?.remove();
    await closed;
  }
}

function listenOnPort(server: Server, host: string, port: number): Promise<void> {
  return new Promise((listening, reject) => {
    const failed = (cause: NodeJS.ErrnoException) => {
      const name = `${host}:${port}`;
      reject(
        cause.code === 'EADDRINUSE'
          ? new InUseError(`${name} is in use by another server`, { cause })
          : new DeviceError(`cannot listen on ${name}: ${cause.message}`, { cause }),
      );
    };
    server.once('error', failed);
    server.listen(port, host, () => {
      server.off('error', failed);
      listening();
    });
  });
}
