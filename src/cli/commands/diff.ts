/** `volsnap diff`: what changed between two moments. */
import type { Command } from 'commander';
import type { ByteLength, ChangedExtent } from '../../index.js';
import { type CommonOptions, volumeCommand } from '../command.js';
import { findSnapshot } from '../ids.js';
import type { Runner, Session } from '../session.js';
import { formatCount, formatShare, formatSize } from '../size.js';
import { readVolume } from '../volumes.js';

/** Extents printed at once. */
const BATCH = 1000;
/** Digits of an offset: the largest volume with separators. */
const OFFSET_WIDTH = 21;

export const diffCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'diff',
    summary: 'list what was written between two snapshots, or since one',
    details: 'Exact at 16 KiB. Without --json, a line holds offset and length in bytes.',
    examples: ['volsnap diff disk.img 1a2b3c4d', 'volsnap diff disk.img 1a2b3c4d 5e6f7a8b --json'],
  })
    .argument('<FROM>', 'the older snapshot')
    .argument('[TO]', 'the newer snapshot (default: now)')
    .action(run(diff));

async function diff(
  session: Session,
  path: string,
  from: string,
  to: string | undefined,
  options: CommonOptions,
): Promise<undefined> {
  const { output, signal, json } = session;
  await readVolume(session, path, options, async (volume) => {
    const since = findSnapshot(volume, from);
    const until = to === undefined ? {} : { until: findSnapshot(volume, to) };
    const line = json ? jsonLine : output.isTerminal ? alignedLine : plainLine;
    let count = 0;
    let length: ByteLength = 0;
    let lines: string[] = [];
    for await (const extent of volume.changedBlocks({ since, ...until, signal })) {
      lines.push((json ? (count > 0 ? ',\n' : '[\n') : '') + line(extent) + (json ? '' : '\n'));
      count++;
      length += extent.length;
      if (lines.length < BATCH) continue;
      await output.write(Buffer.from(lines.join('')));
      lines = [];
      if (output.closed) return;
    }
    await output.write(Buffer.from(lines.join('')));
    if (json) await output.write(Buffer.from(count > 0 ? '\n]\n' : '[]\n'));
    else if (output.isTerminal) {
      const where = count === 1 ? 'one place' : `${formatCount(count)} places`;
      const share = formatShare(length, volume.size);
      await output.print(
        count === 0 ? 'Nothing changed.' : `${formatSize(length)} (${share}) changed, in ${where}.`,
      );
    }
  });
}

const jsonLine = (extent: ChangedExtent): string => `  ${JSON.stringify(extent)}`;
const plainLine = ({ offset, length }: ChangedExtent): string => `${offset} ${length}`;
const alignedLine = ({ offset, length }: ChangedExtent): string =>
  `${formatCount(offset).padStart(OFFSET_WIDTH)}  ${formatSize(length).padStart(10)}`;
