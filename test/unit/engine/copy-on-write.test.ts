/** Copying before the first overwrite: once, in groups, durable before the write, and what happens when it fails. */
import { describe, expect, test } from 'vitest';
import { DeviceError, SnapshotDeletedError } from '../../../src/errors.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { type Operation, settle, signal, systemFailure } from './hooks.ts';
import { expectSame, LAYOUTS, MEBIBYTE, World } from './world.ts';

const isVolumeWrite = ({ target, kind, offset }: Operation, size: number) =>
  target === 'volume' && kind === 'write' && offset < size;

describe.each(LAYOUTS)('copying a block (%s)', (layout) => {
  test('happens once under 50 concurrent writers', async () => {
    const world = await World.create({ layout });
    const snapshot = await world.snapshot();
    const before = world.volume.figures.copies.copiedBlocks;
    const wanted = world.random.fill(new Uint8Array(BLOCK_SIZE));
    await Promise.all(
      Array.from({ length: 50 }, (_, i) => {
        const part = wanted.subarray(i * 300, (i + 1) * 300);
        return world.write(7 * BLOCK_SIZE + i * 300, part);
      }),
    );
    expect(world.volume.figures.copies.copiedBlocks - before).toBe(1);
    await world.expectRight();
    await world.writeBlock(7);
    expect(world.volume.figures.copies.copiedBlocks - before, 'nor later').toBe(1);
    expectSame(await snapshot.read(0, world.size), world.model.of(snapshot.id), 'the snapshot');
  });

  test('is durable before the write of the volume begins', async () => {
    const world = await World.create({ layout, size: 4 * MEBIBYTE });
    await world.snapshot();
    await world.snapshot();
    world.hooks.log.length = 0;
    await Promise.all(
      // Not block 0, which every in-volume snapshot has from the beginning.
      Array.from({ length: 60 }, (_, i) =>
        world.write((1 + ((i * 37) % 250)) * BLOCK_SIZE + i, new Uint8Array(5)),
      ),
    );
    expectCopiesBeforeWrites(world);
  });

  test('of zeros takes no slot: all of them share one', async () => {
    const world = await World.create({ layout, size: 4 * MEBIBYTE, filled: false });
    const snapshot = await world.snapshot();
    const used = snapshot.usedBytes;
    await world.writeBlock(10, 100);
    expect(snapshot.usedBytes).toBe(used);
    expect(world.volume.figures.copies.zeroBlocks).toBe(100);
    await world.expectRight();
    await world.reopen();
    await world.expectRight();
    const [again] = world.volume.snapshots;
    expect(again?.usedBytes).toBe(used);
  });

  test('is needed for discards and zeroes like for any write', async () => {
    const world = await World.create({ layout });
    const snapshot = await world.snapshot();
    await world.volume.discard(5000, 100_000);
    await world.volume.writeZeroes(300_001, 50_000);
    world.model.bytes.fill(0, 5000, 105_000);
    world.model.bytes.fill(0, 300_001, 350_001);
    await world.expectRight();
    expect(snapshot.state).toBe('ok');
  });

  test('that is short, at the end of the volume, is right', async () => {
    const world = await World.create({ layout, size: 10 * BLOCK_SIZE + 1000 });
    await world.snapshot();
    await world.write(10 * BLOCK_SIZE + 999, new Uint8Array([1]));
    await world.expectRight();
    await world.kill();
    await world.expectRight();
  });

  test('goes on with a memory limit smaller than a block', async () => {
    const world = await World.create({ layout, size: 4 * MEBIBYTE });
    await world.reopen({ memoryLimit: 1 });
    await world.snapshot();
    await Promise.all([world.writeBlock(0, 100), world.writeBlock(100, 100), world.writeBlock(200, 56)]);
    await world.expectRight();
  });

  test('takes one write larger than everything else: 64 MiB in one call', async () => {
    const world = await World.create({ layout, size: 64 * MEBIBYTE, reserve: 70 * MEBIBYTE });
    await world.snapshot();
    await world.writeBlock(0, 4096);
    await world.expectRight();
    expect(world.volume.snapshots).toHaveLength(1);
  });
});

