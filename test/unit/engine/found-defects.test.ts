/**
 * What was found wrong in the engine once, each as the shortest history that shows it. They stay for good.
 */
import { expect, onTestFinished, test } from 'vitest';
import { MemoryContent, MemoryDevice } from '../../../src/device/memory-device.ts';
import { DeviceError, UnsupportedError, VolumeChangedError } from '../../../src/errors.ts';
import { InVolumeStore } from '../../../src/store/in-volume-store.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { Volume } from '../../../src/volume/volume.ts';
import { settle, signal } from './hooks.ts';
import { expectSame, KIBIBYTE, LAYOUTS, MEBIBYTE, World } from './world.ts';

test('a diff area trimmed for a new snapshot keeps room for the table of copies under way', async () => {
  // Room for one big diff area; 505 of the 508 places of its first table block are used.
  const room = 600 * BLOCK_SIZE;
  const world = await World.create({
    layout: 'in-volume',
    size: 16 * MEBIBYTE,
    reserve: 10 * BLOCK_SIZE + room,
    growth: { initial: room, maximum: room },
  });
  const first = await world.snapshot();
  await world.writeBlock(1, 504);
  await settle();
  // 20 copies are being written, so their entries will need a second table block, when a snapshot is taken.
  const go = signal();
  world.hooks.before = ({ kind, offset, length }) =>
    kind === 'write' && offset > world.size && length === 20 * BLOCK_SIZE ? go.promise : undefined;
  const writing = world.writeBlock(600, 20);
  await settle();
  const creating = world.volume.createSnapshot();
  await settle();
  go.fire();
  await Promise.allSettled([writing, creating]);
  const before = world.volume.snapshots.find(({ id }) => id === first.id);
  await world.kill();
  const after = world.volume.snapshots.find(({ id }) => id === first.id);
  expect(after === undefined).toBe(before === undefined);
  // Dropped with an event would be right too; wrong bytes never are.
  if (after !== undefined)
    expectSame(await after.read(0, world.size), world.model.of(first.id), 'the snapshot');
});

test.each(LAYOUTS)(
  'growth steps that are no multiple of 16 KiB leave a store that opens again (%s)',
  async (layout) => {
    const world = await World.create({
      layout,
      size: 4 * MEBIBYTE,
      reserve: 16 * MEBIBYTE,
      growth: { initial: 1_000_000, maximum: 10_000_000 },
    });
    await world.snapshot();
    await world.writeBlock(0, 100);
    await world.reopen();
    await world.expectRight();
  },
);

test('a volume that has become longer and is kept takes writes in its new part', {
  timeout: 5000,
}, async () => {
  const world = await World.create();
  const snapshot = await world.snapshot();
  await world.volume.close();
  world.content.resize(2 * MEBIBYTE);
  const volume = await world.open({ onVolumeChanged: 'keep' });
  const bytes = new Uint8Array(100).fill(7);
  await volume.write(MEBIBYTE - 50, bytes);
  await volume.write(MEBIBYTE + BLOCK_SIZE, bytes);
  const again = volume.snapshots.find(({ id }) => id === snapshot.id);
  expect(again?.size).toBe(MEBIBYTE);
  expectSame(
    (await again?.read(0, MEBIBYTE)) ?? new Uint8Array(0),
    world.model.of(snapshot.id),
    'the snapshot',
  );
  const later = await volume.createSnapshot();
  expect(later.size).toBe(2 * MEBIBYTE);
  await volume.write(MEBIBYTE + BLOCK_SIZE, new Uint8Array(200).fill(8));
  expect(await later.read(MEBIBYTE + BLOCK_SIZE, 100)).toEqual(bytes);
});

