/** `volsnap export`: a snapshot as an image of its own. */
import { stat } from 'node:fs/promises';
import { type Command, Option } from 'commander';
import {
  type ByteLength,
  exportVss,
  type Snapshot,
  UnsupportedError,
  type VolumeAccess,
} from '../../index.js';
import { chunksOf, dataRuns } from '../chunks.js';
import { type CommonOptions, volumeCommand } from '../command.js';
import { type Destination, openDestination, withDestination } from '../destination.js';
import { UsageError } from '../failure.js';
import { findSnapshot } from '../ids.js';
import { withProgress } from '../progress.js';
import type { Runner, Session } from '../session.js';
import { formatSize } from '../size.js';
import { readVolume } from '../volumes.js';

/** The unit of `blocks` in what stat(2) tells, in bytes. */
const STAT_BLOCK = 512;

interface ExportOptions extends CommonOptions {
  readonly output: string;
  readonly format: 'raw' | 'qcow2' | 'vss';
  readonly since?: string;
}

export const exportCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'export',
    summary: 'copy a snapshot out as an image',
    details:
      'Format raw is the volume as it was, with holes where it holds zeros. Format vss is one image with the volume and its snapshots, up to ID (default: all), that readers of Windows shadow copies open.',
    examples: [
      'volsnap export disk.img 1a2b3c4d -o before.img',
      'volsnap export disk.img --format vss -o all.img && vshadowinfo all.img',
    ],
  })
    .argument('[ID]', 'the snapshot')
    .requiredOption(
      '-o, --output <FILE>',
      'the image to make; an older one is replaced when the new one is whole',
    )
    .addOption(
      new Option('--format <FORMAT>', 'of the image').choices(['raw', 'qcow2', 'vss']).default('raw'),
    )
    .option('--since <ID>', 'only what changed since that snapshot')
    .action(run(exportSnapshot));

async function exportSnapshot(
  session: Session,
  path: string,
  id: string | undefined,
  options: ExportOptions,
): Promise<undefined> {
  const { format, since, output: target } = options;
  if (format !== 'vss' && id === undefined)
    throw new UsageError('say which snapshot: volsnap export VOLUME ID -o FILE');
  if (format === 'qcow2')
    throw new UnsupportedError('export --format qcow2 is not there yet; use raw and qemu-img convert');
  if (since !== undefined) throw new UnsupportedError('export --since is not there yet; see: volsnap diff');
  const result = await readVolume(session, path, options, async (volume) => {
    const snapshot = id === undefined ? undefined : findSnapshot(volume, id);
    return withDestination(target, volume.name, (destination) =>
      snapshot !== undefined && format === 'raw'
        ? exportRaw(session, snapshot, destination)
        : exportAll(session, volume, snapshot, destination),
    );
  });
  const { size, writtenBytes } = result;
  const { output } = session;
  if (session.json) await output.json({ file: target, format, id: result.id, size, writtenBytes });
  else await output.print(`${target}: ${formatSize(size)}, ${formatSize(writtenBytes)} of it data`);
}

interface Result {
  readonly id: string | null;
  readonly size: ByteLength;
  /** How much of it is not a hole. */
  readonly writtenBytes: ByteLength;
}

async function exportRaw(session: Session, snapshot: Snapshot, destination: Destination): Promise<Result> {
  const { id, size } = snapshot;
  const device = await openDestination(destination, size);
  try {
    const writtenBytes = await withProgress(session, 'Exporting', async (update) => {
      let written = 0;
      for await (const { offset, data } of chunksOf(snapshot, {
        offset: 0,
        length: size,
        signal: session.signal,
      })) {
        const whole = [{ start: 0, end: data.byteLength }];
        for (const { start, end } of destination.isNew ? dataRuns(data) : whole) {
          await device.write(offset + start, data.subarray(start, end));
          written += end - start;
        }
        update(offset + data.byteLength, size);
      }
      await device.flush();
      return written;
    });
    return { id, size, writtenBytes };
  } finally {
    await device.close();
  }
}

async function exportAll(
  session: Session,
  volume: VolumeAccess,
  until: Snapshot | undefined,
  { path, isNew }: Destination,
): Promise<Result> {
  if (!isNew)
    throw new UnsupportedError('export --format vss makes a file, not the content of a block device');
  await withProgress(session, 'Exporting', (update) =>
    exportVss(volume, path, {
      ...(until === undefined ? {} : { until }),
      signal: session.signal,
      onProgress: update,
    }),
  );
  const { size, blocks } = await stat(path);
  return { id: until?.id ?? null, size, writtenBytes: blocks * STAT_BLOCK };
}
