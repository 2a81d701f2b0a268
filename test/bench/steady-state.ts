/**
 * Question: what does the engine cost once there is nothing to copy: writes to blocks copied already, reads of the live
 * volume, reads of a snapshot whose every block was copied?
 */
import { Place } from './place.js';
import type { Figures } from './table.js';
import { type Load, run, type Target } from './workload.js';

const LOADS: readonly Load[] = [
  {
    name: 'copied already, 1 MiB sequential write',
    kind: 'write',
    request: 2 ** 20,
    order: 'sequential',
    depth: 16,
  },
  { name: 'copied already, 4 KiB random write', kind: 'write', request: 2 ** 12, order: 'random', depth: 16 },
  {
    name: 'live volume, 1 MiB sequential read',
    kind: 'read',
    request: 2 ** 20,
    order: 'sequential',
    depth: 16,
  },
  { name: 'live volume, 4 KiB random read', kind: 'read', request: 2 ** 12, order: 'random', depth: 16 },
];

const SNAPSHOT_LOADS: readonly Load[] = [
  {
    name: 'snapshot all copied, 1 MiB sequential read',
    kind: 'read',
    request: 2 ** 20,
    order: 'sequential',
    depth: 4,
  },
  {
    name: 'snapshot all copied, 16 KiB random read',
    kind: 'read',
    request: 2 ** 14,
    order: 'random',
    depth: 4,
  },
];

export async function steadyState(size: number): Promise<Figures[]> {
  await using place = await Place.create(size);
  const volume = await place.volume();
  const bare = await place.file('bare.img');
  const snapshot = await volume.createSnapshot();
  await run({ name: '', kind: 'write', request: 2 ** 20, order: 'sequential', depth: 16 }, volume, size);
  const all: Figures[] = [];
  for (const load of LOADS) {
    all.push({
      name: load.name,
      unit: 'MiB/s',
      values: { directory: await run(load, volume, size), bare: await run(load, bare, size) },
    });
  }
  const readOnly: Target = { ...nothing, read: (offset, buffer) => snapshot.read(offset, buffer) };
  for (const load of SNAPSHOT_LOADS) {
    all.push({
      name: load.name,
      unit: 'MiB/s',
      values: { directory: await run(load, readOnly, size), bare: await run(load, bare, size) },
    });
  }
  await volume.close();
  await bare.close();
  return all;
}

const nothing = { write: async () => undefined, flush: async () => undefined };
