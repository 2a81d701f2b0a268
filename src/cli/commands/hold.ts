/** `volsnap hold` and `volsnap release`: snapshots that nothing deletes. */
import { type Command, InvalidArgumentError } from 'commander';
import { formatMoment } from '../age.js';
import { volumeCommand, type WritingOptions } from '../command.js';
import { findSnapshot } from '../ids.js';
import type { Runner, Session } from '../session.js';
import { snapshotRecord } from '../snapshots.js';
import { changeVolume } from '../volumes.js';

interface HoldOptions extends WritingOptions {
  readonly until?: Date;
}

export const holdCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'hold',
    summary: 'keep a snapshot whatever happens',
    details: 'No command, limit or lack of room deletes it, until the date or until it is released.',
    examples: ['volsnap hold disk.img 1a2b3c4d', 'volsnap hold disk.img 1a2b3c4d --until 2030-01-31'],
    writes: true,
  })
    .argument('<ID>', 'the snapshot')
    .option('--until <DATE>', 'a day or a moment, such as 2030-01-31 or 2030-01-31T18:00Z', parseDate)
    .action(run(hold));

export const releaseCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'release',
    summary: 'end the hold of a snapshot',
    examples: ['volsnap release disk.img 1a2b3c4d'],
    writes: true,
  })
    .argument('<ID>', 'the snapshot')
    .action(run(release));

const DATE = /^(?<day>\d{4}-\d{2}-\d{2})(?<time>[T ].+)?$/;

/** A day without a time begins at midnight here. @throws InvalidArgumentError of commander */
function parseDate(text: string): Date {
  const { day, time = 'T00:00' } = DATE.exec(text)?.groups ?? {};
  const date = new Date(`${day}${time}`);
  // For `Date` the 31st of February is a day in March.
  const isDay = day !== undefined && new Date(`${day}T00:00Z`).toJSON()?.startsWith(day);
  if (!isDay || Number.isNaN(date.getTime()))
    throw new InvalidArgumentError('Give a date such as 2030-01-31, or a moment such as 2030-01-31T18:00Z.');
  if (date.getTime() <= Date.now()) throw new InvalidArgumentError('Give a date to come.');
  return date;
}

async function hold(session: Session, path: string, id: string, options: HoldOptions): Promise<undefined> {
  const { until } = options;
  await change(
    session,
    path,
    id,
    options,
    `is held ${until ? `until ${formatMoment(until)}` : 'until it is released'}`,
    true,
  );
}

async function release(
  session: Session,
  path: string,
  id: string,
  options: WritingOptions,
): Promise<undefined> {
  await change(session, path, id, options, 'is not held', false);
}

async function change(
  session: Session,
  path: string,
  id: string,
  options: HoldOptions,
  what: string,
  isHold: boolean,
): Promise<void> {
  const record = await changeVolume(session, path, options, async (volume) => {
    const snapshot = findSnapshot(volume, id);
    const { until } = options;
    if (isHold) await snapshot.hold(until === undefined ? {} : { until });
    else await snapshot.release();
    return snapshotRecord(snapshot);
  });
  const { output, json } = session;
  if (json) await output.json(record);
  else await output.print(`${record.id} ${what}`);
}
