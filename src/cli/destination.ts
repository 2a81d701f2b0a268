/**
 * The file that an export makes.
 *
 * It is written under a name of its own beside its place and renamed when it is whole and durable, so half an
 * export is never taken for a whole one, and an older file survives a failure. Who may read the volume may read it.
 * A block device is written in place.
 */
import type { Stats } from 'node:fs';
import { chmod, open, realpath, rename, stat, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { DirectoryStore, FileDevice, InvalidArgumentError } from '../index.js';
import { explained } from './failure.js';

const PERMISSIONS = 0o666;
const OWNER_ONLY = 0o600;

export interface Destination {
  /** Where to write. */
  readonly path: string;
  /** Is there no such file yet? Then it has to be made. */
  readonly isNew: boolean;
}

/**
 * Runs `fill` on a new file that becomes `path`, or on the block device there.
 * @throws InvalidArgumentError if `path` is the volume itself, lies in a store, or is nothing that can be written so
 */
export async function withDestination<T>(
  path: string,
  volume: string,
  fill: (destination: Destination) => Promise<T>,
): Promise<T> {
  // A volume behind an address is no file here.
  const [found, original] = [await statIfThere(path), await statIfThere(volume)];
  if (found !== undefined && original !== undefined && isSame(found, original)) {
    throw new InvalidArgumentError(`${path} is the volume itself; name another file`);
  }
  if (found?.isBlockDevice()) return fill({ path, isNew: false });
  if (found !== undefined && !found.isFile()) {
    throw new InvalidArgumentError(
      `${path} is neither a file nor a block device; to a pipe use: volsnap read`,
    );
  }
  const place = found === undefined ? path : await realpath(path);
  await refuseStore(path, dirname(place));
  const partial = `${place}.${process.pid}.partial`;
  const mode = found?.mode ?? (original?.isFile() ? original.mode : OWNER_ONLY);
  try {
    const result = await fill({ path: partial, isNew: true });
    await explained(`finish ${path}`, async () => {
      await chmod(partial, mode & PERMISSIONS);
      await syncPath(partial);
      await rename(partial, place);
      await syncPath(dirname(place));
    });
    return result;
  } catch (error) {
    await unlink(partial).catch(() => undefined);
    throw error;
  }
}

/** What lies in a store's folder is the store's: a file there that is replaced takes all snapshots with it. */
async function refuseStore(path: string, folder: string): Promise<void> {
  // A folder that cannot be looked at is told of where the file is made.
  const isStore = await new DirectoryStore(folder).exists().catch(() => false);
  if (isStore)
    throw new InvalidArgumentError(`${path} lies in the snapshot store ${folder}; name another file`);
}

/** Opens what `withDestination` gave, as a device of `size` bytes; a new one reads as zeros. */
export async function openDestination({ path, isNew }: Destination, size: number): Promise<FileDevice> {
  if (isNew) await createFile(path);
  const device = await FileDevice.open(path, { writable: true, exclusive: !isNew });
  try {
    if (isNew) await device.resize(size);
    else if (device.size < size) {
      throw new InvalidArgumentError(`${path} has ${device.size} bytes, the export has ${size}`);
    }
    return device;
  } catch (error) {
    await device.close();
    throw error;
  }
}

async function createFile(path: string): Promise<void> {
  await explained(`create ${path}`, async () => (await open(path, 'wx', OWNER_ONLY)).close());
}

async function syncPath(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

async function statIfThere(path: string): Promise<Stats | undefined> {
  return stat(path).catch(() => undefined);
}

const isSame = (a: Stats, b: Stats): boolean =>
  (a.dev === b.dev && a.ino === b.ino) || (a.isBlockDevice() && b.isBlockDevice() && a.rdev === b.rdev);
