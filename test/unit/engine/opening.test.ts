/** Opening a volume again: what is recovered, refused or asked about, and what a closed one answers. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { FileDevice } from '../../../src/device/file-device.ts';
import { MemoryDevice } from '../../../src/device/memory-device.ts';
import { MemoryFolder } from '../../../src/device/memory-folder.ts';
import {
  AlreadyInitializedError,
  ClosedError,
  FormatError,
  InUseError,
  InvalidArgumentError,
  NotInitializedError,
  ReadOnlyError,
  UnsupportedError,
  VolumeChangedError,
} from '../../../src/errors.ts';
import { START_BLOCK_OFFSET, START_BLOCK_SIZE } from '../../../src/format/constants.ts';
import { checksumWithHole } from '../../../src/format/extension.ts';
import { START } from '../../../src/format/start-block.ts';
import { DirectoryStore } from '../../../src/store/directory-store.ts';
import { InVolumeStore } from '../../../src/store/in-volume-store.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { Volume } from '../../../src/volume/volume.ts';
import { settle, signal } from './hooks.ts';
import { expectSame, KIBIBYTE, LAYOUTS, MEBIBYTE, World } from './world.ts';

const CONTROL_FILE = '{3808876b-c176-4e48-b7ae-04046e6cc752}';

/** Changes the start block of a closed world and makes its checksum right again. */
async function patchStart(world: World, patch: (view: DataView) => void): Promise<void> {
  const device =
    world.layout === 'directory' ? await world.folder.open(CONTROL_FILE, { writable: true }) : world.device();
  const sector = new Uint8Array(START_BLOCK_SIZE);
  await device.read(START_BLOCK_OFFSET, sector);
  const view = new DataView(sector.buffer);
  patch(view);
  view.setUint32(START.at.checksum, checksumWithHole(sector, START.at.checksum), true);
  await device.write(START_BLOCK_OFFSET, sector);
  await device.close();
}

