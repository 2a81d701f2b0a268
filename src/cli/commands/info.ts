/** `volsnap info`: a volume, its store, and the space it takes. */
import { statfs } from 'node:fs/promises';
import { type Command, InvalidArgumentError } from 'commander';
import {
  type ByteLength,
  NotFoundError,
  RemoteVolume,
  type RevertStatus,
  type ScrubStatus,
  type SpaceFigures,
  type VolumeAccess,
} from '../../index.js';
import { formatAge } from '../age.js';
import { type CommonOptions, volumeCommand } from '../command.js';
import type { Output } from '../output.js';
import type { Runner, Session } from '../session.js';
import { formatCount, formatShare, formatSize } from '../size.js';
import { oneLine, pairLines, shellWord } from '../text.js';
import { reachOwner, readVolume } from '../volumes.js';
import { watch as watchVolume } from '../watch.js';
import { policyPhrase } from './policy.js';

const LAYOUTS = {
  directory: 'a directory',
  'in-volume': 'inside the volume',
  windows: 'inside the volume, written by Windows',
} as const;

export const infoCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'info',
    summary: 'show a volume, its store and the space they take',
    examples: [
      'volsnap info disk.img',
      "volsnap info disk.img --json | jq '.usedBytes'",
      'volsnap info disk.img --watch',
    ],
  })
    .option(
      '--watch [SECONDS]',
      'of a volume that is served: what it does, again and again (default: every 2 seconds)',
      parseSeconds,
    )
    .action(run(info));

interface InfoOptions extends CommonOptions {
  /** `true`: without a number. */
  readonly watch?: number | true;
}

const WATCH_SECONDS = 2;
const WATCH_SECONDS_MIN = 0.1;
const WATCH_SECONDS_MAX = 86_400;

/** @throws InvalidArgumentError of commander */
function parseSeconds(text: string): number {
  const seconds = Number(text);
  if (seconds >= WATCH_SECONDS_MIN && seconds <= WATCH_SECONDS_MAX) return seconds;
  throw new InvalidArgumentError(`Give seconds from ${WATCH_SECONDS_MIN} on, such as 5.`);
}

async function watchServed(session: Session, path: string, options: InfoOptions): Promise<undefined> {
  const volume = await reachOwner(session, path, options);
  if (volume === undefined) {
    throw new NotFoundError(
      `no process serves ${path}, so there is nothing to watch; begin with: volsnap serve ${shellWord(path)}`,
    );
  }
  await using _ = volume;
  const { watch } = options;
  await watchVolume(session, volume, typeof watch === 'number' ? watch : WATCH_SECONDS);
}

async function info(session: Session, path: string, options: InfoOptions): Promise<undefined> {
  if (options.watch !== undefined) return watchServed(session, path, options);
  const { output, json } = session;
  await readVolume(session, path, options, async (volume) => {
    const facts = await factsOf(volume);
    if (json) await output.json(facts);
    else await output.print(output.colors.bold(oneLine(facts.volume)), ...pairLines(pairsOf(facts, output)));
  });
}

type Facts = Awaited<ReturnType<typeof factsOf>>;

async function factsOf(volume: VolumeAccess) {
  const { layout, storeName, usedBytes, allocatedBytes, maximumBytes, tableMemoryBytes, space } =
    volume.figures;
  const { snapshots, recovery } = volume;
  return {
    volume: volume.name,
    volumeSize: volume.size,
    layout,
    storeName,
    snapshots: snapshots.length,
    heldSnapshots: snapshots.filter(({ held }) => held).length,
    deletedSnapshots: volume.figures.deletion.snapshots,
    damagedSnapshots: snapshots.filter(({ state }) => state === 'damaged').length,
    oldestAt: timeOf(snapshots.at(0)?.createdAt),
    newestAt: timeOf(snapshots.at(-1)?.createdAt),
    usedBytes,
    /** What the newest snapshot leaves out. */
    unusedBytes: snapshots.at(-1)?.unusedBytes ?? 0,
    allocatedBytes,
    /** 0: no limit. */
    maximumBytes,
    hostFreeBytes: layout === 'directory' ? await freeBytes(storeName) : null,
    /** What happens to writes when there is no room, how fast copies take it, and when it is used up at that rate. */
    space: space === undefined ? null : spaceOf(space),
    tableMemoryBytes,
    closedCleanly: recovery.clean,
    /** The revert under way. */
    revert: volume.figures.revert ?? null,
    /** Snapshots that wait for their diff areas, which `snapshots` does not count. */
    late: volume.figures.late ?? null,
    /** The scrub under way. */
    scrub: volume.figures.scrub ?? null,
    servedBy: servedBy(volume),
  };
}

const spaceOf = (space: SpaceFigures) => ({
  policy: space.policy,
  waitMs: space.waitMs,
  afterWait: space.afterWait,
  isFull: space.isFull,
  waiting: space.waiting,
  roomBytes: space.roomBytes ?? null,
  bytesPerSecond: space.bytesPerSecond,
  secondsToFull: space.secondsToFull ?? null,
});

/** The process that serves the volume, and where its clients find it. */
const servedBy = (volume: VolumeAccess) =>
  volume instanceof RemoteVolume ? { pid: volume.serving.pid, uris: volume.serving.uris } : null;

