/**
 * Question: what does the engine cost once there is nothing to copy: writes to blocks copied already, reads of the live
 * volume, reads of a snapshot whose every block was copied?
 */
import type { Volume, WriteMode } from '../../src/index.js';
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
  await using other = await Place.create(size);
  const volumes: Record<WriteMode, Volume> = {
    ordered: await place.volume(),
    writeback: await other.volume('directory', true, { writeMode: 'writeback' }),
  };
  const bare = await place.file('bare.img');
  const snapshot = await volumes.ordered.createSnapshot();
  await volumes.writeback.createSnapshot();
  for (const volume of Object.values(volumes))
    await run({ name: '', kind: 'write', request: 2 ** 20, order: 'sequential', depth: 16 }, volume, size);
  const all: Figures[] = [];
  for (const load of LOADS) all.push(await inTurn(load, { ...volumes, bare }, size));
  const copied: Target = { ...nothing, read: (offset, buffer) => snapshot.read(offset, buffer) };
  for (const load of SNAPSHOT_LOADS) all.push(await inTurn(load, { ordered: copied, bare }, size));
  await volumes.ordered.close();
  await volumes.writeback.close();
  await bare.close();
  return all;
}

/** Twice, and the better one counts: whoever comes first pays for what the load before has left. */
async function inTurn(load: Load, targets: Readonly<Record<string, Target>>, size: number): Promise<Figures> {
  const values: Record<string, number> = {};
  for (let round = 0; round < 2; round++)
    for (const [name, target] of Object.entries(targets))
      values[name] = Math.max(values[name] ?? 0, await run(load, target, size));
  return { name: load.name, unit: 'MiB/s', values };
}

const nothing = { write: async () => undefined, flush: async () => undefined };
