/** `volsnap read`: bytes of a volume or a snapshot to standard output. */
import type { Command } from 'commander';
import { type ByteLength, type ByteOffset, InvalidArgumentError } from '../../index.js';
import { chunksOf } from '../chunks.js';
import { type CommonOptions, volumeCommand } from '../command.js';
import { UsageError } from '../failure.js';
import { parseSource } from '../places.js';
import { withProgress } from '../progress.js';
import type { Runner, Session } from '../session.js';
import { parseSize } from '../size.js';
import { readVolume, sourceIn } from '../volumes.js';

interface ReadOptions extends CommonOptions {
  readonly offset: ByteOffset;
  readonly length?: ByteLength;
}

export const readCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'read',
    snapshots: true,
    summary: 'copy bytes of a volume, or VOLUME@ID of a snapshot, to standard output',
    examples: [
      'volsnap read disk.img --offset 1080 --length 2 | xxd',
      'volsnap read disk.img@1a2b3c4d | sha256sum',
    ],
  })
    .option('--offset <SIZE>', 'where to begin', parseSize, 0)
    .option('--length <SIZE>', 'how many bytes (default: to the end)', parseSize)
    .action(run(read));

async function read(session: Session, source: string, options: ReadOptions): Promise<undefined> {
  const { output, signal } = session;
  if (output.isTerminal) {
    throw new UsageError(
      'bytes of a volume would upset the terminal; pipe them (| xxd) or redirect them (> FILE)',
    );
  }
  const place = await parseSource(source);
  await readVolume(session, place.path, options, async (volume) => {
    const from = sourceIn(volume, place);
    const { offset, length = Math.max(0, from.size - offset) } = options;
    if (offset + length > from.size) {
      throw new InvalidArgumentError(
        `bytes ${offset} to ${offset + length} do not lie within the ${from.size} of ${source}`,
      );
    }
    await withProgress(session, 'Reading', async (update) => {
      for await (const chunk of chunksOf(from, { offset, length, signal })) {
        await output.write(chunk.data);
        if (output.closed) break;
        update(chunk.offset + chunk.data.byteLength - offset, length);
      }
    });
  });
}
