/** What all commands share: options, help with an example, and how wrong usage is told. */
import { Argument, Command, Option } from 'commander';
import { parsePath, parseVolume, parseVolumeOrSnapshot, parseVolumes } from './places.js';

export interface CommonOptions {
  readonly json?: boolean;
  readonly store?: string;
}

export interface WritingOptions extends CommonOptions {
  readonly changed?: 'keep' | 'invalidate';
  readonly protectedBlocks?: 'reject' | 'drop';
  readonly shadowCopies?: 'keep' | 'drop';
  /** Seconds, and bytes; only `serve` asks. */
  readonly lateAreas?: number;
  readonly lateMemory?: number;
  /** Only `check` asks. */
  readonly undecided?: 'keep' | 'drop';
}

interface Description {
  readonly name: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** What else `--help` says. */
  readonly details?: string;
  /** Commands that can be tried as they are. */
  readonly examples: readonly string[];
  /** Does the command open the volume for writing? Then it takes `--changed` and `--shadow-copies`. */
  readonly writes?: boolean;
  /** Does it take several volumes? */
  readonly several?: boolean;
  /** Does it take a snapshot, `VOLUME@ID`, as well? */
  readonly snapshots?: boolean;
}

/** A command whose first argument is VOLUME. */
export function volumeCommand({
  name,
  summary,
  details,
  examples,
  writes,
  several,
  snapshots,
}: Description): Command {
  const volume = new Argument(
    several ? '<VOLUME...>' : '<VOLUME>',
    'path of an image or a block device, or an NBD address: nbd://HOST/EXPORT',
  );
  const command = new Command(name)
    .summary(summary)
    .description(sentences(summary, details))
    .addArgument(
      several
        ? volume.argParser(parseVolumes)
        : volume.argParser(snapshots ? parseVolumeOrSnapshot : parseVolume),
    )
    .helpOption('-h, --help', 'show this help')
    .option(
      '--store <DIR>',
      'where the snapshots are kept (default: VOLUME.volsnap, or inside the volume)',
      parsePath,
    )
    .option('--json', 'print JSON; errors too, on standard error')
    .addHelpText(
      'after',
      `\nExample${examples.length > 1 ? 's' : ''}:\n${examples.map((line) => `  $ ${line}\n`).join('')}`,
    );
  if (writes === true) {
    command.addOption(
      new Option(
        '--changed <HOW>',
        'if the volume was changed behind volsnap: keep its snapshots, or invalidate (drop) them',
      ).choices(['keep', 'invalidate']),
    );
    command.addOption(
      new Option(
        '--shadow-copies <HOW>',
        'of a volume that Windows wrote; a write that there is no room to keep them right for fails (keep), or drops them all (drop)',
      ).choices(['keep', 'drop']),
    );
  }
  return command;
}

/** Of commands that write what users ask them to. */
export const protectedBlocksOption = (): Option =>
  new Option(
    '--protected-blocks <HOW>',
    'what a write does that touches a store in runs of a file inside the volume: reject it (default), or drop all snapshots',
  ).choices(['reject', 'drop']);

const sentences = (summary: string, details = ''): string =>
  `${summary.charAt(0).toUpperCase()}${summary.slice(1)}. ${details}`.trimEnd();
