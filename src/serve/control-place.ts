/**
 * Where the control socket of a served volume lies, so that whoever names the volume finds it.
 *
 * Beside a directory store's files: `STORE/control.sock`. For a store inside a volume there is no such folder, so the
 * socket lies in a folder of this user's in memory, under a name made of the device's identity.
 */
import { createHash } from 'node:crypto';
import { lstat, mkdir, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';
import { DeviceError } from '../errors.js';
import { looksLikeUri } from '../nbd/client/uri.js';
import { STORE_SUFFIX } from '../volume/open.js';

const CONTROL_SOCKET = 'control.sock';
const NBD_SOCKET = 'nbd.sock';
const OWNER_ONLY = 0o700;
const OTHERS = 0o077;

/** What is asked for by a path or a URI, and where its snapshots are if that was said. */
export interface VolumePlace {
  /** Path, links followed, or URI. */
  readonly volume: string;
  readonly store?: string | undefined;
}

/** A folder for sockets and what their names begin with. */
export interface SocketPlace {
  readonly control: string;
  /** Where NBD clients connect, unless told otherwise. */
  readonly nbd: string;
}

/** The same for every path that leads to the same file or device; `undefined` if there is none. */
export async function identityOf(volume: string): Promise<string | undefined> {
  if (looksLikeUri(volume)) return `uri ${volume}`;
  try {
    const found = await stat(volume, { bigint: true });
    return found.isBlockDevice() ? `block ${found.rdev}` : `file ${found.dev} ${found.ino}`;
  } catch {
    return undefined;
  }
}

/** In a directory store's folder. */
export function placeInStore(store: string): SocketPlace {
  return { control: join(resolve(store), CONTROL_SOCKET), nbd: join(resolve(store), NBD_SOCKET) };
}

function placeInMemory(folder: string, identity: string): SocketPlace {
  const name = createHash('sha256').update(identity).digest('hex').slice(0, 32);
  return { control: join(folder, `${name}.${CONTROL_SOCKET}`), nbd: join(folder, `${name}.${NBD_SOCKET}`) };
}

/** Folders of this user's for sockets, the best first. */
function memoryFolders(): string[] {
  const user = process.getuid?.() ?? 0;
  const { XDG_RUNTIME_DIR: runtime = '' } = process.env;
  return [
    ...(isAbsolute(runtime) ? [join(runtime, 'volsnap')] : []),
    join('/run/user', String(user), 'volsnap'),
    join('/run', `volsnap-${user}`),
    join(tmpdir(), `volsnap-${user}`),
  ];
}

/** Can nobody else have put anything there? */
async function isOwn(folder: string): Promise<boolean> {
  try {
    const found = await lstat(folder);
    return found.isDirectory() && found.uid === process.getuid?.() && (found.mode & OTHERS) === 0;
  } catch {
    return false;
  }
}

/** For a volume whose store has no folder; makes one if need be. @throws DeviceError */
export async function makePlaceInMemory(identity: string): Promise<SocketPlace> {
  const tried = memoryFolders();
  for (const folder of tried) {
    const made = await mkdir(folder, { mode: OWNER_ONLY }).then(
      () => true,
      (error: unknown) => error instanceof Error && 'code' in error && error.code === 'EEXIST',
    );
    if (made && (await isOwn(folder))) return placeInMemory(folder, identity);
  }
  throw new DeviceError(`no folder for the control socket can be had; tried ${tried.join(', ')}`);
}

/** Where the control socket of a volume may be if a process serves it. */
export async function controlSocketsOf({ volume, store }: VolumePlace): Promise<string[]> {
  if (store !== undefined) return [placeInStore(store).control];
  const beside = looksLikeUri(volume) ? [] : [placeInStore(volume + STORE_SUFFIX).control];
  const identity = await identityOf(volume);
  if (identity === undefined) return beside;
  const own: string[] = [];
  for (const folder of memoryFolders()) {
    if (await isOwn(folder)) own.push(placeInMemory(folder, identity).control);
  }
  return [...beside, ...own];
}
