/** The mode `writeback`: acknowledged from memory, in order, read at once, flushed when asked, and nothing lost in silence. */
import { describe, expect, test } from 'vitest';
import { BufferPool } from '../../../src/device/buffer-pool.ts';
import { DeviceError, HoldTimeoutError, InvalidArgumentError } from '../../../src/errors.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import type { VolumeOptions } from '../../../src/volume/volume.ts';
import { type Operation, settle, signal, systemFailure } from './hooks.ts';
import { expectSame, LAYOUTS, MEBIBYTE, World, type WorldOptions } from './world.ts';

const WRITEBACK: VolumeOptions = { writeMode: 'writeback' };

async function bufferedWorld(options: WorldOptions = {}, more: VolumeOptions = {}): Promise<World> {
  const world = await World.create({ size: 4 * MEBIBYTE, ...options });
  world.options = { ...WRITEBACK, ...more };
  await world.reopen();
  return world;
}

const figuresOf = (world: World) => {
  const { writeBuffer } = world.volume.figures;
  if (writeBuffer === undefined) throw new Error('the volume has no write buffer');
  return writeBuffer;
};

const isVolumeWrite = ({ target, kind }: Operation) => target === 'volume' && kind === 'write';
const isAreaFlush = ({ target, kind }: Operation) => target !== 'volume' && kind === 'flush';

/** Operations that match wait; `open` lets them go on. */
function holdBack(world: World, matches: (operation: Operation) => boolean): { open: () => void } {
  const { promise, fire } = signal();
  world.hooks.before = (operation) => (matches(operation) ? promise : undefined);
  return {
    open: () => {
      world.hooks.before = () => undefined;
      fire();
    },
  };
}

describe('a write that needs a copy', () => {
  test('is acknowledged before the copy is made, and read at once', async () => {
    const world = await bufferedWorld();
    await world.snapshot();
    const commits = holdBack(world, isAreaFlush);
    await world.writeBlock(3, 2);
    expect(figuresOf(world).entries).toBe(1);
    expect(world.hooks.log.filter(isVolumeWrite)).toEqual([]);
    expectSame(await world.volume.read(0, world.size), world.model.bytes, 'the volume');
    const part = await world.volume.read(3 * BLOCK_SIZE + 100, 1000);
    expectSame(part, world.model.bytes.subarray(3 * BLOCK_SIZE + 100).subarray(0, 1000), 'a part');
    commits.open();
    await world.volume.flush();
    expect(figuresOf(world)).toMatchObject({ entries: 0, bufferedBytes: 0, buffered: 1 });
    await world.expectRight();
  });

  test('may be changed by the caller once it is acknowledged', async () => {
    const world = await bufferedWorld();
    await world.snapshot();
    const commits = holdBack(world, isAreaFlush);
    const bytes = new Uint8Array(BLOCK_SIZE).fill(1);
    await world.write(0, bytes);
    bytes.fill(2);
    commits.open();
    await world.expectRight();
  });

  test('is kept where it is if its memory is given away, and that given back when it is in the volume', async () => {
    const world = await bufferedWorld();
    await world.snapshot();
    const commits = holdBack(world, isAreaFlush);
    const pool = new BufferPool(MEBIBYTE);
    const memory = pool.take(BLOCK_SIZE).fill(7);
    expect(world.volume.take(0, memory, { memory, pool })).toBeUndefined();
    world.model.write(0, memory);
    expectSame(await world.volume.read(0, BLOCK_SIZE), memory, 'the block');
    expect(pool.take(BLOCK_SIZE)).not.toBe(memory);
    // One that lies within it is put there, and needs its own memory no more.
    const part = pool.take(1024).fill(8);
    expect(world.volume.take(512, part, { memory: part, pool })).toBeUndefined();
    world.model.write(512, part);
    expect(pool.take(1024)).toBe(part);
    commits.open();
    await world.volume.flush();
    expect(pool.take(BLOCK_SIZE)).toBe(memory);
    await world.expectRight();
  });

  test('goes straight to the volume if no copy is needed, and its memory is given back then', async () => {
    const world = await bufferedWorld();
    const pool = new BufferPool(MEBIBYTE);
    const memory = pool.take(BLOCK_SIZE).fill(7);
    await world.volume.take(0, memory, { memory, pool });
    expect(pool.take(BLOCK_SIZE)).toBe(memory);
    expectSame(await world.volume.read(0, BLOCK_SIZE), new Uint8Array(BLOCK_SIZE).fill(7), 'the block');
    expect(() => world.volume.take(world.size, memory, { memory, pool })).toThrow(InvalidArgumentError);
  });

  test('is durable when a flush returns, not before', async () => {
    const world = await bufferedWorld();
    await world.snapshot();
    const commits = holdBack(world, isAreaFlush);
    await world.writeBlock(1);
    let isFlushed = false;
    const flushed = world.volume.flush().then(() => {
      isFlushed = true;
    });
    await settle();
    expect(isFlushed).toBe(false);
    commits.open();
    await flushed;
    const { log } = world.hooks;
    const written = log.findIndex((entry) => isVolumeWrite(entry) && entry.phase === 'end');
    const last = log.findLastIndex(({ target, kind }) => target === 'volume' && kind === 'flush');
    expect(written).toBeGreaterThanOrEqual(0);
    expect(last).toBeGreaterThan(written);
  });

  test('goes to the volume together with its neighbours', async () => {
    const world = await bufferedWorld();
    await world.snapshot();
    const commits = holdBack(world, isAreaFlush);
    for (const block of [7, 5, 6, 4]) await world.writeBlock(block);
    await settle();
    commits.open();
    await world.volume.flush();
    expect(figuresOf(world)).toMatchObject({ buffered: 4, writeOuts: 1 });
    await world.expectRight();
  });
});

