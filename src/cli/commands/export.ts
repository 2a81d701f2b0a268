/** `volsnap export`: a snapshot as an image of its own. */
import { stat } from 'node:fs/promises';
import { type Command, Option } from 'commander';
import {
  type ByteLength,
  exportQcow2,
  exportRaw,
  exportVss,
  InvalidArgumentError,
  type Snapshot,
  UnsupportedError,
  type VolumeAccess,
} from '../../index.js';
import { type BackingChoice, backingFor } from '../backing.js';
import { type CommonOptions, volumeCommand } from '../command.js';
import { type Destination, openDestination, withDestination } from '../destination.js';
import { UsageError } from '../failure.js';
import { findSnapshot } from '../ids.js';
import { parsePath } from '../places.js';
import { withProgress } from '../progress.js';
import type { Runner, Session } from '../session.js';
import { formatSize } from '../size.js';
import { refuseTerminal, streamRange } from '../streaming.js';
import { oneLine, shellWord } from '../text.js';
import { readVolume } from '../volumes.js';

/** As FILE: the bytes go to standard output. A file of that name is `./-`. */
const STANDARD_OUTPUT = '-';
/** The unit of `blocks` in what stat(2) tells, in bytes. */
const STAT_BLOCK = 512;

interface ExportOptions extends CommonOptions, BackingChoice {
  readonly output: string;
  readonly format: 'raw' | 'qcow2' | 'vss';
  readonly since?: string;
}

export const exportCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'export',
    summary: 'copy a snapshot out as an image',
    details:
      'Format raw is the volume as it was, with holes where it holds zeros. Format qcow2 is the same for QEMU; with --since it holds only what changed since an older snapshot, and is read through the image of that one. Format vss is one image with the volume and its snapshots, up to ID (default: all), that readers of Windows shadow copies open.',
    examples: [
      'volsnap export disk.img 1a2b3c4d -o before.img',
      'volsnap export disk.img 5e6f7a8b -o tuesday.qcow2 --format qcow2 --since 1a2b3c4d --backing monday.qcow2',
      'volsnap export disk.img --format vss -o all.img && vshadowinfo all.img',
      'volsnap export disk.img 1a2b3c4d -o - | zstd > before.img.zst',
    ],
  })
    .argument('[ID]', 'the snapshot')
    .requiredOption(
      '-o, --output <FILE>',
      'the image to make; an older one is replaced when the new one is whole; - is standard output, for format raw',
      parsePath,
    )
    .addOption(
      new Option('--format <FORMAT>', 'of the image').choices(['raw', 'qcow2', 'vss']).default('raw'),
    )
    .option('--since <ID>', 'only what changed since that older snapshot; format qcow2')
    .option(
      '--backing <FILE>',
      'the image of that older snapshot (default: the one that is found beside FILE)',
      parsePath,
    )
    .addOption(
      new Option('--backing-format <FORMAT>', 'of that image (default: qcow2)').choices(['qcow2', 'raw']),
    )
    .action(run(exportSnapshot));

async function exportSnapshot(
  session: Session,
  path: string,
  id: string | undefined,
  options: ExportOptions,
): Promise<undefined> {
  const { output: target } = options;
  checkUsage(id, options);
  if (target === STANDARD_OUTPUT && id !== undefined) return exportStream(session, path, id, options);
  const result = await readVolume(session, path, options, async (volume) => {
    const snapshot = id === undefined ? undefined : findSnapshot(volume, id);
    return withDestination(target, volume.name, (destination) => {
      if (snapshot === undefined || options.format === 'vss')
        return exportAll(session, volume, snapshot, destination);
      if (options.format === 'raw') return exportBytes(session, snapshot, destination);
      return exportImage(session, volume, { ...options, snapshot }, destination);
    });
  });
  const { size, writtenBytes } = result;
  const { output } = session;
  if (session.json) await output.json({ file: target, format: options.format, ...result });
  else await output.print(`${oneLine(target)}: ${formatSize(size)}, ${formatSize(writtenBytes)} of it data`);
}

