/** Growth, limits and what goes when there is no room. */
import { describe, expect, test } from 'vitest';
import { NoSpaceError } from '../../../src/errors.ts';
import type { VolumeEvents } from '../../../src/snapshot/events.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { type Operation, settle, signal, systemFailure } from './hooks.ts';
import { expectSame, LAYOUTS, MEBIBYTE, World } from './world.ts';

/** Used and free add up: what the figures say is what the snapshots say, and what the files are. */
async function expectBalanced(world: World): Promise<void> {
  const { snapshots, figures } = world.volume;
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  expect(figures.allocatedBytes).toBe(sum(snapshots.map(({ allocatedBytes }) => allocatedBytes)));
  expect(figures.usedBytes).toBe(sum(snapshots.map(({ usedBytes }) => usedBytes)));
  if (world.layout !== 'directory') return;
  const names = (await world.folder.list()).filter((name) => name.includes('}{'));
  expect(names).toHaveLength(snapshots.length);
  for (const { id, allocatedBytes } of snapshots) {
    const name = names.find((file) => file.startsWith(`{${id}}`)) ?? '';
    expect((await world.folder.open(name, { writable: false })).size).toBe(allocatedBytes);
  }
}

describe.each(LAYOUTS)('growth (%s)', (layout) => {
  test('happens ahead of need, so that writers that are slow enough never wait for it', async () => {
    const world = await World.create({ layout, size: 8 * MEBIBYTE, reserve: 16 * MEBIBYTE });
    const snapshot = await world.snapshot();
    for (let block = 0; block < 300; block++) {
      const free = snapshot.allocatedBytes - snapshot.usedBytes;
      expect(free, `free slots before block ${block}`).toBeGreaterThanOrEqual(3 * BLOCK_SIZE);
      await world.writeBlock(block);
      await settle();
    }
    await expectBalanced(world);
    await world.expectRight();
  });

  test('is waited for by a write that needs more than there is', async () => {
    const world = await World.create({ layout, size: 8 * MEBIBYTE, reserve: 16 * MEBIBYTE });
    const snapshot = await world.snapshot();
    await world.writeBlock(0, 500);
    expect(snapshot.allocatedBytes).toBeGreaterThan(500 * BLOCK_SIZE);
    await settle();
    await expectBalanced(world);
    await world.kill();
    await expectBalanced(world);
    await world.expectRight();
  });

  test('that is under way when the snapshot is deleted does no harm', async () => {
    const world = await World.create({ layout, size: 8 * MEBIBYTE, reserve: 16 * MEBIBYTE });
    const snapshot = await world.snapshot();
    const go = signal();
    let held = 0;
    // Blocks that only the location list writes: 16 KiB at the place of slot 2 or 3.
    world.hooks.before = ({ kind, length, offset, target }) => {
      const inArea = layout === 'directory' ? offset : offset - world.size - 10 * BLOCK_SIZE;
      const isList = inArea === 2 * BLOCK_SIZE || inArea === 3 * BLOCK_SIZE;
      if (kind !== 'write' || length !== BLOCK_SIZE || !isList) return undefined;
      if (layout === 'directory' && target === 'volume') return undefined;
      held++;
      return go.promise;
    };
    const writing = world.writeBlock(1, 60);
    await settle();
    expect(held).toBeGreaterThan(0);
    const deleting = snapshot.delete();
    await settle();
    go.fire();
    await Promise.all([writing, deleting]);
    await settle();
    expect(world.volume.snapshots).toEqual([]);
    await expectBalanced(world);
    await world.snapshot();
    await world.writeBlock(0, 100);
    await world.expectRight();
  });

  test('is given back when the next snapshot is taken', async () => {
    const world = await World.create({ layout, size: 8 * MEBIBYTE, reserve: 16 * MEBIBYTE });
    const first = await world.snapshot();
    await world.writeBlock(0, 100);
    await world.snapshot();
    await settle();
    expect(first.allocatedBytes - first.usedBytes).toBeLessThanOrEqual(2 * BLOCK_SIZE);
    await expectBalanced(world);
    await world.kill();
    await expectBalanced(world);
    await world.expectRight();
  });
});

