/**
 * Unix sockets with a place in the file system.
 *
 * A socket appears under its name when it is listened on, for its owner only, in place of whatever was there; so a
 * socket that a killed process left is replaced in one step. Whoever publishes one holds the lock of what it
 * stands for: only one process does at a time.
 *
 * The kernel takes addresses of at most 107 bytes. Where a path is longer, its folder is opened, and the socket named
 * through `/proc/self/fd/N/`.
 */
import type { Stats } from 'node:fs';
import { constants } from 'node:fs';
import { type FileHandle, lstat, open, rename, unlink } from 'node:fs/promises';
import { createConnection, type Server, type Socket } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { DeviceError, InUseError, InvalidArgumentError } from '../../errors.js';

/** Bytes of the longest path that clients can connect to directly. */
export const SOCKET_PATH_MAX = 107;
/** Of a socket that is not in place yet. */
const NEW_SUFFIX = '.new';

/** The path of `name` in an open folder, however long the path of the folder is. */
const inside = (folder: FileHandle, name: string): string => join(`/proc/self/fd/${folder.fd}`, name);

const openFolder = (path: string): Promise<FileHandle> =>
  open(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);

export class SocketFile {
  readonly path: string;
  readonly #folder: FileHandle;
  readonly #identity: Stats;

  private constructor(path: string, folder: FileHandle, identity: Stats) {
    this.path = path;
    this.#folder = folder;
    this.#identity = identity;
  }

  /**
   * Lets `server` listen at `path`.
   * @param onError told of errors of later on
   * @throws DeviceError
   */
  static async publish(server: Server, path: string, onError: (error: unknown) => void): Promise<SocketFile> {
    let folder: FileHandle | undefined;
    try {
      folder = await openFolder(path);
      const name = basename(path);
      const made = inside(folder, name + NEW_SUFFIX);
      await unlink(made).catch(ifThere);
      await listen(server, made, onError);
      await rename(made, inside(folder, name));
      return new SocketFile(path, folder, await lstat(inside(folder, name)));
    } catch (cause) {
      // What the system says names the folder by its descriptor.
      const why =
        folder === undefined ? messageOf(cause) : messageOf(cause).replace(inside(folder, ''), dirname(path));
      await folder?.close();
      server.close();
      throw new DeviceError(`cannot listen on ${path}: ${why}`, { cause });
    }
  }

  /** Takes the socket away, if it is still this one; connections stay. */
  async remove(): Promise<void> {
    try {
      const place = inside(this.#folder, basename(this.path));
      const found = await lstat(place);
      if (found.ino === this.#identity.ino && found.dev === this.#identity.dev) await unlink(place);
    } catch (error) {
      ifThere(error);
    } finally {
      await this.#folder.close();
    }
  }
}

/** The socket is never there for others, not even for a moment. */
function listen(server: Server, path: string, onError: (error: unknown) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    const before = process.umask(0o177);
    try {
      server.listen(path, () => {
        server.on('error', onError);
        server.off('error', reject);
        resolve();
      });
    } finally {
      process.umask(before);
    }
  });
}

/** Options of `net.createConnection` for what comes in. */
export interface Incoming {
  readonly buffer: Uint8Array;
  readonly callback: (count: number, buffer: Uint8Array) => boolean;
}

/** @throws what the kernel says: `ECONNREFUSED` if nobody listens there any more, `ENOENT`, `EACCES` */
export async function connectTo(path: string, incoming: Incoming): Promise<Socket> {
  const isLong = Buffer.byteLength(path) > SOCKET_PATH_MAX;
  const folder = isLong ? await openFolder(path) : undefined;
  try {
    return await new Promise<Socket>((resolve, reject) => {
      const address = folder === undefined ? path : inside(folder, basename(path));
      const socket = createConnection({ path: address, onread: incoming });
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(socket);
      });
    });
  } finally {
    await folder?.close();
  }
}

function ifThere(error: unknown): void {
  if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/**
 * @param advice what to do if somebody listens there
 * @throws InvalidArgumentError if something else than a socket is there; InUseError if somebody listens on it
 */
export async function checkFree(path: string, advice: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found === undefined) return;
  if (!found.isSocket()) throw new InvalidArgumentError(`${path} is there already, and no socket`);
  const socket = await connectTo(path, { buffer: Buffer.alloc(1), callback: () => true }).catch(
    () => undefined,
  );
  if (socket === undefined) return;
  socket.destroy();
  throw new InUseError(`${path} is another server's: ${advice}`);
}