describe.each(LAYOUTS)('opening again (%s)', (layout) => {
  test('tells whether the volume was closed', async () => {
    const world = await World.create({ layout });
    expect(world.volume.recovery.clean).toBe(false); // just initialised, never closed
    await world.snapshot();
    await world.reopen();
    expect(world.volume.recovery).toMatchObject({
      clean: true,
      droppedCopies: 0,
      removedFiles: [],
      warnings: [],
    });
    await world.writeBlock(3);
    await world.kill();
    expect(world.volume.recovery.clean).toBe(false);
    await world.expectRight();
  });

  test('after a kill at any operation gives every snapshot that was returned, as it was', async () => {
    // Each operation is the last one of a history of its own, so the work grows with the square of how many there are: the history is short.
    for (let at = 1; ; at++) {
      const world = await World.create({ layout, seed: 'cut', size: 256 * KIBIBYTE, reserve: 4 * MEBIBYTE });
      let count = 0;
      const killing = signal();
      world.hooks.before = () => {
        count++;
        if (count < at) return undefined;
        killing.fire();
        return new Promise<void>(() => undefined);
      };
      let pending: { offset: number; bytes: Uint8Array } | undefined;
      let creating = false;
      const life = (async () => {
        for (let i = 0; i < 2; i++) {
          creating = true;
          await world.snapshot();
          creating = false;
          for (let w = 0; w < 2; w++) {
            const offset = world.random.below(200 * KIBIBYTE);
            const bytes = world.random.fill(new Uint8Array(world.random.between(1, 40_000)));
            pending = { offset, bytes };
            await world.write(offset, bytes);
            pending = undefined;
          }
        }
        await world.volume.deleteOldest();
        await world.volume.close();
      })();
      const isOver = await Promise.race([life.then(() => true), killing.promise.then(() => false)]);
      if (isOver) {
        expect(count).toBeGreaterThan(50);
        break;
      }
      await settle();
      const returned = new Map(world.model.snapshots);
      await world.kill();
      // A write under way may be there or not, sector by sector; a snapshot under way is whole or absent.
      const now = await world.volume.read(0, world.size);
      const wanted = world.model.bytes.slice();
      if (pending !== undefined) {
        const { offset, bytes } = pending;
        wanted.set(now.subarray(offset, offset + bytes.byteLength), offset);
      }
      expectSame(now, wanted, `the volume, killed before operation ${at}`);
      for (const snapshot of world.volume.snapshots) {
        const moment = returned.get(snapshot.id);
        const bytes = await snapshot.read(0, world.size);
        if (moment === undefined) expect(creating, `an unknown snapshot, killed before ${at}`).toBe(true);
        expectSame(bytes, moment ?? wanted, `snapshot ${snapshot.order}, killed before operation ${at}`);
      }
      const there = new Set(world.volume.snapshots.map(({ id }) => id));
      // Only the deletion of the oldest was under way or done.
      const missing = [...returned.keys()].filter((id) => !there.has(id));
      expect(missing.length === 0 || missing[0] === [...returned.keys()][0]).toBe(true);
      expect(missing.length).toBeLessThanOrEqual(1);
      // And it is fit for use.
      await world.snapshot().then(() => world.writeBlock(2, 3));
      await world.reopen();
    }
  });

  test('drops what an unknown feature forbids: incompatible refuses, read-only reads, compatible opens', async () => {
    const make = async (field: 'incompatible' | 'readOnlyCompatible' | 'compatible') => {
      const world = await World.create({ layout });
      await world.snapshot();
      await world.writeBlock(1);
      await world.volume.close();
      await patchStart(world, (view) => view.setUint32(START.at[field], 0x4000_0000, true));
      return world;
    };
    const incompatible = await make('incompatible');
    await expect(incompatible.open()).rejects.toThrow(UnsupportedError);
    await expect(incompatible.open({ readOnly: true })).rejects.toThrow(/bit 30|0x40000000/);
    const readOnly = await make('readOnlyCompatible');
    await expect(readOnly.open()).rejects.toThrow(UnsupportedError);
    await readOnly.open({ readOnly: true });
    await readOnly.expectRight();
    const compatible = await make('compatible');
    await compatible.open();
    await compatible.expectRight();
    await compatible.reopen();
    await compatible.volume.close();
    await patchStart(compatible, (view) =>
      expect(view.getUint32(START.at.compatible, true), 'the unknown bit stays').toBe(0x4000_0000),
    );
  });

  test('refuses a start block or control block that is damaged', async () => {
    const world = await World.create({ layout });
    await world.snapshot();
    await world.volume.close();
    const device =
      layout === 'directory' ? await world.folder.open(CONTROL_FILE, { writable: true }) : world.device();
    const flip = async (offset: number) => {
      const byte = new Uint8Array(1);
      await device.read(offset, byte);
      byte[0] = (byte[0] ?? 0) ^ 0x10;
      await device.write(offset, byte);
    };
    const control = layout === 'directory' ? BLOCK_SIZE : MEBIBYTE;
    for (const at of [START_BLOCK_OFFSET + 50, START_BLOCK_OFFSET + 113, control + 60, control + 42]) {
      await flip(at);
      await expect(world.open(), `byte ${at}`).rejects.toThrow(FormatError);
      await expect(world.open({ readOnly: true })).rejects.toThrow(FormatError);
      await flip(at);
    }
    await world.open();
    await world.expectRight();
  });

  test('for reading only changes nothing, after a kill too', async () => {
    const world = await World.create({ layout });
    await world.snapshot();
    await world.writeBlock(1, 10);
    await world.kill({ readOnly: true });
    const before = world.content.bytes.slice();
    const files = await Promise.all(
      (await world.folder.list()).map(async (name) =>
        (await world.folder.open(name, { writable: false })).bytes.slice(),
      ),
    );
    await world.expectRight();
    await expect(world.volume.write(0, new Uint8Array(1))).rejects.toThrow(ReadOnlyError);
    await expect(world.volume.createSnapshot()).rejects.toThrow(ReadOnlyError);
    await expect(world.volume.deleteOldest()).rejects.toThrow(ReadOnlyError);
    await expect(world.volume.snapshots[0]?.delete()).rejects.toThrow(ReadOnlyError);
    await expect(world.volume.setMaximumSize(0)).rejects.toThrow(ReadOnlyError);
    await expect(world.volume.discard(0, 1)).rejects.toThrow(ReadOnlyError);
    await world.volume.close();
    expect(Buffer.compare(world.content.bytes, before)).toBe(0);
    for (const [i, name] of (await world.folder.list()).entries()) {
      const now = (await world.folder.open(name, { writable: false })).bytes;
      expect(Buffer.compare(now, files[i] ?? new Uint8Array(0)), name).toBe(0);
    }
    await world.open();
    await world.expectRight();
  });

  test('without a store, or with one already there, says so', async () => {
    const device = new MemoryDevice(MEBIBYTE);
    const store = layout === 'directory' ? new DirectoryStore(new MemoryFolder()) : new InVolumeStore();
    await expect(Volume.open(device, { store })).rejects.toThrow(NotInitializedError);
    const world = await World.create({ layout });
    await world.volume.close();
    const again = {
      store: layout === 'directory' ? world.store() : new InVolumeStore({ reserve: MEBIBYTE * 2 }),
    };
    await expect(Volume.initialize(world.device(), again)).rejects.toThrow(AlreadyInitializedError);
    await world.open();
  });

  test('a closed volume answers CLOSED, and closing again is fine', async () => {
    const world = await World.create({ layout });
    const snapshot = await world.snapshot();
    await world.writeBlock(0, 4);
    const { volume } = world;
    await Promise.all([volume.close(), volume.close()]);
    await volume.close();
    await expect(volume.read(0, 1)).rejects.toThrow(ClosedError);
    await expect(volume.write(0, new Uint8Array(1))).rejects.toThrow(ClosedError);
    await expect(volume.flush()).rejects.toThrow(ClosedError);
    await expect(volume.createSnapshot()).rejects.toThrow(ClosedError);
    await expect(volume.deleteOldest()).rejects.toThrow(ClosedError);
    await expect(volume.setMaximumSize(0)).rejects.toThrow(ClosedError);
    await expect(snapshot.read(0, 100)).rejects.toThrow(ClosedError);
    await expect(snapshot.read(10 * BLOCK_SIZE, 100)).rejects.toThrow(ClosedError);
    await expect(snapshot.delete()).rejects.toThrow(ClosedError);
    const changes = volume.changedBlocks({ since: snapshot });
    await expect(changes.next()).rejects.toThrow(ClosedError);
  });

  test('closing waits for writes, and for a snapshot being taken', async () => {
    const world = await World.create({ layout });
    const writes = [world.writeBlock(1), world.writeBlock(5, 20)];
    const creating = world.snapshot();
    await world.volume.close();
    await Promise.all(writes);
    await creating;
    await world.open();
    expect(world.volume.snapshots).toHaveLength(1);
    expect(world.volume.recovery.clean).toBe(true);
  });

  test('closing waits for a long write to its end', async () => {
    const world = await World.create({ layout, size: 48 * MEBIBYTE, reserve: 60 * MEBIBYTE });
    await world.snapshot();
    const writing = world.writeBlock(0, 48 * 64);
    const discarding = world.volume.discard(0, 0);
    await world.volume.close();
    await Promise.all([writing, discarding]);
    await world.open();
    await world.expectRight();
  });

  test('arguments out of range are refused and change nothing', async () => {
    const world = await World.create({ layout });
    const snapshot = await world.snapshot();
    const { volume, size } = world;
    const one = new Uint8Array(1);
    for (const offset of [
      -1,
      0.5,
      Number.NaN,
      size,
      Number.MAX_SAFE_INTEGER,
      Number.POSITIVE_INFINITY,
      -0.5,
    ]) {
      await expect(volume.write(offset, one), `write at ${offset}`).rejects.toThrow(InvalidArgumentError);
      await expect(volume.read(offset, one), `read at ${offset}`).rejects.toThrow(InvalidArgumentError);
      await expect(snapshot.read(offset, one), `snapshot at ${offset}`).rejects.toThrow(InvalidArgumentError);
      await expect(volume.discard(offset, 1)).rejects.toThrow(InvalidArgumentError);
      await expect(volume.writeZeroes(offset, 1)).rejects.toThrow(InvalidArgumentError);
    }
    for (const length of [-1, 0.5, Number.NaN, size + 1, Number.POSITIVE_INFINITY]) {
      await expect(volume.read(0, length), `length ${length}`).rejects.toThrow(InvalidArgumentError);
      await expect(snapshot.read(0, length)).rejects.toThrow(InvalidArgumentError);
      await expect(volume.discard(0, length)).rejects.toThrow(InvalidArgumentError);
    }
    for (const maximum of [-1, 0.5, Number.NaN]) {
      await expect(volume.setMaximumSize(maximum)).rejects.toThrow(InvalidArgumentError);
      await expect(
        Volume.initialize(new MemoryDevice(MEBIBYTE), { store: world.store(), maximumSize: maximum }),
      ).rejects.toThrow(InvalidArgumentError);
    }
    expect(await volume.read(size, 0)).toHaveLength(0);
    await volume.write(size, new Uint8Array(0));
    await world.expectRight();
  });

  test.each([-1, 1.5, Number.NaN])('a number of snapshots to delete of %d is refused', async (count) => {
    const world = await World.create({ layout });
    await world.snapshot();
    await expect(world.volume.deleteOldest(count)).rejects.toThrow(InvalidArgumentError);
    expect(world.volume.snapshots).toHaveLength(1);
  });

  test.each([-1, Number.NaN])('a hold limit of %d ms is refused', async (holdTimeoutMs) => {
    const world = await World.create({ layout });
    await expect(world.volume.createSnapshot({ holdTimeoutMs })).rejects.toThrow(InvalidArgumentError);
    expect(world.volume.snapshots).toHaveLength(0);
  });

  test.each([
    { growth: { initial: 0, maximum: 0 } },
    { growth: { initial: -1, maximum: 1 } },
    { growth: { initial: Number.NaN, maximum: MEBIBYTE } },
    { memoryLimit: Number.NaN },
    { memoryLimit: -1 },
  ])('options without sense are refused or harmless: %j', async (options) => {
    const world = await World.create({ layout });
    await world.volume.close();
    const opened = await world.open(options).catch((error: unknown) => {
      expect(error).toBeInstanceOf(InvalidArgumentError);
    });
    if (opened === undefined) return;
    await world.snapshot();
    await world.writeBlock(0, 60);
    await world.expectRight();
    await world.reopen();
    await world.expectRight();
    expect(world.volume.snapshots).toHaveLength(1);
  });
});

