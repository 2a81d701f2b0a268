/** Deleting snapshots of any age: what older ones read through them is merged. */
import { describe, expect, test } from 'vitest';
import { checkVolume } from '../../../src/check/check.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { LAYOUTS, MEBIBYTE, World } from './world.ts';

describe.each(LAYOUTS)('deletion (%s)', (layout) => {
  test('of snapshots of any age leaves the others as they were, through reopening and killing', async () => {
    for (let round = 0; round < 6; round++) {
      const world = await World.create({ layout, seed: `deletion ${round}`, size: MEBIBYTE + 4321 });
      for (let step = 0; step < 40; step++) {
        const kind = world.random.below(12);
        const { snapshots } = world.volume;
        if (kind < 3) await world.snapshot();
        else if (kind < 6) await snapshots[world.random.below(Math.max(1, snapshots.length))]?.delete();
        else if (kind === 6) await world.reopen();
        else if (kind === 7) await world.kill();
        else if (kind === 8) await world.volume.settled();
        else await world.writeRandomly(5);
      }
      await world.expectRight();
      await world.volume.settled();
      await world.expectRight();
      await world.volume.close();
      expect(await checkVolume(world.device(), { store: world.store(), scrub: true })).toEqual([]);
    }
  });

  test('costs what is merged: what the elder has itself is not copied', async () => {
    const world = await World.create({ layout });
    await world.snapshot();
    await world.writeBlock(0, 8);
    const middle = await world.snapshot();
    await world.writeBlock(4, 8);
    await world.snapshot();
    const merged: unknown[] = [];
    world.volume.on('merged', (event) => merged.push(event));
    await middle.delete({ wait: true });
    expect(merged).toEqual([
      { id: middle.id, into: world.volume.snapshots[0]?.id, blocks: 4, bytes: 4 * BLOCK_SIZE },
    ]);
    expect(world.volume.snapshots).toHaveLength(2);
    await world.expectRight();
  });
});