test('a write with nothing to copy is in the volume when it is acknowledged', async () => {
  const world = await bufferedWorld();
  await world.writeBlock(1);
  expect(figuresOf(world)).toMatchObject({ direct: 1, buffered: 0 });
  expectSame(world.content.bytes.subarray(0, world.size), world.model.bytes, 'the device');
});

describe('writes that overlap', () => {
  test('reach the volume in the order in which they were acknowledged', async () => {
    const world = await bufferedWorld();
    await world.snapshot();
    const commits = holdBack(world, isAreaFlush);
    await world.write(1000, new Uint8Array(5000).fill(1));
    await world.write(9000, new Uint8Array(5000).fill(2));
    await world.write(5000, new Uint8Array(5000).fill(3));
    await world.write(5500, new Uint8Array(9000).fill(4));
    expectSame(await world.volume.read(0, world.size), world.model.bytes, 'the volume, still buffered');
    commits.open();
    await world.volume.flush();
    expect(figuresOf(world).absorbed).toBe(0);
    expectSame(world.content.bytes.subarray(0, world.size), world.model.bytes, 'the device');
  });

  test('are put in place of bytes that are not being written yet', async () => {
    const world = await bufferedWorld();
    await world.snapshot();
    const commits = holdBack(world, isAreaFlush);
    for (let i = 0; i < 100; i++)
      await world.write(2 * BLOCK_SIZE + 512 * (i % 8), new Uint8Array(512).fill(i));
    await world.writeBlock(2);
    for (let i = 0; i < 100; i++)
      await world.write(2 * BLOCK_SIZE + 512 * (i % 8), new Uint8Array(512).fill(i));
    expect(figuresOf(world)).toMatchObject({ absorbed: 192, buffered: 9 });
    commits.open();
    await world.expectRight();
  });

  test('are read with the newest on top while an older one is being written', async () => {
    const world = await bufferedWorld();
    await world.snapshot();
    await world.writeBlock(0);
    const writes = holdBack(world, isVolumeWrite);
    await world.writeBlock(1);
    await settle();
    await world.write(BLOCK_SIZE + 700, new Uint8Array(300).fill(9));
    expectSame(await world.volume.read(0, world.size), world.model.bytes, 'the volume');
    writes.open();
    await world.expectRight();
  });

  test('and discards keep their order', async () => {
    const world = await bufferedWorld();
    await world.snapshot();
    const commits = holdBack(world, isAreaFlush);
    await world.writeBlock(1);
    const discarded = world.volume.discard(BLOCK_SIZE + 512, 1024);
    commits.open();
    await discarded;
    world.model.bytes.fill(0, BLOCK_SIZE + 512, BLOCK_SIZE + 1536);
    await world.expectRight();
  });
});