/** No write of the volume began before a flush of the diff area, begun after its copies were written, had returned. */
function expectCopiesBeforeWrites(world: World): void {
  const isArea = ({ target, offset }: Operation) => target !== 'volume' || offset >= world.size;
  // Each block of the volume is copied by a read of it; entry and data are written, then flushed.
  const { log } = world.hooks;
  const firstWrites = new Map<number, number>();
  log.forEach((entry, index) => {
    if (entry.phase !== 'begin' || !isVolumeWrite(entry, world.size)) return;
    const block = Math.floor(entry.offset / BLOCK_SIZE);
    if (!firstWrites.has(block)) firstWrites.set(block, index);
  });
  expect(firstWrites.size).toBeGreaterThan(20);
  for (const [block, written] of firstWrites) {
    const read = log.findIndex(
      ({ target, kind, phase, offset, length }) =>
        target === 'volume' &&
        kind === 'read' &&
        phase === 'end' &&
        offset <= block * BLOCK_SIZE &&
        block * BLOCK_SIZE < offset + length,
    );
    expect(read, `block ${block} is read before it is written`).toBeGreaterThanOrEqual(0);
    expect(read).toBeLessThan(written);
    // Some flush of a device with the diff area began after a write to it that followed the read, and ended before.
    const copied = log.findIndex(
      (entry, index) => index > read && entry.kind === 'write' && entry.phase === 'end' && isArea(entry),
    );
    const flushed = log.findIndex(
      (entry, index) =>
        index > copied &&
        entry.kind === 'flush' &&
        entry.phase === 'end' &&
        (world.layout === 'in-volume' || entry.target !== 'volume'),
    );
    expect(copied, `block ${block} is copied`).toBeGreaterThan(read);
    expect(flushed, `block ${block} is flushed before it is written`).toBeGreaterThan(copied);
    expect(flushed).toBeLessThan(written);
  }
}

// So much that growing, which writes and flushes too, stays out of what is counted.
const ROOMY = { initial: 8 * MEBIBYTE, maximum: 8 * MEBIBYTE };

describe('writers that wait together', () => {
  test('share one flush', async () => {
    const world = await World.create({ size: 4 * MEBIBYTE, growth: ROOMY });
    await world.snapshot();
    const go = signal();
    world.hooks.before = ({ target, kind }) =>
      target.includes('store') && kind === 'flush' ? go.promise : undefined;
    const writes = [world.writeBlock(0)];
    await settle(); // the first group is in its flush
    for (let block = 1; block < 200; block++) writes.push(world.writeBlock(block));
    await settle();
    world.hooks.log.length = 0;
    go.fire();
    await Promise.all(writes);
    // One for the group that was under way, one for all the others.
    expect(world.hooks.count('flush', 'store')).toBe(2);
    expect(world.volume.figures.copies.groups).toBe(2);
    await world.expectRight();
  });

  test('of one turn make one batch that is read and written in one request each', async () => {
    const world = await World.create({ size: 4 * MEBIBYTE, growth: ROOMY });
    await world.snapshot();
    world.hooks.log.length = 0;
    await Promise.all(Array.from({ length: 64 }, (_, block) => world.writeBlock(block)));
    expect(world.hooks.count('read', 'volume')).toBe(1);
    const copies = world.hooks.log.filter(
      ({ target, kind, phase, length }) =>
        phase === 'end' && kind === 'write' && target.includes('store') && length >= BLOCK_SIZE,
    );
    expect(copies.length).toBe(1);
  });

  test('of different blocks do not wait for each other without need', async () => {
    const world = await World.create({ size: 4 * MEBIBYTE });
    await world.snapshot();
    await world.writeBlock(3);
    const go = signal();
    world.hooks.before = ({ target, kind, offset }) =>
      target === 'volume' && kind === 'read' && offset === 100 * BLOCK_SIZE ? go.promise : undefined;
    const slow = world.writeBlock(100);
    await settle();
    await world.writeBlock(3); // copied already
    await world.writeBlock(50); // has to be copied
    go.fire();
    await slow;
    await world.expectRight();
  });
});

