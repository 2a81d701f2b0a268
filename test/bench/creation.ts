/**
 * Question: how long does taking a snapshot of a 1 TiB sparse volume take, and how long does a write wait at most meanwhile,
 * at depth 16? The size only says how often.
 */
import type { WriteMode } from '../../src/index.js';
import { Place } from './place.js';
import type { Figures } from './table.js';

const MODES: readonly WriteMode[] = ['ordered', 'writeback'];
const WRITERS = 16;
/** Milliseconds between two snapshots. */
const PAUSE = 50;

interface Times {
  /** From the call to its return. */
  readonly create: number[];
  /** From the moment to the commit. */
  readonly hold: number[];
  /** The longest call of `write` that began or ended while a snapshot was being taken. */
  readonly wait: number[];
  /** The longest of those that ended between snapshots: what writes wait for anyway. */
  readonly otherwise: number[];
}

export async function creation(size: number): Promise<Figures[]> {
  const count = size < 2 ** 26 ? 3 : 20;
  const all: Figures[] = [];
  for (const mode of MODES) {
    const times = await measure(mode, count);
    const of = (name: string, values: number[]): Figures => ({
      name: `${name}, ${mode}`,
      unit: 'ms',
      values: { median: middle(values), longest: Math.max(...values) },
    });
    all.push(
      of('create, 1 TiB volume, 16 writers', times.create),
      of('writers held', times.hold),
      of('longest write meanwhile', times.wait),
      of('longest write between', times.otherwise),
    );
  }
  return all;
}

async function measure(writeMode: WriteMode, count: number): Promise<Times> {
  await using place = await Place.create(2 ** 40);
  const volume = await place.volume('directory', false, { writeMode });
  let stop = false;
  let longest = 0;
  const bytes = new Uint8Array(4096).fill(1);
  const writers = Array.from({ length: WRITERS }, async (_, writer) => {
    for (let i = 0; !stop; i++) {
      const started = performance.now();
      await volume.write(writer * 2 ** 32 + (i % 4096) * 4096, bytes);
      longest = Math.max(longest, performance.now() - started);
    }
  });
  const times: Times = { create: [], hold: [], wait: [], otherwise: [] };
  for (let i = 0; i < count; i++) {
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
    times.otherwise.push(longest);
    longest = 0;
    const started = performance.now();
    await volume.createSnapshot();
    times.create.push(performance.now() - started);
    times.hold.push(volume.figures.lastHoldMs);
    // Those that were held end in this turn.
    await new Promise((resolve) => setTimeout(resolve, 1));
    times.wait.push(longest);
    longest = 0;
  }
  stop = true;
  await Promise.all(writers);
  await volume.close();
  return times;
}

const middle = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
