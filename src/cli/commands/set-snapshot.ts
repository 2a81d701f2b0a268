/** `volsnap set-snapshot`: what can be changed about a snapshot. */
import { type Command, Option } from 'commander';
import { volumeCommand, type WritingOptions } from '../command.js';
import { UsageError } from '../failure.js';
import { findSnapshot } from '../ids.js';
import type { Runner, Session } from '../session.js';
import { snapshotRecord } from '../snapshots.js';
import { changeVolume } from '../volumes.js';

interface SetSnapshotOptions extends WritingOptions {
  readonly hide?: boolean;
  readonly show?: boolean;
  readonly offline?: boolean;
  readonly online?: boolean;
  readonly writable?: boolean;
  readonly readOnly?: boolean;
}

export const setSnapshotCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'set-snapshot',
    summary: 'hide a snapshot, take it offline, make it writable; and back',
    details: 'What is not named stays as it is.',
    examples: [
      'volsnap set-snapshot disk.img 1a2b3c4d --hide --offline',
      'volsnap set-snapshot disk.img 1a2b3c4d --writable',
    ],
    writes: true,
  })
    .argument('<ID>', 'the snapshot')
    .addOption(new Option('--hide', 'lists leave it out; its id works as ever').conflicts('show'))
    .option('--show', 'lists have it again')
    .addOption(new Option('--offline', 'nobody can read it; it is kept as any other').conflicts('online'))
    .option('--online', 'it can be read again')
    .addOption(new Option('--writable', 'it may itself be written').conflicts('readOnly'))
    .option('--read-only', 'it may not; what was written to it stays')
    .action(run(setSnapshot));

/** `undefined`: neither was given. */
const chosen = (yes: boolean | undefined, no: boolean | undefined): boolean | undefined =>
  yes === true ? true : no === true ? false : undefined;

async function setSnapshot(
  session: Session,
  path: string,
  id: string,
  options: SetSnapshotOptions,
): Promise<undefined> {
  const hidden = chosen(options.hide, options.show);
  const offline = chosen(options.offline, options.online);
  const writable = chosen(options.writable, options.readOnly);
  if (hidden === undefined && offline === undefined && writable === undefined)
    throw new UsageError(
      'say what to change: --hide or --show, --offline or --online, --writable or --read-only',
    );
  const record = await changeVolume(session, path, options, async (volume) => {
    const snapshot = findSnapshot(volume, id);
    if (hidden !== undefined || offline !== undefined) await snapshot.change({ hidden, offline });
    if (writable !== undefined) await snapshot.setWritable(writable);
    return snapshotRecord(snapshot);
  });
  const { output, json } = session;
  if (json) return void (await output.json(record));
  const states = [
    record.hidden ? 'hidden' : 'shown',
    record.offline ? 'offline' : 'online',
    record.writable ? 'writable' : 'read-only',
  ];
  await output.print(`${record.id} is ${states.join(', ')}`);
}
