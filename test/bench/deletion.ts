/**
 * Question: what does deleting a snapshot in the middle cost, with how many others there, and for how much that is merged? It
 * should follow what is merged, not the volume (1 TiB) nor the number of snapshots.
 */
import { BLOCK_SIZE } from '../../src/units.js';
import { Place } from './place.js';
import type { Figures } from './table.js';

/** @param size bytes merged at the most; beside it a quarter and a sixteenth are tried */
export async function deletion(size: number): Promise<Figures[]> {
  const all: Figures[] = [];
  const counts = size < 2 ** 26 ? [4] : [4, 64, 512];
  for (const snapshots of counts)
    for (const bytes of [size / 16, size / 4, size]) all.push(await measure(snapshots, bytes));
  return all;
}

async function measure(snapshots: number, bytes: number): Promise<Figures> {
  await using place = await Place.create(2 ** 40);
  await using volume = await place.volume('directory', false);
  const half = Math.floor(snapshots / 2);
  const noise = Buffer.alloc(2 ** 20, 'what was there before');
  // Spread out, and not zeros: else there is nothing to move.
  const places = Array.from(
    { length: bytes / BLOCK_SIZE },
    (_, i) => ((i * 7919) % 2 ** 20) * 8 * BLOCK_SIZE,
  );
  await all(places, (at) => volume.write(at, noise.subarray(0, BLOCK_SIZE)));
  for (let i = 0; i < half; i++) await volume.createSnapshot();
  await all(places, (at) => volume.write(at, noise.subarray(1, BLOCK_SIZE + 1)));
  for (let i = half; i < snapshots; i++) await volume.createSnapshot();
  await volume.settled();
  const victim = volume.snapshots[half - 1];
  const started = performance.now();
  await victim?.delete();
  const hidden = performance.now() - started;
  await volume.settled();
  const total = performance.now() - started;
  return {
    name: `one of ${snapshots} snapshots, ${bytes / 2 ** 20} MiB merged`,
    unit: 'ms',
    values: { hidden, 'space free': total },
  };
}

/** In groups, as many writers would. */
async function all(places: readonly number[], action: (at: number) => Promise<void>): Promise<void> {
  for (let i = 0; i < places.length; i += 256) await Promise.all(places.slice(i, i + 256).map(action));
}
