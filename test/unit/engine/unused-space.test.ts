/** Snapshots that leave out what nothing uses. */
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { checkVolume } from '../../../src/check/check.ts';
import { checkServedVolume } from '../../../src/check/served.ts';
import { allocationOf } from '../../../src/device/allocation.ts';
import { FileDevice } from '../../../src/device/file-device.ts';
import { FixedSlot } from '../../../src/diff-area/area-slots.ts';
import { InvalidArgumentError, NoSpaceError } from '../../../src/errors.ts';
import type { FreeSpaceProvider } from '../../../src/filesystem/free-space.ts';
import type { Snapshot } from '../../../src/snapshot/snapshot.ts';
import { skipUnused } from '../../../src/snapshot/unused-space.ts';
import { DirectoryStore } from '../../../src/store/directory-store.ts';
import { BLOCK_SIZE, blocksIn } from '../../../src/units.ts';
import { type ChangedBlocksOptions, Volume } from '../../../src/volume/volume.ts';
import { type Operation, settle, signal, systemFailure } from './hooks.ts';
import { expectSame, KIBIBYTE, LAYOUTS, MEBIBYTE, World } from './world.ts';

const ZEROS = new Uint8Array(BLOCK_SIZE);

/** Says that these blocks are unused; `while` is done before the answer. */
const freeing = (blocks: Iterable<number>, during?: () => Promise<unknown>): FreeSpaceProvider => ({
  name: 'test',
  async unusedBlocks(_, size) {
    await during?.();
    const unused = new Uint8Array(Math.ceil(blocksIn(size) / 8));
    for (const block of blocks) unused[block >>> 3] = (unused[block >>> 3] ?? 0) | (1 << (block & 7));
    return { unused };
  },
});

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
const readBlock = (snapshot: Snapshot, block: number) =>
  snapshot.read(block * BLOCK_SIZE, Math.min(BLOCK_SIZE, snapshot.size - block * BLOCK_SIZE));

async function changed(volume: Volume, options: ChangedBlocksOptions): Promise<number[]> {
  const blocks: number[] = [];
  for await (const { offset, length } of volume.changedBlocks(options))
    blocks.push(...range(offset / BLOCK_SIZE, blocksIn(offset + length)));
  return blocks;
}

/** Takes a snapshot, and expects it to leave out those blocks for ever, and nothing else. */
async function takeSkipping(world: World, free: readonly number[], skipped = free): Promise<Snapshot> {
  const snapshot = await world.snapshot({ unusedSpace: freeing(free) });
  for (const block of skipped)
    world.model.of(snapshot.id).fill(0, block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);
  expect(snapshot.unusedBytes).toBe(skipped.length * BLOCK_SIZE);
  return snapshot;
}

