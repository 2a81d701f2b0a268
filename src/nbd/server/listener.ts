/** Listening sockets: private ones of the Unix domain, TCP ones. */
import { chmod, unlink } from 'node:fs/promises';
import { connect, createServer, isIP, type Server, type Socket } from 'node:net';
import { DeviceError, InUseError } from '../../errors.js';

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

export const nameOf = (address: NbdAddress): string =>
  'path' in address ? address.path : `${address.host}:${address.port}`;

export const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));

/**
 * Listens; a socket that a killed process left behind is replaced.
 * @throws InUseError, DeviceError
 */
export async function listen(address: NbdAddress, accept: (socket: Socket) => void): Promise<Server> {
  try {
    return await tryListen(address, accept);
  } catch (error) {
    if (!isAddressInUse(error)) throw failed(address, error);
    if (!('path' in address) || (await isAnswered(address.path))) {
      throw new InUseError(`${nameOf(address)} is in use by another server`, { cause: error });
    }
    await unlink(address.path);
  }
  try {
    return await tryListen(address, accept);
  } catch (error) {
    throw failed(address, error);
  }
}

const failed = (address: NbdAddress, cause: unknown): DeviceError =>
  new DeviceError(`cannot listen on ${nameOf(address)}: ${cause instanceof Error ? cause.message : cause}`, {
    cause,
  });

const isAddressInUse = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && error.code === 'EADDRINUSE';

async function tryListen(address: NbdAddress, accept: (socket: Socket) => void): Promise<Server> {
  // A client may close its half and still wait for answers.
  const server = createServer({ allowHalfOpen: true }, accept);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    if ('path' in address) withMask(0o177, () => server.listen(address.path, resolve));
    else server.listen(address.port, address.host, resolve);
  });
  if ('path' in address) await chmod(address.path, 0o600);
  return server;
}

/** A socket must never be there for others, not even for a moment. */
function withMask(mask: number, action: () => void): void {
  const before = process.umask(mask);
  try {
    action();
  } finally {
    process.umask(before);
  }
}

/** Does a process accept connections there? The file of a socket outlives its owner. */
function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error) => resolve(!('code' in error) || error.code !== 'ECONNREFUSED'));
  });
}
