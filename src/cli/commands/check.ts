/** `volsnap check`: is everything that the snapshots are made of sound? */
import { type Command, Option } from 'commander';
import {
  type BlockDevice,
  checkVolume,
  FormatError,
  InUseError,
  type CheckOptions as LibraryOptions,
  type Problem,
  UnsupportedError,
} from '../../index.js';
import { volumeCommand, type WritingOptions } from '../command.js';
import { Status } from '../failure.js';
import { withProgress } from '../progress.js';
import type { Runner, Session } from '../session.js';
import { oneLine } from '../text.js';
import { openDevice, reachOrOpen, repairVolume, storeOf } from '../volumes.js';

interface CheckOptions extends WritingOptions {
  readonly repair?: boolean;
  readonly scrub?: boolean;
}

/** Exit status where the check itself failed; 1 says that problems were found. */
const COULD_NOT_RUN = 2;

export const checkCommand = (run: Runner): Command =>
  volumeCommand({
    name: 'check',
    summary: 'look for damage in the snapshots of a volume',
    details: 'Exit status: 0 sound, 1 problems (each on a line), 2 could not run.',
    examples: ['volsnap check disk.img', 'volsnap check disk.img --scrub', 'volsnap check disk.img --repair'],
    writes: true,
  })
    .option('--scrub', 'also read every copy and verify its checksum')
    .option('--repair', 'remove snapshots that are damaged, and then check again')
    .addOption(
      new Option(
        '--undecided <HOW>',
        'with --repair: keep or drop pending members of sets whose other volumes cannot be asked',
      ).choices(['keep', 'drop']),
    )
    .action(run(check, COULD_NOT_RUN));

async function check(session: Session, path: string, options: CheckOptions): Promise<number> {
  const { json, output } = session;
  const found = await look(session, path, options);
  if (!json) await output.print(...found.map(lineOf));
  const isRepair = options.repair === true && (found.length > 0 || options.undecided !== undefined);
  const removed = isRepair ? await repair(session, path, options, found) : undefined;
  // A failed repair has said why; what was found is what there is.
  const left = removed === undefined ? found : await look(session, path, options);
  if (json) {
    await output.json({
      sound: left.length === 0,
      problems: left,
      ...(isRepair ? { found, removed: removed ?? [] } : {}),
    });
  } else {
    await output.print(...(removed ?? []).map((id) => `removed ${id}`));
    if (removed !== undefined)
      await output.print(...left.map((problem) => `still there: ${lineOf(problem)}`));
    if (left.length === 0) await output.print(`${path}: ${output.colors.green('sound')}`);
    else if (output.isTerminal) await output.print(output.colors.red(countOf(left.length)));
  }
  return left.length === 0 ? Status.done : Status.failed;
}

async function look(session: Session, path: string, options: CheckOptions): Promise<Problem[]> {
  const found = await withProgress(session, 'Checking', (onProgress) => {
    const how = { scrub: options.scrub ?? false, signal: session.signal, onProgress };
    return reachOrOpen(session, path, options, {
      served: (volume) => volume.check(how),
      open: () => openDevice(path, false),
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

/** @returns ids of the snapshots that are gone; `undefined` if nothing could be done, which is told */
async function repair(
  session: Session,
  path: string,
  options: CheckOptions,
  found: readonly Problem[],
): Promise<string[] | undefined> {
  if (options.changed === undefined && found.some(({ code }) => code === 'volume-changed')) {
    session.notes.warn(
      'not repaired: say what to do about the change with --changed keep or --changed invalidate',
    );
    return undefined;
  }
  try {
    return await repairVolume(session, path, options, async ({ recovery }) =>
      recovery.droppedSnapshots.map(({ id }) => id),
    );
  } catch (error) {
    const isKnown =
      error instanceof FormatError || error instanceof UnsupportedError || error instanceof InUseError;
    if (!isKnown) throw error;
    session.notes.warn(`cannot be repaired: ${error.message}`);
    return undefined;
  }
}

function lineOf({ code, message, snapshot }: Problem): string {
  return oneLine(`${code}${snapshot === undefined ? '' : ` ${snapshot}`}: ${message}`);
}

const countOf = (problems: number): string => (problems === 1 ? 'One problem.' : `${problems} problems.`);
