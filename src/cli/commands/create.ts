/** `volsnap create`: takes a snapshot. */
import { createReadStream } from 'node:fs';
import type { Command } from 'commander';
import { InvalidArgumentError } from '../../index.js';
import { volumeCommand, type WritingOptions } from '../command.js';
import { explained } from '../failure.js';
import { shortId } from '../ids.js';
import type { Runner, Session } from '../session.js';
import { snapshotRecord } from '../snapshots.js';
import { shellWord } from '../text.js';
import { changeVolume } from '../volumes.js';

/** More than a snapshot can hold, whatever else it holds. */
const APPLICATION_INFO_MAX = 16_256;

interface CreateOptions extends WritingOptions {
  readonly label?: string;
  readonly appInfo?: string;
  readonly writable?: boolean;
  readonly skipUnused?: true;
  readonly frozen?: true;
}

export const createCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'create',
    summary: 'take a snapshot and print its id',
    examples: [
      'volsnap create disk.img',
      "volsnap create disk.img --label 'before the upgrade'",
      'volsnap create disk.img --writable',
      'volsnap create disk.img --skip-unused',
    ],
    writes: true,
  })
    .option('--label <TEXT>', 'a name for people')
    .option('--app-info <FILE>', 'bytes to keep with the snapshot, up to about 16,000')
    .option('--writable', 'the snapshot itself may be written, which nothing else sees')
    .option(
      '--skip-unused',
      'leave out what the file system (NTFS, ext2/3/4) does not use; it reads as zeros',
    )
    .option(
      '--frozen',
      'with --skip-unused: the file system is not mounted or frozen, whether it says so or not',
    )
    .action(run(create));

async function create(session: Session, path: string, options: CreateOptions): Promise<undefined> {
  const { label, appInfo, writable } = options;
  const applicationInfo = appInfo === undefined ? undefined : await readInformation(appInfo);
  const snapshot = await changeVolume(session, path, options, async (volume) => {
    const unknown = new Map<string, string>();
    volume.on('unusedSpaceUnknown', ({ id, reason }) => unknown.set(id, reason));
    const taken = await volume.createSnapshot({
      ...(label === undefined ? {} : { label }),
      ...(writable === true ? { writable } : {}),
      ...(applicationInfo === undefined ? {} : { applicationInfo }),
      ...(options.skipUnused === true ? { unusedSpace: options.frozen === true ? 'frozen' : 'auto' } : {}),
    });
    const reason = unknown.get(taken.id);
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

async function readInformation(path: string): Promise<Uint8Array> {
  return explained(`read ${path}`, async () => {
    const pieces: Buffer[] = [];
    let length = 0;
    // It may be a pipe, and one that never ends.
    for await (const piece of createReadStream(path)) {
      pieces.push(piece);
      length += piece.byteLength;
      if (length > APPLICATION_INFO_MAX) {
        throw new InvalidArgumentError(
          `${path} is too large: at most ${APPLICATION_INFO_MAX} bytes fit a snapshot`,
        );
      }
    }
    return Buffer.concat(pieces);
  });
}
