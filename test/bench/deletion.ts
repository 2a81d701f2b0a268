/**
 * Question: what does deleting a snapshot cost, the oldest, one in the middle and the newest, for how much that is merged, in how large
 * a volume and with how many snapshots? It should follow what is merged, and nothing else.
 *
 * Each of the three has copies of as many blocks, spread out over the volume, that no older one has. So what the others need is merged, except
 * from the oldest, which nobody reads through.
 */
import { readFileSync } from 'node:fs';
import type { Volume } from '../../src/index.js';
import { BLOCK_SIZE } from '../../src/units.js';
import { Place } from './place.js';
import type { Figures } from './table.js';

const GIBIBYTE = 2 ** 30;
const MEBIBYTE = 2 ** 20;

interface Deletion {
  /** Milliseconds until nobody sees it any more, and until its space is free. */
  readonly hidden: number;
  readonly free: number;
  /** Milliseconds for which processors were busy. */
  readonly busy: number;
  /** Bytes in calls of this process. */
  readonly read: number;
  readonly written: number;
  /** Bytes of heap and buffers, more than before, at the most; what waits to be collected included. */
  readonly mostBytes: number;
}

/** The three, newest first: so nothing that the next one is measured on has changed. */
const VICTIMS = ['newest', 'middle', 'oldest'] as const;
type Deletions = Record<(typeof VICTIMS)[number], Deletion>;

/** @param size bytes merged at the most; beside it a quarter and a sixteenth are tried */
export async function deletion(size: number): Promise<Figures[]> {
  const most = size / BLOCK_SIZE;
  if (size < 2 ** 26) return measureAll([1], 4, most, VICTIMS);
  const figures: Figures[] = [];
  for (const blocks of [most / 16, most / 4, most])
    figures.push(...(await measureAll([1, 64, 1024], 64, blocks, VICTIMS)));
  for (const snapshots of [4, 512])
    figures.push(...(await measureAll([1024], snapshots, most / 4, ['middle'])));
  return figures;
}

async function measureAll(
  gibibytes: readonly number[],
  snapshots: number,
  blocks: number,
  victims: readonly (keyof Deletions)[],
): Promise<Figures[]> {
  const by: Record<string, Deletions> = {};
  for (const size of gibibytes)
    by[`volume of ${size} GiB`] = await measure(size * GIBIBYTE, snapshots, blocks);
  return victims.flatMap((victim) =>
    rows(`${victim} of ${snapshots}, ${blocks.toLocaleString('en')} blocks`, victim, by),
  );
}

function rows(name: string, victim: keyof Deletions, by: Record<string, Deletions>): Figures[] {
  const row = (what: string, unit: string, of: (deletion: Deletion) => number): Figures => ({
    name: `${name}: ${what}`,
    unit,
    values: Object.fromEntries(Object.entries(by).map(([column, found]) => [column, of(found[victim])])),
  });
  return [
    row('hidden after', 'ms', ({ hidden }) => hidden),
    row('space free after', 'ms', ({ free }) => free),
    row('processors busy', 'ms', ({ busy }) => busy),
    row('read', 'MiB', ({ read }) => read / MEBIBYTE),
    row('written', 'MiB', ({ written }) => written / MEBIBYTE),
    row('memory at the most', 'MiB', ({ mostBytes }) => mostBytes / MEBIBYTE),
  ];
}

async function measure(size: number, snapshots: number, blocks: number): Promise<Deletions> {
  await using place = await Place.create(size);
  await using volume = await place.volume('directory', false);
  // Not zeros, of which there would be nothing to move.
  const noise = Buffer.alloc(MEBIBYTE, 'what was there before');
  const write = (part: number, from: number) =>
    all(placesOf(size, part, blocks), (at) => volume.write(at, noise.subarray(from, from + BLOCK_SIZE)));
  for (const part of VICTIMS.keys()) await write(part, 0);
  const half = snapshots / 2;
  await volume.createSnapshot();
  await write(VICTIMS.indexOf('oldest'), 1);
  for (let i = 1; i < half; i++) await volume.createSnapshot();
  await write(VICTIMS.indexOf('middle'), 1);
  for (let i = half; i < snapshots; i++) await volume.createSnapshot();
  await write(VICTIMS.indexOf('newest'), 1);
  await volume.settled();
  const newest = await deleteOne(volume, snapshots - 1);
  const middle = await deleteOne(volume, half - 1);
  return { newest, middle, oldest: await deleteOne(volume, 0) };
}

/** Every third of `3 * blocks` places that are spread out evenly, in no order. */
function placesOf(size: number, part: number, blocks: number): number[] {
  const step = Math.floor(size / BLOCK_SIZE / blocks / 3) * BLOCK_SIZE;
  return Array.from({ length: blocks }, (_, i) => (((i * 7919) % blocks) * 3 + part) * step);
}

async function deleteOne(volume: Volume, index: number): Promise<Deletion> {
  await volume.flush();
  globalThis.gc?.();
  const before = held();
  let mostBytes = 0;
  const look = setInterval(() => {
    mostBytes = Math.max(mostBytes, held() - before);
  }, 2);
  const [io, cpu, started] = [transferred(), process.cpuUsage(), performance.now()];
  await volume.snapshots[index]?.delete();
  const hidden = performance.now() - started;
  await volume.settled();
  const free = performance.now() - started;
  const { user, system } = process.cpuUsage(cpu);
  const after = transferred();
  clearInterval(look);
  return {
    hidden,
    free,
    busy: (user + system) / 1000,
    read: after.read - io.read,
    written: after.written - io.written,
    mostBytes: Math.max(mostBytes, held() - before),
  };
}

/** Bytes that this process has read and written in system calls. */
function transferred(): { read: number; written: number } {
  const text = readFileSync('/proc/self/io', 'utf8');
  const field = (name: string) => Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(text)?.[1]);
  return { read: field('rchar'), written: field('wchar') };
}

const held = (): number => {
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
};

/** In groups, as many writers would. */
async function all(places: readonly number[], action: (at: number) => Promise<void>): Promise<void> {
  for (let i = 0; i < places.length; i += 256) await Promise.all(places.slice(i, i + 256).map(action));
}
