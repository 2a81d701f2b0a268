/**
 * What must hold when bits of a closed store have flipped: no read ever returns wrong bytes.
 *
 * Either `check` finds something, and then each read is right or fails with the code of damage; or it finds nothing,
 * and then everything is right and nothing fails, because the bits were in space that is not used.
 */

import { checkVolume, type ErrorCode, VolsnapError, type Volume } from '../../src/index.js';
import { ModelMismatch, type VolumeModel } from '../../src/testing/index.js';
import { DAMAGED } from './calls.js';
import { labelOf, type Workload } from './workload.js';
import type { RunWorld } from './world.js';

/** @param drop is what is damaged given up at the end? @throws ModelMismatch, or whatever the engine fails with that is not an error of damage */
export async function findRot(
  world: RunWorld,
  model: VolumeModel,
  workload: Workload,
  drop: boolean,
): Promise<'damaged' | 'sound'> {
  const damaged = await isDamaged(world);
  if (!damaged) {
    await inspect(world, model, workload, await world.world.run(() => world.openReadOnly()));
    return 'sound';
  }
  workload.tolerated = DAMAGED;
  const volume = await unlessDamaged(() => world.world.run(() => world.openReadOnly()));
  if (volume !== undefined) await inspect(world, model, workload, volume);
  if (drop) {
    const rest = await unlessDamaged(() => world.world.run(() => world.open('refuse', 'drop')));
    if (rest !== undefined) await inspectRest(world, model, workload, rest);
  }
  workload.tolerated = [];
  return 'damaged';
}

async function isDamaged(world: RunWorld): Promise<boolean> {
  const device = world.world.device('volume', { writable: false });
  const problems = await unlessDamaged(() =>
    world.world.run(() => checkVolume(device, { store: world.store(), scrub: true })),
  );
  return problems === undefined || problems.length > 0;
}

/** Every snapshot that lasts is still listed; what can be read is right. */
async function inspect(
  { world }: RunWorld,
  model: VolumeModel,
  workload: Workload,
  volume: Volume,
): Promise<void> {
  const names = volume.snapshots.map(({ state, label }) => (state === 'damaged' ? undefined : label));
  const all = model.snapshotNames;
  const lasting = all.filter((name) => !workload.isPassing(name));
  const { length } = volume.snapshots;
  // One that was to go, and is hidden while a revert needs it, is shown once it is damaged.
  if (length < lasting.length || length > all.length + workload.passingCount)
    throw new ModelMismatch(`${length} snapshots of ${all.length}, ${lasting.length} that last, are listed`);
  for (const name of names)
    if (name !== undefined && !model.snapshotNames.includes(name))
      throw new ModelMismatch(`there never was a snapshot ${name}`);
  await world.run(() => workload.verify(volume));
  await world.run(() => volume.close());
}

/** Damaged snapshots were given up: those that are left are right as far as they can be read. */
async function inspectRest(
  { world }: RunWorld,
  model: VolumeModel,
  workload: Workload,
  volume: Volume,
): Promise<void> {
  for (const name of volume.snapshots.map(labelOf))
    if (!model.snapshotNames.includes(name)) throw new ModelMismatch(`there never was a snapshot ${name}`);
  await world.run(() => workload.verify(volume));
  await unlessDamaged(() => world.run(() => volume.close()));
}

/** Errors that say that the store is damaged, or is none any more. */
const DAMAGE: readonly ErrorCode[] = [...DAMAGED, 'NOT_INITIALIZED'];

async function unlessDamaged<T>(call: () => Promise<T>): Promise<T | undefined> {
  try {
    return await call();
  } catch (error) {
    if (error instanceof VolsnapError && DAMAGE.includes(error.code)) return undefined;
    throw error;
  }
}
