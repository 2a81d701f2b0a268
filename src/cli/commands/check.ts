/** `volsnap check`: is everything that the snapshots are made of sound? */
import type { Command } from 'commander';
import { checkVolume, type Problem } from '../../index.js';
import { volumeCommand, type WritingOptions } from '../command.js';
import { Status } from '../failure.js';
import { withProgress } from '../progress.js';
import type { Runner, Session } from '../session.js';
import { oneLine } from '../text.js';
import { changeVolume, openDevice, storeOf } from '../volumes.js';

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
    .action(run(check, COULD_NOT_RUN));

async function check(session: Session, path: string, options: CheckOptions): Promise<number> {
  const { json, output } = session;
  const found = await look(session, path, options);
  const repair = options.repair === true && found.length > 0;
  if (!json) for (const problem of found) await output.print(lineOf(problem));
  const removed = repair ? await removeDamaged(session, path, options) : [];
  const left = repair ? await look(session, path, options) : found;
  const { green, red } = output.colors;
  if (json) await output.json({ sound: left.length === 0, problems: left, ...(repair ? { found, removed } : {}) });
  else {
    if (repair) {
      await output.print(...removed.map((id) => `removed ${id}`));
      for (const problem of left) await output.print(`still: ${lineOf(problem)}`);
    }
    if (output.isTerminal) {
      await output.print(left.length === 0 ? green('Sound.') : red(`${left.length} problem${left.length > 1 ? 's' : ''}.`));
    }
  }
  return left.length === 0 ? Status.done : Status.failed;
}

async function look(session: Session, path: string, options: CheckOptions): Promise<Problem[]> {
  const device = await openDevice(path, false);
  try {
    return await withProgress(session, 'Checking', (update) =>
      checkVolume(device, {
        ...storeOf(options),
        scrub: options.scrub ?? false,
        signal: session.signal,
        onProgress: update,
      }),
    );
  } finally {
    await device.close();
  }
}

/** @returns ids of the snapshots that are gone */
async function removeDamaged(session: Session, path: string, options: CheckOptions): Promise<string[]> {
  return [];
}

function lineOf({ code, message, snapshot }: Problem): string {
  return oneLine(`${code}${snapshot === undefined ? '' : ` ${snapshot}`}: ${message}`);
}
