/** `volsnap cache`: cache images, and devices served through one. What the commands do is in `../cache-commands.ts`, loaded when one runs. */
import { Command, InvalidArgumentError, Option } from 'commander';
import {
  type ByteLength,
  CACHE_SIZE_MAX,
  CACHE_SIZE_MIN,
  FILL_SIZE_MAX,
  FILL_SIZE_MIN,
  SECTOR_SIZE,
} from '../../index.js';
import { Status } from '../failure.js';
import { type ListeningOptions, withListening } from '../listening.js';
import { parsePath, parseVolume } from '../places.js';
import type { Runner } from '../session.js';
import { formatSize, parsePositiveSize, parseSize } from '../size.js';
import { parseUuid } from '../uuid.js';

export interface CacheCreateOptions {
  readonly size: ByteLength;
  readonly fixed?: boolean;
  readonly replace?: boolean;
  readonly uuid?: string;
}

export interface CacheServeOptions extends ListeningOptions {
  readonly readOnly?: boolean;
  readonly policy: 'write-through' | 'write-around';
  readonly readAhead: ByteLength;
  readonly fill: ByteLength;
  readonly memory: ByteLength;
  readonly modificationUuid?: string;
}

const MEBIBYTE = 1024 * 1024;

export const cacheCommand = (run: Runner): Command => {
  const command = new Command('cache')
    .summary('cache what is slow to reach, in an image')
    .description(
      'Cache what is slow to reach, in an image. Images are in the format of VirtualBox (VCI) and survive restarts and crashes.',
    )
    .helpOption('-h, --help', 'show this help')
    .helpCommand('help [COMMAND]', 'show the help of a command')
    .addHelpText(
      'after',
      examples('volsnap cache create disk.vci --size 20G', 'volsnap cache serve disk.vci nbd://host/export'),
    );
  for (const make of [create, info, check, dump, compact, serve]) command.addCommand(make(run));
  return command;
};

function imageCommand(name: string, summary: string, details: string, ...lines: readonly string[]): Command {
  return new Command(name)
    .summary(summary)
    .description(`${summary.charAt(0).toUpperCase()}${summary.slice(1)}. ${details}`.trimEnd())
    .argument('<IMAGE>', 'path of the cache image', parsePath)
    .helpOption('-h, --help', 'show this help')
    .option('--json', 'print JSON; errors too, on standard error')
    .addHelpText('after', examples(...lines));
}

const examples = (...lines: readonly string[]): string =>
  `\nExample${lines.length > 1 ? 's' : ''}:\n${lines.map((line) => `  $ ${line}\n`).join('')}`;

/** @throws InvalidArgumentError of commander, which ends as wrong usage */
function parseImageSize(text: string): ByteLength {
  const size = parseSize(text);
  if (size < CACHE_SIZE_MIN || size > CACHE_SIZE_MAX || size % SECTOR_SIZE !== 0)
    throw new InvalidArgumentError(
      `Give ${formatSize(CACHE_SIZE_MIN)} to ${CACHE_SIZE_MAX} bytes, a multiple of ${SECTOR_SIZE}.`,
    );
  return size;
}

/** @throws InvalidArgumentError of commander */
function parseFillSize(text: string): ByteLength {
  const size = parseSize(text);
  if (!Number.isInteger(Math.log2(size)) || size < FILL_SIZE_MIN || size > FILL_SIZE_MAX)
    throw new InvalidArgumentError(
      `Give a power of two from ${formatSize(FILL_SIZE_MIN)} to ${formatSize(FILL_SIZE_MAX)}.`,
    );
  return size;
}

const create = (run: Runner): Command =>
  imageCommand(
    'create',
    'make an empty cache image',
    '',
    'volsnap cache create disk.vci --size 20G',
    'volsnap cache create /dev/vg0/cache --size 100G --fixed',
  )
    .requiredOption('--size <SIZE>', 'bytes of the image at most, metadata included', parseImageSize)
    .option('--fixed', 'take all of its space now, instead of growing')
    .option('--uuid <UUID>', 'UUID of the image (default: a random one)', parseUuid)
    .option('--replace', 'replace a cache image that is there')
    .action(
      run(async (session, image: string, options: CacheCreateOptions) =>
        (await import('../cache-commands.js')).createImage(session, image, options),
      ),
    );

const info = (run: Runner): Command =>
  imageCommand('info', 'show what a cache image is and holds', '', 'volsnap cache info disk.vci').action(
    run(async (session, image: string) => (await import('../cache-commands.js')).showImage(session, image)),
  );

const check = (run: Runner): Command =>
  imageCommand(
    'check',
    'look for damage in a cache image',
    'Exit status: 0 sound, 1 problems (each on a line), 2 could not run. One that was not closed cleanly is sound: opening it drops what is not certain.',
    'volsnap cache check disk.vci',
  ).action(
    run(
      async (session, image: string) => (await import('../cache-commands.js')).checkImage(session, image),
      Status.usage,
    ),
  );

const dump = (run: Runner): Command =>
  imageCommand(
    'dump',
    'print the structures of a cache image',
    'Numbers are blocks of 512 bytes.',
    'volsnap cache dump disk.vci',
  ).action(
    run(async (session, image: string) => (await import('../cache-commands.js')).dumpImage(session, image)),
  );

const compact = (run: Runner): Command =>
  imageCommand(
    'compact',
    'make the file of a cache image as short as it can be',
    'Nothing that is cached is lost.',
    'volsnap cache compact disk.vci',
  ).action(
    run(async (session, image: string) =>
      (await import('../cache-commands.js')).compactImage(session, image),
    ),
  );

const serve = (run: Runner): Command =>
  withListening(
    imageCommand(
      'serve',
      'serve a device through a cache image, over NBD',
      'The export has the empty name; the URI is printed when clients can connect. While it is served nothing else may write the backing. Ends with Ctrl-C or SIGTERM.',
      'volsnap cache serve disk.vci nbd://host/export',
      'volsnap cache serve disk.vci nbds://host/export --socket /run/vm/disk.sock --policy write-around',
    ).argument(
      '<BACKING>',
      'what is cached: an NBD address, or the path of an image or a block device',
      parseVolume,
    ),
    'IMAGE.sock',
  )
    .addOption(
      new Option('--policy <POLICY>', 'whether what is written is cached')
        .choices(['write-through', 'write-around'])
        .default('write-through'),
    )
    .option(
      '--read-ahead <SIZE>',
      'read ahead of who reads in order, at most; 0: not',
      parseSize,
      4 * MEBIBYTE,
    )
    .option('--fill <SIZE>', 'read so much around what is missing, a power of two', parseFillSize, 65_536)
    .option('--memory <SIZE>', 'for the tree and the order of use', parsePositiveSize, 48 * MEBIBYTE)
    .option(
      '--modification-uuid <UUID>',
      'of which state the backing is; of another, the cache is emptied',
      parseUuid,
    )
    .option('--read-only', 'open the backing for reading')
    .action(
      run(async (session, image: string, backing: string, options: CacheServeOptions) =>
        (await import('../cache-commands.js')).serveCached(session, image, backing, options),
      ),
    );
