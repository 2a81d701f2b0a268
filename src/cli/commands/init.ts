/** `volsnap init`: makes an empty store for a volume. */
import { stat } from 'node:fs/promises';
import { type Command, Option, InvalidArgumentError as WrongArgument } from 'commander';
import {
  type ByteLength,
  type ByteOffset,
  checkHasNoStore,
  checkReserve,
  DirectoryStore,
  type DroppedShadowCopy,
  type FileDevice,
  InVolumeStore,
  looksLikeUri,
  type NbdDevice,
  Volume,
} from '../../index.js';
import { type CommonOptions, volumeCommand } from '../command.js';
import { asUsage, UsageError } from '../failure.js';
import type { Runner, Session } from '../session.js';
import { formatSize, parsePositiveSize, parseSize } from '../size.js';
import { oneLine, shellWord } from '../text.js';
import { openDevice } from '../volumes.js';

interface InitOptions extends CommonOptions {
  readonly inVolume?: boolean;
  readonly reserve?: ByteLength;
  readonly protectedSize?: ByteLength;
  readonly runs?: readonly Run[];
  readonly maxSize?: ByteLength;
  readonly shadowCopies?: 'keep' | 'drop';
}

/** A part of a file inside the volume. */
interface Run {
  readonly offset: ByteOffset;
  readonly length: ByteLength;
}

/** `1M+512M,3G+1G`. @throws InvalidArgumentError of commander */
function parseRuns(text: string): Run[] {
  return text.split(',').map((part) => {
    const [offset, length, ...rest] = part.split('+');
    if (offset === undefined || length === undefined || rest.length > 0)
      throw new WrongArgument('Give OFFSET+LENGTH, and further ones after commas, such as 1M+512M,3G+1G.');
    return { offset: parseSize(offset), length: parseSize(length) };
  });
}

export const initCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'init',
    summary: 'prepare a volume for snapshots',
    details: 'The volume itself is not changed, unless its snapshots are to be kept inside it.',
    examples: [
      'volsnap init disk.img',
      'volsnap init disk.img --max-size 10G',
      'volsnap init ntfs.img --in-volume --reserve 512M',
      'volsnap init windows.img --in-volume --reserve 512M --shadow-copies keep',
      'volsnap init /dev/vg0/data --store /var/lib/volsnap/data',
      'volsnap init nbd://host/export --store /var/lib/volsnap/export',
    ],
  })
    .option('--in-volume', 'keep the snapshots inside the volume, which is made longer for it')
    .option('--reserve <SIZE>', 'how much longer, with --in-volume', parsePositiveSize)
    .option(
      '--protected-size <SIZE>',
      'instead: size of the volume, where there is room behind it',
      parsePositiveSize,
    )
    .option(
      '--runs <OFFSET+LENGTH,...>',
      'instead: where a file of the volume lies that becomes the store; it must stay there',
      parseRuns,
    )
    .option('--max-size <SIZE>', 'most that snapshots may take in all (default: no limit)', parseSize)
    .addOption(
      new Option(
        '--shadow-copies <HOW>',
        'take shadow copies of Windows over, with --in-volume; later, a write that there is no room to keep them right for fails (keep), or drops them all (drop)',
      ).choices(['keep', 'drop']),
    )
    .action(run(initialize));

async function initialize(session: Session, path: string, options: InitOptions): Promise<undefined> {
  checkOptions(path, options);
  const inside = options.inVolume ? storeInside(options) : undefined;
  const device = await openDevice(session, path, true);
  try {
    await checkNew(device, options, session);
    const store = inside ?? (await storeBeside(device, options));
    const volumeSize = options.protectedSize ?? device.size;
    const maximumSize = options.maxSize ?? 0;
    const { shadowCopies } = options;
    const dropped: DroppedShadowCopy[] = [];
    await Volume.initialize(device, {
      store,
      maximumSize,
      ...(shadowCopies === undefined
        ? {}
        : { shadowCopies, onShadowCopyDropped: (copy) => dropped.push(copy) }),
    }).finally(() => tellDropped(session, dropped));
    const copies = shadowCopies === undefined ? undefined : await takenOver(device, dropped);
    const place = options.inVolume ? device.name : (options.store ?? defaultStore(device));
    const { layout } = store;
    if (session.json) {
      await session.output.json({
        volume: device.name,
        volumeSize,
        layout,
        storeName: place,
        maximumBytes: maximumSize,
        ...(copies === undefined ? {} : { shadowCopies: copies }),
      });
      return;
    }
    const where =
      layout === 'in-volume'
        ? options.runs === undefined
          ? `inside it, in ${formatSize(options.reserve ?? device.size - volumeSize)} behind its end`
          : 'inside it, in the runs of a file'
        : `in ${place}`;
    await session.output.print(
      oneLine(`${device.name} (${formatSize(volumeSize)}) keeps its snapshots ${where}.`),
    );
    if (copies !== undefined) await session.output.print(describeTakenOver(copies));
    await tellNext(session, path, options);
  } finally {
    await device.close();
  }
}

