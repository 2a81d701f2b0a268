/** Batches that grow while nobody waits for them. */
import { expect, test } from 'vitest';
import { Gathering } from '../../../src/copy-on-write/gathering.ts';
import { systemEnvironment } from '../../../src/environment.ts';
import { SimulatedClock } from '../../../src/testing/simulated-clock.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { settle } from './hooks.ts';
import { World } from './world.ts';

test('a batch grows until its time is over, it is full, or somebody is in a hurry', async () => {
  const clock = new SimulatedClock();
  const gathering = new Gathering(clock);
  const grown: string[] = [];
  const grow = (name: string) => {
    const batch = {};
    void gathering.grow(batch)?.then(() => grown.push(name));
    return batch;
  };
  grow('its time');
  gathering.end(grow('full'));
  await settle();
  expect(grown).toEqual(['full']);
  clock.jump();
  clock.fireDue();
  await settle();
  expect(grown).toEqual(['full', 'its time']);
  grow('hurry');
  const leisure = gathering.hurry();
  await settle();
  expect(grown).toEqual(['full', 'its time', 'hurry']);
  expect(gathering.grow({})).toBeUndefined();
  leisure();
  leisure();
  expect(gathering.grow({})).toBeDefined();
  gathering.hurry();
  expect(clock.timerCount).toBe(0);
});

test('a batch that writers wait for grows for some turns, while earlier copies are being committed', async () => {
  let turns = 0;
  let committing = 100;
  const soon = (action: () => void) => {
    turns++;
    committing--;
    action();
  };
  const gathering = new Gathering({ ...systemEnvironment.clock, soon });
  const turnsFor = async (blocks: readonly number[]) => {
    turns = 0;
    await gathering.growMeanwhile({ blocks }, () => committing > 0);
    return turns;
  };
  expect(await turnsFor([1])).toBe(6);
  committing = 2;
  expect(await turnsFor([1])).toBe(2);
  expect(await turnsFor([1])).toBe(0);
  committing = 100;
  expect(await turnsFor(Array.from({ length: 16 }, (_, block) => block))).toBe(0);
  const leisure = gathering.hurry();
  expect(await turnsFor([1])).toBe(0);
  leisure();
});

test('acknowledged writes are copied together, and a flush waits for no more of them', async () => {
  const world = await World.create({ size: 64 * BLOCK_SIZE });
  // No time passes by itself.
  const clock = { ...systemEnvironment.clock, after: () => () => undefined };
  world.options = { writeMode: 'writeback', environment: { ...systemEnvironment, clock } };
  await world.reopen();
  await world.snapshot();
  for (const block of [3, 9, 27]) {
    await world.writeBlock(block);
    await settle();
  }
  expect(world.volume.figures.copies.batches).toBe(0);
  await world.volume.flush();
  const { batches, copiedBlocks } = world.volume.figures.copies;
  expect({ batches, copiedBlocks }).toEqual({ batches: 1, copiedBlocks: 3 });
  await world.expectRight();
  await world.volume.close();
});
