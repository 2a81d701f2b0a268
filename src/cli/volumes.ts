/**
 * Volumes that a command names: from a path to an open `Volume`, and its clean end.
 *
 * A volume that a process serves is reached through that process. Else commands that only read open it for reading, so several
 * may run at once, and the others have it to themselves.
 */
import { lstat, realpath } from 'node:fs/promises';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  connectToOwner,
  DirectoryStore,
  FileDevice,
  type FullReason,
  InUseError,
  type LateOptions,
  looksLikeUri,
  NbdDevice,
  type RemoteVolume,
  type Snapshot,
  Volume,
  type VolumeAccess,
  VolumeChangedError,
  type WriteMode,
} from '../index.js';
import type { CommonOptions, WritingOptions } from './command.js';
import { UsageError } from './failure.js';
import { findSnapshot } from './ids.js';
import type { Source } from './places.js';
import type { Session } from './session.js';

/**
 * Waits, in milliseconds, between attempts to open a volume that somebody has: a process that is about to serve it has it
 * before it can be reached, and one that ends has it for a moment after.
 */
const IN_USE_WAITS_MS = [50, 150, 400, 1000];

/** @throws VolsnapError as `NbdDevice.open` for a URI, else as `FileDevice.open`; the signal's reason */
export async function openDevice(
  { signal }: Session,
  volume: string,
  writable: boolean,
): Promise<FileDevice | NbdDevice> {
  if (looksLikeUri(volume)) return NbdDevice.open(volume, { writable, signal });
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

/** The volume in the process that serves it; `undefined` if none does. */
export async function reachOwner(
  { signal }: Session,
  path: string,
  { store }: CommonOptions,
): Promise<RemoteVolume | undefined> {
  return connectToOwner({ volume: await withoutLink(path), store }, signal);
}

interface Ways<Opened, T> {
  /** What to do where a process serves the volume. */
  readonly served: (volume: RemoteVolume) => Promise<T>;
  /** What to open where none does, and what to do with it. */
  readonly open: () => Promise<Opened>;
  readonly local: (opened: Opened) => Promise<T>;
}

/** Does something with a volume, wherever it is; begins anew if it meets somebody on the way in or out. */
export async function reachOrOpen<Opened, T>(
  session: Session,
  path: string,
  options: CommonOptions,
  { served, open, local }: Ways<Opened, T>,
): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    const wait = IN_USE_WAITS_MS[attempt];
    const remote = await reachOwner(session, path, options);
    if (remote !== undefined) {
      try {
        return await useVolume(remote, () => served(remote));
      } catch (error) {
        if (!remote.isRefused(error) || wait === undefined) throw error;
        continue;
      }
    }
    let opened: Opened;
    try {
      opened = await open();
    } catch (error) {
      if (!(error instanceof InUseError) || wait === undefined) throw error;
      await sleep(wait, undefined, { signal: session.signal });
      continue;
    }
    return local(opened);
  }
}

/** Opens what must not be anybody else's; waits a little for whoever has it. @throws InUseError, and what `open` throws */
export async function openWhenFree<Opened>(
  { signal }: Session,
  open: () => Promise<Opened>,
): Promise<Opened> {
  for (const wait of IN_USE_WAITS_MS) {
    try {
      return await open();
    } catch (error) {
      if (!(error instanceof InUseError)) throw error;
      await sleep(wait, undefined, { signal });
    }
  }
  return open();
}

/** Runs `body` on the volume, open for reading. */
export async function readVolume<T>(
  session: Session,
  path: string,
  options: CommonOptions,
  body: (volume: VolumeAccess) => Promise<T>,
): Promise<T> {
  const open = async () =>
    Volume.open(await openDevice(session, path, false), { ...storeOf(options), readOnly: true });
  return reachOrOpen(session, path, options, { served: body, open, local: useOpened(session, body) });
}

/** Runs `body` on the volume, open for reading and writing. What happens to snapshots meanwhile is told. */
export async function changeVolume<T>(
  session: Session,
  path: string,
  options: WritingOptions,
  body: (volume: VolumeAccess) => Promise<T>,
): Promise<T> {
  const open = () => openForChange(session, path, options, 'refuse');
  const served = (volume: RemoteVolume) => {
    tellEvents(session, volume);
    return body(volume);
  };
  return reachOrOpen(session, path, options, { served, open, local: useOpened(session, body) });
}

const useOpened =
  <T>(session: Session, body: (volume: VolumeAccess) => Promise<T>) =>
  (volume: Volume): Promise<T> =>
    useVolume(volume, () => {
      tellRecovery(session, volume);
      return body(volume);
    });

