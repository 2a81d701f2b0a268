/**
 * The image that an incremental export is read through: that of the older snapshot.
 *
 * The wrong one would give wrong bytes without a sign, so it is looked at: every export says in its header which
 * snapshot it holds. That is also how it is found when nobody names it.
 */
import type { Stats } from 'node:fs';
import { open, readdir, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import {
  decodeQcow2Header,
  InvalidArgumentError,
  isQcow2,
  NotFoundError,
  type Qcow2Header,
  SECTOR_SIZE,
  type Snapshot,
  VolsnapError,
} from '../index.js';
import { explained, UsageError } from './failure.js';

export type BackingFormat = 'qcow2' | 'raw';

/** What an image is asked to name, by `--backing` and `--backing-format`. */
export interface BackingChoice {
  readonly backing?: string;
  readonly backingFormat?: BackingFormat;
}

export interface Backing {
  /** As it is recorded. */
  readonly name: string;
  readonly format: BackingFormat;
}

/** Enough of a file for its header, also where other programs have added to it. */
const HEAD_SIZE = 65_536;
const SUFFIX = '.qcow2';

/**
 * @param target the image to be made
 * @returns `undefined` if none was named and none is found
 * @throws UsageError, NotFoundError, InvalidArgumentError (it cannot be the right one, or several may be), DeviceError
 */
export async function backingFor(
  target: string,
  since: Snapshot,
  { backing, backingFormat }: BackingChoice,
): Promise<Backing | undefined> {
  if (backing === undefined) {
    const found = await findBeside(target, since);
    // A copy of the older image elsewhere may be meant to take the place of one that is found.
    if (found === undefined && (await holds(target, since))) refuseReplacing(target, target);
    if (found === undefined) return undefined;
    await checkChain(target, found);
    return { name: await nameFor(target, found), format: 'qcow2' };
  }
  const stats = await lookAt(backing);
  if (stats === undefined)
    throw new NotFoundError(`there is no ${backing}; --backing names an existing image`);
  if (!stats.isFile() && !stats.isBlockDevice())
    throw new InvalidArgumentError(`${backing} is neither a file nor a block device: name an image`);
  await checkChain(target, backing);
  const format = backingFormat ?? 'qcow2';
  if (format === 'qcow2') checkHeader(backing, await headerOf(backing), since);
  else if (stats.isFile() && stats.size !== since.size) {
    throw new InvalidArgumentError(
      `${backing} has ${stats.size} bytes, but snapshot ${since.id} has ${since.size}`,
    );
  }
  return { name: await nameFor(target, backing), format };
}

/**
 * The image at `target` must not take the place of one that it is read through, at whatever depth: what only that one has
 * would be lost. Images that cannot be read, or are neither file nor block device here, end the search.
 * @throws InvalidArgumentError
 */
async function checkChain(target: string, backing: string): Promise<void> {
  const own = await lookAt(target);
  if (own === undefined) return;
  const seen = new Set<number>();
  for (let path: string | undefined = backing; path !== undefined; ) {
    const stats = await lookAt(path);
    if (stats === undefined || seen.has(stats.ino)) return;
    if (!stats.isFile() && !stats.isBlockDevice()) return;
    if (stats.ino === own.ino && stats.dev === own.dev) refuseReplacing(target, path);
    seen.add(stats.ino);
    const name: string | undefined = (await headerOf(path).catch(() => undefined))?.backing?.name;
    path = name === undefined ? undefined : resolve(dirname(path), name);
  }
}

function refuseReplacing(target: string, backing: string): never {
  throw new InvalidArgumentError(
    `${backing} would be replaced by the image that is read through it: name another file than ${target}`,
  );
}

/** Is it an image of `since`? What cannot be read is not. */
async function holds(path: string, since: Snapshot): Promise<boolean> {
  const header = await headerOf(path).catch(() => undefined);
  return header?.origin?.snapshotId === since.id && header.size === diskSizeOf(since);
}

/** @throws InvalidArgumentError unless the image can be that of `since` */
function checkHeader(path: string, header: Qcow2Header | undefined, since: Snapshot): void {
  if (header === undefined) {
    throw new UsageError(`${path} is no qcow2 image; if it is a raw one, say: --backing-format raw`);
  }
  const held = header.origin?.snapshotId;
  if (held !== undefined && held !== since.id) {
    throw new InvalidArgumentError(`${path} holds snapshot ${held}, not ${since.id}`);
  }
  if (header.size !== diskSizeOf(since)) {
    throw new InvalidArgumentError(
      `${path} is of a disk of ${header.size} bytes, but snapshot ${since.id} has ${since.size}`,
    );
  }
}

const diskSizeOf = ({ size }: Snapshot): number => Math.ceil(size / SECTOR_SIZE) * SECTOR_SIZE;

/** The one image in the folder of `target` that holds `since`. */
async function findBeside(target: string, since: Snapshot): Promise<string | undefined> {
  const folder = dirname(target);
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const found: string[] = [];
  for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    if (!entry.isFile() || !entry.name.endsWith(SUFFIX) || entry.name === basename(target)) continue;
    const path = join(folder, entry.name);
    if (await holds(path, since)) found.push(path);
  }
  if (found.length > 1) {
    throw new InvalidArgumentError(
      `${found.join(' and ')} hold snapshot ${since.id}; say which one with --backing`,
    );
  }
  return found[0];
}

/** @returns `undefined` if the file is no qcow2 image */
async function headerOf(path: string): Promise<Qcow2Header | undefined> {
  const head = await explained(`read ${path}`, async () => {
    const file = await open(path, 'r');
    try {
      const buffer = Buffer.alloc(HEAD_SIZE);
      const { bytesRead } = await file.read(buffer, 0, HEAD_SIZE, 0);
      return buffer.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  });
  if (!isQcow2(head)) return undefined;
  try {
    return decodeQcow2Header(head);
  } catch (cause) {
    if (!(cause instanceof VolsnapError)) throw cause;
    throw new InvalidArgumentError(`${path}: ${cause.message}`, { cause });
  }
}

/**
 * What the image at `target` calls the one at `backing`: by its name alone if both lie in one folder, so that the
 * folder can be moved; otherwise by its whole path.
 */
async function nameFor(target: string, backing: string): Promise<string> {
  const place = await realpath(target).catch(() => target);
  const [here, there] = await explained(`look at the folder of ${target}`, () =>
    Promise.all([place, backing].map((path) => realpath(dirname(path)))),
  );
  if (here !== there) return resolve(backing);
  const name = basename(backing);
  // To QEMU, what stands before a colon is a protocol.
  return name.includes(':') ? `./${name}` : name;
}

const lookAt = (path: string): Promise<Stats | undefined> => stat(path).catch(() => undefined);