const timeOf = (moment: Date | undefined): string | null =>
  moment === undefined || Number.isNaN(moment.getTime()) ? null : moment.toISOString();

async function freeBytes(path: string): Promise<ByteLength | null> {
  try {
    const { bavail, bsize } = await statfs(path);
    return bavail * bsize;
  } catch {
    return null;
  }
}

function pairsOf(facts: Facts, { colors }: Output): [string, string][] {
  const { volumeSize, usedBytes, allocatedBytes, maximumBytes, hostFreeBytes } = facts;
  const pairs: [string, string][] = [
    ['size', `${formatSize(volumeSize)} (${formatCount(volumeSize)} bytes)`],
    ['store', facts.layout === 'directory' ? oneLine(facts.storeName) : LAYOUTS[facts.layout]],
    ['snapshots', snapshotsPhrase(facts, colors.red)],
    ...latePairs(facts),
    ...deletedPairs(facts),
    ['used', `${formatSize(usedBytes)}, ${formatShare(usedBytes, volumeSize)} of the volume's size`],
    ['allocated', formatSize(allocatedBytes)],
    [
      'limit',
      maximumBytes === 0
        ? 'none'
        : `${formatSize(maximumBytes)}, ${formatShare(allocatedBytes, maximumBytes)} of it allocated`,
    ],
  ];
  if (facts.revert !== null) pairs.push(['revert', revertPhrase(facts.revert)]);
  if (facts.scrub !== null) pairs.push(['scrub', scrubPhrase(facts.scrub)]);
  if (facts.unusedBytes > 0)
    pairs.push(['unused', `${formatSize(facts.unusedBytes)} that the newest snapshot leaves out`]);
  if (hostFreeBytes !== null)
    pairs.push(['free', `${formatSize(hostFreeBytes)} on the file system of the store`]);
  if (facts.space !== null) pairs.push(['when full', policyPhrase(facts.space)], ...ratePairs(facts.space));
  if (facts.layout !== 'windows') {
    pairs.push(['tables', `${formatSize(facts.tableMemoryBytes)} of memory while it is open`]);
    if (facts.servedBy === null)
      pairs.push(['last use', facts.closedCleanly ? 'closed properly' : 'new, or not closed properly']);
  }
  if (facts.servedBy !== null)
    pairs.push(['served', `by process ${facts.servedBy.pid} at ${facts.servedBy.uris.join(' ')}`]);
  return pairs;
}

function revertPhrase({ phase, targetId, doneBytes, totalBytes, problem }: RevertStatus): string {
  const what = phase === 'reverting' ? `to ${targetId}` : `to ${targetId} was cancelled`;
  const state = `${formatShare(doneBytes, totalBytes)} put back`;
  return `${what}, ${state}${problem === undefined ? '' : `; it rests: ${problem}`}`;
}

/** Only of a volume that is being written. */
function ratePairs({
  bytesPerSecond,
  secondsToFull,
  isFull,
}: ReturnType<typeof spaceOf>): [string, string][] {
  const pairs: [string, string][] = [];
  if (isFull) pairs.push(['full', 'writes wait or fail because there is no room for copies']);
  if (bytesPerSecond === 0) return pairs;
  const full =
    secondsToFull === null ? '' : `, full ${formatAge(new Date(Date.now() + secondsToFull * 1000))}`;
  return [...pairs, ['copies', `${formatSize(bytesPerSecond)} a second${full}`]];
}
const scrubPhrase = ({ doneBytes, totalBytes, problems }: ScrubStatus): string =>
  `${formatShare(doneBytes, totalBytes)} of the copies read, ${problems === 0 ? 'nothing found' : `${problems} found`}`;

/** Those that wait for diff areas, if any. */
function latePairs({ late }: Facts): [string, string][] {
  if (late === null) return [];
  const { ids, copiedBytes, memoryLimit, leftMs } = late;
  const memory = `copies of ${formatSize(copiedBytes)} in memory, at most ${formatSize(memoryLimit)}`;
  return [
    ['late', `${ids.length} more wait for diff areas, ${Math.ceil(leftMs / 1000)} s longer; ${memory}`],
  ];
}

/** Deleted ones that are not merged yet, if any. */
const deletedPairs = ({ deletedSnapshots }: Facts): [string, string][] =>
  deletedSnapshots === 0 ? [] : [['deleted', `${deletedSnapshots}, being merged into older ones`]];

function snapshotsPhrase(
  { snapshots, heldSnapshots, damagedSnapshots, oldestAt, newestAt }: Facts,
  red: (text: string) => string,
): string {
  if (snapshots === 0) return 'none';
  const ages = [oldestAt, newestAt].flatMap((time) => (time === null ? [] : [formatAge(new Date(time))]));
  const [oldest, newest] = ages;
  const when = snapshots === 1 ? `taken ${oldest}` : `the oldest taken ${oldest}, the newest ${newest}`;
  const held = heldSnapshots > 0 ? `, ${heldSnapshots} held` : '';
  return `${snapshots}, ${when}${held}${damagedSnapshots > 0 ? red(`, ${damagedSnapshots} damaged`) : ''}`;
}