describe('an in-volume store', () => {
  test.each([
    { reserve: Number.NaN },
    { reserve: 2.5 * MEBIBYTE + 0.5 },
    { reserve: -1 },
    { reserve: 10 },
    { reserve: Number.POSITIVE_INFINITY },
    { protectedSize: Number.NaN },
    { protectedSize: 100_000.5 },
    { protectedSize: 0 },
    { protectedSize: 16 * MEBIBYTE },
    {},
  ])('is refused for %o with a clear error, and the device stays as it was', async (options) => {
    const device = new MemoryDevice(new Uint8Array(8 * MEBIBYTE).fill(7));
    await expect(Volume.initialize(device, { store: new InVolumeStore(options) })).rejects.toThrow(
      InvalidArgumentError,
    );
    expect(device.size).toBe(8 * MEBIBYTE);
    expect(device.bytes.every((byte) => byte === 7)).toBe(true);
  });

  test('keeps the volume’s own sector at 0x1E00, in every snapshot too', async () => {
    const world = await World.create({ layout: 'in-volume' });
    expectSame(
      await world.volume.read(0x1e00, 512),
      world.model.bytes.subarray(0x1e00, 0x2000),
      'the sector',
    );
    await world.snapshot();
    await world.write(0x1e00 - 100, world.random.fill(new Uint8Array(700)));
    await world.snapshot();
    await world.write(0x1e10, new Uint8Array(1));
    await world.expectRight();
    await world.kill();
    await world.expectRight();
    expect(Buffer.from(world.content.bytes.subarray(0x1e00, 0x1e10)).toString('hex')).toBe(
      '6b87083876c1484eb7ae04046e6cc752',
    );
  });

  test.each([0x2000, 0x1e00 + 100, 0x1e00, 100, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1])(
    'serves a volume of %i bytes on a device with room behind it',
    async (protectedSize) => {
      const bytes = new Uint8Array(4 * MEBIBYTE).map((_, i) => (i * 7) & 0xff);
      const model = bytes.slice(0, protectedSize);
      const device = new MemoryDevice(bytes);
      await Volume.initialize(device, { store: new InVolumeStore({ protectedSize }) });
      const volume = await Volume.open(device, { store: new InVolumeStore() });
      expect(volume.size).toBe(protectedSize);
      expectSame(await volume.read(0, protectedSize), model, 'the volume');
      const snapshot = await volume.createSnapshot();
      await volume.write(0, new Uint8Array(protectedSize).fill(1));
      expectSame(await snapshot.read(0, protectedSize), model, 'the snapshot');
      await volume.close();
    },
  );

  test('is refused where the file system needs that sector', async () => {
    const bytes = new Uint8Array(4 * MEBIBYTE);
    bytes.set([0x53, 0xef], 1080);
    await expect(
      Volume.initialize(new MemoryDevice(bytes), { store: new InVolumeStore({ reserve: 2 * MEBIBYTE }) }),
    ).rejects.toThrow(/ext2\/3\/4.*0x1E00.*directory store/);
    expect(bytes.subarray(0x1e00, 0x2000).every((byte) => byte === 0)).toBe(true);
  });
});