describe.each(LAYOUTS)('what nothing uses (%s)', (layout) => {
  test('is not copied and reads as zeros, before and after it is overwritten, and after a kill', async () => {
    const world = await World.create({ layout });
    await takeSkipping(world, [2, 3, ...range(20, 40)]);
    await world.expectRight();
    const { copiedBlocks } = world.volume.figures.copies;
    await world.writeBlock(2);
    await world.writeBlock(20, 20);
    expect(world.volume.figures.copies.copiedBlocks).toBe(copiedBlocks);
    await world.writeBlock(1, 3);
    expect(world.volume.figures.copies.copiedBlocks).toBe(copiedBlocks + 1);
    await world.expectRight();
    expect(await checkServedVolume(world.volume, { scrub: true })).toEqual([]);
    await world.kill();
    await world.expectRight();
    await world.writeBlock(21);
    await world.reopen();
    await world.expectRight();
    expect(world.volume.snapshots[0]?.unusedBytes).toBe(22 * BLOCK_SIZE);
  });

  test('is still copied where an older snapshot needs it', async () => {
    const world = await World.create({ layout });
    await world.snapshot();
    await world.writeBlock(5);
    await takeSkipping(world, range(4, 8), [5]);
    await world.writeBlock(4, 4);
    await world.expectRight();
    // The second skips block 5, and has copies of the others.
    await takeSkipping(world, range(3, 9), range(4, 8));
    await world.writeBlock(3, 6);
    await world.expectRight();
    await world.reopen();
    await world.expectRight();
    expect(await checkServedVolume(world.volume)).toEqual([]);
    await world.volume.deleteOldest();
    await world.writeBlock(0, 12);
    await world.expectRight();
  });

  test('a block that got its copy before the answer keeps it', async () => {
    const world = await World.create({ layout });
    const before = world.model.bytes.slice(6 * BLOCK_SIZE, 7 * BLOCK_SIZE);
    const unusedSpace = freeing([6, 7], () => world.volume.write(6 * BLOCK_SIZE, ZEROS));
    const snapshot = await world.volume.createSnapshot({ unusedSpace });
    expectSame(await readBlock(snapshot, 6), before, 'block 6');
    expectSame(await readBlock(snapshot, 7), ZEROS, 'block 7');
    const [reopened] = (await world.reopen()).snapshots;
    if (reopened === undefined) throw new Error('the snapshot is gone');
    expectSame(await readBlock(reopened, 6), before, 'block 6');
    expectSame(await readBlock(reopened, 7), ZEROS, 'block 7');
  });

  test('stays as it is through random writes, reopening and killing', async () => {
    for (let round = 0; round < 4; round++) {
      const world = await World.create({ layout, seed: `unused ${round}`, size: MEBIBYTE + 4321 });
      for (let step = 0; step < 25; step++) {
        const kind = world.random.below(12);
        if (kind < 2) {
          const share = world.random.pick([0.2, 0.8]);
          const free = range(0, 65).filter(() => world.random.chance(share));
          const snapshot = await world.snapshot({ unusedSpace: freeing(free) });
          const wanted = world.model.of(snapshot.id);
          for (const block of free) {
            const found = await readBlock(snapshot, block);
            if (found.every((byte) => byte === 0))
              wanted.fill(0, block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);
          }
        } else if (kind === 2) await world.volume.deleteOldest();
        else if (kind === 3) await world.reopen();
        else if (kind === 4) await world.kill();
        else await world.writeRandomly(5);
      }
      await world.expectRight();
      await world.volume.close();
      expect(await checkVolume(world.device(), { store: world.store(), scrub: true })).toEqual([]);
    }
  });

  test('changed blocks are those that read otherwise, without what both snapshots leave out', async () => {
    const world = await World.create({ layout });
    const first = await takeSkipping(world, range(10, 20));
    await world.writeBlock(3);
    await world.writeBlock(12, 2);
    const second = await takeSkipping(world, range(12, 20));
    await world.writeBlock(15);
    expect(await changed(world.volume, { since: first, until: second })).toEqual([3, 10, 11]);
    const now = await changed(world.volume, { since: second });
    expect(now).toEqual(expect.arrayContaining([...world.model.changed(second.id)]));
    expect(now).toEqual(range(12, 20));
    const fromFirst = await changed(world.volume, { since: first });
    expect(fromFirst).toEqual([3, ...range(10, 20)]);
  });

  test('what is left out is known to be zero', async () => {
    const world = await World.create({ layout });
    const snapshot = await takeSkipping(world, range(8, 24));
    await world.writeBlock(7, 4);
    const zeros: number[] = [];
    let at = 0;
    for await (const { length, zero } of allocationOf(snapshot)) {
      if (zero) zeros.push(...range(at / BLOCK_SIZE, (at + length) / BLOCK_SIZE));
      at += length;
    }
    expect(zeros).toEqual(range(8, 24));
  });

  test('a damaged bitmap is found, and never read', async () => {
    const world = await World.create({ layout });
    await takeSkipping(world, range(8, 24));
    await world.volume.close();
    const bytes = layout === 'in-volume' ? world.content.bytes : await areaBytes(world);
    const at = bitmapIn(bytes);
    bytes[at + 200] = (bytes[at + 200] ?? 0) ^ 0xff;
    if (layout === 'directory') await putArea(world, bytes);
    const problems = await checkVolume(world.device(), { store: world.store() });
    expect(problems.map(({ code }) => code)).toEqual(['snapshot-damaged']);
    expect(problems[0]?.message).toContain('bitmap block checksum');
  });
});

/** The file of the only diff area. */
async function areaFile(world: World) {
  const [name] = (await world.folder.list()).filter((each) => each.length > 40);
  if (name === undefined) throw new Error('there is no diff area');
  return world.folder.open(name, { writable: true });
}

async function areaBytes(world: World): Promise<Uint8Array> {
  const file = await areaFile(world);
  const bytes = new Uint8Array(file.size);
  await file.read(0, bytes);
  await file.close();
  return bytes;
}

async function putArea(world: World, bytes: Uint8Array): Promise<void> {
  const file = await areaFile(world);
  await file.write(0, bytes);
  await file.close();
}

/** Where the first bitmap block lies: a metadata block of type 6. */
function bitmapIn(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < bytes.byteLength; at += BLOCK_SIZE)
    if (view.getUint32(at, true) === 0x3808876b && view.getUint32(at + 20, true) === 6) return at;
  throw new Error('there is no bitmap block');
}