/** Opens the volume for writing. @throws as `Volume.open` */
export async function openForChange(
  session: Session,
  path: string,
  options: WritingOptions,
  onDamaged: 'refuse' | 'drop',
  writeMode: WriteMode = 'ordered',
): Promise<Volume> {
  const device = await openDevice(session, path, true);
  const volume = await Volume.open(device, {
    ...storeOf(options),
    readOnly: false,
    onVolumeChanged: options.changed ?? 'refuse',
    ...(options.shadowCopies === undefined ? {} : { shadowCopies: options.shadowCopies }),
    onDamaged,
    onProtectedWrite: options.protectedBlocks ?? 'reject',
    onUndecidedSet: options.undecided ?? 'pending',
    ...lateAreasOf(options),
    writeMode,
  }).catch((error: unknown) => {
    if (!(error instanceof VolumeChangedError)) throw error;
    throw new VolumeChangedError(`${error.message} (--changed keep, or --changed invalidate)`, {
      cause: error,
    });
  });
  tellEvents(session, volume);
  return volume;
}

const lateAreasOf = ({ lateAreas, lateMemory }: WritingOptions): { readonly lateAreas?: LateOptions } =>
  lateAreas === undefined
    ? {}
    : {
        lateAreas: {
          timeLimitMs: Math.round(lateAreas * 1000),
          ...(lateMemory === undefined ? {} : { memoryLimit: lateMemory }),
        },
      };

function tellEvents({ notes }: Session, volume: VolumeAccess): void {
  volume.on('deleted', ({ id, reason }) => {
    if (reason === 'space') notes.warn(`snapshot ${id} was deleted ${roomPhrase(volume)}`);
    if (reason === 'store-overwritten')
      notes.warn(`snapshot ${id} was given up: the volume was written where its store lay`);
    if (reason === 'copy-failed') notes.warn(`snapshot ${id} was given up: its copies could not be kept`);
    if (reason === 'late')
      notes.warn(`snapshot ${id} was given up: a diff area that it needs did not arrive in time`);
  });
  volume.on('arrived', ({ ids }) => {
    notes.warn(`diff areas have arrived: ${ids.join(', ')}; all snapshots are there`);
  });
  volume.on('overflow', ({ action, reason }) => {
    const where = FULL_PHRASES[reason];
    if (action === 'hold-writes') notes.warn(`writes wait for room for copies: ${where}`);
    if (action === 'fail-writes') notes.warn(`writes fail for lack of room for copies: ${where}`);
  });
  volume.on('spaceLow', ({ reason, secondsToFull = 0 }) => {
    if (reason === 'forecast')
      notes.warn(`room for copies runs out in about ${secondsToFull} s at the present rate`);
    else notes.warn('room for copies runs low');
  });
  volume.on('backgroundFailure', ({ id, what, error }) => {
    notes.warn(`snapshot ${id}: ${what} failed: ${error instanceof Error ? error.message : error}`);
  });
}

const FULL_PHRASES: Readonly<Record<FullReason, string>> = {
  limit: 'the limit is reached',
  'host-full': 'the file system of the snapshots is full',
  'file-too-long': 'a file of theirs would become longer than its file system, or ulimit -f, allows',
  memory: 'a diff area has not arrived, and the memory for its copies is full',
};

/** In a store of Windows there is only what it has: all shadow copies go, and make no room. */
const roomPhrase = ({ figures }: VolumeAccess): string =>
  figures.layout === 'windows'
    ? 'because there is no room to keep it right'
    : 'to make room for newer copies';

/** Runs `body`, and closes the volume. */
export async function useVolume<T>(volume: VolumeAccess, body: () => Promise<T>): Promise<T> {
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

export function tellRecovery({ notes }: Session, { recovery, name }: VolumeAccess): void {
  for (const warning of recovery.warnings) notes.warn(warning);
  const { droppedCopies, droppedSnapshots } = recovery;
  for (const { id, reason } of droppedSnapshots) notes.warn(`snapshot ${id} was given up (${reason})`);
  if (droppedCopies > 0) {
    notes.warn(
      `${name} was not closed properly; ${droppedCopies} unfinished ${droppedCopies === 1 ? 'copy was' : 'copies were'} left out, their blocks are still in the volume`,
    );
  }
}

/** @throws UsageError if one of several volumes is named twice */
export function refuseTwice(paths: readonly string[]): void {
  const twice = paths.find((path, i) => paths.some((other, j) => j < i && resolve(other) === resolve(path)));
  if (twice !== undefined) throw new UsageError(`${twice} is named twice`);
}

/** What `parseSource` found, in the open volume. */
export const sourceIn = (volume: VolumeAccess, { id }: Source): VolumeAccess | Snapshot =>
  id === undefined ? volume : findSnapshot(volume, id);
