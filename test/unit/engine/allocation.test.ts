/** What a volume and its snapshots say is zero, and that zeros are passed over where a range is cleared. */
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type AllocationExtent, allocationOf } from '../../../src/device/allocation.ts';
import { FileDevice } from '../../../src/device/file-device.ts';
import { ClosedError, DeviceError, InvalidArgumentError, SnapshotDeletedError } from '../../../src/errors.ts';
import type { ByteSource } from '../../../src/snapshot/snapshot.ts';
import { DirectoryStore } from '../../../src/store/directory-store.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { Volume } from '../../../src/volume/volume.ts';
import { settle, signal } from './hooks.ts';
import { KIBIBYTE, LAYOUTS, MEBIBYTE, World } from './world.ts';

async function extentsOf(source: ByteSource, offset = 0, length = source.size - offset) {
  const extents: AllocationExtent[] = [];
  for await (const extent of allocationOf(source, offset, length)) extents.push(extent);
  return extents;
}

const zero = (length: number) => ({ length, zero: true });
const data = (length: number) => ({ length, zero: false });

/** Checks what a source says of itself against its bytes; every unit of zeros that is not known counts as missed. */
async function missedZeros(source: ByteSource, bytes: Uint8Array, offset = 0, length = bytes.byteLength) {
  let missed = 0;
  let at = offset;
  for (const extent of await extentsOf(source, offset, length)) {
    const part = bytes.subarray(at, at + extent.length);
    if (extent.zero) expect(isZero(part), `${extent.length} bytes at ${at}`).toBe(true);
    else
      for (let i = 0; i < part.byteLength; i += BLOCK_SIZE)
        missed += isZero(part.subarray(i, i + BLOCK_SIZE)) ? 1 : 0;
    at += extent.length;
  }
  expect(at).toBe(offset + length);
  return missed;
}

const isZero = (bytes: Uint8Array) => Buffer.compare(bytes, new Uint8Array(bytes.byteLength)) === 0;