describe.each(LAYOUTS)('reading a snapshot (%s)', (layout) => {
  test('that races writers gives the old bytes, however late the read of the volume comes', async () => {
    const world = await World.create({ layout });
    const snapshot = await world.snapshot();
    const go = signal();
    let held = 0;
    world.hooks.before = ({ target, kind, offset, length }) => {
      // The snapshot's own reads of the volume; copies read whole blocks of what is written below.
      if (target !== 'volume' || kind !== 'read' || offset !== 100 || length === 0 || held > 0)
        return undefined;
      held++;
      return go.promise;
    };
    const reading = snapshot.read(100, 10 * BLOCK_SIZE);
    await settle();
    await Promise.all([
      world.writeBlock(0),
      world.write(3 * BLOCK_SIZE + 5, new Uint8Array(900)),
      world.writeBlock(9, 3),
    ]);
    go.fire();
    expectSame(await reading, world.model.of(snapshot.id).subarray(100, 100 + 10 * BLOCK_SIZE), 'the read');
    if (layout === 'directory') expect(held).toBe(1);
  });

  test('that a newer snapshot is taken under, with writes after it, stays right', async () => {
    const world = await World.create({ layout });
    const snapshot = await world.snapshot();
    const go = signal();
    let held = 0;
    world.hooks.before = ({ target, kind, length }) => {
      if (target !== 'volume' || kind !== 'read' || length !== 20 * BLOCK_SIZE || held > 0) return undefined;
      held++;
      return go.promise;
    };
    const reading = snapshot.read(BLOCK_SIZE, 20 * BLOCK_SIZE);
    await settle();
    await world.snapshot();
    await world.writeBlock(2, 10);
    await world.snapshot();
    await world.writeBlock(5, 10);
    go.fire();
    expectSame(await reading, world.model.of(snapshot.id).subarray(BLOCK_SIZE, 21 * BLOCK_SIZE), 'the read');
    expect(held).toBe(1);
    await world.expectRight();
  });

  test('many random reads and writes at once all give the moment of their snapshot', async () => {
    for (let round = 0; round < 8; round++) {
      const seed = `race ${round}`;
      const world = await World.create({ layout, seed });
      const delays = world.random.fork('delays');
      world.hooks.before = () => {
        const turns = delays.below(6);
        if (turns === 0) return undefined;
        return (async () => {
          for (let turn = 0; turn < turns; turn++)
            await new Promise<void>((resolve) => setImmediate(resolve));
        })();
      };
      const work: Promise<unknown>[] = [];
      for (let i = 0; i < 120; i++) {
        const kind = world.random.below(10);
        if (kind === 0 && world.volume.snapshots.length < 6) await world.snapshot();
        else if (kind < 5) {
          const block = world.random.below(60);
          // Writers of one block at a time: overlapping writes have no order.
          await Promise.all([world.writeBlock(block), world.writeBlock(63 - (block % 3))]);
        } else if (world.volume.snapshots.length > 0) {
          const snapshot = world.random.pick(world.volume.snapshots);
          const offset = world.random.below(world.size - 5 * BLOCK_SIZE);
          const wanted = world.model.of(snapshot.id);
          work.push(
            snapshot.read(offset, 5 * BLOCK_SIZE).then((bytes) => {
              expectSame(bytes, wanted.subarray(offset, offset + 5 * BLOCK_SIZE), `a read (seed ${seed})`);
            }),
          );
        }
      }
      await Promise.all(work);
      world.hooks.before = () => undefined;
      await world.expectRight();
    }
  });

  test('that is deleted meanwhile is SNAPSHOT_DELETED, and its space is free only after the read', async () => {
    const world = await World.create({ layout });
    const snapshot = await world.snapshot();
    await world.writeBlock(1, 5);
    await world.snapshot();
    await settle();
    const go = signal();
    world.hooks.before = ({ kind, length }) =>
      kind === 'read' && length === 5 * BLOCK_SIZE ? go.promise : undefined;
    const reading = snapshot.read(BLOCK_SIZE, 5 * BLOCK_SIZE);
    await settle();
    const allocated = world.volume.figures.allocatedBytes;
    let deleted = false;
    const deleting = snapshot.delete().then(() => {
      deleted = true;
    });
    await settle();
    expect(snapshot.state).toBe('deleted');
    expect(deleted).toBe(false);
    expect(world.volume.figures.allocatedBytes).toBe(allocated);
    await expect(snapshot.read(0, 1)).rejects.toThrow(SnapshotDeletedError);
    go.fire();
    await expect(reading).rejects.toThrow(SnapshotDeletedError);
    await deleting;
    expect(world.volume.figures.allocatedBytes).toBeLessThan(allocated);
    await world.expectRight();
  });
});

