/** `volsnap revert`: puts a volume back to a snapshot. */
import type { Command } from 'commander';
import { NotFoundError, type RevertOperation, type VolumeAccess } from '../../index.js';
import { volumeCommand, type WritingOptions } from '../command.js';
import { UsageError } from '../failure.js';
import { findSnapshot } from '../ids.js';
import { parseLabel } from '../information.js';
import { withProgress } from '../progress.js';
import type { Runner, Session } from '../session.js';
import { oneLine, shellWord } from '../text.js';
import { changeVolume } from '../volumes.js';

interface RevertCommandOptions extends WritingOptions {
  readonly cancel?: boolean;
  readonly label?: string;
}

export const revertCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'revert',
    summary: 'put the volume back to a snapshot',
    details:
      'The volume reads as the snapshot at once; copying goes on behind that. What it was before is kept as a snapshot of its own, so a revert can be undone by another one. If the command is stopped, or the machine, the revert goes on when the volume is opened again; give the same ID to wait for it.',
    examples: ['volsnap revert disk.img 1a2b3c4d', 'volsnap revert disk.img --cancel'],
    writes: true,
  })
    .argument('[ID]', 'the snapshot')
    .option('--cancel', 'put the volume back as it was before the revert that is under way')
    .option('--label <TEXT>', 'a name for the snapshot of what it was before', parseLabel)
    .action(run(revert));

async function revert(
  session: Session,
  path: string,
  id: string | undefined,
  options: RevertCommandOptions,
): Promise<undefined> {
  const { cancel = false, label } = options;
  if (cancel === (id !== undefined)) throw new UsageError('give the ID of a snapshot, or --cancel');
  if (cancel && label !== undefined) throw new UsageError('--label goes with the ID of a snapshot');
  const done = await changeVolume(session, path, options, async (volume) => {
    const target = id === undefined ? undefined : findSnapshot(volume, id);
    const operation =
      target === undefined
        ? await cancelled(volume)
        : volume.revert(target, label === undefined ? {} : { label });
    await operation.begun;
    const { revert: status } = volume.figures;
    const outcome = await waitFor(session, volume, operation);
    const { targetId = target?.id ?? null, previousId = volume.snapshots.at(-1)?.id ?? null } = status ?? {};
    return { outcome, target: targetId, previous: previousId };
  });
  const { output } = session;
  if (session.json) return void (await output.json(done));
  if (done.outcome === 'cancelled')
    return void (await output.print(`${oneLine(path)} is again as it was before the revert.`));
  await output.print(
    `${oneLine(path)} is put back to ${done.target}.`,
    `What it was before is snapshot ${done.previous}; to undo the revert: volsnap revert ${shellWord(path)} ${done.previous}`,
  );
}

async function cancelled(volume: VolumeAccess): Promise<RevertOperation> {
  const { reverting } = volume;
  if (reverting === undefined) throw new NotFoundError(`${volume.name} is not being put back to a snapshot`);
  await reverting.cancel();
  return volume.reverting ?? { ...reverting, completed: Promise.resolve('cancelled') };
}

/** Waits with a bar. Who stops waiting leaves the revert as it is. */
async function waitFor(session: Session, volume: VolumeAccess, { completed }: RevertOperation) {
  return withProgress(session, 'Putting back', async (update) => {
    volume.on('revertProgress', ({ doneBytes, totalBytes }) => update(doneBytes, totalBytes));
    const { signal } = session;
    const stopped = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    });
    return Promise.race([completed, stopped]);
  });
}
