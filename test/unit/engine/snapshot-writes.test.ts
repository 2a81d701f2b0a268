/** Writing to a snapshot itself: who sees it, what survives, where it takes room. */
import { describe, expect, test } from 'vitest';
import { checkVolume } from '../../../src/check/check.ts';
import { checkServedVolume } from '../../../src/check/served.ts';
import {
  NoSpaceError,
  ReadOnlyError,
  RevertInProgressError,
  SnapshotDeletedError,
} from '../../../src/errors.ts';
import type { Snapshot } from '../../../src/snapshot/snapshot.ts';
import { SeededRandom } from '../../../src/testing/seeded-random.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { settle } from './hooks.ts';
import { KIBIBYTE, LAYOUTS, World, type WorldOptions } from './world.ts';

const random = new SeededRandom('snapshot writes');
const someBytes = (length: number): Uint8Array => random.fill(new Uint8Array(length));

describe.each(LAYOUTS)('writing to a snapshot (%s)', (layout) => {
  const create = (options: WorldOptions = {}) => World.create({ layout, seed: 'writes', ...options });

  /** Writes to the snapshot and to what the test knows of it. */
  async function write(world: World, snapshot: Snapshot, offset: number, bytes: Uint8Array): Promise<void> {
    await snapshot.write(offset, bytes);
    world.model.of(snapshot.id).set(bytes, offset);
  }

  async function writeRandomly(world: World, snapshot: Snapshot, count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      const length = random.between(1, random.pick([600, BLOCK_SIZE, 3 * BLOCK_SIZE]));
      await write(world, snapshot, random.below(world.size - length + 1), someBytes(length));
    }
  }

  const again = (world: World, { order }: Snapshot): Snapshot => {
    const found = world.volume.snapshots.find((snapshot) => snapshot.order === order);
    if (found === undefined) throw new Error(`snapshot ${order} is gone`);
    return found;
  };

  test('is refused unless the snapshot says that it may be', async () => {
    const world = await create();
    const snapshot = await world.snapshot();
    expect(snapshot.writable).toBe(false);
    await expect(snapshot.write(0, someBytes(512))).rejects.toThrow(ReadOnlyError);
    await snapshot.setWritable(true);
    await write(world, snapshot, 1000, someBytes(5000));
    await world.reopen();
    expect(again(world, snapshot).writable).toBe(true);
    await again(world, snapshot).setWritable(false);
    await expect(again(world, snapshot).write(0, someBytes(512))).rejects.toThrow(ReadOnlyError);
    await world.expectRight();
    await world.volume.close();
    const readOnly = await world.open({ readOnly: true });
    await expect(readOnly.snapshots[0]?.setWritable(true)).rejects.toThrow(ReadOnlyError);
    await world.expectRight();
    await world.volume.close();
  });

  test('shows in that snapshot alone: not in the volume, not in older ones, not in newer ones', async () => {
    const world = await create();
    const snapshots: Snapshot[] = [];
    for (let i = 0; i < 4; i++) {
      snapshots.push(await world.snapshot({ writable: true }));
      await world.writeRandomly(6);
    }
    for (let round = 0; round < 6; round++) {
      for (const snapshot of snapshots) await writeRandomly(world, snapshot, 3);
      await world.writeRandomly(4);
      await world.expectRight();
    }
    await world.reopen();
    await world.expectRight();
    expect(await checkServedVolume(world.volume, { scrub: true })).toEqual([]);
    await world.volume.close();
    expect(await checkVolume(world.device(), { store: world.store(), scrub: true })).toEqual([]);
  });

  test('any bytes: parts of sectors, the short end of the volume, zeros', async () => {
    const world = await create({ size: 5 * BLOCK_SIZE + 777 });
    const snapshot = await world.snapshot({ writable: true });
    await world.writeRandomly(5);
    await write(world, snapshot, world.size - 100, someBytes(100));
    await write(world, snapshot, 511, someBytes(2));
    await write(world, snapshot, BLOCK_SIZE - 1, someBytes(2));
    await write(world, snapshot, 3 * BLOCK_SIZE + 1, someBytes(2 * BLOCK_SIZE));
    await world.expectRight();
    await snapshot.writeZeroes(700, 3 * BLOCK_SIZE);
    world.model.of(snapshot.id).fill(0, 700, 700 + 3 * BLOCK_SIZE);
    await world.expectRight();
    await world.reopen();
    await world.expectRight();
    await world.volume.close();
  });

  test('a flush makes it durable: a killed process loses only what came after', async () => {
    const world = await create();
    const snapshot = await world.snapshot({ writable: true });
    await write(world, snapshot, 5000, someBytes(20_000));
    await snapshot.flush();
    await snapshot.write(600_000, someBytes(20_000));
    await world.kill();
    await world.expectRight();
    await writeRandomly(world, again(world, snapshot), 5);
    await again(world, snapshot).flush();
    await world.kill();
    await world.expectRight();
    await world.volume.close();
  });

  test('the volume can be put back to what was written to a snapshot', async () => {
    const world = await create();
    const older = await world.snapshot({ writable: true });
    const target = await world.snapshot({ writable: true });
    await world.writeRandomly(6);
    await write(world, target, 5000, someBytes(40_000));
    await target.flush();
    await write(world, target, 600_100, someBytes(300)); // not flushed
    const before = world.model.bytes.slice();
    const revert = world.volume.revert(target);
    await revert.begun;
    for (const snapshot of world.volume.snapshots.slice(1)) {
      await snapshot.setWritable(true);
      await expect(snapshot.write(0, someBytes(512))).rejects.toThrow(RevertInProgressError);
    }
    await write(world, older, 7000, someBytes(3000));
    await older.flush();
    world.model.bytes.set(world.model.of(target.id));
    expect(Buffer.compare(await world.volume.read(0, world.size), world.model.bytes)).toBe(0);
    await world.kill();
    expect(Buffer.compare(await world.volume.read(0, world.size), world.model.bytes)).toBe(0);
    await world.volume.reverting?.completed;
    expect(Buffer.compare(await world.volume.read(0, world.size), world.model.bytes)).toBe(0);
    const previous = world.volume.snapshots.at(-1);
    expect(Buffer.compare((await previous?.read(0, world.size)) ?? someBytes(1), before)).toBe(0);
    // It can be written again, and the volume put back to it once more.
    await write(world, again(world, target), 9000, someBytes(5000));
    await world.volume.revert(again(world, target)).completed;
    world.model.bytes.set(world.model.of(target.id));
    await world.reopen();
    expect(world.volume.figures.revert).toBeUndefined();
    for (const { id } of [older, target]) {
      const found = world.volume.snapshots.find((snapshot) => snapshot.id === id);
      expect(Buffer.compare((await found?.read(0, world.size)) ?? before, world.model.of(id))).toBe(0);
    }
    expect(Buffer.compare(await world.volume.read(0, world.size), world.model.bytes)).toBe(0);
    expect(await checkServedVolume(world.volume, { scrub: true })).toEqual([]);
    await world.volume.close();
  });

  test('more entries than a table block holds, among those of copies', async () => {
    const world = await create({ size: 1200 * BLOCK_SIZE, reserve: 3000 * BLOCK_SIZE });
    const snapshot = await world.snapshot({ writable: true });
    for (let i = 0; i < 550; i++) {
      await write(world, snapshot, i * 2 * BLOCK_SIZE, someBytes(512));
      if (i % 50 === 0) await world.writeBlock(i, 3);
      if (i % 90 === 0) await snapshot.flush();
    }
    await snapshot.flush();
    await world.kill();
    await world.expectRight();
    await world.volume.close();
    expect(await checkVolume(world.device(), { store: world.store(), scrub: true })).toEqual([]);
  });

  test('writing the same place again takes no more room', async () => {
    const world = await create();
    const snapshot = await world.snapshot({ writable: true });
    await write(world, snapshot, 0, someBytes(3 * BLOCK_SIZE));
    await snapshot.flush();
    const { usedBytes } = snapshot;
    for (let i = 0; i < 2000; i++) {
      await write(world, snapshot, 512 * random.below(90), someBytes(512));
      if (i % 3 === 0) await snapshot.flush();
    }
    expect(snapshot.usedBytes).toBe(usedBytes);
    await world.expectRight();
    await world.volume.close();
  });

  test('what changed between two snapshots includes what was written to either', async () => {
    const world = await create({ filled: false });
    const since = await world.snapshot({ writable: true });
    await world.writeBlock(9);
    const until = await world.snapshot({ writable: true });
    await world.writeBlock(20);
    await write(world, since, 30 * BLOCK_SIZE, someBytes(512));
    await write(world, until, 40 * BLOCK_SIZE, someBytes(512));
    const changed = async (options: Parameters<typeof world.volume.changedBlocks>[0]) => {
      const blocks = [];
      for await (const { offset } of world.volume.changedBlocks(options)) blocks.push(offset / BLOCK_SIZE);
      return blocks;
    };
    expect(await changed({ since, until })).toEqual([9, 30, 40]);
    expect(await changed({ since })).toEqual([9, 20, 30]);
    const zeros: number[] = [];
    let at = 0;
    for await (const { length, zero } of until.allocation?.(0, until.size) ?? []) {
      if (zero) for (let b = at / BLOCK_SIZE; b < (at + length) / BLOCK_SIZE; b++) zeros.push(b);
      at += length;
    }
    expect(zeros).not.toContain(40);
    await world.volume.close();
  });

  test('many at once, in the same blocks and beside copies', async () => {
    const world = await create({ growth: { initial: 2 * BLOCK_SIZE, maximum: 4 * BLOCK_SIZE } });
    const old = await world.snapshot({ writable: true });
    await world.writeRandomly(5);
    const snapshot = await world.snapshot({ writable: true });
    const writers = Array.from({ length: 40 }, async (_, i) => {
      const target = i % 2 === 0 ? old : snapshot;
      // Each has bytes of its own, which share sectors with those of others.
      await write(world, target, 1000 + i * 300, someBytes(300));
      if (i % 7 === 0) await target.flush();
      await world.write(i * 9000, someBytes(9000));
      await target.read(0, BLOCK_SIZE);
    });
    await Promise.all(writers);
    await world.expectRight();
    await world.reopen();
    await world.expectRight();
    await world.volume.close();
  });

  test('older snapshots go for it, itself it does not', async () => {
    const reserve = 10 * BLOCK_SIZE + 64 * BLOCK_SIZE;
    const world = await create({
      reserve,
      ...(layout === 'directory' ? { maximumSize: 60 * BLOCK_SIZE } : {}),
      growth: { initial: 12 * BLOCK_SIZE, maximum: 12 * BLOCK_SIZE },
      size: 64 * BLOCK_SIZE,
    });
    const oldest = await world.snapshot();
    await world.writeBlock(0, 6);
    const snapshot = await world.snapshot({ writable: true });
    await world.writeBlock(10, 4);
    await world.snapshot();
    const attempt = async () => {
      for (let block = 0; block < 64; block++) {
        const bytes = someBytes(BLOCK_SIZE);
        await snapshot.write(block * BLOCK_SIZE, bytes);
        world.model.of(snapshot.id).set(bytes, block * BLOCK_SIZE);
      }
    };
    await expect(attempt()).rejects.toThrow(NoSpaceError);
    expect(oldest.state).toBe('deleted');
    expect(snapshot.state).toBe('ok');
    await world.expectRight();
    await world.reopen();
    await world.expectRight();
    await world.volume.close();
  });

  test('a snapshot that is deleted meanwhile fails its writers', async () => {
    const world = await create();
    const snapshot = await world.snapshot({ writable: true });
    await world.snapshot();
    const writing = Array.from({ length: 20 }, (_, i) => snapshot.write(i * BLOCK_SIZE, someBytes(700)));
    const outcome = Promise.allSettled([...writing, snapshot.flush()]);
    await snapshot.delete();
    for (const result of await outcome)
      if (result.status === 'rejected') expect(result.reason).toBeInstanceOf(SnapshotDeletedError);
    await expect(snapshot.write(0, someBytes(1))).rejects.toThrow(SnapshotDeletedError);
    await world.expectRight();
    await settle();
    await world.volume.close();
  });

  test('memory follows what was written', async () => {
    const world = await create({ size: 512 * KIBIBYTE });
    const snapshot = await world.snapshot({ writable: true });
    const area = world.volume.parts.writer?.engine.chain.newest?.area;
    expect(area?.overlays.memoryBytes).toBe(0);
    await write(world, snapshot, 0, someBytes(world.size));
    expect(area?.overlays.memoryBytes).toBeLessThan(32 * 16 + 2000);
    await world.volume.close();
  });
});
