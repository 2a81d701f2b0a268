/** `volsnap delete`: removes snapshots. */
import type { Command } from 'commander';
import { NoSpaceError, NotFoundError, type Snapshot, type VolumeAccess } from '../../index.js';
import { volumeCommand, type WritingOptions } from '../command.js';
import { UsageError } from '../failure.js';
import { findSnapshot } from '../ids.js';
import { withProgress } from '../progress.js';
import type { Runner, Session } from '../session.js';
import { changeVolume } from '../volumes.js';

interface DeleteOptions extends WritingOptions {
  readonly oldest?: boolean;
  readonly all?: boolean;
  readonly wait: boolean;
}

interface Deleted {
  readonly ids: readonly string[];
  /** Is their space free? */
  readonly isMerged: boolean;
}

export const deleteCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'delete',
    summary: 'delete snapshots',
    details:
      'Any snapshot, whatever its age. What older ones need of it is merged into the next older one; that is waited for, and may be interrupted: it goes on when the volume is used the next time.',
    examples: [
      'volsnap delete disk.img 1a2b3c4d',
      'volsnap delete disk.img --oldest',
      'volsnap delete disk.img --all',
    ],
    writes: true,
  })
    .argument('[ID...]', 'the snapshots')
    .option('--oldest', 'the oldest one')
    .option('--all', 'all of them')
    .option('--no-wait', 'do not wait until their space is free')
    .action(run(remove));

async function remove(
  session: Session,
  path: string,
  ids: readonly string[],
  options: DeleteOptions,
): Promise<undefined> {
  const ways = [ids.length > 0, options.oldest === true, options.all === true].filter(Boolean).length;
  if (ways !== 1) throw new UsageError('say what to delete: one or more ids, or --oldest, or --all');
  const { ids: deleted, isMerged } = await changeVolume(session, path, options, async (volume) => {
    const chosen = choose(volume, ids, options);
    const gone = chosen.map(({ id }) => id);
    if (options.all) await volume.deleteOldest(chosen.length);
    else for (const snapshot of chosen) await snapshot.delete();
    return { ids: gone, isMerged: options.wait && (await isSettled(session, volume)) };
  });
  const { output } = session;
  if (session.json) await output.json({ deleted, merged: isMerged });
  else if (deleted.length === 0) await output.print('There was nothing to delete.');
  else await output.print(...deleted.map((id) => `deleted ${id}`));
}

/** Waits for the space of what was deleted; without room for the merge it is only told. */
async function isSettled(session: Session, volume: VolumeAccess): Promise<Deleted['isMerged']> {
  try {
    await withProgress(session, 'Merging', (onProgress) =>
      volume.settled({ signal: session.signal, onProgress }),
    );
    return true;
  } catch (error) {
    if (!(error instanceof NoSpaceError)) throw error;
    session.notes.warn(error.message);
    return false;
  }
}

/** The snapshots to delete, oldest first. */
function choose(
  volume: VolumeAccess,
  ids: readonly string[],
  { oldest, all }: DeleteOptions,
): readonly Snapshot[] {
  const { snapshots } = volume;
  if (all) return snapshots;
  if (oldest) {
    const [first] = snapshots;
    if (first === undefined) throw new NotFoundError(`${volume.name} has no snapshots`);
    return [first];
  }
  const chosen = new Set(ids.map((id) => findSnapshot(volume, id)));
  return snapshots.filter((snapshot) => chosen.has(snapshot));
}
