/** `volsnap list`: the snapshots of a volume. */
import type { Command } from 'commander';
import type { RevertStatus, Snapshot } from '../../index.js';
import { formatAge, formatMoment } from '../age.js';
import { type CommonOptions, volumeCommand } from '../command.js';
import { shortId } from '../ids.js';
import type { Output } from '../output.js';
import type { Runner, Session } from '../session.js';
import { formatSize } from '../size.js';
import { rolePhrase, snapshotRecord } from '../snapshots.js';
import { cutTo, oneLine, shellWord, tableLines } from '../text.js';
import { readVolume } from '../volumes.js';

const LABEL_WIDTH = 32;

export const listCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'list',
    summary: 'list snapshots, the oldest first',
    details: 'On a terminal ids are shortened; the short ones can be used with every command.',
    examples: ['volsnap list disk.img', "volsnap list disk.img --json | jq -r '.[-1].id'"],
  }).action(run(list));

async function list(session: Session, path: string, options: CommonOptions): Promise<undefined> {
  const { output, json } = session;
  await readVolume(session, path, options, async ({ snapshots, figures }) => {
    const { revert } = figures;
    if (json) await output.json(snapshots.map((snapshot) => snapshotRecord(snapshot, revert)));
    else if (snapshots.length === 0)
      await output.print(`No snapshots yet. Take one: volsnap create ${shellWord(path)}`);
    else await output.print(...linesOf(snapshots, revert, output));
  });
}

function linesOf(
  snapshots: readonly Snapshot[],
  revert: RevertStatus | undefined,
  { colors, isTerminal }: Output,
): string[] {
  const labelled = snapshots.some(({ label }) => label !== undefined);
  const columns = [
    { title: 'ID' },
    ...(labelled ? [{ title: 'LABEL' }] : []),
    { title: 'TAKEN' },
    { title: 'AGE' },
    { title: 'VOLUME', align: 'right' },
    { title: 'USED', align: 'right' },
    { title: 'ALLOCATED', align: 'right' },
    { title: 'STATE' },
  ] as const;
  const rows = snapshots.map((snapshot) => {
    const label = oneLine(snapshot.label ?? '');
    return [
      colors.cyan(isTerminal ? shortId(snapshot, snapshots) : snapshot.id),
      ...(labelled ? [isTerminal ? cutTo(label, LABEL_WIDTH) : label] : []),
      formatMoment(snapshot.createdAt),
      formatAge(snapshot.createdAt),
      formatSize(snapshot.size),
      formatSize(snapshot.usedBytes),
      formatSize(snapshot.allocatedBytes),
      (snapshot.state === 'ok' ? colors.green : colors.red)(stateOf(snapshot)) + rolePhrase(snapshot, revert),
    ];
  });
  const [titles = '', ...lines] = tableLines(columns, rows);
  return [colors.dim(titles), ...lines];
}

/** `ok`, `ok, held`, `ok, held until 2030-01-31 00:00:00`. */
const stateOf = ({ state, held, heldUntil }: Snapshot): string =>
  `${state}${held ? ', held' : ''}${heldUntil === undefined ? '' : ` until ${formatMoment(heldUntil)}`}`;
