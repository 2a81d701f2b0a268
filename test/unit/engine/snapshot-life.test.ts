/** Snapshots that go by themselves, hidden and offline ones, and volumes that grow under their snapshots. */
import { describe, expect, test } from 'vitest';
import { MemoryContent, MemoryDevice } from '../../../src/device/memory-device.ts';
import { MemoryFolder } from '../../../src/device/memory-folder.ts';
import {
  InvalidArgumentError,
  OfflineError,
  RevertInProgressError,
  UnsupportedError,
  VolumeChangedError,
} from '../../../src/errors.ts';
import { DirectoryStore } from '../../../src/store/directory-store.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { createSnapshotSet } from '../../../src/volume/snapshot-set.ts';
import { Volume } from '../../../src/volume/volume.ts';
import { settle, systemFailure } from './hooks.ts';
import { expectSame, LAYOUTS, World } from './world.ts';

describe.each(LAYOUTS)('the life of a snapshot (%s)', (layout) => {
  test('one that is not persistent is gone after a close, and after a crash', async () => {
    const world = await World.create({ layout });
    for (const end of ['reopen', 'kill'] as const) {
      const { id, persistent } = await world.volume.createSnapshot({ persistent: false });
      expect(persistent).toBe(false);
      await world.volume.write(0, new Uint8Array(3 * BLOCK_SIZE).fill(7));
      await world[end]();
      expect(world.volume.snapshots).toEqual([]);
      expect(world.volume.recovery.droppedSnapshots).toEqual([{ id, reason: 'not-persistent' }]);
      expect(world.volume.figures.allocatedBytes).toBe(0);
    }
  });

  test.each(['persistent', 'autoRelease'] as const)(
    'one that goes (%s) is merged where older ones read through it',
    async (why) => {
      for (const end of ['reopen', 'kill'] as const) {
        const world = await World.create({ layout });
        await world.snapshot();
        const options = why === 'persistent' ? { persistent: false } : { autoRelease: true };
        const { id } = await world.volume.createSnapshot(options);
        await world.writeRandomly(5);
        await world.snapshot();
        await world.writeRandomly(5);
        await world[end]();
        expect(world.volume.snapshots.map((snapshot) => snapshot.id)).not.toContain(id);
        await world.expectRight();
        await world.volume.settled();
        expect(world.volume.parts.writer?.engine.store.control.has(id)).toBe(false);
        expect(world.volume.figures.deletion).toMatchObject({ snapshots: 0, allocatedBytes: 0 });
        await world.expectRight();
        await world.reopen({ readOnly: true });
        await world.expectRight();
      }
    },
  );

  test('of one that goes with its owner nothing is left to be decided after a kill while it is merged', async () => {
    const world = await World.create({ layout });
    await world.snapshot();
    const { id } = await world.volume.createSnapshot({ autoRelease: true });
    await world.writeRandomly(5);
    await world.kill({ readOnly: true });
    expect(world.volume.snapshots).toHaveLength(1);
    await world.expectRight();
    await world.reopen();
    expect(world.volume.recovery.droppedSnapshots).toEqual([{ id, reason: 'released' }]);
    await world.kill();
    expect(world.volume.recovery.droppedSnapshots).toEqual([]);
    await world.volume.settled();
    await world.expectRight();
  });

  test('one that is released with its owner goes with a close', async () => {
    const world = await World.create({ layout });
    await world.volume.createSnapshot({ autoRelease: true });
    await world.volume.write(0, new Uint8Array(3 * BLOCK_SIZE).fill(7));
    await world.reopen();
    expect(world.volume.snapshots).toEqual([]);
    expect(world.volume.recovery).toMatchObject({ clean: true, droppedSnapshots: [] });
    await world.volume.createSnapshot({ autoRelease: true });
    await world.kill();
    expect(world.volume.recovery.droppedSnapshots).toMatchObject([{ reason: 'released' }]);
  });

  test('it can be hidden and taken offline, and stays so', async () => {
    const world = await World.create({ layout });
    const snapshot = await world.volume.createSnapshot({ hidden: true });
    expect(snapshot).toMatchObject({ hidden: true, offline: false });
    await snapshot.change({ offline: true });
    await world.reopen();
    const [found] = world.volume.snapshots;
    expect(found).toMatchObject({ hidden: true, offline: true, state: 'ok' });
    await expect(found?.read(0, 512)).rejects.toMatchObject({ code: 'OFFLINE' });
    await found?.change({ hidden: false, offline: false });
    expect(found).toMatchObject({ hidden: false, offline: false });
    expect(await found?.read(0, 512)).toEqual(await world.volume.read(0, 512));
  });
});