async function temporaryImage(size: number): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'volsnap-open-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, 'disk.img');
  await writeFile(path, new Uint8Array(size).fill(3));
  return path;
}

describe.each(LAYOUTS)('a volume in a file (%s)', (layout) => {
  async function protectedImage(): Promise<{ path: string; open: (options?: object) => Promise<Volume> }> {
    const path = await temporaryImage(MEBIBYTE);
    const device = await FileDevice.open(path, { writable: true });
    const store =
      layout === 'directory'
        ? new DirectoryStore(`${path}.volsnap`)
        : new InVolumeStore({ reserve: 4 * MEBIBYTE });
    await Volume.initialize(device, { store });
    await device.close();
    const open = async (options: object = {}) =>
      Volume.open(await FileDevice.open(path, { writable: true }), options);
    return { path, open };
  }

  test('is found with its store and closed cleanly, again and again', async () => {
    const { path, open } = await protectedImage();
    for (let i = 1; i <= 4; i++) {
      const volume = await open();
      expect(volume.recovery.warnings).toEqual([]);
      expect(volume.snapshots).toHaveLength(i - 1);
      await volume.createSnapshot();
      await volume.write(i * 1000, new Uint8Array(50_000).fill(i));
      await volume.close();
    }
    const reader = await Volume.open(await FileDevice.open(path));
    expect(reader.writable).toBe(false);
    const [first] = reader.snapshots;
    expect(await first?.read(0, 100)).toEqual(new Uint8Array(100).fill(3));
    await reader.close();
  });

  test('that was written behind the back is refused, kept or invalidated', async () => {
    const { path, open } = await protectedImage();
    const volume = await open();
    const snapshot = await volume.createSnapshot();
    await volume.write(0, new Uint8Array(100).fill(9));
    await volume.close();
    const foreign = await FileDevice.open(path, { writable: true });
    await foreign.write(500_000, new Uint8Array(10));
    await foreign.flush();
    await foreign.close();
    await expect(open()).rejects.toThrow(VolumeChangedError);
    await expect(open({ onVolumeChanged: 'refuse' })).rejects.toThrow(/keep or invalidate/);
    const reader = await Volume.open(await FileDevice.open(path));
    expect(reader.recovery.warnings).toHaveLength(1);
    expect(reader.snapshots).toHaveLength(1);
    await reader.close();
    const kept = await open({ onVolumeChanged: 'keep' });
    expect(kept.recovery.warnings).toHaveLength(1);
    expect(await kept.snapshots[0]?.read(0, 100)).toEqual(new Uint8Array(100).fill(3));
    await kept.close();
    await (await open()).close(); // it is asked only once
    const again = await FileDevice.open(path, { writable: true });
    await again.write(500_000, new Uint8Array(10).fill(1));
    await again.close();
    const invalidated = await open({ onVolumeChanged: 'invalidate' });
    expect(invalidated.snapshots).toEqual([]);
    await invalidated.createSnapshot();
    await invalidated.close();
    const last = await open();
    expect(last.snapshots.some(({ id }) => id === snapshot.id)).toBe(false);
    expect(last.snapshots).toHaveLength(1);
    await last.close();
  });

  test('has one owner at a time', async () => {
    const { path, open } = await protectedImage();
    const volume = await open();
    await expect(open()).rejects.toThrow(InUseError);
    await expect(FileDevice.open(path)).rejects.toThrow(InUseError);
    await volume.close();
    const readers = [await FileDevice.open(path), await FileDevice.open(path)];
    const volumes = await Promise.all(readers.map((device) => Volume.open(device)));
    await expect(open()).rejects.toThrow(InUseError);
    await Promise.all(volumes.map((reader) => reader.close()));
    await (await open()).close();
  });

  test('leaves no descriptor open, whether it opens or not', async () => {
    const { path, open } = await protectedImage();
    const volume = await open();
    for (let i = 0; i < 3; i++) await volume.createSnapshot();
    await volume.close();
    const before = await openFiles(path);
    const foreign = await FileDevice.open(path, { writable: true });
    await foreign.write(0, new Uint8Array(10));
    await foreign.close();
    await expect(open()).rejects.toThrow(VolumeChangedError);
    const reading = await Volume.open(await FileDevice.open(path));
    await reading.close();
    const device = await FileDevice.open(path);
    await expect(Volume.open(device, { readOnly: false })).rejects.toThrow(ReadOnlyError);
    expect(await openFiles(path)).toEqual(before);
    await device.close();
  });
});

/** Descriptors of this process on files below the image's folder. */
async function openFiles(path: string): Promise<string[]> {
  const { readdir, readlink } = await import('node:fs/promises');
  const names: string[] = [];
  for (const descriptor of await readdir('/proc/self/fd')) {
    const target = await readlink(`/proc/self/fd/${descriptor}`).catch(() => '');
    if (target.startsWith(path)) names.push(target);
  }
  return names.sort();
}
