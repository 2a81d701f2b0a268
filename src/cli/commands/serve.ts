/** `volsnap serve`: volumes and their snapshots for NBD clients, until a signal comes. */
import { type Command, Option } from 'commander';
import { allDone } from '../../all-done.js';
import { Volume, VolumeServer, type WriteMode } from '../../index.js';
import { type Address, parseAddress } from '../address.js';
import { protectedBlocksOption, volumeCommand, type WritingOptions } from '../command.js';
import { asUsage, UsageError } from '../failure.js';
import { type ListeningOptions, tlsOf, untilSignal, withListening } from '../listening.js';
import { parseSeconds } from '../seconds.js';
import type { Runner, Session } from '../session.js';
import { parseSize } from '../size.js';
import { openDevice, openForChange, openWhenFree, refuseTwice, storeOf, tellRecovery } from '../volumes.js';

interface ServeOptions extends WritingOptions, ListeningOptions {
  readonly readOnly?: boolean;
  readonly writeMode: WriteMode;
  readonly metrics?: Address;
}

export const serveCommand = (run: Runner): Command =>
  withListening(
    volumeCommand({
      name: 'serve',
      summary: 'serve volumes and their snapshots over NBD',
      details:
        'Exports are live (also the empty name) and snapshot/ID; of several volumes, NAME/live and NAME/snapshot/ID. The URI is printed when clients can connect. Other commands work meanwhile. Ends with Ctrl-C or SIGTERM.',
      examples: [
        'volsnap serve disk.img',
        'volsnap serve disk.img --socket /run/vm/disk.sock',
        'volsnap serve disk.img --listen 0.0.0.0:10809 --tls-certificates /etc/pki/volsnap',
      ],
      writes: true,
      several: true,
    }),
    'nbd.sock in the store',
  )
    .addOption(
      new Option('--write-mode <MODE>', 'when a write is acknowledged: in memory, or in the volume')
        .choices(['writeback', 'ordered'])
        .default('writeback'),
    )
    .option(
      '--metrics <HOST:PORT>',
      'serve figures over HTTP, for Prometheus; a port alone: on this machine only',
      parseAddress,
    )
    .addOption(protectedBlocksOption())
    .option(
      '--late-areas <SECONDS>',
      'serve before all diff areas are there, and wait for them so long; copies for them are in memory meanwhile',
      parseSeconds,
    )
    .option('--late-memory <SIZE>', 'with --late-areas: memory for such copies (default: 64M)', parseSize)
    .addOption(
      // What is only for volumes that are written.
      new Option('--read-only', 'open the volumes for reading; others may, too').conflicts([
        'changed',
        'shadowCopies',
        'protectedBlocks',
        'lateAreas',
      ]),
    )
    .action(run(serve));

async function serve(session: Session, paths: readonly string[], options: ServeOptions): Promise<undefined> {
  if (options.store !== undefined && paths.length > 1)
    throw new UsageError('--store names the store of one volume; serve the others by processes of their own');
  refuseTwice(paths);
  if (options.lateMemory !== undefined && options.lateAreas === undefined)
    throw new UsageError('--late-memory goes with --late-areas only');
  const tls = await tlsOf(options);
  const volumes: Volume[] = [];
  const closeAll = () => allDone(volumes.map((volume) => volume.close()));
  try {
    for (const path of paths) volumes.push(await openToServe(session, path, options));
    const [first, ...others] = volumes;
    if (first === undefined) return;
    const server = await VolumeServer.start([first, ...others], {
      ...(options.socket === undefined ? {} : { socket: options.socket }),
      ...(options.listen === undefined
        ? {}
        : { listen: { ...options.listen, insecure: options.insecure ?? false } }),
      ...(tls === undefined ? {} : { tls }),
      ...(options.metrics === undefined ? {} : { metrics: options.metrics }),
      readOnly: options.readOnly ?? false,
      onError: (error) => session.notes.warn(error instanceof Error ? error.message : String(error)),
    }).catch((error: unknown) => {
      throw asUsage(error);
    });
    try {
      await untilSignal(session, () => tellReady(session, server));
    } finally {
      await server.close(closeAll);
    }
  } finally {
    await closeAll();
  }
}

async function openToServe(session: Session, path: string, options: ServeOptions): Promise<Volume> {
  const volume = await openWhenFree(session, async () =>
    options.readOnly === true
      ? Volume.open(await openDevice(session, path, false), { ...storeOf(options), readOnly: true })
      : openForChange(session, path, options, 'refuse', options.writeMode),
  );
  tellRecovery(session, volume);
  return volume;
}

async function tellReady(
  { output, json }: Session,
  { uris, exports, metricsUrl }: VolumeServer,
): Promise<void> {
  if (!json) return output.print(...uris);
  const names = exports.list().map(({ name }) => name);
  // One line, for programs that wait for it.
  const metrics = metricsUrl === undefined ? {} : { metrics: metricsUrl };
  await output.print(JSON.stringify({ uri: uris[0], uris, exports: names, pid: process.pid, ...metrics }));
}
