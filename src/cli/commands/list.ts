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
import { oneLine, shellWord } from '../text.js';
import { readVolume } from '../volumes.js';

interface ListOptions extends CommonOptions {
  readonly all?: boolean;
}

const LABEL_WIDTH = 32;
/** Enough to see which belong together. */
const SET_DIGITS = 8;

export const listCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'list',
    summary: 'list snapshots, the oldest first',
    details: 'On a terminal ids are shortened; the short ones can be used with every command.',
    examples: ['volsnap list disk.img', "volsnap list disk.img --json | jq -r '.[-1].id'"],
  })
    .option('--all', 'hidden ones too')
    .action(run(list));

async function list(session: Session, path: string, options: ListOptions): Promise<undefined> {
  const { output, json, notes } = session;
  await readVolume(session, path, options, async (volume) => {
    const { revert, late } = volume.figures;
    if (late !== undefined)
      notes.warn(
        `not shown: ${late.ids.length} that wait for a diff area which has not arrived: ${late.ids.join(', ')}`,
      );
    const snapshots = volume.snapshots.filter(({ hidden }) => options.all === true || !hidden);
    if (json) await output.json(snapshots.map((snapshot) => snapshotRecord(snapshot, revert)));
    else if (snapshots.length === 0)
      await output.print(`No snapshots yet. Take one: volsnap create ${shellWord(path)}`);
    else await output.print(...(await linesOf(snapshots, revert, output)));
  });
}

async function linesOf(
  snapshots: readonly Snapshot[],
  revert: RevertStatus | undefined,
  { colors, isTerminal }: Output,
): Promise<string[]> {
  const { cutTo, tableLines } = await import('../table.js');
  // One that was taken alone has a set of its own, which says nothing.
  const inSets = snapshots.some(({ inSet }) => inSet);
  const labelled = snapshots.some(({ label }) => label !== undefined);
  const columns = [
    { title: 'ID' },
    ...(labelled ? [{ title: 'LABEL' }] : []),
    ...(inSets ? [{ title: 'SET' }] : []),
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
      ...(inSets
        ? [snapshot.inSet ? (isTerminal ? snapshot.setId.slice(0, SET_DIGITS) : snapshot.setId) : '']
        : []),
      formatMoment(snapshot.createdAt),
      formatAge(snapshot.createdAt),
      formatSize(snapshot.size),
      formatSize(snapshot.usedBytes),
      formatSize(snapshot.allocatedBytes),
      stateText(snapshot, colors) + rolePhrase(snapshot, revert),
    ];
  });
  const [titles = '', ...lines] = tableLines(columns, rows);
  return [colors.dim(titles), ...lines];
}

/** `ok`, `ok, held`, `ok, held until 2030-01-31 00:00:00, hidden`. */
function stateText({ state, held, heldUntil, hidden, offline }: Snapshot, colors: Output['colors']): string {
  const hold = heldUntil === undefined ? 'held' : `held until ${formatMoment(heldUntil)}`;
  const notes = [...(held ? [hold] : []), ...(hidden ? ['hidden'] : []), ...(offline ? ['offline'] : [])];
  const text = [state, ...notes].join(', ');
  return state === 'ok' ? colors.green(text) : colors.red(text);
}
