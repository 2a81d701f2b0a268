/** `volsnap grow`: makes a volume longer. */
import type { Command } from 'commander';
import type { ByteLength } from '../../index.js';
import { volumeCommand, type WritingOptions } from '../command.js';
import type { Runner, Session } from '../session.js';
import { formatSize, parsePositiveSize } from '../size.js';
import { changeVolume } from '../volumes.js';

export const growCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'grow',
    summary: 'make the volume longer',
    details:
      'Its file becomes so long; the new part reads as zeros. Snapshots keep the size that they have. NBD clients of a volume that is being served see the new size when they connect again.',
    examples: ['volsnap grow disk.img 20G'],
    writes: true,
  })
    .argument('<SIZE>', 'how long the volume is to be', parsePositiveSize)
    .action(run(grow));

async function grow(
  session: Session,
  path: string,
  size: ByteLength,
  options: WritingOptions,
): Promise<undefined> {
  const { output, json } = session;
  const before = await changeVolume(session, path, options, async (volume) => {
    const was = volume.size;
    await volume.grow(size);
    return was;
  });
  if (json) await output.json({ volumeSize: size, previousSize: before });
  else if (before === size) await output.print(`${path} has ${formatSize(size)} already.`);
  else await output.print(`${path} has ${formatSize(size)} now; it had ${formatSize(before)}.`);
}
