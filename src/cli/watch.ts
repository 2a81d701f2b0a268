/** `info --watch`: what a volume that is being served does, again and again. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { RemoteVolume, ServingState, VolumeFigures } from '../index.js';
import { isAbort } from './failure.js';
import type { Output } from './output.js';
import type { Session } from './session.js';
import { formatCount, formatShare, formatSize } from './size.js';
import { pairLines } from './text.js';

const BLOCK = 16_384;
/** To the upper left corner, and everything from there on away. */
const CLEAR = '\u001b[H\u001b[2J';

interface Moment {
  readonly serving: ServingState;
  readonly figures: VolumeFigures;
  readonly snapshots: number;
}

/** What happened in one second between two moments. */
export interface Rates {
  readonly readsPerSecond: number;
  readonly readBytesPerSecond: number;
  readonly writesPerSecond: number;
  readonly writtenBytesPerSecond: number;
  readonly flushesPerSecond: number;
  readonly copiedBytesPerSecond: number;
}

const momentOf = ({ serving, figures, snapshots }: RemoteVolume): Moment => ({
  serving,
  figures,
  snapshots: snapshots.length,
});

export function ratesBetween(before: Moment, now: Moment): Rates {
  const seconds = (now.serving.forMs - before.serving.forMs) / 1000;
  const rate = (of: (moment: Moment) => number) =>
    seconds > 0 ? Math.round((of(now) - of(before)) / seconds) : 0;
  return {
    readsPerSecond: rate(({ serving }) => serving.reads),
    readBytesPerSecond: rate(({ serving }) => serving.readBytes),
    writesPerSecond: rate(({ serving }) => serving.writes),
    writtenBytesPerSecond: rate(({ serving }) => serving.writtenBytes),
    flushesPerSecond: rate(({ serving }) => serving.flushes),
    copiedBytesPerSecond: rate(({ figures }) => figures.copies.copiedBlocks * BLOCK),
  };
}

/** Until the session is interrupted, which is the way to end it, or nobody reads. @throws DeviceError if the server ends */
export async function watch(session: Session, volume: RemoteVolume, seconds: number): Promise<void> {
  const { output, signal, json } = session;
  let before = momentOf(volume);
  try {
    for (;;) {
      await sleep(seconds * 1000, undefined, { signal });
      await volume.refresh(signal);
      const now = momentOf(volume);
      const rates = ratesBetween(before, now);
      before = now;
      if (json) await output.print(JSON.stringify(recordOf(volume, now, rates)));
      else if (output.isTerminal)
        await output.write(Buffer.from(CLEAR + screenOf(volume, now, rates, output)));
      else await output.print(lineOf(now, rates));
      if (output.closed) return;
    }
  } catch (error) {
    if (!isAbort(error)) throw error;
  }
}

const recordOf = (volume: RemoteVolume, { serving, figures, snapshots }: Moment, rates: Rates) => ({
  time: new Date().toISOString(),
  volume: volume.name,
  pid: serving.pid,
  connections: serving.connections,
  inFlight: serving.inFlight,
  failures: serving.failures,
  snapshots,
  usedBytes: figures.usedBytes,
  allocatedBytes: figures.allocatedBytes,
  maximumBytes: figures.maximumBytes,
  bufferedBytes: figures.writeBuffer?.bufferedBytes ?? 0,
  queues: figures.queues,
  ...rates,
});

function lineOf({ serving, figures, snapshots }: Moment, rates: Rates): string {
  const bytes = (perSecond: number) => `${formatSize(perSecond)}/s`;
  return [
    new Date().toISOString(),
    `reads ${rates.readsPerSecond}/s ${bytes(rates.readBytesPerSecond)}`,
    `writes ${rates.writesPerSecond}/s ${bytes(rates.writtenBytesPerSecond)}`,
    `flushes ${rates.flushesPerSecond}/s`,
    `copied ${bytes(rates.copiedBytesPerSecond)}`,
    `in flight ${serving.inFlight}`,
    `snapshots ${snapshots}`,
    `used ${formatSize(figures.usedBytes)}`,
  ].join(', ');
}

function screenOf(volume: RemoteVolume, moment: Moment, rates: Rates, { colors }: Output): string {
  const { serving, figures, snapshots } = moment;
  const { usedBytes, allocatedBytes, maximumBytes, writeBuffer, queues } = figures;
  const both = (count: number, bytes: number) => `${formatCount(count)}/s, ${formatSize(bytes)}/s`;
  const pairs: [string, string][] = [
    ['clients', `${serving.connections} connected, ${serving.inFlight} requests in flight`],
    ['reads', both(rates.readsPerSecond, rates.readBytesPerSecond)],
    ['writes', both(rates.writesPerSecond, rates.writtenBytesPerSecond)],
    ['flushes', `${formatCount(rates.flushesPerSecond)}/s`],
    ['copies', `${formatSize(rates.copiedBytesPerSecond)}/s`],
    [
      'queues',
      Object.entries(queues)
        .map(([name, length]) => `${name} ${length}`)
        .join(', '),
    ],
  ];
  if (writeBuffer !== undefined) {
    pairs.push([
      'buffer',
      `${formatSize(writeBuffer.bufferedBytes)} of ${formatSize(writeBuffer.limitBytes)}`,
    ]);
  }
  pairs.push(
    ['snapshots', String(snapshots)],
    ['used', formatSize(usedBytes)],
    [
      'allocated',
      maximumBytes === 0
        ? formatSize(allocatedBytes)
        : `${formatSize(allocatedBytes)}, ${formatShare(allocatedBytes, maximumBytes)} of the limit`,
    ],
  );
  if (serving.failures > 0) pairs.push(['failures', colors.red(formatCount(serving.failures))]);
  const title = `${colors.bold(volume.name)}, served by process ${serving.pid}`;
  const end = colors.dim('Ctrl-C ends this; the volume is served on.');
  return [title, ...pairLines(pairs), '', end, ''].join('\n');
}