function checkOptions(
  path: string,
  { inVolume, store, reserve, protectedSize, runs, shadowCopies }: InitOptions,
): void {
  if (inVolume && store !== undefined) throw new UsageError('choose one of --store and --in-volume');
  const places = [reserve, protectedSize, runs].filter((place) => place !== undefined);
  if (inVolume && places.length !== 1) {
    throw new UsageError(
      '--in-volume needs --reserve SIZE, the room for snapshots, such as 512M; or --protected-size SIZE, the size of the volume on a longer device; or --runs, where a file lies in it',
    );
  }
  if (looksLikeUri(path) && reserve !== undefined)
    throw new UsageError(
      'an NBD export cannot be made longer; if it has room behind the volume, give --protected-size SIZE instead of --reserve',
    );
  if (inVolume) return;
  if (looksLikeUri(path) && store === undefined)
    throw new UsageError(
      `${path} has no folder beside it; say where to keep its snapshots with --store DIR, or inside it with --in-volume --protected-size SIZE`,
    );
  if (reserve !== undefined) throw new UsageError('--reserve goes with --in-volume');
  if (protectedSize !== undefined) throw new UsageError('--protected-size goes with --in-volume');
  if (runs !== undefined) throw new UsageError('--runs goes with --in-volume');
  if (shadowCopies !== undefined) throw new UsageError('--shadow-copies goes with --in-volume');
}

/** Says what becomes of shadow copies of Windows. With `--in-volume` the store says why not. */
async function checkNew(device: Device, { inVolume }: InitOptions, { notes }: Session): Promise<void> {
  const isForeign = await checkHasNoStore(device);
  if (isForeign && !inVolume)
    notes.warn(
      `${device.name} has shadow copies made by Windows; they are not kept right by what is written with a store of volsnap`,
    );
}

type Device = FileDevice | NbdDevice;

const defaultStore = (device: Device): string => `${device.name}.volsnap`;

/** @throws UsageError */
function storeInside({ reserve, protectedSize, runs }: InitOptions): InVolumeStore {
  const place = {
    ...(runs === undefined ? {} : { runs }),
    ...(reserve === undefined ? {} : { reserve }),
    ...(protectedSize === undefined ? {} : { protectedSize }),
  };
  try {
    checkReserve(place);
  } catch (error) {
    throw asUsage(error);
  }
  return new InVolumeStore(place);
}

/** @throws UsageError where none can lie beside the device */
async function storeBeside(device: Device, { store }: InitOptions): Promise<DirectoryStore> {
  if (store === undefined && (await stat(device.name)).isBlockDevice()) {
    throw new UsageError(
      `${device.name} is a block device, and ${defaultStore(device)} would be gone after a restart; say where to keep its snapshots with --store DIR`,
    );
  }
  return new DirectoryStore(store ?? defaultStore(device));
}

/** What became of the shadow copies of Windows, by id, oldest first. */
interface TakenOver {
  readonly kept: readonly string[];
  readonly dropped: readonly string[];
  /** The snapshot that those which stay are read through. */
  readonly base: string | null;
}

/** The device is closed afterwards. */
async function takenOver(device: Device, dropped: readonly DroppedShadowCopy[]): Promise<TakenOver> {
  await using volume = await Volume.open(device, { readOnly: true });
  const ids = volume.snapshots.map(({ id }) => id);
  // The newest is the one that was just taken.
  return { kept: ids.slice(0, -1), dropped: dropped.map(({ id }) => id), base: ids.at(-1) ?? null };
}

function describeTakenOver({ kept, dropped, base }: TakenOver): string {
  if (base === null)
    return dropped.length > 0
      ? 'No shadow copies of Windows are left.'
      : 'There were no shadow copies of Windows to take over.';
  const [copies, are] = kept.length === 1 ? ['copy', 'stays, and is'] : ['copies', 'stay, and are'];
  return `${kept.length} shadow ${copies} of Windows ${are} read through snapshot ${base}, taken now.`;
}

/** Also if the store could not be made afterwards: they have gone. */
function tellDropped({ notes }: Session, dropped: readonly DroppedShadowCopy[]): void {
  if (dropped.length === 0) return;
  const list = dropped.map(({ id, createdAt }) => `${id} (${createdAt.toISOString()})`).join(', ');
  notes.warn(
    `there was no room to keep what shadow copies of Windows need of the runs, so they were dropped: ${list}`,
  );
}

async function tellNext({ output }: Session, path: string, { store }: InitOptions): Promise<void> {
  if (!output.isTerminal) return;
  const place = store === undefined ? '' : ` --store ${shellWord(store)}`;
  const { dim, bold } = output.colors;
  await output.print(
    dim('Next, take a snapshot:  ') + bold(`volsnap create ${shellWord(path)}${place} --label 'first'`),
    dim('From now on write to the volume through volsnap only.'),
  );
}
