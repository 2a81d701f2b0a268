import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { MemoryContent, MemoryDevice } from '../../../src/device/memory-device.ts';
import { SliceDevice } from '../../../src/device/slice-device.ts';
import {
  DeviceError,
  InvalidArgumentError,
  LimitError,
  NoSpaceError,
  UnsupportedError,
} from '../../../src/errors.ts';
import { type ExportQcow2Options, exportQcow2 } from '../../../src/export/qcow2.ts';
import { Qcow2Writer } from '../../../src/export/qcow2-writer.ts';
import { decodeQcow2Header, isQcow2 } from '../../../src/format/qcow2.ts';
import type { Snapshot } from '../../../src/snapshot/snapshot.ts';
import { BLOCK_SIZE, roundUp } from '../../../src/units.ts';
import { temporaryDirectory } from '../device/temporary.ts';
import { systemFailure } from '../engine/hooks.ts';
import { expectSame, KIBIBYTE, LAYOUTS, MEBIBYTE, World, type WorldOptions } from '../engine/world.ts';
import { parseImage, type Qcow2Image } from './qcow2-image.ts';

const CLUSTER = 64 * KIBIBYTE;

async function imageOf(
  world: World,
  options: ExportQcow2Options,
): Promise<{ image: Qcow2Image; bytes: Uint8Array }> {
  const content = new MemoryContent(0);
  const figures = await exportQcow2(world.volume, new MemoryDevice(content), options);
  const image = parseImage(content.bytes);
  const count = (kind: string) => image.clusters.filter((cluster) => cluster === kind).length;
  const { size, clusterSize, fileBytes } = figures;
  expect({ size, clusterSize, fileBytes }).toEqual({
    size: image.size,
    clusterSize: image.clusterSize,
    fileBytes: content.size,
  });
  expect(Math.ceil(figures.dataBytes / clusterSize)).toBe(count('data'));
  expect(Math.ceil(figures.zeroBytes / clusterSize)).toBe(count('zeros'));
  return { image, bytes: content.bytes };
}

/** What the model says of a snapshot, as a disk of whole sectors. */
function diskOf(world: World, { id }: Snapshot): Uint8Array {
  const bytes = world.model.of(id);
  const disk = new Uint8Array(roundUp(bytes.byteLength, 512));
  disk.set(bytes);
  return disk;
}

async function worldWith(
  options: WorldOptions,
  rounds = 3,
): Promise<{ world: World; snapshots: Snapshot[] }> {
  const world = await World.create(options);
  const snapshots = [await world.snapshot()];
  for (let round = 1; round < rounds; round++) {
    await world.writeRandomly(6);
    snapshots.push(await world.snapshot());
  }
  await world.writeRandomly(6);
  return { world, snapshots };
}

const at = (snapshots: readonly Snapshot[], index: number): Snapshot => {
  const found = snapshots.at(index);
  if (found === undefined) throw new Error(`no snapshot ${index}`);
  return found;
};

describe.each(LAYOUTS)('a full image (%s)', (layout) => {
  test('reads as the snapshot', async () => {
    const { world, snapshots } = await worldWith({ layout });
    for (const snapshot of snapshots) {
      const { image, bytes } = await imageOf(world, { snapshot });
      expect(image).toMatchObject({ clusterSize: CLUSTER, backing: undefined });
      expectSame(image.read(), diskOf(world, snapshot), `image of ${snapshot.order}`);
      expect(decodeQcow2Header(bytes).origin).toEqual({ snapshotId: snapshot.id, sinceId: undefined });
    }
  });
});

describe('a full image', () => {
  test.each([1, 511, 512, BLOCK_SIZE, CLUSTER - 1, CLUSTER, CLUSTER + 1, MEBIBYTE + 1000])(
    'of %i bytes',
    async (size) => {
      const { world, snapshots } = await worldWith({ size });
      const { image } = await imageOf(world, { snapshot: at(snapshots, 1) });
      expectSame(image.read(), diskOf(world, at(snapshots, 1)), 'the image');
    },
  );

  test('has nothing where the snapshot has zeros', async () => {
    const world = await World.create({ filled: false, size: 40 * CLUSTER });
    await world.write(7 * CLUSTER + 5, new Uint8Array([1]));
    await world.write(39 * CLUSTER, new Uint8Array([1]));
    const snapshot = await world.snapshot();
    const { image, bytes } = await imageOf(world, { snapshot });
    const wanted = Array.from({ length: 40 }, (_, i) => (i === 7 || i === 39 ? 'data' : 'absent'));
    expect(image.clusters).toEqual(wanted);
    // The header, two clusters, and one each of L2, L1, refcount table and refcount block.
    expect(bytes.byteLength).toBe(7 * CLUSTER);
  });

  test('of nothing but zeros has no L2 table', async () => {
    const world = await World.create({ filled: false });
    const { image, bytes } = await imageOf(world, { snapshot: await world.snapshot() });
    expect(image.clusters.every((kind) => kind === 'absent')).toBe(true);
    expect(bytes.byteLength).toBe(4 * CLUSTER);
  });

  test('replaces what the device held', async () => {
    const { world, snapshots } = await worldWith({});
    const content = new MemoryContent(world.random.fill(new Uint8Array(8 * MEBIBYTE)));
    // Like a block device, a slice cannot grow or shrink.
    const device = new SliceDevice(new MemoryDevice(content), 0, content.size);
    const { fileBytes } = await exportQcow2(world.volume, device, { snapshot: at(snapshots, 0) });
    expectSame(
      parseImage(content.bytes.subarray(0, fileBytes)).read(),
      diskOf(world, at(snapshots, 0)),
      'image',
    );
  });
});