test.each(LAYOUTS)(
  'after a damaged snapshot was dropped the sound ones survive the next creation (%s)',
  async (layout) => {
    const world = await World.create({ layout, maximumSize: 40 * BLOCK_SIZE });
    const first = await world.snapshot();
    await world.writeBlock(1, 3);
    await world.snapshot();
    await world.writeBlock(2, 3);
    await world.snapshot();
    await settle();
    await world.volume.close();
    await damageLocationList(world, first.id);
    await world.open({ onDamaged: 'drop' });
    expect(world.volume.snapshots.map(({ order }) => order)).toEqual([2, 3]);
    const held = world.volume.snapshots.reduce((sum, { allocatedBytes }) => sum + allocatedBytes, 0);
    expect.soft(world.volume.figures.allocatedBytes, 'space of the dropped one is free again').toBe(held);
    if (layout === 'directory')
      expect.soft((await world.folder.list()).length, 'its file is gone').toBe(1 + 2);
    await world.snapshot();
    expect(world.volume.snapshots.map(({ order }) => order)).toEqual([2, 3, 4]);
    await world.expectRight();
  },
);

/** Both places of the list, so that it does not matter which is in force. */
async function damageLocationList(world: World, id: string): Promise<void> {
  const isDirectory = world.layout === 'directory';
  const name = (await world.folder.list()).find((file) => file.startsWith(`{${id}}`));
  const device = isDirectory
    ? await world.folder.open(name ?? '', { writable: true })
    : world.device({ writable: true });
  // In-volume the first diff area lies behind nine control blocks and the block with the kept sector.
  const start = isDirectory ? 0 : world.size + 10 * BLOCK_SIZE;
  for (const slot of [2, 3])
    await device.write(start + slot * BLOCK_SIZE + 130, new Uint8Array(4).fill(0xff));
  await device.close();
}

test('an error in a listener does not reach the engine', async () => {
  const world = await World.create();
  // The program that listens hears of it as of any error that nobody catches.
  const uncaught = uncaughtErrors();
  world.volume.on('created', () => {
    throw new UnsupportedError('a listener went wrong');
  });
  const outcome = await world.snapshot().then(
    () => 'created',
    () => 'refused',
  );
  await settle();
  if (outcome === 'created')
    expect(uncaught.map(String)).toEqual(['UnsupportedError: a listener went wrong']);
  world.volume.removeAllListeners();
  if (outcome === 'refused') expect(world.volume.snapshots).toEqual([]);
  for (const { id } of world.volume.snapshots) world.model.snapshots.set(id, world.model.bytes.slice());
  const there = world.volume.snapshots.length;
  await world.writeBlock(2);
  expect(world.volume.snapshots.length, 'the snapshot stays').toBe(there);
  await world.expectRight();
  await world.reopen();
  expect(world.volume.snapshots.length).toBe(there);
});

test.each([2 ** 31, Number.MAX_SAFE_INTEGER, Number.POSITIVE_INFINITY])(
  'a hold limit of %d ms is long, or refused, but not short',
  async (holdTimeoutMs) => {
    const world = await World.create();
    const go = signal();
    world.hooks.before = ({ target, kind }) =>
      target === 'volume' && kind === 'write' ? go.promise : undefined;
    const writing = world.writeBlock(1);
    await settle();
    const creating = world.volume.createSnapshot({ holdTimeoutMs }).then(
      () => 'created',
      (error: { code?: string }) => error.code,
    );
    setTimeout(go.fire, 100);
    expect(['created', 'INVALID_ARGUMENT']).toContain(await creating);
    await writing;
  },
);

/** Errors that would have ended the process, from here to the end of the test. */
function uncaughtErrors(): unknown[] {
  const errors: unknown[] = [];
  const others = process.listeners('uncaughtException');
  const collect = (error: unknown) => void errors.push(error);
  process.removeAllListeners('uncaughtException');
  process.on('uncaughtException', collect);
  onTestFinished(() => {
    process.removeListener('uncaughtException', collect);
    for (const listener of others) process.on('uncaughtException', listener);
  });
  return errors;
}

/** Three snapshots, closed properly; block 5 has a copy in each. */
async function threeSnapshots(): Promise<World> {
  const world = await World.create();
  for (let i = 0; i < 3; i++) {
    await world.snapshot();
    await world.writeBlock(5);
    await world.writeBlock(10 + i, 2);
  }
  await settle();
  await world.volume.close();
  return world;
}