test('a read shows what was written out while the device was being read', async () => {
  const world = await bufferedWorld();
  await world.volume.close();
  const device = world.device();
  const read = device.read.bind(device);
  // The device gives the bytes of now, but they arrive later.
  let arrival: Promise<void> = Promise.resolve();
  device.read = async (offset, target) => {
    await read(offset, target);
    if (target.byteLength > BLOCK_SIZE) await arrival;
  };
  await world.open({}, device);
  await world.snapshot();
  const commits = holdBack(world, isAreaFlush);
  await world.writeBlock(4);
  const wanted = world.model.bytes.slice();
  const { promise, fire } = signal();
  arrival = promise;
  const reading = world.volume.read(0, world.size);
  await settle();
  commits.open();
  await world.volume.flush();
  expect(figuresOf(world).entries).toBe(0);
  // Its memory is used again meanwhile.
  await world.writeBlock(5);
  fire();
  expectSame(await reading, wanted, 'what was read');
});

describe('a snapshot', () => {
  test.each(LAYOUTS)(
    'has what was acknowledged before, and nothing of what came later (%s)',
    async (layout) => {
      const world = await bufferedWorld({ layout });
      await world.snapshot();
      for (let round = 0; round < 8; round++) {
        for (let i = 0; i < 20; i++) await world.writeBlock(world.random.below(100), 1 + (i % 3));
        const wanted = world.model.bytes.slice();
        const taken = world.volume.createSnapshot();
        const snapshot = await taken;
        world.model.snapshots.set(snapshot.id, wanted);
        await world.writeRandomly(10);
      }
      await world.expectRight();
      await world.reopen();
      await world.expectRight();
    },
  );

  test('keeps no write waiting while it is taken', async () => {
    const world = await bufferedWorld();
    await world.snapshot();
    await world.writeBlock(0, 100);
    await world.volume.flush();
    const wanted = world.model.bytes.slice();
    const { promise, fire } = signal();
    const held = signal();
    let flushes = 0;
    world.hooks.before = ({ target, kind }) => {
      if (target !== 'volume' || kind !== 'flush' || ++flushes !== 3) return undefined;
      held.fire();
      return promise;
    };
    const taking = world.volume.createSnapshot();
    await held.promise;
    // The last flush before the commit hangs; nothing to copy, and yet it is not passed on.
    world.hooks.log.length = 0;
    await world.writeBlock(7);
    await world.writeBlock(8);
    expect(world.hooks.log.filter(isVolumeWrite)).toEqual([]);
    expectSame(await world.volume.read(0, world.size), world.model.bytes, 'the volume meanwhile');
    fire();
    const snapshot = await taking;
    world.model.snapshots.set(snapshot.id, wanted);
    await world.expectRight();
  });

  test('that is not ready in time leaves nothing behind, and writes go on', async () => {
    const world = await bufferedWorld();
    await world.snapshot();
    const commits = holdBack(world, ({ target, kind }) => target === 'volume' && kind === 'write');
    await world.writeBlock(5);
    await expect(world.volume.createSnapshot({ holdTimeoutMs: 20 })).rejects.toThrow(HoldTimeoutError);
    commits.open();
    await world.writeBlock(6);
    await world.volume.flush();
    expect(world.volume.snapshots).toHaveLength(1);
    await world.expectRight();
    const again = await world.snapshot();
    expect(again.state).toBe('ok');
  });

  test('differs from now by what is still buffered, too', async () => {
    const world = await bufferedWorld();
    const since = await world.snapshot();
    const commits = holdBack(world, isAreaFlush);
    await world.writeBlock(9);
    const reported = (async () => {
      const extents = [];
      for await (const { offset, length } of world.volume.changedBlocks({ since }))
        extents.push({ offset, length });
      return extents;
    })();
    await settle();
    commits.open();
    expect(await reported).toEqual([{ offset: 9 * BLOCK_SIZE, length: BLOCK_SIZE }]);
  });
});

describe('room', () => {
  test('is bounded: writers wait, and lose nothing', async () => {
    const limit = 16 * BLOCK_SIZE;
    const world = await bufferedWorld({}, { writeBackLimit: limit });
    await world.snapshot();
    let most = 0;
    const watch = () => {
      most = Math.max(most, figuresOf(world).bufferedBytes);
    };
    await Promise.all(
      Array.from({ length: 32 }, async (_, writer) => {
        for (let i = 0; i < 8; i++) {
          await world.writeBlock(writer * 8 + i);
          watch();
        }
      }),
    );
    expect(most).toBeGreaterThan(0);
    expect(most).toBeLessThanOrEqual(limit);
    expect(figuresOf(world).roomWaits).toBeGreaterThan(0);
    await world.expectRight();
  });

  test('is not needed by a write longer than all of it', async () => {
    const world = await bufferedWorld({}, { writeBackLimit: BLOCK_SIZE });
    await world.snapshot();
    await world.writeBlock(0, 200);
    await world.writeBlock(100, 50);
    expect(figuresOf(world).bufferedBytes).toBe(0);
    await world.expectRight();
  });

  test('is given even if the limit is nothing', async () => {
    const world = await bufferedWorld({}, { writeBackLimit: 0 });
    await world.snapshot();
    await Promise.all([world.writeBlock(0), world.writeBlock(1), world.writeBlock(2)]);
    await world.expectRight();
  });
});

