/**
 * A directory of the host file system.
 *
 * Its files hold pieces of a protected volume, so nobody may read them who may not read the volume. `create` gives the
 * directory the volume's group and group permissions and nothing to others; the files take theirs from the
 * directory, which is all that `open` knows. Where the group cannot be had, the owner alone gets in.
 *
 * Left out: access control lists, which Node.js cannot read. A volume file that has one shows its mask as its group
 * permissions; whoever uses lists sets them on the directory too.
 */
import { constants, type Stats } from 'node:fs';
import { mkdir, readdir, stat, unlink } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { DeviceError, InvalidArgumentError } from '../errors.js';
import { Descriptor } from './descriptor.js';
import { FileDevice } from './file-device.js';
import { checkFileName } from './file-name.js';
import type { Folder } from './folder.js';
import { codeOf, explained, systemError } from './system-error.js';

export interface HostFolderOptions {
  /**
   * Path of the volume's file, whose group and group permissions the folder takes. By default, and where there is no
   * such file, the owner alone gets in.
   */
  readonly modeLike?: string;
}

const OWNER_ALL = 0o700;
const OWNER_READ_WRITE = 0o600;
const GROUP_READ_WRITE = 0o060;
const GROUP_ALL = 0o070;
const GROUP_SEARCH = 0o010;
const OTHERS_ALL = 0o007;

/** What members of a group, and nobody but them and the owner, may do. */
interface GroupAccess {
  /** Group id. */
  readonly group: number;
  /** Within 0o060. */
  readonly bits: number;
}

export class HostFolder implements Folder {
  /** The directory's path. */
  readonly name: string;
  readonly #access: GroupAccess;

  private constructor(path: string, access: GroupAccess) {
    this.name = path;
    this.#access = access;
  }

  /**
   * Makes the directory, durably; its parent must exist. A directory that is there already, as after an interrupted
   * attempt, is taken if it is this user's and lets nobody in who should stay out; its permissions stay as they are.
   * @throws DeviceError if it cannot be made or taken
   * @throws NotFoundError if the parent is not there
   */
  static async create(path: string, options: HostFolderOptions = {}): Promise<HostFolder> {
    const access = await accessTo(options.modeLike);
    await explained(`create the directory ${path}`, async () => {
      if (await makeDirectory(path)) {
        await withDirectory(path, async (directory) => {
          await grant(directory, access, OWNER_ALL, GROUP_SEARCH);
          await directory.sync();
        });
      } else {
        checkTakeable(path, await stat(path), access);
      }
      await withDirectory(dirname(resolve(path)), (parent) => parent.sync());
    });
    return HostFolder.open(path);
  }

  /**
   * Opens an existing directory.
   * @throws NotFoundError if there is none
   * @throws InvalidArgumentError if it is something else
   */
  static async open(path: string): Promise<HostFolder> {
    const found = await explained(`open the directory ${path}`, () => stat(path));
    if (!found.isDirectory())
      throw new InvalidArgumentError(`${path} is not a directory: name the store's directory`);
    // `create` never lets others in. Who did has set no permissions to go by, so the files are for the owner alone.
    const isOurs = (found.mode & OTHERS_ALL) === 0;
    return new HostFolder(path, { group: found.gid, bits: isOurs ? found.mode & GROUP_READ_WRITE : 0 });
  }

  async list(): Promise<string[]> {
    const entries = await explained(`list ${this.name}`, () => readdir(this.name, { withFileTypes: true }));
    return entries.filter((entry) => entry.isFile()).map((entry) => entry.name);
  }

  async create(name: string): Promise<FileDevice> {
    const path = this.#pathOf(name);
    return explained(`create ${path}`, async () => {
      const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL;
      const file = await Descriptor.open(path, flags, OWNER_READ_WRITE);
      try {
        await grant(file, this.#access, OWNER_READ_WRITE, 0);
        return FileDevice.ofNew(path, file);
      } catch (error) {
        await file.close().catch(() => undefined); // The first error is the one to tell.
        throw error;
      }
    });
  }

  /** Taking a lock costs two milliseconds, so only those files have one that are asked for with it. */
  async open(name: string, options: { writable: boolean; lock?: boolean }): Promise<FileDevice> {
    const { writable, lock = false } = options;
    return FileDevice.open(this.#pathOf(name), { writable, exclusive: lock });
  }

  async remove(name: string): Promise<void> {
    const path = this.#pathOf(name);
    await explained(`remove ${path}`, () => unlink(path));
  }

  async sync(): Promise<void> {
    await explained(`flush the directory ${this.name}`, () =>
      withDirectory(this.name, (directory) => directory.sync()),
    );
  }

  #pathOf(name: string): string {
    checkFileName(this.name, name);
    return join(this.name, name);
  }
}

/** What the group of the volume's file may do. A volume that is no file here (see `modeLike`) has none. */
async function accessTo(volume: string | undefined): Promise<GroupAccess> {
  if (volume === undefined) return { group: 0, bits: 0 };
  try {
    const { gid, mode } = await stat(volume);
    return { group: gid, bits: mode & GROUP_READ_WRITE };
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return { group: 0, bits: 0 };
    throw systemError(`look at the permissions of ${volume}`, error);
  }
}

/** Whether it had to be made. */
async function makeDirectory(path: string): Promise<boolean> {
  try {
    await mkdir(path, { mode: OWNER_ALL });
    return true;
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false;
    throw error;
  }
}

/** @throws DeviceError if an existing directory would show its files to more people than `access` does */
function checkTakeable(path: string, found: Stats, access: GroupAccess): void {
  const refuse = (why: string) =>
    new DeviceError(
      `cannot use ${path}: ${why}; name a directory that does not exist yet, or: chmod 700 ${path}`,
    );
  if (!found.isDirectory()) throw refuse('it is not a directory');
  if (found.uid !== process.geteuid?.()) throw refuse('it belongs to another user');
  const allowed = found.gid === access.group ? access.bits | (access.bits === 0 ? 0 : GROUP_SEARCH) : 0;
  if ((found.mode & (GROUP_ALL | OTHERS_ALL) & ~allowed) !== 0) {
    throw refuse('it lets in users who may not read the volume');
  }
}

/** Gives a group its share of a new file, which only the owner can open so far; `search` goes with any share. */
async function grant(file: Descriptor, access: GroupAccess, owner: number, search: number): Promise<void> {
  if (access.bits === 0) return;
  const { gid } = await file.stat();
  if (gid !== BigInt(access.group)) {
    try {
      await file.chgrp(access.group);
    } catch {
      return; // Not a member of that group: the permissions would go to another one, so nobody gets them.
    }
  }
  // Not left to the mode at creation: the umask would take its part of that.
  await file.chmod(owner | access.bits | search);
}

async function withDirectory(path: string, action: (directory: Descriptor) => Promise<void>): Promise<void> {
  const directory = await Descriptor.open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await action(directory);
  } finally {
    await directory.close();
  }
}
