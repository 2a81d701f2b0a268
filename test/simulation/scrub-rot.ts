/**
 * Bits rot under an open volume, and a scrub goes over it. It finds what a check finds; it says of each copy that it cannot put
 * right who reads it, and of nobody else; and it changes nothing but what it puts right.
 */
import {
  checkVolume,
  IntegrityError,
  type Problem,
  type Snapshot,
  SnapshotDeletedError,
  type Volume,
} from '../../src/index.js';
import { ModelMismatch, type VolumeModel } from '../../src/testing/index.js';
import { BLOCK_SIZE, offsetOfBlock } from '../../src/units.js';
import { DAMAGED } from './calls.js';
import { labelOf, type Workload } from './workload.js';
import type { RunWorld } from './world.js';

/** Opens the volume, which is sound, and closes it again, sound. @throws ModelMismatch */
export async function scrubRotten(
  world: RunWorld,
  model: VolumeModel,
  workload: Workload,
  bits: number,
): Promise<void> {
  const run = <T>(action: () => Promise<T>) => world.world.run(action);
  const volume = await run(() => world.open('refuse'));
  workload.listen(volume);
  model.opened(volume.size);
  model.reconcileNames(volume.snapshots.map(labelOf));
  await run(async () => volume.reverting?.completed);
  await run(() => workload.settle(volume));
  workload.tolerated = DAMAGED;
  const flips = Array.from({ length: bits }, () => world.rot());
  const { problems } = await run(() => volume.scrub({ repair: true }));
  const left = problems.filter(({ repaired }) => repaired !== true);
  await run(() => workload.verify(volume));
  await run(() => checkAffected(volume, left));
  const again = await run(() => volume.scrub());
  if (again.problems.length !== left.length)
    throw new ModelMismatch(`a scrub leaves ${listOf(left)}; the next one finds ${listOf(again.problems)}`);
  if (problems.length === 0) await run(() => checkOverlooked(world));
  const wasThere = flips.reverse().map((flipBack) => flipBack());
  if (problems.length === 0 && wasThere.includes(false))
    throw new ModelMismatch('a scrub that finds nothing changes what it reads');
  workload.tolerated = [];
  await run(() => workload.verify(volume));
  await run(() => volume.close());
  model.closed();
  const found = await run(() => checkOf(world));
  if (found.length > 0) throw new ModelMismatch(`what a scrub leaves is not as it was: ${listOf(found)}`);
}

async function checkOf(world: RunWorld): Promise<readonly Problem[]> {
  const device = world.world.device('volume', { writable: false });
  const found = await checkVolume(device, { store: world.store(), scrub: true });
  await device.close();
  return found;
}

/** A scrub has found nothing: then a check of the store, which is open, finds nothing, and so does whoever opens it next. */
async function checkOverlooked(world: RunWorld): Promise<void> {
  const found = await checkOf(world).catch((error: unknown) => {
    throw new ModelMismatch(`a scrub finds nothing, and a check fails: ${error}`);
  });
  if (found.length > 0) throw new ModelMismatch(`a scrub finds nothing, and a check: ${listOf(found)}`);
}

/** Blocks that cannot be read are those of which it was said, in the snapshots that were named. */
async function checkAffected(volume: Volume, left: readonly Problem[]): Promise<void> {
  const copies = left.filter(({ code, block }) => code === 'checksum' && block !== undefined);
  for (const snapshot of volume.snapshots) {
    for (let block = 0; offsetOfBlock(block) < snapshot.size; block++) {
      const isNamed = copies.some(
        (problem) => problem.block === block && problem.affected?.includes(snapshot.id),
      );
      const isBad = await isUnreadable(snapshot, block);
      if (isBad !== isNamed)
        throw new ModelMismatch(
          `block ${block} of ${snapshot.label} ${isBad ? 'cannot' : 'can'} be read; a scrub says: ${listOf(left)}`,
        );
    }
  }
}

async function isUnreadable(snapshot: Snapshot, block: number): Promise<boolean> {
  const offset = offsetOfBlock(block);
  const target = new Uint8Array(Math.min(BLOCK_SIZE, snapshot.size - offset));
  try {
    await snapshot.read(offset, target);
    return false;
  } catch (error) {
    if (error instanceof SnapshotDeletedError) return false;
    if (error instanceof IntegrityError) return true;
    throw error;
  }
}

const listOf = (problems: readonly Problem[]): string =>
  problems.length === 0 ? 'nothing' : problems.map(({ message }) => message).join('; ');