/** Opens for reading: what can be read is right; what cannot says so; nothing is missing without a word. Else, in words. */
async function wrongIn(world: World, what: string): Promise<string[]> {
  const volume = await world.open({ readOnly: true }).catch((error: { code?: string }) => {
    expect(error.code, what).toBe('FORMAT');
  });
  if (volume === undefined) return [];
  const wrong: string[] = [];
  const orders = volume.snapshots.map(({ order }) => order).join();
  if (volume.recovery.warnings.length === 0 && orders !== '1,2,3') wrong.push(`${what}: snapshots ${orders}`);
  for (const snapshot of volume.snapshots) {
    for (let block = 0; block * BLOCK_SIZE < world.size; block++) {
      const bytes = await snapshot.read(block * BLOCK_SIZE, BLOCK_SIZE).catch((error: { code?: string }) => {
        expect(['FORMAT', 'INTEGRITY'], what).toContain(error.code);
      });
      const wanted = world.model.of(snapshot.id).subarray(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);
      if (bytes !== undefined && Buffer.compare(bytes, wanted) !== 0)
        wrong.push(`${what}: block ${block} of snapshot ${snapshot.order}`);
    }
  }
  await volume.close();
  return wrong;
}

test('a table entry that rots is never taken for a block that was not copied', async () => {
  const world = await threeSnapshots();
  const [first] = [...world.model.snapshots.keys()];
  const name = (await world.folder.list()).find((file) => file.startsWith(`{${first}}{`)) ?? '';
  const file = await world.folder.open(name, { writable: true });
  // The first entry of the table block in slot 1: its original offset, and its flags.
  const entry = BLOCK_SIZE + 128;
  const wrong: string[] = [];
  for (const [at, bit] of [
    [1, 6],
    [2, 0],
    [2, 3],
    [24, 2],
  ] as const) {
    const before = file.bytes[entry + at] ?? 0;
    file.bytes[entry + at] = before ^ (1 << bit);
    wrong.push(...(await wrongIn(world, `bit ${bit} of byte ${at} of the entry`)));
    file.bytes[entry + at] = before;
  }
  expect(wrong).toEqual([]);
});

test('a control item that rots never changes what a snapshot reads, and never hides one', async () => {
  const world = await threeSnapshots();
  const control = '{3808876b-c176-4e48-b7ae-04046e6cc752}';
  const file = await world.folder.open(control, { writable: true });
  // Pairs of items from the first sector of the first control block on: places 1 and 2, 3 and 4, ...
  const pairs: number[] = [];
  for (let at = BLOCK_SIZE + 128; at < 2 * BLOCK_SIZE; at += 128)
    if (file.bytes[at] === 2 && file.bytes[at + 128] === 3) pairs.push(at);
  expect(pairs).toHaveLength(3);
  const wrong: string[] = [];
  for (const [i, pair] of pairs.entries()) {
    for (let at = 8; at < 56; at++) {
      for (const bit of [0, 3, 7]) {
        const before = file.bytes[pair + at] ?? 0;
        file.bytes[pair + at] = before ^ (1 << bit);
        wrong.push(...(await wrongIn(world, `bit ${bit} of byte ${at} of snapshot item ${i + 1}`)));
        file.bytes[pair + at] = before;
      }
    }
  }
  const second = pairs[1] ?? 0;
  const saved = file.bytes.slice(second, second + 256);
  file.bytes.fill(0, second, second + 256);
  wrong.push(...(await wrongIn(world, 'the items of the second snapshot zeroed')));
  file.bytes.set(saved, second);
  expect(wrong.slice(0, 20)).toEqual([]);
});

