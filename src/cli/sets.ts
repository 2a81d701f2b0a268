/** Snapshot sets: in the process that serves all of the volumes, or here if nobody serves any of them. */
import {
  type CreateSnapshotOptions,
  createSnapshotSet,
  InUseError,
  InvalidArgumentError,
  NotFoundError,
  RemoteVolume,
  type Volume,
  type VolumeAccess,
} from '../index.js';
import type { WritingOptions } from './command.js';
import type { Session } from './session.js';
import { snapshotRecord } from './snapshots.js';
import { openForChange, openWhenFree, reachOwner, tellRecovery } from './volumes.js';

export interface PersistenceOptions extends WritingOptions {
  readonly notPersistent?: true;
}

/** What `create` says of a member. */
export type SetMember = ReturnType<typeof snapshotRecord> & { readonly volume: string };

/** @returns the members, in the order of `paths` */
export async function createSet(
  session: Session,
  paths: readonly string[],
  options: PersistenceOptions,
  wanted: CreateSnapshotOptions,
): Promise<readonly SetMember[]> {
  const owners: (RemoteVolume | undefined)[] = [];
  try {
    for (const path of paths) owners.push(await reachOwner(session, path, options));
    const served = owners.flatMap((owner) => owner ?? []);
    const [first, ...others] = served;
    if (first === undefined) return await createHere(session, paths, options, wanted);
    const pids = new Set(served.map(({ serving }) => serving.pid));
    if (served.length < paths.length || pids.size > 1) throw new InUseError(mixed(paths, owners));
    const ids = others.flatMap(({ volumeId }) => volumeId ?? []);
    const reasons = served.map(reasonsToKeepAll);
    const set = await first.createSet(ids, wanted);
    const members: SetMember[] = [];
    for (const [i, owner] of served.entries()) {
      if (i > 0) await owner.refresh(session.signal);
      members.push(memberOf(owner, paths[i] ?? '', set.members[i]?.storeId));
    }
    warnOfReasons(session, members, reasons);
    return members;
  } finally {
    for (const owner of owners) await owner?.close();
  }
}

async function createHere(
  session: Session,
  paths: readonly string[],
  options: PersistenceOptions,
  wanted: CreateSnapshotOptions,
): Promise<readonly SetMember[]> {
  const volumes: Volume[] = [];
  try {
    for (const path of paths) {
      const volume = await openWhenFree(session, () => openForChange(session, path, options, 'refuse'));
      volumes.push(volume);
      tellRecovery(session, volume);
    }
    for (const volume of volumes) checkServed(volume, options);
    const reasons = volumes.map(reasonsToKeepAll);
    const set = await createSnapshotSet(volumes, wanted);
    const members = volumes.map((volume, i) => memberOf(volume, paths[i] ?? '', set.snapshots[i]?.storeId));
    warnOfReasons(session, members, reasons);
    return members;
  } finally {
    const closed = await Promise.allSettled(volumes.map((volume) => volume.close()));
    for (const result of closed) if (result.status === 'rejected') session.notes.warn(String(result.reason));
  }
}

/** @throws InvalidArgumentError for a snapshot that would be gone with the command */
export function checkServed(volume: VolumeAccess, { notPersistent }: PersistenceOptions): void {
  if (notPersistent === true && !(volume instanceof RemoteVolume))
    throw new InvalidArgumentError(
      '--not-persistent is for a volume that is being served (volsnap serve); here the snapshot would be gone at once',
    );
}

/** Collects why nothing is left out of snapshots of the volume as unused, by their ids. */
export function reasonsToKeepAll(volume: VolumeAccess): ReadonlyMap<string, string> {
  const reasons = new Map<string, string>();
  volume.on('unusedSpaceUnknown', ({ id, reason }) => reasons.set(id, reason));
  return reasons;
}

function warnOfReasons(
  { notes }: Session,
  members: readonly SetMember[],
  reasons: readonly ReadonlyMap<string, string>[],
): void {
  for (const [i, { id, volume }] of members.entries()) {
    const reason = reasons[i]?.get(id);
    if (reason !== undefined) notes.warn(`nothing is left out of the snapshot of ${volume}: ${reason}`);
  }
}

function memberOf({ snapshots }: VolumeAccess, volume: string, storeId: string | undefined): SetMember {
  const snapshot = snapshots.find((each) => each.storeId === storeId);
  if (snapshot === undefined)
    throw new NotFoundError(`the snapshot of ${volume} was taken, and has gone already`);
  return { volume, ...snapshotRecord(snapshot) };
}

const mixed = (paths: readonly string[], owners: readonly (RemoteVolume | undefined)[]): string =>
  `a set is taken by one process, but ${paths
    .map((path, i) => {
      const owner = owners[i];
      return `${path} is ${owner === undefined ? 'served by none' : `served by process ${owner.serving.pid}`}`;
    })
    .join(', ')}; serve them together: volsnap serve ${paths.join(' ')}`;
