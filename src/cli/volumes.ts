/**
 * Volumes that a command names: from a path to an open `Volume`, and its clean end.
 *
 * Commands that only read open for reading, so several may run at once; the others have the volume to themselves.
 */
import { lstat, realpath, stat } from 'node:fs/promises';
import {
  DirectoryStore,
  FileDevice,
  looksLikeUri,
  NbdDevice,
  type Snapshot,
  Volume,
  VolumeChangedError,
} from '../index.js';
import type { CommonOptions, WritingOptions } from './command.js';
import { UsageError } from './failure.js';
import { findSnapshot } from './ids.js';
import type { Session } from './session.js';

/** @throws VolsnapError as `NbdDevice.open` for a URI, else as `FileDevice.open` */
export async function openDevice(volume: string, writable: boolean): Promise<FileDevice | NbdDevice> {
  if (looksLikeUri(volume)) return NbdDevice.open(volume, { writable });
  return FileDevice.open(await withoutLink(volume), { writable });
}

/** The default store lies beside the volume itself, whatever link leads there. */
async function withoutLink(path: string): Promise<string> {
  try {
    return (await lstat(path)).isSymbolicLink() ? await realpath(path) : path;
  } catch {
    return path; // Opening it says what is wrong.
  }
}

/** The store that `--store` names; without it the volume's own is looked for. */
export const storeOf = ({ store }: CommonOptions): { readonly store?: DirectoryStore } =>
  store === undefined ? {} : { store: new DirectoryStore(store) };

/** Runs `body` on the volume, open for reading. */
export async function readVolume<T>(
  session: Session,
  path: string,
  options: CommonOptions,
  body: (volume: Volume) => Promise<T>,
): Promise<T> {
  const device = await openDevice(path, false);
  const volume = await Volume.open(device, { ...storeOf(options), readOnly: true });
  return useVolume(volume, () => {
    tellRecovery(session, volume);
    return body(volume);
  });
}

/** Runs `body` on the volume, open for reading and writing. What happens to snapshots meanwhile is told. */
export async function changeVolume<T>(
  session: Session,
  path: string,
  options: WritingOptions,
  body: (volume: Volume) => Promise<T>,
): Promise<T> {
  const volume = await openForChange(session, path, options, 'refuse');
  return useVolume(volume, () => {
    tellRecovery(session, volume);
    return body(volume);
  });
}

/** Opens the volume for writing, which puts right what can be, without its damaged snapshots; then runs `body`. */
export async function repairVolume<T>(
  session: Session,
  path: string,
  options: WritingOptions,
  body: (volume: Volume) => Promise<T>,
): Promise<T> {
  const volume = await openForChange(session, path, options, 'drop');
  return useVolume(volume, () => body(volume));
}

async function openForChange(
  session: Session,
  path: string,
  options: WritingOptions,
  onDamaged: 'refuse' | 'drop',
): Promise<Volume> {
  const device = await openDevice(path, true);
  const volume = await Volume.open(device, {
    ...storeOf(options),
    readOnly: false,
    onVolumeChanged: options.changed ?? 'refuse',
    onDamaged,
  }).catch((error: unknown) => {
    if (!(error instanceof VolumeChangedError)) throw error;
    throw new VolumeChangedError(`${error.message} (--changed keep, or --changed invalidate)`, {
      cause: error,
    });
  });
  volume.on('deleted', ({ id, reason }) => {
    if (reason === 'space') session.notes.warn(`snapshot ${id} was deleted to make room for newer copies`);
    if (reason === 'copy-failed')
      session.notes.warn(`snapshot ${id} was given up: its copies could not be kept`);
  });
  volume.on('backgroundFailure', ({ id, what, error }) => {
    session.notes.warn(`snapshot ${id}: ${what} failed: ${error instanceof Error ? error.message : error}`);
  });
  return volume;
}

async function useVolume<T>(volume: Volume, body: () => Promise<T>): Promise<T> {
  let result: T;
  try {
    result = await body();
  } catch (error) {
    await volume.close().catch(() => undefined); // The first error is the one to tell.
    throw error;
  }
  await volume.close();
  return result;
}

function tellRecovery({ notes }: Session, { recovery, name }: Volume): void {
  for (const warning of recovery.warnings) notes.warn(warning);
  const { droppedCopies, droppedSnapshots } = recovery;
  for (const { id, reason } of droppedSnapshots) notes.warn(`snapshot ${id} was given up (${reason})`);
  if (droppedCopies > 0) {
    notes.warn(
      `${name} was not closed properly; ${droppedCopies} unfinished ${droppedCopies === 1 ? 'copy was' : 'copies were'} left out, their blocks are still in the volume`,
    );
  }
}

/** A volume, or a snapshot of it. */
export interface Source {
  readonly path: string;
  readonly id: string | undefined;
}

/**
 * Takes `VOLUME@ID` apart. A file that has the whole text as its name is the volume. In a URI the `@` before a host
 * belongs to a user, and one in the name of an export is written %40.
 */
export async function parseSource(text: string): Promise<Source> {
  const at = text.lastIndexOf('@');
  const authority = /^[a-z][a-z0-9+.-]*:\/\/[^/?]*/i.exec(text)?.[0].length ?? 0;
  if (at <= 0 || at < authority || (await exists(text))) return { path: text, id: undefined };
  const id = text.slice(at + 1);
  if (id === '') throw new UsageError(`${text}: an id, or the beginning of one, follows the @`);
  return { path: text.slice(0, at), id };
}

/** What `parseSource` found, in the open volume. */
export const sourceIn = (volume: Volume, { id }: Source): Volume | Snapshot =>
  id === undefined ? volume : findSnapshot(volume, id);

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch {
    return false;
  }
}