describe.each(LAYOUTS)('a full diff area (%s)', (layout) => {
  const MAXIMUM = 60 * BLOCK_SIZE;
  const create = (seed = 'full') =>
    World.create(
      layout === 'directory'
        ? { layout, seed, size: 4 * MEBIBYTE, maximumSize: MAXIMUM }
        : {
            layout,
            seed,
            size: 4 * MEBIBYTE,
            reserve: 10 * BLOCK_SIZE + 64 * BLOCK_SIZE,
            maximumSize: MAXIMUM,
          },
    );

  test('costs the oldest snapshots, one by one, with event and reason; writes never fail', async () => {
    const world = await create();
    const events: string[] = [];
    world.volume.on('overflow', ({ neededBytes, availableBytes }) => {
      expect(neededBytes).toBeGreaterThan(availableBytes);
      events.push('overflow');
    });
    const orders = new Map<string, number>();
    world.volume.on('deleted', ({ id, reason }) => events.push(`${orders.get(id)} ${reason}`));
    for (let i = 0; i < 4; i++) {
      const snapshot = await world.snapshot();
      orders.set(snapshot.id, snapshot.order);
      await world.writeBlock(i * 6, 6);
    }
    for (let block = 30; block < 60; block++) {
      await world.writeBlock(block);
      await settle();
      expect(world.volume.figures.allocatedBytes).toBeLessThanOrEqual(MAXIMUM);
      await world.expectRight();
    }
    const gone = events
      .filter((event) => event.endsWith('space'))
      .map((event) => Number(event.split(' ')[0]));
    expect(gone.length).toBeGreaterThan(0);
    expect(gone).toEqual(Array.from({ length: gone.length }, (_, i) => i + 1));
    expect(events.filter((event) => event === 'overflow').length).toBe(gone.length);
    await expectBalanced(world);
  });

  test('costs even the only snapshot when a write needs more than the maximum; the write succeeds', async () => {
    const world = await create();
    const snapshot = await world.snapshot();
    await world.writeBlock(0, 200);
    expect(snapshot.state).toBe('deleted');
    expect(snapshot.problem).toBe('space');
    await world.expectRight();
    await settle();
    expect(world.volume.figures.allocatedBytes).toBe(0);
    await world.snapshot();
    await world.writeBlock(0, 5);
    await world.expectRight();
    await world.kill();
    await world.expectRight();
    await expectBalanced(world);
  });

  test('stays within its maximum and right under random work with many writers', async () => {
    for (let round = 0; round < 6; round++) {
      const world = await create(`full ${round}`);
      const reasons = new Set<string>();
      world.volume.on('deleted', ({ reason }) => reasons.add(reason));
      for (let step = 0; step < 40; step++) {
        const kind = world.random.below(8);
        if (kind === 0)
          await world.snapshot().catch((error: unknown) => expect(error).toBeInstanceOf(NoSpaceError));
        else if (kind === 1) await world.kill();
        else {
          const first = world.random.below(200);
          await Promise.all(Array.from({ length: 6 }, (_, i) => world.writeBlock(first + 2 * i)));
        }
        expect(world.volume.figures.allocatedBytes, `seed full ${round}`).toBeLessThanOrEqual(MAXIMUM);
      }
      await settle();
      await world.expectRight();
      await expectBalanced(world);
      expect([...reasons].filter((reason) => reason !== 'space')).toEqual([]);
    }
  });

  test('gives way to a new snapshot', async () => {
    const world = await create();
    for (let i = 0; i < 12; i++) {
      await world.snapshot();
      await world.writeBlock(i * 4, 4);
      await world.expectRight();
    }
    expect(world.volume.snapshots.at(-1)?.order).toBe(12);
    await settle();
    await expectBalanced(world);
  });

  test('that is given a smaller maximum gives up the oldest snapshots until it fits', async () => {
    const world = await create();
    for (let i = 0; i < 4; i++) {
      await world.snapshot();
      await world.writeBlock(i * 5, 5);
    }
    await settle();
    const there = world.volume.snapshots.length;
    const deleted: VolumeEvents['deleted'][0][] = [];
    world.volume.on('deleted', (event) => deleted.push(event));
    await world.volume.setMaximumSize(30 * BLOCK_SIZE);
    expect(world.volume.figures.allocatedBytes).toBeLessThanOrEqual(30 * BLOCK_SIZE);
    expect(world.volume.figures.maximumBytes).toBe(30 * BLOCK_SIZE);
    expect(deleted.length).toBeGreaterThan(0);
    expect(deleted.every(({ reason }) => reason === 'limit-lowered')).toBe(true);
    expect(world.volume.snapshots).toHaveLength(there - deleted.length);
    await world.expectRight();
    await world.kill();
    expect(world.volume.figures.maximumBytes).toBe(30 * BLOCK_SIZE);
    await world.volume.setMaximumSize(0);
    expect(world.volume.figures.maximumBytes).toBe(0);
    await world.expectRight();
  });

  test('that is given a smaller maximum keeps a snapshot whose copies fit into it', async () => {
    const world = await create();
    const snapshot = await world.snapshot();
    await world.writeBlock(0, 4);
    await world.volume.setMaximumSize(MAXIMUM);
    await world.writeBlock(0, 20);
    await settle();
    expect(snapshot.usedBytes).toBeLessThan(32 * BLOCK_SIZE);
    expect(snapshot.allocatedBytes).toBeGreaterThan(32 * BLOCK_SIZE);
    await world.volume.setMaximumSize(32 * BLOCK_SIZE);
    expect(snapshot.state).toBe('ok');
  });

  test('gives no room at all: a snapshot is refused with NO_SPACE', async () => {
    const world = await create();
    await world.volume.setMaximumSize(5 * BLOCK_SIZE);
    await expect(world.volume.createSnapshot()).rejects.toThrow(NoSpaceError);
    await world.writeBlock(0, 10);
    await world.expectRight();
  });
});

