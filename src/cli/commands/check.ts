/** `volsnap check`: is everything that the snapshots are made of sound? */
import { type Command, Option } from 'commander';
import {
  type BlockDevice,
  type ByteLength,
  checkVolume,
  explainProblem,
  FormatError,
  InUseError,
  type CheckOptions as LibraryOptions,
  type Problem,
  UnsupportedError,
} from '../../index.js';
import { volumeCommand, type WritingOptions } from '../command.js';
import { Status, UsageError } from '../failure.js';
import { withProgress } from '../progress.js';
import type { Runner, Session } from '../session.js';
import { parsePositiveSize } from '../size.js';
import { oneLine } from '../text.js';
import { openDevice, openForChange, reachOrOpen, storeOf, useVolume } from '../volumes.js';

interface CheckOptions extends WritingOptions {
  readonly repair?: boolean;
  readonly scrub?: boolean;
  /** Bytes a second. */
  readonly rate?: ByteLength;
}

/** Exit status where the check itself failed; 1 says that problems were found. */
const COULD_NOT_RUN = 2;

export const checkCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'check',
    summary: 'look for damage in the snapshots of a volume',
    details: 'Exit status: 0 sound, 1 problems (each on a line), 2 could not run.',
    examples: [
      'volsnap check disk.img',
      'volsnap check disk.img --scrub --rate 20M',
      'volsnap check disk.img --scrub --repair',
    ],
    writes: true,
  })
    .option('--scrub', 'also read every copy and verify its checksum')
    .option(
      '--rate <SIZE>',
      'of --scrub: read so much in a second, at most (default: no limit)',
      parsePositiveSize,
    )
    .option('--repair', 'put right what can be, remove snapshots that are damaged, and then check again')
    .addOption(
      new Option(
        '--undecided <HOW>',
        'with --repair: keep or drop pending members of sets whose other volumes cannot be asked',
      ).choices(['keep', 'drop']),
    )
    .action(run(check, COULD_NOT_RUN));

async function check(session: Session, path: string, options: CheckOptions): Promise<number> {
  const { json, output } = session;
  if (options.rate !== undefined && options.scrub !== true) throw new UsageError('--rate goes with --scrub');
  for (const name of ['undecided', 'changed'] as const) {
    if (options[name] !== undefined && options.repair !== true)
      throw new UsageError(`--${name} goes with --repair`);
  }
  const found = await look(session, path, options);
  if (!json) await output.print(...found.map((problem) => `${lineOf(problem)} ${explainProblem(problem)}`));
  const isRepair = options.repair === true && (found.length > 0 || options.undecided !== undefined);
  const repair = isRepair ? await mend(session, path, options, found) : undefined;
  // A failed repair has said why; what was found is what there is.
  const left = repair === undefined ? found : await look(session, path, options);
  if (json) {
    await output.json({
      sound: left.length === 0,
      problems: left.map(explained),
      ...(isRepair ? { found, removed: repair?.removed ?? [], repaired: repair?.repaired ?? [] } : {}),
    });
  } else {
    const { removed = [], repaired = [] } = repair ?? {};
    await output.print(...removed.map((id) => `removed ${id}`));
    await output.print(...repaired.map((problem) => `repaired: ${lineOf(problem)}`));
    if (repair !== undefined) await output.print(...left.map((problem) => `still there: ${lineOf(problem)}`));
    if (left.length === 0) await output.print(`${oneLine(path)}: ${output.colors.green('sound')}`);
    else if (output.isTerminal) await output.print(output.colors.red(countOf(left.length)));
  }
  return left.length === 0 ? Status.done : Status.failed;
}

const scrubOf = ({ signal }: Session, { rate }: CheckOptions) => ({ bytesPerSecond: rate, signal });

async function look(session: Session, path: string, options: CheckOptions): Promise<Problem[]> {
  const found = await withProgress(session, 'Checking', (onProgress) => {
    const how = { scrub: options.scrub ?? false, ...scrubOf(session, options), onProgress };
    return reachOrOpen<BlockDevice, Problem[]>(session, path, options, {
      served: (volume) => volume.check(how),
      open: () => openDevice(session, path, false),
      local: (device) => lookAt(device, options, how),
    });
  });
  for (const { code, message } of found) if (code === 'note') session.notes.warn(message);
  return found.filter(({ code }) => code !== 'note');
}

async function lookAt(device: BlockDevice, options: CheckOptions, how: LibraryOptions): Promise<Problem[]> {
  try {
    return await checkVolume(device, { ...storeOf(options), ...how });
  } finally {
    await device.close();
  }
}

interface Repair {
  /** Ids of the snapshots that are gone. */
  readonly removed: readonly string[];
  readonly repaired: readonly Problem[];
}

/** @returns `undefined` if nothing could be done, which is told */
async function mend(
  session: Session,
  path: string,
  options: CheckOptions,
  found: readonly Problem[],
): Promise<Repair | undefined> {
  const { notes } = session;
  if (options.changed === undefined && found.some(({ code }) => code === 'volume-changed')) {
    notes.warn('not repaired: say what to do about the change with --changed keep or --changed invalidate');
    return undefined;
  }
  const isBad = found.some(({ code }) => code === 'checksum' || code === 'unreadable');
  try {
    return await withProgress(session, 'Repairing', (onProgress) => {
      const how = { ...scrubOf(session, options), repair: true, onProgress };
      return reachOrOpen(session, path, options, {
        served: async (volume) => {
          const problems = await volume.check({ ...how, scrub: isBad });
          if (problems.some(({ repaired }) => repaired !== true))
            notes.warn(
              'of a volume that is being served only copies and the control file are repaired; for the rest end the process that serves it',
            );
          return { removed: [], repaired: repairedOf(problems) };
        },
        // Opening for writing removes what is damaged.
        open: () => openForChange(session, path, options, 'drop'),
        local: (volume) =>
          useVolume(volume, async () => ({
            removed: volume.recovery.droppedSnapshots.map(({ id }) => id),
            repaired: isBad ? repairedOf((await volume.scrub(how)).problems) : [],
          })),
      });
    });
  } catch (error) {
    const isKnown =
      error instanceof FormatError || error instanceof UnsupportedError || error instanceof InUseError;
    if (!isKnown) throw error;
    notes.warn(`cannot be repaired: ${error.message}`);
    return undefined;
  }
}

const repairedOf = (problems: readonly Problem[]): Problem[] =>
  problems.filter(({ repaired }) => repaired === true);

const explained = (problem: Problem) => ({ ...problem, explanation: explainProblem(problem) });

/** Ends with a full stop. */
function lineOf({ code, message, snapshot }: Problem): string {
  const about = snapshot === undefined ? code : `${code} ${snapshot}`;
  const what = message.replace(`snapshot ${snapshot}: `, '').replace(/\.$/, '');
  return oneLine(`${about}: ${what}.`);
}

const countOf = (problems: number): string => (problems === 1 ? 'One problem.' : `${problems} problems.`);
