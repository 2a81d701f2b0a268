/**
 * Question: what does it cost to read the oldest of many snapshots, when its blocks were copied in various younger ones?
 *
 * Blocks that are written at various times lie apart, whether snapshots are taken in between or not, and each is a call of its own. So beside each
 * volume with many snapshots stands one with a single snapshot and the same writes in the same order.
 *
 * All volumes are read in turn, several times over. Besides the median it says how long the fastest pass took and how long processors
 * were busy, which other processes on the machine disturb less.
 */
import type { Volume } from '../../src/index.js';
import { BLOCK_SIZE } from '../../src/units.js';
import { Place } from './place.js';
import type { Figures } from './table.js';
import { type Load, run, type Target } from './workload.js';

const PASSES = 15;
const MEBIBYTE = 2 ** 20;
const LOAD: Load = { name: '', kind: 'read', request: MEBIBYTE, order: 'sequential', depth: 4 };

interface Contender {
  readonly name: string;
  readonly target: Target;
  /** Of each pass, microseconds a MiB. */
  readonly elapsed: number[];
  readonly busy: number[];
}

export async function depth(size: number): Promise<Figures[]> {
  const bytes = size / 4;
  const opened: AsyncDisposable[] = [];
  try {
    const contenders: Contender[] = [];
    const add = async (name: string, snapshots: number, rounds: number) => {
      const place = await Place.create(bytes);
      opened.push(place);
      const volume = await place.volume();
      opened.push(volume);
      const target = await withSnapshots(volume, snapshots, rounds);
      contenders.push({ name, target, elapsed: [], busy: [] });
    };
    await add('1 snapshot', 1, 1);
    for (const count of size < 2 ** 26 ? [8] : [64, 512]) {
      await add(`${count} snapshots`, count, count);
      await add(`1, same writes as ${count}`, 1, count);
    }
    for (let pass = 0; pass < PASSES; pass++) {
      for (const contender of contenders) await measure(contender, bytes);
    }
    const row = (name: string, of: (contender: Contender) => number): Figures => ({
      name: `oldest snapshot, 1 MiB sequential read, ${name}`,
      unit: 'µs/MiB',
      values: Object.fromEntries(contenders.map((contender) => [contender.name, of(contender)])),
    });
    return [
      row('time', ({ elapsed }) => median(elapsed)),
      row('time of the fastest pass', ({ elapsed }) => Math.min(...elapsed)),
      row('processors busy', ({ busy }) => median(busy)),
    ];
  } finally {
    for (const one of opened.reverse()) await one[Symbol.asyncDispose]();
  }
}

/** Every round writes its share of the blocks, spread over the volume; the first ones begin with a snapshot. */
async function withSnapshots(volume: Volume, count: number, rounds: number): Promise<Target> {
  const blocks = volume.size / BLOCK_SIZE;
  const bytes = new Uint8Array(BLOCK_SIZE).fill(9);
  for (let i = 0; i < rounds; i++) {
    if (i < count) await volume.createSnapshot();
    const writes: Promise<void>[] = [];
    for (let block = i; block < blocks; block += rounds) writes.push(volume.write(block * BLOCK_SIZE, bytes));
    await Promise.all(writes);
  }
  const [oldest] = volume.snapshots;
  if (oldest === undefined) throw new Error('no snapshot');
  return {
    read: (offset, buffer) => oldest.read(offset, buffer),
    write: async () => undefined,
    flush: async () => undefined,
  };
}

async function measure({ target, elapsed, busy }: Contender, bytes: number): Promise<void> {
  const before = process.cpuUsage();
  const speed = await run(LOAD, target, bytes);
  const { user, system } = process.cpuUsage(before);
  elapsed.push(1e6 / speed);
  busy.push((user + system) / (bytes / MEBIBYTE));
}

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