test('a caller that awaits one write after the other lets others run', async () => {
  const world = await bufferedWorld();
  await world.snapshot();
  const commits = holdBack(world, isAreaFlush);
  let turns = 0;
  let isOver = false;
  const turn = () => {
    turns++;
    if (!isOver) setImmediate(turn);
  };
  setImmediate(turn);
  for (let i = 0; i < 2000; i++) await world.write(0, new Uint8Array(4096).fill(i));
  isOver = true;
  commits.open();
  expect(turns).toBeGreaterThan(5);
  await world.expectRight();
});

describe('a device that fails a write-out', () => {
  test('once: it is written again, and nobody notices', async () => {
    const world = await bufferedWorld();
    await world.snapshot();
    let failures = 1;
    world.hooks.before = (operation) => {
      if (isVolumeWrite(operation) && failures-- > 0) throw systemFailure('EIO');
      return undefined;
    };
    for (let block = 0; block < 6; block++) await world.writeBlock(2 * block);
    await world.volume.flush();
    expect(figuresOf(world).retries).toBeGreaterThan(0);
    expectSame(world.content.bytes.subarray(0, world.size), world.model.bytes, 'the device');
  });

  test('for good: every flush, every change, a snapshot and the close say so; reads stay right', async () => {
    const world = await bufferedWorld();
    await world.snapshot();
    world.hooks.before = (operation) => {
      const { offset, length } = operation;
      const isBad = offset < 5 * BLOCK_SIZE && offset + length > 4 * BLOCK_SIZE;
      if (isVolumeWrite(operation) && isBad) throw systemFailure('EIO');
      return undefined;
    };
    for (const block of [2, 4, 5, 40]) await world.writeBlock(block);
    await expect(world.volume.flush()).rejects.toThrow('cannot be written to volume');
    await expect(world.volume.flush()).rejects.toThrow(DeviceError);
    await expect(world.volume.write(0, new Uint8Array(1))).rejects.toThrow(DeviceError);
    await expect(world.volume.discard(0, 512)).rejects.toThrow(DeviceError);
    await expect(world.volume.createSnapshot()).rejects.toThrow(DeviceError);
    expectSame(await world.volume.read(0, world.size), world.model.bytes, 'the volume');
    await expect(world.volume.close()).rejects.toThrow(DeviceError);
    // What could be written was.
    for (const at of [2, 5, 40].map((block) => block * BLOCK_SIZE))
      expectSame(
        world.content.bytes.subarray(at, at + BLOCK_SIZE),
        world.model.bytes.subarray(at, at + BLOCK_SIZE),
        `the block at ${at}`,
      );
  });

  test('of a discard: the caller hears of it, and nothing else is refused', async () => {
    const world = await bufferedWorld();
    await world.snapshot();
    world.hooks.before = ({ kind }) => {
      if (kind === 'discard') throw systemFailure('EIO');
      return undefined;
    };
    await expect(world.volume.discard(0, BLOCK_SIZE)).rejects.toThrow('EIO');
    await world.writeBlock(1);
    await world.volume.flush();
    await world.expectRight();
  });
});

test.each(LAYOUTS)('a close writes out what is buffered (%s)', async (layout) => {
  const world = await bufferedWorld({ layout });
  await world.snapshot();
  await world.writeRandomly(60);
  await world.reopen();
  await world.expectRight();
});

test('a mode that there is not is refused', async () => {
  const world = await World.create();
  await world.volume.close();
  // @ts-expect-error as a caller without types would
  await expect(world.open({ writeMode: 'writethrough' })).rejects.toThrow(InvalidArgumentError);
  await expect(world.open({ writeMode: 'writeback', writeBackLimit: -1 })).rejects.toThrow(
    'write-back limit',
  );
});