test('a diff-area file under the name of another is not read as that', async () => {
  const world = await threeSnapshots();
  const [a, b] = [...world.model.snapshots.keys()];
  const names = await world.folder.list();
  const open = async (id: string | undefined) =>
    world.folder.open(names.find((name) => name.startsWith(`{${id}}{`)) ?? '', { writable: true });
  const [left, right] = [await open(a), await open(b)];
  const [leftBytes, rightBytes] = [left.bytes.slice(), right.bytes.slice()];
  await left.resize(rightBytes.byteLength);
  left.bytes.set(rightBytes);
  await right.resize(leftBytes.byteLength);
  right.bytes.set(leftBytes);
  expect(await wrongIn(world, 'two files swapped')).toEqual([]);
});

test('changed blocks of a volume that has become shorter lie within it', async () => {
  const world = await World.create();
  const snapshot = await world.snapshot();
  await world.writeBlock(2);
  await world.writeBlock(50, 3);
  await world.writeBlock(60);
  await world.volume.close();
  world.content.resize(52 * BLOCK_SIZE - 100);
  // Its snapshots are of what was cut off, too.
  await expect(world.open({ onVolumeChanged: 'keep' })).rejects.toThrow(VolumeChangedError);
  const volume = await world.open({ readOnly: true });
  const since = volume.snapshots.find(({ id }) => id === snapshot.id);
  if (since === undefined) return; // given up: right as well
  const extents: { offset: number; length: number }[] = [];
  for await (const extent of volume.changedBlocks({ since })) extents.push(extent);
  for (const { offset, length } of extents) {
    expect(length).toBeGreaterThan(0);
    expect(offset + length).toBeLessThanOrEqual(volume.size);
  }
  expectSame(
    await since.read(2 * BLOCK_SIZE, BLOCK_SIZE),
    world.model.of(snapshot.id).subarray(2 * BLOCK_SIZE, 3 * BLOCK_SIZE),
    'block 2 of the snapshot',
  );
  // What lay behind the new end and was never copied is lost; saying so is right, other bytes are not.
  const lost = await since.read(62 * BLOCK_SIZE, BLOCK_SIZE).catch((error: { code?: string }) => error.code);
  expect(typeof lost).toBe('string');
});

test('a process killed in the last moment of closing an in-volume store leaves a volume that asks what to do, and then opens', async () => {
  const bytes = new MemoryContent(2 * MEBIBYTE);
  await Volume.initialize(new MemoryDevice(bytes), {
    store: new InVolumeStore({ protectedSize: MEBIBYTE / 2 }),
  });
  const file = { modifiedAt: 1_000_000_000n };
  // A device that keeps the time of its last write, as files do; the process is killed before it can set that time.
  class TimedDevice extends MemoryDevice {
    readonly killed: boolean;
    constructor(killed: boolean) {
      super(bytes);
      this.killed = killed;
    }
    override async write(offset: number, source: Uint8Array): Promise<void> {
      await super.write(offset, source);
      file.modifiedAt += 1_234_567_890n;
    }
    async modifiedAt(): Promise<bigint> {
      return file.modifiedAt;
    }
    async setModifiedAt(nanoseconds: bigint): Promise<void> {
      if (this.killed) return new Promise(() => undefined);
      file.modifiedAt = nanoseconds;
    }
  }
  const volume = await Volume.open(new TimedDevice(true), { store: new InVolumeStore() });
  await volume.createSnapshot();
  await volume.write(0, new Uint8Array(100).fill(1));
  void volume.close();
  await settle();
  // The time is that of the record, not the one in it: a question too many, but nothing is lost (docs/crash-safety.md).
  const open = (onVolumeChanged: 'refuse' | 'keep') =>
    Volume.open(new TimedDevice(false), { store: new InVolumeStore(), onVolumeChanged });
  await expect(open('refuse')).rejects.toThrow(VolumeChangedError);
  const again = await open('keep');
  expect(again.snapshots).toHaveLength(1);
  await again.close();
  const last = await Volume.open(new TimedDevice(false), { store: new InVolumeStore() });
  expect(last.recovery).toMatchObject({ clean: true, warnings: [] });
  await last.close();
});

