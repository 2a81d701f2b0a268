/** Deleting snapshots of any age: what older ones read through them is merged. */
import { describe, expect, test } from 'vitest';
import { checkVolume } from '../../../src/check/check.ts';
import { checkServedVolume } from '../../../src/check/served.ts';
import { ClosedError, NoSpaceError, ReadOnlyError, SnapshotDeletedError } from '../../../src/errors.ts';
import type { Snapshot } from '../../../src/snapshot/snapshot.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { settle, signal } from './hooks.ts';
import { expectSame, LAYOUTS, MEBIBYTE, World } from './world.ts';

/** Three snapshots, with 8 blocks written after each; the second has 4 that the first has not. */
async function withThree(world: World): Promise<[Snapshot, Snapshot, Snapshot]> {
  const first = await world.snapshot();
  await world.writeBlock(1, 8);
  const second = await world.snapshot();
  await world.writeBlock(5, 8);
  const third = await world.snapshot();
  await world.writeBlock(10, 8);
  return [first, second, third];
}

const idsOf = (world: World): string[] => world.volume.snapshots.map(({ id }) => id);

async function expectSound(world: World): Promise<void> {
  await world.expectRight();
  await world.volume.close();
  expect(await checkVolume(world.device(), { store: world.store(), scrub: true })).toEqual([]);
}

