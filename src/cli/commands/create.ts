/** `volsnap create`: takes a snapshot, or one of each of several volumes at one moment. */
import type { Command } from 'commander';
import type { CreateSnapshotOptions } from '../../index.js';
import { volumeCommand, type WritingOptions } from '../command.js';
import { UsageError } from '../failure.js';
import { shortId } from '../ids.js';
import { parseLabel, readInformation } from '../information.js';
import { parsePath } from '../places.js';
import type { Runner, Session } from '../session.js';
import { checkServed, createSet, reasonsToKeepAll } from '../sets.js';
import { snapshotRecord } from '../snapshots.js';
import { oneLine, shellWord } from '../text.js';
import { changeVolume, refuseTwice } from '../volumes.js';

interface CreateOptions extends WritingOptions {
  readonly label?: string;
  readonly appInfo?: string;
  readonly writable?: true;
  readonly hidden?: true;
  readonly notPersistent?: true;
  readonly skipUnused?: true;
  readonly frozen?: true;
}

export const createCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'create',
    summary: 'take a snapshot and print its id',
    details:
      'Of several volumes: a set, taken at one moment, of which all snapshots exist or none. If processes serve the volumes, it has to be one for all of them.',
    examples: [
      'volsnap create disk.img',
      "volsnap create disk.img --label 'before the upgrade'",
      'volsnap create disk.img --writable',
      'volsnap create disk.img --skip-unused',
      'volsnap create system.img data.img',
    ],
    writes: true,
    several: true,
  })
    .option('--label <TEXT>', 'a name for people', parseLabel)
    .option('--app-info <FILE>', 'bytes to keep with the snapshot, up to about 16,000', parsePath)
    .option('--writable', 'the snapshot itself may be written, which nothing else sees')
    .option('--hidden', 'leave it out of lists and exports; its id still works')
    .option('--not-persistent', 'for as long as the volume is served: gone when it is opened again')
    .option(
      '--skip-unused',
      'leave out what the file system (NTFS, ext2/3/4) does not use; it reads as zeros',
    )
    .option(
      '--frozen',
      'with --skip-unused: the file system is not mounted or frozen, whether it says so or not',
    )
    .action(run(create));

async function create(
  session: Session,
  paths: readonly string[],
  options: CreateOptions,
): Promise<undefined> {
  refuseTwice(paths);
  if (options.frozen === true && options.skipUnused !== true)
    throw new UsageError('--frozen goes with --skip-unused: it says that what is unused is known');
  const wanted = await wantedSnapshot(options, session.signal);
  const [path, ...others] = paths;
  if (path === undefined) throw new UsageError('name a volume');
  if (others.length === 0) return createOne(session, path, options, wanted);
  if (options.store !== undefined)
    throw new UsageError('--store names the store of one volume; of several, each is found by its own name');
  const members = await createSet(session, paths, options, wanted);
  const { output } = session;
  if (session.json) await output.json(members);
  else await output.print(...members.map(({ id, volume }) => `${id} ${oneLine(volume)}`));
}

async function wantedSnapshot(options: CreateOptions, signal: AbortSignal): Promise<CreateSnapshotOptions> {
  const { label, appInfo, writable, hidden, notPersistent, skipUnused, frozen } = options;
  const applicationInfo = appInfo === undefined ? undefined : await readInformation(appInfo, signal);
  return {
    ...(label === undefined ? {} : { label }),
    ...(applicationInfo === undefined ? {} : { applicationInfo }),
    ...(writable === true ? { writable } : {}),
    ...(hidden === true ? { hidden } : {}),
    ...(notPersistent === true ? { persistent: false } : {}),
    ...(skipUnused === true ? { unusedSpace: frozen === true ? 'frozen' : 'auto' } : {}),
  };
}

async function createOne(
  session: Session,
  path: string,
  options: CreateOptions,
  wanted: CreateSnapshotOptions,
): Promise<undefined> {
  const snapshot = await changeVolume(session, path, options, async (volume) => {
    checkServed(volume, options);
    const reasons = reasonsToKeepAll(volume);
    const taken = await volume.createSnapshot(wanted);
    const reason = reasons.get(taken.id);
    if (reason !== undefined) session.notes.warn(`nothing is left out of the snapshot: ${reason}`);
    return { id: taken.id, short: shortId(taken, volume.snapshots), record: snapshotRecord(taken) };
  });
  const { output } = session;
  if (session.json) return void (await output.json(snapshot.record));
  await output.print(snapshot.id);
  if (!output.isTerminal) return;
  const { dim, bold } = output.colors;
  const place = options.store === undefined ? '' : ` --store ${shellWord(options.store)}`;
  await output.print(
    dim('See all:    ') + bold(`volsnap list ${shellWord(path)}${place}`),
    dim('Get it back: ') + bold(`volsnap export ${shellWord(path)} ${snapshot.short}${place} -o copy.img`),
  );
}