describe('a host file system that is full', () => {
  const isAreaFile = (target: string) => target.startsWith('store/{') && target.includes('}{');

  test('when a file is to grow: the oldest snapshots go, the write succeeds', async () => {
    const world = await World.create({ size: 4 * MEBIBYTE });
    const first = await world.snapshot();
    await world.writeBlock(0, 10);
    const second = await world.snapshot();
    await settle();
    world.hooks.before = ({ kind, target, offset }) => {
      if (kind === 'resize' && isAreaFile(target) && first.state === 'ok' && offset > 20 * BLOCK_SIZE)
        throw systemFailure('ENOSPC');
      return undefined;
    };
    await world.writeBlock(0, 40);
    expect([first.problem, second.state]).toEqual(['space', 'ok']);
    await world.expectRight();
  });

  test('when a copy is written: one snapshot goes, not more than are needed', async () => {
    const world = await World.create({
      size: 16 * MEBIBYTE,
      growth: { initial: 8 * MEBIBYTE, maximum: 8 * MEBIBYTE },
    });
    const snapshots = [];
    for (let i = 0; i < 6; i++) {
      snapshots.push(await world.snapshot());
      await world.writeBlock(i * 4, 4);
    }
    await settle();
    // Full until the oldest file is gone: then there is room for everything.
    const oldest = snapshots[0];
    const isFull = async ({ kind, target }: Operation) => {
      await new Promise<void>((resolve) => setImmediate(resolve));
      if (kind === 'write' && isAreaFile(target) && oldest?.state === 'ok') throw systemFailure('ENOSPC');
    };
    world.hooks.before = (operation) =>
      operation.kind === 'write' && isAreaFile(operation.target) ? isFull(operation) : undefined;
    // Four batches at once, each of which meets the full file system.
    await world.writeBlock(30, 4 * 256 - 40);
    expect(snapshots.map(({ state }) => state).filter((state) => state === 'deleted')).toHaveLength(1);
    await world.expectRight();
  });

  test('for good: every snapshot goes, with reason space, and the volume goes on', async () => {
    const world = await World.create({ size: 4 * MEBIBYTE });
    const snapshots = [await world.snapshot(), await world.snapshot()];
    await settle();
    world.hooks.before = ({ kind, target }) => {
      if ((kind === 'write' || kind === 'resize') && isAreaFile(target)) throw systemFailure('ENOSPC');
      return undefined;
    };
    await world.writeBlock(0, 100);
    expect(snapshots.map(({ problem }) => problem)).toEqual(['space', 'space']);
    await expect(world.volume.createSnapshot()).rejects.toThrow(NoSpaceError);
    world.hooks.before = () => undefined;
    await world.expectRight();
    await world.snapshot();
    await world.writeBlock(0, 100);
    await world.expectRight();
    await settle();
    await expectBalanced(world);
    expectSame(await world.volume.read(0, world.size), world.model.bytes, 'the volume');
  });

  test('with diff areas that are holes for the most part: what was written once can be given back', async () => {
    const world = await World.create({ size: 4 * MEBIBYTE });
    const hasBytes = new Set<string>();
    let isFull = false;
    world.hooks.before = ({ kind, target, offset, length }) => {
      if (kind !== 'write' || !isAreaFile(target)) return undefined;
      for (let at = offset - (offset % BLOCK_SIZE); at < offset + length; at += BLOCK_SIZE) {
        if (isFull && !hasBytes.has(`${target} ${at}`)) throw systemFailure('ENOSPC');
        hasBytes.add(`${target} ${at}`);
      }
      return undefined;
    };
    const older = await world.snapshot();
    await world.writeBlock(0, 4);
    const newer = await world.snapshot();
    await settle();
    isFull = true;
    await world.volume.setMaximumSize(world.volume.figures.allocatedBytes - BLOCK_SIZE);
    expect(world.volume.snapshots).toHaveLength(2);
    await newer.delete();
    await world.volume.settled();
    expect(world.volume.snapshots.map(({ id }) => id)).toEqual([older.id]);
    expectSame(await world.volume.read(0, world.size), world.model.bytes, 'the volume');
    await older.delete();
    await world.volume.settled();
    expect(world.volume.figures.allocatedBytes).toBe(0);
  });

  test('a merge that meets it is told as lack of room, however the host says it', async () => {
    const world = await World.create({ size: 4 * MEBIBYTE });
    await world.snapshot();
    await world.writeBlock(0, 4);
    const middle = await world.snapshot();
    await world.writeBlock(8, 4);
    await world.snapshot();
    await settle();
    world.hooks.before = ({ kind, target }) => {
      if (kind === 'write' && isAreaFile(target)) throw systemFailure('ENOSPC');
      return undefined;
    };
    await middle.delete();
    await expect(world.volume.settled()).rejects.toThrow(NoSpaceError);
    expect(world.volume.snapshots).toHaveLength(2);
    world.hooks.before = () => undefined;
    await world.volume.settled();
    await world.expectRight();
  });

  test('for files that may not be so long: a snapshot is refused, and no other one goes for it', async () => {
    const world = await World.create({ size: 4 * MEBIBYTE });
    for (let i = 0; i < 3; i++) {
      await world.snapshot();
      await world.writeBlock(i);
    }
    await settle();
    world.hooks.before = ({ kind, target }) => {
      if (kind === 'resize' && isAreaFile(target)) throw systemFailure('EFBIG');
      return undefined;
    };
    await expect(world.volume.createSnapshot()).rejects.toThrow('would become longer than its file system');
    expect(world.volume.snapshots).toHaveLength(3);
    world.hooks.before = () => undefined;
    await world.expectRight();
  });
});