describe('an incremental image', () => {
  test.each(LAYOUTS)('holds exactly the blocks that changed (%s)', async (layout) => {
    const { world, snapshots } = await worldWith({ layout, seed: 'exactly', size: 4 * MEBIBYTE });
    const [since, snapshot] = [at(snapshots, 0), at(snapshots, 2)];
    const { image, bytes } = await imageOf(world, { since, snapshot });
    expect(image.clusterSize).toBe(BLOCK_SIZE);
    const changed = new Set<number>();
    for await (const { offset, length } of world.volume.changedBlocks({ since, until: snapshot }))
      for (let block = offset / BLOCK_SIZE; block * BLOCK_SIZE < offset + length; block++) changed.add(block);
    expect(changed.size).toBeGreaterThan(5);
    const held = image.clusters.flatMap((kind, block) => (kind === 'absent' ? [] : [block]));
    expect(held).toEqual([...changed]);
    expect(held).toEqual(expect.arrayContaining([...world.model.changed(since.id, snapshot.id)]));
    expect(decodeQcow2Header(bytes).origin).toEqual({ snapshotId: snapshot.id, sinceId: since.id });
  });

  test.each(LAYOUTS)('over those before it reads as the snapshot (%s)', async (layout) => {
    for (let round = 0; round < 8; round++) {
      const seed = `chain ${layout} ${round}`;
      const size = round % 2 === 0 ? MEBIBYTE : MEBIBYTE + 700 * round + 1;
      const { world, snapshots } = await worldWith({ layout, size, seed, filled: round % 4 < 2 }, 5);
      let below = (await imageOf(world, { snapshot: at(snapshots, 0) })).image.read();
      for (let index = 1; index < 5; index++) {
        const [since, snapshot] = [at(snapshots, index - 1), at(snapshots, index)];
        const backing = { name: `${index - 1}.qcow2`, format: 'qcow2' } as const;
        const { image } = await imageOf(world, { since, snapshot, backing });
        expect(image.backing).toBe(backing.name);
        below = image.read(below);
        expectSame(below, diskOf(world, snapshot), `chain up to ${index}, seed ${seed}`);
      }
    }
  });

  test('hides what the older one has with zeros', async () => {
    const world = await World.create({});
    const since = await world.snapshot();
    await world.write(0, new Uint8Array(4 * BLOCK_SIZE));
    await world.writeBlock(5);
    const snapshot = await world.snapshot();
    const { image } = await imageOf(world, { since, snapshot });
    expect(image.clusters.slice(0, 7)).toEqual([
      'zeros',
      'zeros',
      'zeros',
      'zeros',
      'absent',
      'data',
      'absent',
    ]);
    expectSame(image.read(diskOf(world, since)), diskOf(world, snapshot), 'the chain');
  });

  test('of a volume that has grown holds what it has grown by', async () => {
    const world = await World.create({ size: 10 * BLOCK_SIZE + 300 });
    const since = await world.snapshot();
    await world.writeBlock(2);
    await world.volume.close();
    const size = 14 * BLOCK_SIZE + 512;
    world.content.resize(size);
    world.content.bytes.fill(7, 12 * BLOCK_SIZE, 13 * BLOCK_SIZE);
    await world.open({ onVolumeChanged: 'keep' });
    const snapshot = await world.volume.createSnapshot();
    const { image } = await imageOf(world, { since: at(world.volume.snapshots, 0), snapshot });
    expect(image.size).toBe(size);
    const kinds = ['data', 'zeros', 'data', 'zeros', 'zeros'];
    expect(image.clusters.slice(2)).toEqual(['data', ...Array(7).fill('absent'), ...kinds]);
    // Whatever the older image has behind the end of its volume does not show.
    const below = new Uint8Array(size).fill(9);
    below.set(diskOf(world, since));
    expectSame(image.read(below), await snapshot.read(0, size), 'the chain');
  });

  test('of nothing that changed says so in four clusters', async () => {
    const world = await World.create();
    const [since, snapshot] = [await world.snapshot(), await world.snapshot()];
    const { image, bytes } = await imageOf(world, { since, snapshot });
    expect(image.clusters.every((kind) => kind === 'absent')).toBe(true);
    expect(bytes.byteLength).toBe(4 * BLOCK_SIZE);
  });
});