/** All writes but the first, which is that of the control file, wait until what comes back is called. */
function stopWrites(world: World): () => void {
  const go = signal();
  let writes = 0;
  world.hooks.before = ({ kind }) => (kind === 'write' && ++writes > 1 ? go.promise : undefined);
  return () => {
    world.hooks.before = () => undefined;
    go.fire();
  };
}

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
      expect(await checkServedVolume(world.volume, { scrub: true })).toEqual([]);
      await expectSound(world);
    }
  });

  test('costs what is merged: what the elder has itself is not copied', async () => {
    const world = await World.create({ layout });
    const [first, second, third] = await withThree(world);
    const merged: unknown[] = [];
    world.volume.on('merged', (event) => merged.push(event));
    const steps: number[] = [];
    await second.delete({ wait: true, onProgress: (done) => steps.push(done) });
    expect(merged).toEqual([{ id: second.id, into: first.id, blocks: 4, bytes: 4 * BLOCK_SIZE }]);
    expect(steps).toEqual([...steps].sort((a, b) => a - b));
    expect(idsOf(world)).toEqual([first.id, third.id]);
    expect(world.volume.figures.deletion).toMatchObject({ snapshots: 0, mergedBlocks: 4 });
    await expectSound(world);
  });

  test('hides the snapshot at once, and its readers hear of it', async () => {
    const world = await World.create({ layout });
    const [first, second, third] = await withThree(world);
    const go = signal();
    world.hooks.before = ({ kind }) => (kind === 'read' ? go.promise : undefined);
    const reading = second.read(0, world.size).then(
      () => 'read',
      (error: unknown) => error,
    );
    await second.delete();
    go.fire();
    expect(await reading).toBeInstanceOf(SnapshotDeletedError);
    await expect(second.read(0, 1)).rejects.toThrow(SnapshotDeletedError);
    await expect(second.delete()).rejects.toThrow(SnapshotDeletedError);
    expect(second.state).toBe('deleted');
    expect(idsOf(world)).toEqual([first.id, third.id]);
  });

  test('gives its space to others only when those have ended who read it through older ones', async () => {
    const world = await World.create({ layout, reserve: 3 * MEBIBYTE });
    const oldest = await world.snapshot();
    const deleted = await world.snapshot();
    await world.writeBlock(3, 4);
    await world.snapshot();
    await settle();
    const go = signal();
    world.hooks.before = ({ kind, length }) =>
      kind === 'read' && length === 4 * BLOCK_SIZE ? go.promise : undefined;
    const reading = oldest.read(3 * BLOCK_SIZE, 4 * BLOCK_SIZE);
    await settle();
    world.hooks.before = () => undefined;
    await deleted.delete();
    await settle();
    expect(world.volume.figures.deletion.mergedSnapshots).toBe(1);
    // Takes what space there is.
    await world.writeBlock(0, 60);
    go.fire();
    expectSame(await reading, world.model.of(oldest.id).subarray(3 * BLOCK_SIZE, 7 * BLOCK_SIZE), 'the read');
    await world.volume.settled();
    await expectSound(world);
  });

  test('of the newest lets its elder take the copies again, though its end was given back', async () => {
    const world = await World.create({ layout });
    const [first, second, third] = await withThree(world);
    await third.delete();
    await world.writeBlock(9, 20);
    await second.delete();
    await world.writeBlock(0, 40);
    expect(idsOf(world)).toEqual([first.id]);
    await world.expectRight();
    await world.volume.settled();
    await world.writeBlock(30, 20);
    await world.snapshot();
    await world.writeBlock(0, 10);
    await world.reopen();
    await expectSound(world);
  });

  test('is interrupted by a close, and goes on when the volume is opened for writing again', async () => {
    const world = await World.create({ layout });
    const [first, second, third] = await withThree(world);
    // Growth ahead of need, which would write too.
    await world.volume.parts.writer?.engine.pools.idle();
    const go = stopWrites(world);
    const deleted = second.delete({ wait: true });
    deleted.catch(() => undefined);
    await settle();
    expect(second.state).toBe('deleted');
    const closing = world.volume.close();
    await expect(deleted).rejects.toThrow(ClosedError);
    go();
    await closing;
    const before = world.content.bytes.slice();
    const readOnly = await world.open({ readOnly: true }, world.device({ writable: false }));
    expect(readOnly.snapshots.map(({ id }) => id)).toEqual([first.id, third.id]);
    expect(readOnly.figures.deletion.snapshots).toBe(1);
    await world.expectRight();
    await expect(readOnly.snapshots[0]?.delete()).rejects.toThrow(ReadOnlyError);
    await readOnly.settled().catch(() => undefined);
    await readOnly.close();
    expect(Buffer.compare(world.content.bytes, before)).toBe(0);
    expect(await checkVolume(world.device(), { store: world.store(), scrub: true })).toEqual([]);
    await world.open();
    await world.volume.settled();
    expect(world.volume.figures.deletion).toMatchObject({ snapshots: 0, mergedSnapshots: 1 });
    await expectSound(world);
  });

  test('waits for room, gives nothing up for it, and goes on when there is some', async () => {
    const world = await World.create({ layout, size: MEBIBYTE, reserve: 8 * MEBIBYTE });
    const [first, second, third] = await withThree(world);
    const fourth = await world.snapshot();
    await settle();
    // The limit alone: nothing is given up for it.
    await world.volume.parts.writer?.engine.store.control.setMaximumSize(1);
    await expect(second.delete({ wait: true })).rejects.toThrow(NoSpaceError);
    expect(second.state).toBe('deleted');
    expect(idsOf(world)).toEqual([first.id, third.id, fourth.id]);
    await world.expectRight();
    await world.volume.setMaximumSize(0);
    await world.volume.settled();
    expect(world.volume.figures.deletion.snapshots).toBe(0);
    await expectSound(world);
  });

  test('needs little room where there is little: what is merged is given back on the way', async () => {
    const world = await World.create({ layout, size: 8 * MEBIBYTE, reserve: 64 * MEBIBYTE });
    const first = await world.snapshot();
    await world.writeBlock(500);
    const second = await world.snapshot();
    await world.writeBlock(1, 400);
    await world.snapshot();
    await world.volume.settled();
    const room = 80 * BLOCK_SIZE;
    const { control } = world.volume.parts.writer?.engine.store ?? {};
    await control?.setMaximumSize(world.volume.figures.allocatedBytes + room);
    await second.delete({ wait: true });
    expect(world.volume.figures.deletion).toMatchObject({ snapshots: 0, mergedBlocks: 400 });
    expect(idsOf(world)[0]).toBe(first.id);
    await expectSound(world);
  });

  test('of many at once, in any order, leaves what is changed between the others', async () => {
    const world = await World.create({ layout });
    for (let i = 0; i < 8; i++) {
      await world.snapshot();
      await world.writeRandomly(5);
    }
    const { snapshots } = world.volume;
    await Promise.all([6, 2, 7, 3, 4].map((age) => snapshots[age]?.delete()));
    const expectChanged = async () => {
      const [a, b, c] = world.volume.snapshots;
      for (const [since, until] of [
        [a, b],
        [b, c],
        [a, undefined],
      ] as const) {
        if (since === undefined) throw new Error('a snapshot is missing');
        const found = new Set<number>();
        for await (const { offset, length } of world.volume.changedBlocks({ since, ...(until && { until }) }))
          for (let at = offset; at < offset + length; at += BLOCK_SIZE) found.add(at / BLOCK_SIZE);
        for (const block of world.model.changed(since.id, until?.id)) expect(found.has(block)).toBe(true);
      }
    };
    await expectChanged();
    await world.volume.settled();
    await expectChanged();
    await expectSound(world);
  });
});