describe.each(LAYOUTS)('allocation (%s)', (layout) => {
  test('of an empty volume and its snapshot is one extent of zeros', async () => {
    const world = await World.create({ layout, filled: false });
    const snapshot = await world.snapshot();
    expect(await extentsOf(world.volume)).toEqual([zero(world.size)]);
    // Inside a volume every snapshot has a copy of the first block, whatever it holds.
    if (layout === 'directory') expect(await extentsOf(snapshot)).toEqual([zero(world.size)]);
    expect(await extentsOf(snapshot, BLOCK_SIZE)).toEqual([zero(world.size - BLOCK_SIZE)]);
    expect(await extentsOf(snapshot, 20_000, 1000)).toEqual([zero(1000)]);
    expect(await extentsOf(snapshot, world.size, 0)).toEqual([]);
  });

  test('tells the volume now from the volume then', async () => {
    const world = await World.create({ layout, filled: false });
    await world.writeBlock(5, 3);
    const older = await world.snapshot();
    await world.volume.discard(6 * BLOCK_SIZE, BLOCK_SIZE);
    await world.writeBlock(40);
    const newer = await world.snapshot();
    await world.writeBlock(6);
    await world.writeBlock(41);
    const block = BLOCK_SIZE;
    const rest = (blocks: number) => world.size - blocks * block;
    expect(await extentsOf(older, block)).toEqual([zero(4 * block), data(3 * block), zero(rest(8))]);
    expect(await extentsOf(newer, block)).toEqual([
      zero(4 * block),
      data(block),
      zero(block),
      data(block),
      zero(32 * block),
      data(block),
      zero(rest(41)),
    ]);
    expect(await extentsOf(world.volume)).toEqual([
      zero(5 * block),
      data(3 * block),
      zero(32 * block),
      data(2 * block),
      zero(rest(42)),
    ]);
  });

  test('is right, and misses nothing, through random writes, clearing, reopening and killing', async () => {
    for (let round = 0; round < 6; round++) {
      const world = await World.create({
        layout,
        seed: `zeros ${round}`,
        size: MEBIBYTE + 4321,
        filled: round % 2 === 0,
      });
      for (let step = 0; step < 30; step++) {
        const kind = world.random.below(12);
        if (kind < 2) await world.snapshot();
        else if (kind === 2) await world.volume.deleteOldest();
        else if (kind === 3) await world.reopen();
        else if (kind === 4) await world.kill();
        else if (kind < 8) await clearSomewhere(world);
        else await world.writeRandomly(3);
      }
      await world.expectRight();
      expect(await missedZeros(world.volume, world.model.bytes)).toBe(0);
      for (const snapshot of world.volume.snapshots) {
        const bytes = world.model.of(snapshot.id);
        // A copy of which a part is zero is data all the same.
        await missedZeros(snapshot, bytes);
        const offset = world.random.below(world.size);
        await missedZeros(snapshot, bytes, offset, world.random.below(world.size - offset + 1));
      }
    }
  });

  test('counts what a write buffer holds as data, and clears it too', async () => {
    for (let round = 0; round < 4; round++) {
      const world = await World.create({
        layout,
        seed: `held ${round}`,
        size: MEBIBYTE + 4321,
        filled: false,
      });
      world.options = { writeMode: 'writeback' };
      await world.reopen();
      for (let step = 0; step < 30; step++) {
        const kind = world.random.below(10);
        if (kind === 0) await world.snapshot();
        else if (kind === 1) await world.reopen();
        else if (kind < 5) await clearSomewhere(world);
        else await world.writeRandomly(3);
        await missedZeros(world.volume, world.model.bytes);
      }
      await world.expectRight();
      for (const snapshot of world.volume.snapshots) await missedZeros(snapshot, world.model.of(snapshot.id));
    }
  });

  test('a block that is cleared before the volume answers is not zero in the snapshot', async () => {
    const world = await World.create({ layout });
    const snapshot = await world.snapshot();
    const asked = signal();
    const cleared = signal();
    world.hooks.before = ({ kind }) => {
      if (kind !== 'allocation') return undefined;
      world.hooks.before = () => undefined;
      asked.fire();
      return cleared.promise;
    };
    const extents = extentsOf(snapshot);
    await asked.promise;
    await world.volume.write(2 * BLOCK_SIZE, new Uint8Array(BLOCK_SIZE));
    cleared.fire();
    expect(await extents).toEqual([data(world.size)]);
    expect(await extentsOf(world.volume)).toEqual([
      data(2 * BLOCK_SIZE),
      zero(BLOCK_SIZE),
      data(world.size - 3 * BLOCK_SIZE),
    ]);
  });

  test('is refused where reading is', async () => {
    const world = await World.create({ layout });
    const snapshot = await world.snapshot();
    await expect(extentsOf(snapshot, 1, world.size)).rejects.toThrow(InvalidArgumentError);
    await expect(extentsOf(world.volume, -1, 1)).rejects.toThrow(InvalidArgumentError);
    await snapshot.delete();
    await expect(extentsOf(snapshot)).rejects.toThrow(SnapshotDeletedError);
    await world.volume.close();
    await expect(extentsOf(world.volume)).rejects.toThrow(ClosedError);
  });

  test('ends when the snapshot goes, or the volume is closed, in the middle', async () => {
    const world = await World.create({ layout, filled: false });
    await world.writeBlock(9);
    const snapshot = await world.snapshot();
    const asked = snapshot.allocation?.(BLOCK_SIZE, world.size - BLOCK_SIZE)[Symbol.asyncIterator]();
    expect((await asked?.next())?.value).toEqual(zero(8 * BLOCK_SIZE));
    await snapshot.delete();
    await expect(asked?.next()).rejects.toThrow(SnapshotDeletedError);
    const again = world.volume.allocation(0, world.size);
    await again.next();
    await world.volume.close();
    await expect(again.next()).rejects.toThrow(ClosedError);
  });
});

