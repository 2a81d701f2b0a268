import { describe, expect, test } from 'vitest';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { makeInterleavedSnapshots } from './fragments.ts';
import { settle } from './hooks.ts';
import { World } from './world.ts';

/** An open world of 2,200 blocks whose two snapshots have so many runs each, and so many blocks free in the reserve. */
async function fragmentedWorld(runs: number, free: number): Promise<World> {
  const world = await World.create({
    layout: 'in-volume',
    size: 2200 * BLOCK_SIZE,
    reserve: (10 + 2 * (8 + runs) + free) * BLOCK_SIZE,
    growth: { initial: BLOCK_SIZE, maximum: 2 * BLOCK_SIZE },
  });
  await world.volume.close();
  for (const id of await makeInterleavedSnapshots(world.device(), runs))
    world.model.snapshots.set(id, world.model.bytes.slice());
  await world.open();
  return world;
}

describe('a diff area of many runs', () => {
  test.each([2, 676, 677, 678, 800])('of %i is filled, read and opened again', async (runs) => {
    const world = await fragmentedWorld(runs, 100);
    expect(world.volume.snapshots).toHaveLength(2);
    const free = runs - 10;
    for (let block = 1; block < free; block += 7) await world.writeBlock(block, 3);
    await world.expectRight();
    await world.reopen();
    await world.expectRight();
  });

  test.each([10, 675, 676, 677, 700, 1353, 1360, 2040])(
    'of %i grows when its last slot is taken',
    async (runs) => {
      const world = await fragmentedWorld(runs, 200);
      const reasons: string[] = [];
      world.volume.on('deleted', ({ reason, cause }) => reasons.push(`${reason}: ${cause}`));
      world.volume.on('backgroundFailure', ({ what, error }) => reasons.push(`${what}: ${error}`));
      const newest = world.volume.snapshots[1];
      for (let block = 1; block < runs + 60 && block < 2190; block++) {
        await world.writeBlock(block);
        await settle();
        const left = (newest?.allocatedBytes ?? 0) - (newest?.usedBytes ?? 0);
        expect(left).toBeGreaterThanOrEqual(0);
      }
      expect(reasons).toEqual([]);
      expect(world.volume.snapshots).toHaveLength(2);
      await world.expectRight();
      await world.kill();
      await world.expectRight();
    },
  );
});