describe('a volume that grows', () => {
  test('keeps its snapshots at their size', async () => {
    const content = new MemoryContent(5 * BLOCK_SIZE - 512);
    const folder = new MemoryFolder();
    const store = () => new DirectoryStore(folder);
    await Volume.initialize(new MemoryDevice(content, { writable: true }), { store: store() });
    const volume = await Volume.open(new MemoryDevice(content, { writable: true }), { store: store() });
    await volume.write(0, new Uint8Array(volume.size).fill(1));
    const before = await volume.createSnapshot();
    await volume.grow(9 * BLOCK_SIZE);
    expect([volume.size, before.size]).toEqual([9 * BLOCK_SIZE, 5 * BLOCK_SIZE - 512]);
    await volume.write(4 * BLOCK_SIZE, new Uint8Array(5 * BLOCK_SIZE).fill(2));
    const after = await volume.createSnapshot();
    await volume.write(0, new Uint8Array(volume.size).fill(3));
    expectSame(await before.read(0, before.size), new Uint8Array(before.size).fill(1), 'the older one');
    expect((await after.read(8 * BLOCK_SIZE, 512))[0]).toBe(2);
    // Not closed: as after a crash.
    const again = await Volume.open(new MemoryDevice(content, { writable: true }), { store: store() });
    expect(again.snapshots.map(({ size }) => size)).toEqual([before.size, 9 * BLOCK_SIZE]);
    await expect(again.grow(BLOCK_SIZE)).rejects.toThrow(InvalidArgumentError);
  });

  /** Cut off when the device has become longer, and before that is on record. */
  async function cutOff() {
    const world = await World.create({ layout: 'directory' });
    await world.snapshot();
    await world.writeRandomly(5);
    const size = world.size + 3 * BLOCK_SIZE;
    world.hooks.before = ({ kind, target }) =>
      kind === 'flush' && target === 'volume' ? new Promise<void>(() => undefined) : undefined;
    void world.volume.grow(size);
    while (world.content.size < size) await new Promise(setImmediate);
    return { world, size };
  }

  test('and is killed then has its old size or the new one', async () => {
    for (const isLonger of [true, false]) {
      const { world, size } = await cutOff();
      if (!isLonger) world.content.resize(world.size);
      await world.kill();
      expect(world.volume.size).toBe(isLonger ? size : world.size);
      await world.expectRight();
      await world.reopen();
      await world.expectRight();
    }
  });

  test('and is killed then has what it has for good before that is on record', async () => {
    const { world, size } = await cutOff();
    world.hooks.log.length = 0;
    await world.kill();
    expect(world.volume.size).toBe(size);
    const { log } = world.hooks;
    const flushed = log.findIndex(
      ({ kind, phase, target }) => kind === 'flush' && phase === 'end' && target === 'volume',
    );
    const recorded = log.findIndex(({ kind, target }) => kind === 'write' && target !== 'volume');
    expect(flushed).toBeGreaterThanOrEqual(0);
    expect(flushed).toBeLessThan(recorded);
  });

  test('has its old size or the new one after a crash, also where an earlier growth had failed', async () => {
    const world = await World.create({ layout: 'directory' });
    const sizes = [1, 2].map((blocks) => world.size + blocks * BLOCK_SIZE);
    world.hooks.before = ({ kind, target }) => {
      if (kind === 'flush' && target === 'volume') throw systemFailure('EIO');
      return undefined;
    };
    await expect(world.volume.grow(sizes[0] ?? 0)).rejects.toMatchObject({ code: 'EIO' });
    world.hooks.before = ({ kind }) => (kind === 'resize' ? new Promise<void>(() => undefined) : undefined);
    void world.volume.grow(sizes[1] ?? 0);
    await settle();
    await world.kill();
    expect(world.volume.size).toBe(sizes[0]);
    await world.volume.close();
  });

  test('is known by its new size after a close where that could not be recorded at once', async () => {
    const world = await World.create({ layout: 'directory' });
    await world.snapshot();
    let isLonger = false;
    world.hooks.before = ({ kind, target }) => {
      if (isLonger && kind === 'write' && target !== 'volume') throw systemFailure('EIO');
      isLonger ||= kind === 'resize';
      return undefined;
    };
    const size = world.size + BLOCK_SIZE;
    await expect(world.volume.grow(size)).rejects.toMatchObject({ code: 'EIO' });
    world.hooks.before = () => undefined;
    await world.reopen();
    expect(world.volume.size).toBe(size);
    await world.volume.close();
  });

  test('and has any other size was changed by somebody else', async () => {
    const { world, size } = await cutOff();
    world.content.resize(size + BLOCK_SIZE);
    await expect(world.kill()).rejects.toThrow(VolumeChangedError);
    await world.open({ onVolumeChanged: 'keep' });
    expect(world.volume.size).toBe(size + BLOCK_SIZE);
    await world.expectRight();
  });

  test('was changed by somebody else if volsnap was not there', async () => {
    const world = await World.create({ layout: 'directory' });
    await world.snapshot();
    await world.volume.close();
    world.content.resize(world.size + BLOCK_SIZE);
    await expect(world.open()).rejects.toThrow(VolumeChangedError);
  });

  test('cannot hold its store inside', async () => {
    const world = await World.create({ layout: 'in-volume' });
    await expect(world.volume.grow(world.size * 2)).rejects.toThrow(UnsupportedError);
  });
});