describe('an export', () => {
  test('tells how far it is', async () => {
    const { world, snapshots } = await worldWith({ size: 3 * MEBIBYTE + 5 });
    const said: [number, number][] = [];
    const onProgress = (done: number, total: number) => said.push([done, total]);
    await imageOf(world, { snapshot: at(snapshots, 1), onProgress });
    const total = 3 * MEBIBYTE + 5;
    expect(said).toEqual([1, 2, 3].map((n) => [n * MEBIBYTE, total]).concat([[total, total]]));
    said.length = 0;
    const [since, snapshot] = [at(snapshots, 0), at(snapshots, 1)];
    const { image } = await imageOf(world, { since, snapshot, onProgress });
    const last = image.clusters.findLastIndex((kind) => kind !== 'absent');
    expect(said).toEqual([[(last + 1) * BLOCK_SIZE, total]]);
  });

  test('that makes no sense is refused before anything is written', async () => {
    const { world, snapshots } = await worldWith({});
    const [older, newer] = [at(snapshots, 0), at(snapshots, 1)];
    const other = await World.create();
    const foreign = await other.snapshot();
    const backing = { name: 'full.qcow2', format: 'qcow2' } as const;
    const content = new MemoryContent(new Uint8Array(512).fill(3));
    for (const [options, message] of [
      [{ snapshot: foreign }, 'is not one of volume'],
      [{ snapshot: newer, since: foreign }, 'is not one of volume'],
      [{ snapshot: older, since: newer }, 'is not older than'],
      [{ snapshot: older, since: older }, 'is not older than'],
      [{ snapshot: older, backing }, 'say since when'],
      [{ snapshot: newer, since: older, backing: { ...backing, name: '' } }, '1 to 1023 bytes'],
      [{ snapshot: newer, since: older, backing: { ...backing, name: 'x'.repeat(1024) } }, '1 to 1023'],
    ] satisfies [ExportQcow2Options, string][]) {
      const attempt = exportQcow2(world.volume, new MemoryDevice(content), options);
      await expect(attempt).rejects.toThrow(InvalidArgumentError);
      await expect(attempt).rejects.toThrow(message);
    }
    expect(content.bytes.every((byte) => byte === 3)).toBe(true);
  });

  test('to a path makes a file for its owner alone, and never replaces one', async () => {
    const { world, snapshots } = await worldWith({});
    const folder = await temporaryDirectory();
    const path = join(folder, 'image.qcow2');
    const snapshot = at(snapshots, 0);
    const { fileBytes } = await exportQcow2(world.volume, path, { snapshot });
    const file = await readFile(path);
    expect(file.byteLength).toBe(fileBytes);
    expectSame(parseImage(file).read(), diskOf(world, snapshot), 'the image');
    await expect(exportQcow2(world.volume, path, { snapshot: at(snapshots, 1) })).rejects.toThrow(
      DeviceError,
    );
    expect((await readFile(path)).equals(file)).toBe(true);
  });

  test('that is aborted, or fails, leaves no file', async () => {
    const { world, snapshots } = await worldWith({ size: 4 * MEBIBYTE });
    const folder = await temporaryDirectory();
    const path = join(folder, 'image.qcow2');
    const controller = new AbortController();
    const aborted = exportQcow2(world.volume, path, {
      snapshot: at(snapshots, 1),
      signal: controller.signal,
      onProgress: (done) => done >= 2 * MEBIBYTE && controller.abort(),
    });
    await expect(aborted).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }));
    expect(await readdir(folder)).toEqual([]);
    world.hooks.before = ({ kind, offset }) => {
      if (kind === 'read' && offset >= 2 * MEBIBYTE) throw systemFailure('EIO');
    };
    await expect(exportQcow2(world.volume, path, { snapshot: at(snapshots, 1) })).rejects.toThrow();
    expect(await readdir(folder)).toEqual([]);
  });

  test('that fails leaves a device without any image, the older one included', async () => {
    const { world, snapshots } = await worldWith({ size: 4 * MEBIBYTE });
    const content = new MemoryContent(2 * MEBIBYTE);
    const options = { since: at(snapshots, 0), snapshot: at(snapshots, 1) };
    const device = new SliceDevice(new MemoryDevice(content), 0, content.size);
    await exportQcow2(world.volume, device, options);
    expect(isQcow2(content.bytes)).toBe(true);
    const attempt = exportQcow2(world.volume, device, { snapshot: at(snapshots, 1) });
    await expect(attempt).rejects.toThrow(NoSpaceError);
    await expect(attempt).rejects.toThrow('too few for the image');
    expect(content.bytes.subarray(0, 512).every((byte) => byte === 0)).toBe(true);
    // A block special file has the method, but cannot grow either.
    const fixed = new MemoryDevice(content);
    fixed.resize = () => Promise.reject(new UnsupportedError('resize it with the tools of its driver'));
    const again = exportQcow2(world.volume, fixed, { snapshot: at(snapshots, 1) });
    await expect(again).rejects.toThrow(NoSpaceError);
  });

  test('of more than QEMU opens is refused', () => {
    const disk = { clusterBits: 14, backing: undefined, origin: undefined };
    const make = (size: number) => new Qcow2Writer(new MemoryDevice(0), { ...disk, size });
    expect(make(2 ** 47).clusterSize).toBe(BLOCK_SIZE);
    expect(() => make(2 ** 47 + 512)).toThrow(LimitError);
  });
});
