/**
 * Question: what does the first overwrite of every block after a snapshot cost?
 *
 * `bare`: the same writes on the file without an engine. `floor`: read old, write copy, flush it, write new, in 4 MiB
 * requests with nothing overlapped: the least work that keeps the same promise.
 */
import { furnishMemory } from './host-memory.js';
import { Place } from './place.js';
import type { Figures } from './table.js';
import { type Load, run } from './workload.js';

const LOADS: readonly Load[] = [
  { name: 'first writes, 1 MiB sequential', kind: 'write', request: 2 ** 20, order: 'sequential', depth: 16 },
  { name: 'first writes, 16 KiB random', kind: 'write', request: 2 ** 14, order: 'random', depth: 16 },
  { name: 'first writes, 4 KiB sequential', kind: 'write', request: 2 ** 12, order: 'sequential', depth: 16 },
];

const WAYS = [
  ['directory', 'ordered'],
  ['directory', 'writeback'],
  ['in-volume', 'ordered'],
  ['in-volume', 'writeback'],
] as const;
let runs = 0;

export async function firstWrites(size: number): Promise<Figures[]> {
  // Whoever comes first pays for what the load before has left: the other way round each time.
  const ways = runs++ % 2 === 0 ? WAYS : WAYS.toReversed();
  await using place = await Place.create(size);
  const all: Figures[] = [];
  for (const load of LOADS) {
    const figures: Figures = { name: load.name, unit: 'MiB/s', values: {} };
    for (const [layout, writeMode] of WAYS) figures.values[`${layout} ${writeMode}`] = 0;
    for (const [layout, writeMode] of ways) {
      const volume = await place.volume(layout, true, { writeMode });
      await volume.createSnapshot();
      await furnishMemory(place.folder, size);
      figures.values[`${layout} ${writeMode}`] = await run(load, volume, size);
      await volume.close();
    }
    const bare = await place.file('bare.img');
    figures.values.bare = await run(load, bare, size);
    await bare.close();
    figures.values.floor = (await floor(place, size)).speed;
    all.push(figures);
  }
  return all;
}

const STEP = 4 * 2 ** 20;

/** @returns MiB a second, and seconds of processor time */
export async function floor(place: Place, size: number): Promise<{ speed: number; processor: number }> {
  const volume = await place.file('bare.img');
  const copy = await place.file('copy.img', false);
  await furnishMemory(place.folder, size);
  const [old, fresh] = [new Uint8Array(STEP), new Uint8Array(STEP).fill(7)];
  const started = performance.now();
  const before = process.cpuUsage();
  for (let at = 0; at < size; at += STEP) {
    await volume.read(at, old);
    await copy.write(at, old);
    await copy.flush();
    await volume.write(at, fresh);
  }
  await volume.flush();
  const seconds = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage(before);
  await volume.close();
  await copy.close();
  return { speed: size / 2 ** 20 / seconds, processor: (user + system) / 1e6 };
}
