/** `volsnap resize-store`: changes the limit on what snapshots take. */
import type { Command } from 'commander';
import type { ByteLength } from '../../index.js';
import { volumeCommand, type WritingOptions } from '../command.js';
import type { Runner, Session } from '../session.js';
import { formatSize, parseSize } from '../size.js';
import { changeVolume } from '../volumes.js';

export const resizeStoreCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'resize-store',
    summary: 'change how much all snapshots may take together',
    details: 'If they take more already, the oldest ones are deleted until they do not.',
    examples: ['volsnap resize-store disk.img 20G', 'volsnap resize-store disk.img 0'],
    writes: true,
  })
    .argument('<SIZE>', 'the new limit; 0: none', parseSize)
    .action(run(resizeStore));

async function resizeStore(
  session: Session,
  path: string,
  maximumBytes: ByteLength,
  options: WritingOptions,
): Promise<undefined> {
  const { output, json } = session;
  const { deleted, allocatedBytes } = await changeVolume(session, path, options, async (volume) => {
    const gone: string[] = [];
    volume.on('deleted', ({ id }) => gone.push(id));
    await volume.setMaximumSize(maximumBytes);
    return { deleted: gone, allocatedBytes: volume.figures.allocatedBytes };
  });
  if (json) return void (await output.json({ maximumBytes, allocatedBytes, deleted }));
  const limit = maximumBytes === 0 ? 'as much as there is' : `up to ${formatSize(maximumBytes)}`;
  await output.print(
    ...deleted.map((id) => `deleted ${id}`),
    `Snapshots may take ${limit}; they take ${formatSize(allocatedBytes)} now.`,
  );
}