/** Zeros too: nothing can be left out of a stream. */
async function exportStream(
  session: Session,
  path: string,
  id: string,
  options: ExportOptions,
): Promise<undefined> {
  if (session.json)
    throw new UsageError('--json would end up among the bytes on standard output; name a file with -o');
  refuseTerminal(session);
  await readVolume(session, path, options, async (volume) => {
    const snapshot = findSnapshot(volume, id);
    await streamRange(session, 'Exporting', snapshot, { offset: 0, length: snapshot.size });
  });
}

function checkUsage(
  id: string | undefined,
  { format, since, backing, backingFormat, output }: ExportOptions,
): void {
  if (format !== 'vss' && id === undefined)
    throw new UsageError('say which snapshot: volsnap export VOLUME ID -o FILE');
  if (since !== undefined && format !== 'qcow2')
    throw new UsageError(
      `--since needs --format qcow2: an image in format ${format} cannot leave out what did not change`,
    );
  if (backing !== undefined && since === undefined)
    throw new UsageError('--backing goes with --since: an image of everything is not read through another');
  if (backingFormat !== undefined && backing === undefined)
    throw new UsageError('--backing-format goes with --backing');
  if (output === STANDARD_OUTPUT && format !== 'raw') {
    throw new UsageError(
      `format ${format} is not written in order, so it needs a file: only raw goes to standard output (a file named - is ./-)`,
    );
  }
}

interface Result {
  readonly id: string | null;
  readonly size: ByteLength;
  /** How much of it is not a hole. */
  readonly writtenBytes: ByteLength;
}

interface ImageResult extends Result {
  readonly since: string | null;
  /** As the image names it. */
  readonly backing: string | null;
  readonly clusterSize: ByteLength;
  /** What the image says to be zeros. */
  readonly zeroBytes: ByteLength;
  /** Bytes of the image. */
  readonly allocatedBytes: ByteLength;
}

async function exportBytes(session: Session, snapshot: Snapshot, destination: Destination): Promise<Result> {
  const { id, size } = snapshot;
  const device = await openDestination(destination, size);
  try {
    const writtenBytes = await withProgress(session, 'Exporting', (update) =>
      exportRaw(snapshot, device, {
        isBlank: destination.isNew,
        signal: session.signal,
        onProgress: update,
      }),
    );
    return { id, size, writtenBytes };
  } finally {
    await device.close();
  }
}

async function exportImage(
  session: Session,
  volume: VolumeAccess,
  options: ExportOptions & { readonly snapshot: Snapshot },
  destination: Destination,
): Promise<ImageResult> {
  const { snapshot, output: target } = options;
  const since = options.since === undefined ? undefined : olderThan(snapshot, volume, options.since);
  const backing = since && (await backingFor(target, since, options));
  const device = await openDestination(destination, 0);
  try {
    const { size, dataBytes, zeroBytes, clusterSize, fileBytes } = await withProgress(
      session,
      'Exporting',
      (update) =>
        exportQcow2(volume, device, {
          snapshot,
          ...(since && { since }),
          ...(backing && { backing }),
          signal: session.signal,
          onProgress: update,
        }),
    );
    if (since !== undefined && backing === undefined) tellNoBacking(session, target, since);
    return {
      id: snapshot.id,
      size,
      writtenBytes: dataBytes,
      zeroBytes,
      allocatedBytes: fileBytes,
      clusterSize,
      since: since?.id ?? null,
      backing: backing?.name ?? null,
    };
  } finally {
    await device.close();
  }
}

/** Asked before any image of it is looked for: of a wrong snapshot every image is wrong. @throws InvalidArgumentError */
function olderThan(snapshot: Snapshot, volume: VolumeAccess, id: string): Snapshot {
  const since = findSnapshot(volume, id);
  if (since.order < snapshot.order) return since;
  throw new InvalidArgumentError(
    `snapshot ${since.id} is not older than ${snapshot.id}; name an older one with --since`,
  );
}

/** Such an image is of use where the older one is, which may be elsewhere; read alone it gives zeros. */
function tellNoBacking({ notes }: Session, target: string, since: Snapshot): void {
  const file = shellWord(target);
  notes.warn(
    `${target} names no image to be read through: none beside it holds snapshot ${since.id}. ` +
      `Give --backing, or name it before use: qemu-img rebase -u -F qcow2 -b IMAGE-OF-${since.id} ${file}`,
  );
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
