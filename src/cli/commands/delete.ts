/** `volsnap delete`: removes snapshots. */
import type { Command } from 'commander';
import { NotFoundError, type Snapshot, UnsupportedError, type VolumeAccess } from '../../index.js';
import { volumeCommand, type WritingOptions } from '../command.js';
import { UsageError } from '../failure.js';
import { findSnapshot } from '../ids.js';
import type { Runner, Session } from '../session.js';
import { changeVolume } from '../volumes.js';

interface DeleteOptions extends WritingOptions {
  readonly oldest?: boolean;
  readonly all?: boolean;
}

export const deleteCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'delete',
    summary: 'delete snapshots',
    details: 'For now a snapshot can only go together with all that are older.',
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
    .action(run(remove));

async function remove(
  session: Session,
  path: string,
  ids: readonly string[],
  options: DeleteOptions,
): Promise<undefined> {
  const ways = [ids.length > 0, options.oldest === true, options.all === true].filter(Boolean).length;
  if (ways !== 1) throw new UsageError('say what to delete: one or more ids, or --oldest, or --all');
  const deleted = await changeVolume(session, path, options, async (volume) => {
    const chosen = choose(volume, ids, options);
    const gone = chosen.map(({ id }) => id);
    await volume.deleteOldest(chosen.length);
    return gone;
  });
  const { output } = session;
  if (session.json) await output.json({ deleted });
  else if (deleted.length === 0) await output.print('There was nothing to delete.');
  else await output.print(...deleted.map((id) => `deleted ${id}`));
}

/** The snapshots to delete, oldest first: the oldest ones, without a gap. */
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
  const last = snapshots.findLastIndex((snapshot) => chosen.has(snapshot));
  const missing = snapshots.slice(0, last).filter((snapshot) => !chosen.has(snapshot));
  if (missing.length > 0) {
    throw new UnsupportedError(
      `${snapshots[last]?.id} is not the oldest: for now these, which are older, have to go with it: ${missing.map(({ id }) => id).join(' ')}`,
    );
  }
  return snapshots.slice(0, last + 1);
}