/** Discards or zeroes a random range. */
async function clearSomewhere({ volume, model, random, size }: World): Promise<void> {
  const offset = random.below(size);
  const length = random.below(Math.min(size - offset, 300 * KIBIBYTE) + 1);
  if (random.chance(0.5)) await volume.discard(offset, length);
  else await volume.writeZeroes(offset, length);
  model.write(offset, new Uint8Array(length));
}

describe.each(LAYOUTS)('clearing a range (%s)', (layout) => {
  test('of zeros writes nothing and copies nothing', async () => {
    const world = await World.create({ layout, filled: false });
    await world.snapshot();
    await settle();
    const before = world.hooks.log.length;
    await world.volume.discard(0, world.size);
    await world.volume.writeZeroes(100, 70_000);
    const kinds = world.hooks.log.slice(before).map(({ kind }) => kind);
    expect(new Set(kinds)).toEqual(new Set(['allocation']));
    expect(world.volume.figures.copies.zeroBlocks).toBe(0);
  });

  test('copies what is data, and what lies close to it', async () => {
    const world = await World.create({ layout, filled: false, size: 4 * MEBIBYTE });
    for (const block of [10, 12, 100]) await world.writeBlock(block);
    await world.snapshot();
    const { copiedBlocks, zeroBlocks } = world.volume.figures.copies;
    await world.volume.discard(0, world.size);
    world.model.write(0, new Uint8Array(world.size));
    await world.expectRight();
    const { copies } = world.volume.figures;
    expect([copies.copiedBlocks - copiedBlocks, copies.zeroBlocks - zeroBlocks]).toEqual([3, 1]);
  });

  test('that fails in part says so when nothing of it is under way any more', async () => {
    const world = await World.create({ layout, filled: false, size: 8 * MEBIBYTE });
    for (let block = 0; block < 500; block += 20) await world.writeBlock(block);
    let under = 0;
    world.hooks.before = ({ kind, offset, target }) => {
      if (kind !== 'discard' || !target.includes('volume')) return undefined;
      if (offset === 100 * BLOCK_SIZE) throw new DeviceError('the disk is on fire');
      under++;
      return settle().then(() => {
        under--;
      });
    };
    await expect(world.volume.discard(0, world.size)).rejects.toThrow('the disk is on fire');
    expect(under).toBe(0);
    const left = await world.volume.read(100 * BLOCK_SIZE, BLOCK_SIZE);
    expect(isZero(left)).toBe(false);
  });
});

test('1 TiB with holes is described, discarded and zeroed by its data', async () => {
  const directory = await mkdtemp(`${tmpdir()}/volsnap-allocation-`);
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const path = `${directory}/volume`;
  const size = 2 ** 40;
  await writeFile(path, '');
  await truncate(path, size);
  const store = new DirectoryStore(`${path}.volsnap`);
  const first = await FileDevice.open(path, { writable: true });
  await Volume.initialize(first, { store });
  await first.close();
  const volume = await Volume.open(await FileDevice.open(path, { writable: true }), { store });
  onTestFinished(() => volume.close());
  const bytes = new Uint8Array(MEBIBYTE).fill(7);
  for (let i = 0; i < 10; i++) await volume.write(i * 100 * 2 ** 30, bytes);
  for (let i = 0; i < 16; i++) {
    await volume.createSnapshot();
    await volume.write(i * 2 ** 33 + 2 ** 32, bytes.subarray(0, BLOCK_SIZE));
  }
  const oldest = volume.snapshots[0];
  if (oldest === undefined) throw new Error('there is a snapshot');
  const then = await extentsOf(oldest);
  expect(then).toHaveLength(20);
  expect(then.filter((extent) => !extent.zero)).toEqual(Array.from({ length: 10 }, () => data(MEBIBYTE)));
  await volume.discard(0, size);
  await volume.writeZeroes(0, size);
  expect(await extentsOf(volume)).toEqual([zero(size)]);
  expect(await extentsOf(oldest)).toEqual(then);
});
