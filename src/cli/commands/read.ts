/** `volsnap read`: bytes of a volume or a snapshot to standard output. */
import type { Command } from 'commander';
import { type ByteLength, type ByteOffset, InvalidArgumentError } from '../../index.js';
import { type CommonOptions, volumeCommand } from '../command.js';
import { parseSource } from '../places.js';
import type { Runner, Session } from '../session.js';
import { parseSize } from '../size.js';
import { refuseTerminal, streamRange } from '../streaming.js';
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
  refuseTerminal(session);
  const place = await parseSource(source);
  await readVolume(session, place.path, options, async (volume) => {
    const from = sourceIn(volume, place);
    const { offset, length = Math.max(0, from.size - offset) } = options;
    if (offset + length > from.size) {
      throw new InvalidArgumentError(
        `bytes ${offset} to ${offset + length} do not lie within the ${from.size} of ${source}`,
      );
    }
    await streamRange(session, 'Reading', from, { offset, length });
  });
}