describe.each(LAYOUTS)('when a device fails (%s)', (layout) => {
  const isCopy =
    (world: World) =>
    ({ target, kind, offset }: Operation) =>
      kind === 'write' &&
      (layout === 'directory'
        ? target.includes('store') && !target.endsWith('/{3808876b-c176-4e48-b7ae-04046e6cc752}')
        : offset >= world.size + 10 * BLOCK_SIZE);

  test('a copy that fails once is repeated, and nobody notices', async () => {
    const world = await World.create({ layout });
    await world.snapshot();
    let failures = 1;
    const matches = isCopy(world);
    world.hooks.before = (operation) => {
      if (matches(operation) && failures-- > 0) throw systemFailure('EIO');
      return undefined;
    };
    const used = world.volume.figures.usedBytes;
    await world.writeBlock(3, 4);
    expect(failures).toBeLessThan(0);
    expect(world.volume.figures.copies.failures).toBe(1);
    // The slots of the first attempt are free again.
    expect(world.volume.figures.usedBytes - used).toBe(4 * BLOCK_SIZE);
    expect(world.volume.snapshots).toHaveLength(1);
    await world.expectRight();
    world.hooks.before = () => undefined;
    await world.kill();
    await world.expectRight();
  });

  test('copies that keep failing cost the snapshots, with the reason, and the write succeeds', async () => {
    const world = await World.create({ layout });
    const snapshots = [await world.snapshot(), await world.snapshot()];
    const events: string[] = [];
    world.volume.on('deleted', ({ id, reason, cause }) =>
      events.push(`${snapshots.findIndex((s) => s.id === id)} ${reason} ${String(cause).includes('EIO')}`),
    );
    const matches = isCopy(world);
    world.hooks.before = (operation) => {
      if (matches(operation)) throw systemFailure('EIO');
      return undefined;
    };
    await world.writeBlock(3, 4);
    expect(events).toEqual(['0 copy-failed true', '1 copy-failed true']);
    expect(world.volume.snapshots).toEqual([]);
    expect(snapshots.map(({ state }) => state)).toEqual(['deleted', 'deleted']);
    await world.expectRight();
    world.hooks.before = () => undefined;
    await world.snapshot();
    await world.writeBlock(1);
    await world.reopen();
    expect(world.volume.snapshots).toHaveLength(1);
    await world.expectRight();
  });

  test('a write whose copy fails, and whose snapshots cannot be given up either, fails; snapshots stay right', async () => {
    const world = await World.create({ layout });
    const snapshot = await world.snapshot();
    await world.writeBlock(1);
    const behind = (operation: Operation) =>
      operation.kind === 'write' &&
      (layout === 'directory' ? operation.target.includes('store') : operation.offset >= world.size);
    world.hooks.before = (operation) => {
      if (behind(operation)) throw systemFailure('EIO');
      return undefined;
    };
    await expect(world.volume.write(9 * BLOCK_SIZE, new Uint8Array(100))).rejects.toThrow('EIO');
    await world.writeBlock(1); // copied before: needs nothing
    expect(snapshot.state).toBe('ok');
    world.hooks.before = () => undefined;
    await world.expectRight();
    await world.writeBlock(9);
    await world.expectRight();
    await world.kill();
    await world.expectRight();
    expect(world.volume.snapshots).toHaveLength(1);
  });

  test('a volume that cannot be read where it is to be copied fails the write, and costs no snapshot', async () => {
    const world = await World.create({ layout });
    const snapshot = await world.snapshot();
    world.hooks.before = ({ target, kind, offset, length }) => {
      const bad = 20 * BLOCK_SIZE;
      if (target === 'volume' && kind === 'read' && offset <= bad && bad < offset + length)
        throw systemFailure('EIO');
      return undefined;
    };
    await expect(world.volume.write(20 * BLOCK_SIZE, new Uint8Array(9))).rejects.toThrow('EIO');
    world.hooks.before = () => undefined;
    expect(snapshot.state).toBe('ok');
    await world.writeBlock(20);
    await world.expectRight();
  });

  test('a write of the volume that fails is the writer’s error and changes no snapshot', async () => {
    const world = await World.create({ layout });
    const snapshot = await world.snapshot();
    world.hooks.before = (operation) => {
      if (isVolumeWrite(operation, world.size)) throw systemFailure('EIO');
      return undefined;
    };
    await expect(world.volume.write(5 * BLOCK_SIZE, new Uint8Array(9))).rejects.toThrow('EIO');
    world.hooks.before = () => undefined;
    expectSame(await snapshot.read(0, world.size), world.model.of(snapshot.id), 'the snapshot');
    await world.writeBlock(5);
    await world.expectRight();
  });

  test('a failed creation leaves nothing behind, at whatever operation it fails', async () => {
    for (let failing = 0; ; failing++) {
      const world = await World.create({ layout });
      const first = await world.snapshot();
      await world.writeBlock(1, 4);
      await settle();
      const files = (await world.folder.list()).length;
      const allocated = world.volume.figures.allocatedBytes;
      let count = 0;
      world.hooks.before = ({ kind }) => {
        if (kind === 'remove') return undefined;
        if (count++ === failing) throw systemFailure('EIO');
        return undefined;
      };
      const outcome = await world.snapshot().then(
        () => 'created',
        (error: unknown) => error,
      );
      world.hooks.before = () => undefined;
      await settle();
      if (outcome === 'created' && count <= failing) {
        expect(failing).toBeGreaterThan(8); // every operation had its turn
        break;
      }
      if (outcome !== 'created') {
        expect(String(outcome)).toContain('EIO');
        expect(world.volume.snapshots.map(({ id }) => id)).toEqual([first.id]);
        expect((await world.folder.list()).length, `files after failure ${failing}`).toBe(files);
        expect(world.volume.figures.allocatedBytes, `space after failure ${failing}`).toBe(allocated);
      }
      await world.writeBlock(3, 6);
      await world.snapshot();
      await world.writeBlock(2, 6);
      await world.expectRight();
      await world.kill();
      await world.expectRight();
    }
  });

  test('reads of a snapshot report a copy that does not match its checksum, and only there', async () => {
    const world = await World.create({ layout });
    const snapshot = await world.snapshot();
    await world.writeBlock(4, 2);
    const events: string[] = [];
    world.volume.on('integrityFailure', ({ id, error }) => events.push(`${id} ${error.code}`));
    const wanted = world.model.of(snapshot.id);
    await flipCopy(world, snapshot.id, wanted.subarray(4 * BLOCK_SIZE, 5 * BLOCK_SIZE));
    await expect(snapshot.read(4 * BLOCK_SIZE + 10, 10)).rejects.toMatchObject({ code: 'INTEGRITY' });
    await expect(snapshot.read(3 * BLOCK_SIZE, 3 * BLOCK_SIZE)).rejects.toThrow(/block 4 .*slot \d+/);
    expect(events).toEqual([`${snapshot.id} INTEGRITY`, `${snapshot.id} INTEGRITY`]);
    expectSame(
      await snapshot.read(5 * BLOCK_SIZE, BLOCK_SIZE),
      wanted.subarray(5 * BLOCK_SIZE, 6 * BLOCK_SIZE),
      'the neighbour',
    );
  });

  /** Flips one bit of the stored copy of these bytes. */
  async function flipCopy(world: World, id: string, bytes: Uint8Array): Promise<void> {
    if (layout === 'in-volume') {
      const at = Buffer.from(world.content.bytes).indexOf(bytes, world.size);
      world.content.bytes[at + 77] = (world.content.bytes[at + 77] ?? 0) ^ 4;
      return;
    }
    const name = (await world.folder.list()).find((file) => file.startsWith(`{${id}}`)) ?? '';
    const file = await world.folder.open(name, { writable: true });
    const at = Buffer.from(file.bytes).indexOf(bytes);
    file.bytes[at + 77] = (file.bytes[at + 77] ?? 0) ^ 4;
  }
});

describe('when the control file fails', () => {
  test('during the commit of a snapshot and ever after: writes are refused, everything before stays right', async () => {
    const world = await World.create();
    const first = await world.snapshot();
    await world.writeBlock(1);
    await settle();
    world.hooks.before = ({ target, kind }) => {
      if (kind === 'write' && target.endsWith('/{3808876b-c176-4e48-b7ae-04046e6cc752}'))
        throw systemFailure('EIO');
      return undefined;
    };
    await expect(world.volume.createSnapshot()).rejects.toThrow('EIO');
    await expect(world.volume.write(0, new Uint8Array(1))).rejects.toThrow(DeviceError);
    await expect(world.volume.createSnapshot()).rejects.toThrow(DeviceError);
    expectSame(await first.read(0, world.size), world.model.of(first.id), 'the snapshot');
    await world.volume.close();
    world.hooks.before = () => undefined;
    await world.open();
    for (const { id } of world.volume.snapshots)
      if (!world.model.snapshots.has(id)) world.model.snapshots.set(id, world.model.bytes.slice());
    await world.expectRight();
  });
});
