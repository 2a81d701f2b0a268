/** `volsnap copy-range`: bytes of a volume to another place in it. */
import type { Command } from 'commander';
import type { ByteLength, ByteOffset } from '../../index.js';
import { protectedBlocksOption, volumeCommand, type WritingOptions } from '../command.js';
import { withProgress } from '../progress.js';
import type { Runner, Session } from '../session.js';
import { formatSize, parseSize } from '../size.js';
import { changeVolume } from '../volumes.js';

interface CopyRangeOptions extends WritingOptions {
  readonly from: ByteOffset;
  readonly to: ByteOffset;
  readonly length: ByteLength;
}

export const copyRangeCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'copy-range',
    summary: 'copy bytes of a volume to another place in it',
    details:
      'As a defragmenter does it. Of each whole block of 16 KiB the newest snapshot notes where its content lies besides: overwriting the source needs no copy then.',
    examples: ['volsnap copy-range disk.img --from 1G --to 2G --length 16M'],
    writes: true,
  })
    .requiredOption('--from <SIZE>', 'where to read', parseSize)
    .requiredOption('--to <SIZE>', 'where to write', parseSize)
    .requiredOption('--length <SIZE>', 'how many bytes', parseSize)
    .addOption(protectedBlocksOption())
    .action(run(copyRange));

async function copyRange(session: Session, path: string, options: CopyRangeOptions): Promise<undefined> {
  const { from, to, length } = options;
  const { output, json, signal } = session;
  await changeVolume(session, path, options, async (volume) => {
    await withProgress(session, 'Copying', (onProgress) =>
      volume.copyRange(from, to, length, { signal, onProgress }),
    );
    await volume.flush();
  });
  if (json) await output.json({ volume: path, from, to, length });
  else if (output.isTerminal) await output.print(`${formatSize(length)} copied from ${from} to ${to}.`);
}