test('a volume takes 512 snapshots, and says so', { timeout: 60_000 }, async () => {
  const world = await World.create({ layout: 'directory', size: BLOCK_SIZE });
  for (let i = 0; i < 512; i++) await world.volume.createSnapshot();
  await expect(world.volume.createSnapshot()).rejects.toMatchObject({ code: 'LIMIT' });
  expect(world.volume.snapshots).toHaveLength(512);
});

describe.each(LAYOUTS)('while a volume is put back (%s)', (layout) => {
  /** Three snapshots, the one in the middle not to last; a revert that does not get on to it or to the oldest. */
  async function reverting(to: 0 | 1, options: { persistent?: boolean; autoRelease?: boolean }) {
    const world = await World.create({ layout });
    await world.snapshot({ label: 'oldest' });
    await world.writeRandomly(8);
    await world.snapshot({ label: 'passing', ...options });
    await world.writeRandomly(8);
    await world.snapshot({ label: 'newest' });
    await world.writeRandomly(8);
    const target = world.volume.snapshots[to];
    if (target === undefined) throw new Error('there is no target');
    world.volume.parts.writer?.engine.pools.background.pause();
    await world.volume.revert(target).begun;
    const previous = world.volume.snapshots.at(-1);
    world.model.snapshots.set(previous?.id ?? '', world.model.bytes.slice());
    world.model.bytes.set(world.model.of(target.id));
    return { world, target };
  }

  const labels = ({ volume }: World) => volume.snapshots.map(({ label }) => label?.slice(0, 6));
  /** Waits for the end of the revert, and for what goes with it. */
  async function over({ volume }: World): Promise<void> {
    await volume.reverting?.completed;
    await volume.settled();
  }

  test.each([0, 1] as const)(
    'what expired is shown to nobody, and goes when that is over (%i)',
    async (to) => {
      for (const options of [{ persistent: false }, { autoRelease: true }]) {
        const { world } = await reverting(to, options);
        await world.kill({ readOnly: true });
        expect(labels(world)).toEqual(['oldest', 'newest', 'before']);
        await world.expectRight();
        await world.volume.close();
        await world.open();
        expect(labels(world)).toEqual(['oldest', 'newest', 'before']);
        await world.expectRight();
        await over(world);
        await world.expectRight();
        expect(world.volume.parts.writer?.engine.chain.records).toHaveLength(3);
        await world.reopen();
        expect(world.volume.recovery.droppedSnapshots).toEqual([]);
        await world.expectRight();
      }
    },
  );

  test('what goes with its owner stays for a close that comes in between', async () => {
    const { world } = await reverting(1, { autoRelease: true });
    world.volume.parts.writer?.engine.pools.background.start();
    await world.reopen();
    await over(world);
    expect(labels(world)).toEqual(['oldest', 'newest', 'before']);
    await world.expectRight();
  });

  test('neither a set is taken nor does it grow, and its target can be hidden', async () => {
    const { world, target } = await reverting(0, {});
    await expect(createSnapshotSet([world.volume])).rejects.toThrow(RevertInProgressError);
    await expect(world.volume.grow(world.size * 2)).rejects.toThrow(RevertInProgressError);
    await target.change({ hidden: true });
    await world.kill();
    expect(world.volume.figures.revert ?? { targetId: target.id }).toMatchObject({ targetId: target.id });
    await over(world);
    expect(world.volume.snapshots[0]).toMatchObject({ id: target.id, hidden: true });
    await world.expectRight();
  });
});

test('a volume is not put back to a snapshot that is offline', async () => {
  const world = await World.create();
  const snapshot = await world.snapshot();
  await snapshot.change({ offline: true });
  await expect(world.volume.revert(snapshot).begun).rejects.toThrow(OfflineError);
});