describe('where it is not known what is unused', () => {
  const reasons: unknown[] = [];
  const takeUnsure = async (world: World, unusedSpace: FreeSpaceProvider | 'auto') => {
    reasons.length = 0;
    world.volume.on('unusedSpaceUnknown', ({ reason }) => reasons.push(reason));
    const snapshot = await world.snapshot({ unusedSpace });
    expect(snapshot.unusedBytes).toBe(0);
    const { usedBytes } = snapshot;
    await world.writeBlock(0, 8);
    await world.expectRight();
    return usedBytes;
  };

  test.each([
    ['a provider is unsure', { name: 'p', unusedBlocks: async () => ({ unsure: 'who knows' }) }, 'who knows'],
    ['no file system is recognized', 'auto', 'no file system was recognized'],
    [
      'a provider fails',
      {
        name: 'p',
        unusedBlocks: async () => {
          throw new Error('broken');
        },
      },
      'p failed: broken',
    ],
  ] as const)('%s: nothing is left out, and an event says why', async (_, provider, reason) => {
    const world = await World.create();
    const usedBytes = await takeUnsure(world, provider);
    expect(reasons).toEqual([reason]);
    // The slots of the bitmaps were given back.
    expect(usedBytes).toBe(5 * BLOCK_SIZE);
  });

  test('a provider that does not answer is given up after a minute', async () => {
    const world = await World.create();
    let limit: (() => void) | undefined;
    const { clock, random } = (await import('../../../src/environment.ts')).systemEnvironment;
    const after = (milliseconds: number, action: () => void) => {
      if (milliseconds === 60_000) limit = action;
      return clock.after(milliseconds, action);
    };
    await world.reopen({ environment: { clock: { ...clock, after }, random } });
    let aborted = false;
    await takeUnsure(world, {
      name: 'slow',
      unusedBlocks: (_, __, signal) =>
        new Promise(() => {
          signal.addEventListener('abort', () => {
            aborted = true;
          });
          queueMicrotask(() => limit?.());
        }),
    });
    expect(reasons).toEqual(['slow failed: no answer within 60 seconds']);
    expect(aborted).toBe(true);
  });

  test('what is no provider is refused', async () => {
    const world = await World.create();
    await expect(world.volume.createSnapshot({ unusedSpace: 'ext4' as 'auto' })).rejects.toThrow(
      InvalidArgumentError,
    );
  });
});

test('a snapshot is not shown before it is decided what it leaves out', async () => {
  const world = await World.create();
  const seen: number[] = [];
  const look = async () => seen.push(world.volume.snapshots.length);
  await world.volume.createSnapshot({ unusedSpace: freeing([1], look) });
  await look();
  expect(seen).toEqual([0, 1]);
});

test('a snapshot that is deleted before it is decided is gone', async () => {
  const world = await World.create();
  const snapshot = await world.volume.createSnapshot({
    unusedSpace: freeing([1], () => world.volume.deleteOldest()),
  });
  expect(snapshot.state).toBe('deleted');
  expect(world.volume.snapshots).toEqual([]);
  await world.reopen();
  expect(world.volume.snapshots).toEqual([]);
});

test('where there is no room for bitmaps, that is told as what it is', async () => {
  const world = await World.create();
  await world.snapshot();
  const told: unknown[] = [];
  world.volume.on('unusedSpaceUnknown', ({ error }) => told.push(error));
  const engine = world.volume.parts.writer?.engine;
  const record = engine?.chain.newest;
  if (engine === undefined || record?.area === undefined) throw new Error('no snapshot');
  await skipUnused(engine, record, record.area, undefined, freeing([1]));
  expect(told).toEqual([expect.any(NoSpaceError)]);
  await world.writeBlock(1);
  await world.expectRight();
});

test('bitmaps of a large volume take several blocks, and memory only where they are mixed', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'volsnap-unused-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, 'large.img');
  const size = 6 * 1024 * MEBIBYTE;
  await writeFile(path, '');
  await truncate(path, size);
  const open = () => FileDevice.open(path, { writable: true });
  await using device = await open();
  await Volume.initialize(device, { store: new DirectoryStore(`${path}.volsnap`) });
  await device.close();
  const unused = new Uint8Array(size / BLOCK_SIZE / 8).fill(0xff, 1000);
  for (const previous of [false, true]) {
    const volume = await Volume.open(await open());
    const snapshot = await volume.createSnapshot({
      unusedSpace: { name: 'large', unusedBlocks: async () => ({ unused }) },
    });
    await volume.close();
    await using again = await Volume.open(await open());
    const loaded = again.snapshots[previous ? 1 : 0];
    expect(loaded?.id).toBe(snapshot.id);
    expect(loaded?.unusedBytes).toBe(size - 8000 * BLOCK_SIZE);
    expect(loaded?.usedBytes).toBe((FixedSlot.count + (previous ? 8 : 4)) * BLOCK_SIZE);
    expect(loaded?.usedBytes).toBe(snapshot.usedBytes);
    expect(again.figures.tableMemoryBytes).toBeLessThan(64 * KIBIBYTE);
  }
});