test('an in-volume store is closed well by a user who may write the file, but not set its time', async () => {
  const bytes = new MemoryContent(2 * MEBIBYTE);
  await Volume.initialize(new MemoryDevice(bytes), {
    store: new InVolumeStore({ protectedSize: MEBIBYTE / 2 }),
  });
  let modifiedAt = 1_000_000_000n;
  /** A file of somebody else's: it keeps the time of its last write. */
  class OthersDevice extends MemoryDevice {
    override async write(offset: number, source: Uint8Array): Promise<void> {
      await super.write(offset, source);
      modifiedAt += 1_234_567_890n;
    }
    async modifiedAt(): Promise<bigint> {
      return modifiedAt;
    }
    async setModifiedAt(): Promise<void> {
      const cause = Object.assign(new Error('EPERM: operation not permitted, futime'), { code: 'EPERM' });
      throw new DeviceError('cannot set the time', { cause });
    }
  }
  const open = () => Volume.open(new OthersDevice(bytes), { store: new InVolumeStore() });
  const volume = await open();
  await volume.createSnapshot();
  await volume.write(0, new Uint8Array(100).fill(1));
  await volume.close();
  const again = await open();
  expect(again.recovery).toMatchObject({ clean: true, warnings: [] });
  expect(again.snapshots).toHaveLength(1);
  await again.close();
});

test('a table block that lost its last entries in a power cut, but not its link, opens again and again', async () => {
  const world = await World.create({
    size: 16 * MEBIBYTE,
    growth: { initial: 16 * MEBIBYTE, maximum: 16 * MEBIBYTE },
  });
  const snapshot = await world.snapshot();
  await world.writeBlock(0, 500);
  const name = (await world.folder.list()).find((file) => file.startsWith(`{${snapshot.id}}`)) ?? '';
  const file = await world.folder.open(name, { writable: true });
  // The last sector of the first table block, before a group of 20 fills the block and starts the next one.
  const sector = 2 * BLOCK_SIZE - 512;
  const before = file.bytes.slice(sector, sector + 512);
  world.hooks.before = ({ kind, target }) =>
    kind === 'flush' && target.includes(snapshot.id) ? new Promise<void>(() => undefined) : undefined;
  void world.volume.write(500 * BLOCK_SIZE, new Uint8Array(20 * BLOCK_SIZE));
  await settle();
  // The power fails before the flush: of all that was written only that sector is lost.
  expect(Buffer.compare(file.bytes.subarray(sector, sector + 512), before)).not.toBe(0);
  file.bytes.set(before, sector);
  await world.kill();
  await world.expectRight();
  await world.writeBlock(505, 4);
  for (const how of ['reopen', 'kill', 'reopen'] as const) {
    await world[how]();
    expect(world.volume.snapshots.map(({ state }) => state)).toEqual(['ok']);
    await world.expectRight();
    await world.writeBlock(530);
  }
});

test('a process killed while it invalidates snapshots leaves none that is taken for right', async () => {
  for (let at = 1; ; at++) {
    const world = await World.create({ size: 256 * KIBIBYTE });
    for (let i = 0; i < 2; i++) {
      await world.snapshot();
      await world.writeBlock(i);
    }
    await world.volume.close();
    world.content.resize(300 * KIBIBYTE); // changed while nobody looked
    let count = 0;
    world.hooks.before = () => (++count < at ? undefined : new Promise<void>(() => undefined));
    const opened = world.open({ onVolumeChanged: 'invalidate' }).then(() => 'opened');
    const outcome = await Promise.race([opened, settle().then(() => 'killed')]);
    world.hooks.generation++;
    world.hooks.before = () => undefined;
    const volume = await world.open().catch((error: { code?: string }) => {
      expect(error.code).toBe('VOLUME_CHANGED');
    });
    if (volume !== undefined) expect(volume.snapshots, `killed before operation ${at}`).toEqual([]);
    if (outcome === 'opened') break;
  }
});