/** Of a directory store. */
const isControl = ({ target }: Operation) => /^store\/\{[^{}]*\}$/.test(target);
const isArea = ({ target }: Operation) => target.startsWith('store/') && target.includes('}{');

describe('what is left out while something fails or is late', () => {
  test('a copy of it whose commit has failed counts before anybody is shown the snapshot', async () => {
    const world = await World.create();
    await world.volume.setSpacePolicy('fail-writes');
    const unusedSpace = freeing([6, 7], async () => {
      world.hooks.before = (operation) => {
        if (operation.kind === 'flush' && isArea(operation)) throw systemFailure('ENOSPC');
        return undefined;
      };
      await expect(world.volume.write(6 * BLOCK_SIZE, ZEROS)).rejects.toThrow(NoSpaceError);
      world.hooks.before = () => undefined;
    });
    const snapshot = await world.volume.createSnapshot({ unusedSpace });
    expect(snapshot.unusedBytes).toBe(2 * BLOCK_SIZE);
    const shown = await readBlock(snapshot, 6);
    // The next commit takes along what an earlier one has left; and so does an opening.
    await world.writeBlock(20);
    expectSame(await readBlock(snapshot, 6), shown, 'block 6');
    const [found] = (await world.kill()).snapshots;
    if (found === undefined) throw new Error('the snapshot is gone');
    expectSame(await readBlock(found, 6), shown, 'block 6');
  });

  test('bitmaps that may be named are named no more, or the snapshot is not shown', async () => {
    for (const failures of [1, 2, 4, 8]) {
      const world = await World.create();
      const before = world.model.bytes.slice(6 * BLOCK_SIZE, 7 * BLOCK_SIZE);
      let left = Infinity;
      const unusedSpace = freeing([6, 7], async () => {
        left = failures;
        // The sector gets there; whether it has, cannot be told, and the old one cannot be put back.
        world.hooks.before = (operation) => {
          if (!isControl(operation)) return undefined;
          const mayFail = operation.kind === 'flush' || (operation.kind === 'write' && left < failures);
          if (mayFail && left-- > 0) throw systemFailure('EIO');
          return undefined;
        };
      });
      const creating = world.volume.createSnapshot({ unusedSpace });
      const outcome = await creating.then(
        (snapshot) => readBlock(snapshot, 6),
        (error: { code?: string }) => error.code ?? 'no code',
      );
      expect(left).toBeLessThanOrEqual(0);
      if (typeof outcome === 'string') {
        expect(outcome).toBe('EIO');
        continue;
      }
      expectSame(outcome, before, 'block 6');
      const [found] = (await world.kill()).snapshots;
      if (found === undefined) throw new Error('the snapshot is gone');
      expectSame(await readBlock(found, 6), before, `block 6 after ${failures} failures`);
    }
  });

  test('a write does not overtake the copy of a block that is skipped since it began', async () => {
    const world = await World.create();
    const before = world.model.bytes.slice(6 * BLOCK_SIZE, 7 * BLOCK_SIZE);
    const part = new Uint8Array(KIBIBYTE);
    const [answered, go] = [signal(), signal()];
    const writes: Promise<void>[] = [];
    const unusedSpace = freeing([6], async () => {
      // The original is read late.
      world.hooks.before = ({ target, kind, offset }) =>
        target === 'volume' && kind === 'read' && offset === 6 * BLOCK_SIZE ? go.promise : undefined;
      writes.push(world.volume.write(6 * BLOCK_SIZE, part));
      await settle();
      answered.fire();
    });
    const creating = world.volume.createSnapshot({ unusedSpace });
    await answered.promise;
    await settle();
    // Not the same bytes: else it would wait for the first write.
    writes.push(world.volume.write(6 * BLOCK_SIZE + KIBIBYTE, part));
    await settle();
    go.fire();
    const snapshot = await creating;
    await Promise.all(writes);
    expectSame(await readBlock(snapshot, 6), before, 'block 6');
  });
});
