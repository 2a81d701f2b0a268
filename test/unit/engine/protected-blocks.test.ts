/** A store in runs of a file inside the volume: what its users see there, and what becomes of their writes. */
import { expect, test } from 'vitest';
import { checkVolume } from '../../../src/check/check.ts';
import { BufferPool } from '../../../src/device/buffer-pool.ts';
import { MemoryContent, MemoryDevice } from '../../../src/device/memory-device.ts';
import { VolsnapError } from '../../../src/errors.ts';
import { LOCATIONS_PER_BLOCK } from '../../../src/format/constants.ts';
import type { VolumeEvents } from '../../../src/snapshot/events.ts';
import type { ProtectedWritePolicy } from '../../../src/snapshot/protected-blocks.ts';
import { InVolumeStore } from '../../../src/store/in-volume-store.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { Volume, type VolumeOptions } from '../../../src/volume/volume.ts';
import { settle, signal, systemFailure } from './hooks.ts';
import { expectSame, MEBIBYTE, World } from './world.ts';

/** Two runs, the first of which begins and ends in the middle of a block. */
const RUNS = [
  { offset: 10 * BLOCK_SIZE - 100, length: 40 * BLOCK_SIZE + 200 },
  { offset: 100 * BLOCK_SIZE, length: 100 * BLOCK_SIZE },
];
/** Whole blocks of the runs: `[first, end)`. */
const STORE = [
  [10, 50],
  [100, 200],
] as const;
/** What the store begins with: control blocks, kept sector, list. */
const NEEDED = 12;
const BLOCKS = 256;

async function create(options: VolumeOptions = {}): Promise<World> {
  const world = await World.create({
    layout: 'in-volume',
    size: BLOCKS * BLOCK_SIZE,
    runs: RUNS,
    seed: 'inside',
    growth: { initial: 9 * BLOCK_SIZE, maximum: 16 * BLOCK_SIZE },
  });
  for (const [first, end] of STORE) world.model.bytes.fill(0, first * BLOCK_SIZE, end * BLOCK_SIZE);
  world.options = options;
  await world.reopen();
  return world;
}

const isStore = (block: number): boolean => STORE.some(([first, end]) => block >= first && block < end);

/** Writes to blocks that are the volume's. */
async function writeSome(world: World, count: number): Promise<void> {
  for (let i = 0; i < count; ) {
    const block = world.random.below(BLOCKS);
    if (isStore(block)) continue;
    await world.writeBlock(block);
    i++;
  }
}

function eventsOf(volume: Volume): string[] {
  const events: string[] = [];
  volume.on('protectedWrite', ({ outcome, offset, length }: VolumeEvents['protectedWrite'][0]) =>
    events.push(`${outcome} ${offset} ${length}`),
  );
  volume.on('deleted', ({ reason }) => events.push(`deleted ${reason}`));
  return events;
}

const check = (world: World) => checkVolume(world.device({ writable: false }), { scrub: true });

test('the volume and its snapshots are as they were, and zeros where the store lies', async () => {
  const world = await create();
  for (let round = 0; round < 6; round++) {
    await world.snapshot();
    await writeSome(world, 12);
    if (round % 2 === 1) await world.volume.snapshots[round % 3]?.delete();
    if (round === 2) await world.kill();
    if (round === 4) await world.reopen();
    await world.expectRight();
  }
  await world.volume.settled();
  await world.expectRight();
  expect((await world.volume.scrub()).problems).toEqual([]);
  expect(world.volume.figures.allocatedBytes).toBeLessThanOrEqual((140 - NEEDED) * BLOCK_SIZE);
  await world.volume.close();
  expect(await check(world)).toEqual([]);
});

test.each(['ordered', 'writeback'] as const)('writes there are rejected whole (%s)', async (writeMode) => {
  const world = await create({ writeMode });
  const events = eventsOf(world.volume);
  await world.snapshot();
  await writeSome(world, 10);
  const bytes = world.random.fill(new Uint8Array(3 * BLOCK_SIZE));
  const refused = [
    [9 * BLOCK_SIZE, 2 * BLOCK_SIZE], // the last block in front of it, too
    [50 * BLOCK_SIZE - 1, 1],
    [199 * BLOCK_SIZE, 3 * BLOCK_SIZE],
  ] as const;
  for (const [offset, length] of refused)
    await expect(world.volume.write(offset, bytes.subarray(0, length))).rejects.toMatchObject({
      code: 'READ_ONLY',
    });
  const pool = new BufferPool(MEBIBYTE);
  const lent = { memory: pool.take(BLOCK_SIZE), pool };
  const taken = Promise.resolve(world.volume.take(20 * BLOCK_SIZE, bytes.subarray(0, BLOCK_SIZE), lent));
  await expect(taken).rejects.toMatchObject({ code: 'READ_ONLY' });
  expect(events.pop()).toBe(`rejected ${20 * BLOCK_SIZE} ${BLOCK_SIZE}`);
  await expect(world.volume.copyRange(0, 49 * BLOCK_SIZE, 2 * BLOCK_SIZE)).rejects.toMatchObject({
    code: 'READ_ONLY',
  });
  expect(events.pop()).toBe(`rejected ${49 * BLOCK_SIZE} ${2 * BLOCK_SIZE}`);
  expect(events).toEqual(refused.map(([offset, length]) => `rejected ${offset} ${length}`));
  for (const block of [9, 50, 99, 200]) await world.write(block * BLOCK_SIZE, bytes.subarray(0, BLOCK_SIZE));
  await world.expectRight();
  await world.reopen();
  await world.expectRight();
});

test('what reads as zeros there may be made zero', async () => {
  const world = await create();
  await world.snapshot();
  const range = [5 * BLOCK_SIZE, 60 * BLOCK_SIZE] as const;
  for (const how of ['writeZeroes', 'discard'] as const) {
    await writeSome(world, 10);
    await world.volume[how](...range);
    world.model.bytes.fill(0, range[0], range[0] + range[1]);
    await world.expectRight();
  }
  await world.kill();
  await world.expectRight();
  expect(world.volume.snapshots).toHaveLength(1);
});

test.each(['ordered', 'writeback'] as const)(
  'a volume that was made zero across the store is put back (%s)',
  async (writeMode) => {
    const world = await create({ writeMode });
    const snapshot = await world.snapshot();
    // A gap so short is not worth a request of its own.
    const range = [49 * BLOCK_SIZE, 60 * BLOCK_SIZE] as const;
    for (const [offset, length] of [range, [9 * BLOCK_SIZE, 3 * BLOCK_SIZE]] as const)
      await world.volume.writeZeroes(offset, length);
    await world.volume.revert(snapshot, { keepPrevious: false }).completed;
    await world.expectRight();
    await world.reopen();
    await world.expectRight();
    await world.volume.close();
    expect(await check(world)).toEqual([]);
  },
);

test('nothing but zeros is written to a snapshot where the store lies', async () => {
  const world = await create({ onProtectedWrite: 'drop' });
  const snapshot = await world.snapshot({ writable: true });
  const bytes = world.random.fill(new Uint8Array(2 * BLOCK_SIZE));
  for (const block of [9, 20, 199])
    await expect(snapshot.write(block * BLOCK_SIZE, bytes)).rejects.toMatchObject({ code: 'READ_ONLY' });
  await snapshot.writeZeroes(8 * BLOCK_SIZE, 50 * BLOCK_SIZE);
  world.model.of(snapshot.id).fill(0, 8 * BLOCK_SIZE, 58 * BLOCK_SIZE);
  await snapshot.write(8 * BLOCK_SIZE, bytes);
  world.model.of(snapshot.id).set(bytes, 8 * BLOCK_SIZE);
  await world.expectRight();
  await world.volume.revert(snapshot, { keepPrevious: false }).completed;
  world.model.bytes.set(world.model.of(snapshot.id));
  expectSame(await world.volume.read(0, world.size), world.model.bytes, 'the volume');
  await world.volume.close();
});

test('by policy all snapshots go instead, and the blocks are the volume’s for good', async () => {
  const world = await create({ onProtectedWrite: 'drop' });
  for (let i = 0; i < 3; i++) {
    await world.snapshot();
    await writeSome(world, 12);
  }
  await world.volume.snapshots[1]?.delete();
  const events = eventsOf(world.volume);
  // Parts of two blocks, one of them the last in front of the run.
  const bytes = world.random.fill(new Uint8Array(BLOCK_SIZE));
  await world.write(99.5 * BLOCK_SIZE, bytes);
  expect(events).toEqual([
    'deleted store-overwritten',
    'deleted store-overwritten',
    `dropped ${99.5 * BLOCK_SIZE} ${BLOCK_SIZE}`,
  ]);
  expect(world.volume.snapshots).toEqual([]);
  await world.expectRight();
  await world.write(100 * BLOCK_SIZE + 1000, bytes.subarray(0, 10));
  expect(events).toHaveLength(3);
  // Snapshots keep what is there now.
  await world.snapshot();
  await world.writeBlock(100);
  await writeSome(world, 20);
  for (const again of [() => world.kill(), () => world.reopen()]) {
    await again();
    await world.expectRight();
    expect(world.volume.snapshots).toHaveLength(1);
  }
  await world.volume.close();
  expect(await check(world)).toEqual([]);
});

test('where the list of the store is full, its shortest run goes together with what is written over', async () => {
  const single = (i: number) => ({ offset: (150 + 2 * i) * BLOCK_SIZE, length: BLOCK_SIZE });
  const most = LOCATIONS_PER_BLOCK;
  const runs = [
    { offset: 10 * BLOCK_SIZE, length: 120 * BLOCK_SIZE },
    ...Array.from({ length: most - 1 }, (_, i) => single(i)),
  ];
  const size = (160 + 2 * most) * BLOCK_SIZE;
  const content = new MemoryContent(size);
  const device = () => new MemoryDevice(content);
  await Volume.initialize(device(), { store: new InVolumeStore({ runs }) });
  const bytes = new Uint8Array(BLOCK_SIZE).fill(7);
  const over = 80 * BLOCK_SIZE;
  for (const offset of [over, over + 10 * BLOCK_SIZE]) {
    const volume = await Volume.open(device(), { store: new InVolumeStore(), onProtectedWrite: 'drop' });
    await volume.createSnapshot({ label: 'one' });
    await volume.write(offset, bytes);
    expect(volume.snapshots).toEqual([]);
    const left = Array.from({ length: most - 1 }, (_, i) => single(i).offset);
    const found = await Promise.all(left.map((at) => volume.read(at, BLOCK_SIZE)));
    expect(found.every((block) => block.every((byte) => byte === 0))).toBe(true);
    await volume.close();
  }
  const volume = await Volume.open(device(), { store: new InVolumeStore() });
  expect(await volume.read(over, BLOCK_SIZE)).toEqual(bytes);
  await volume.createSnapshot({ label: 'two' });
  await volume.write(0, bytes);
  await volume.close();
  expect(await checkVolume(device(), { scrub: true })).toEqual([]);
});

test('what the store cannot do without is never given up', async () => {
  const world = await create({ onProtectedWrite: 'drop' });
  await world.snapshot();
  await writeSome(world, 5);
  const events = eventsOf(world.volume);
  for (const block of [10, 10 + NEEDED - 1])
    await expect(world.volume.write(block * BLOCK_SIZE, new Uint8Array(1).fill(1))).rejects.toMatchObject({
      code: 'READ_ONLY',
    });
  expect(events.map((event) => event.split(' ')[0])).toEqual(['rejected', 'rejected']);
  expect(world.volume.snapshots).toHaveLength(1);
  await world.expectRight();
});

test('writers that give it up at once wait for each other', async () => {
  const world = await create({ onProtectedWrite: 'drop' });
  await world.snapshot();
  await writeSome(world, 30);
  const bytes = world.random.fill(new Uint8Array(BLOCK_SIZE));
  await Promise.all([101, 102, 103, 103].map((block) => world.write(block * BLOCK_SIZE, bytes)));
  await world.expectRight();
  await world.kill();
  await world.expectRight();
});

test('a crash at any moment of giving up leaves the snapshots, or what was written, and never both spoilt', async () => {
  let isOver = false;
  for (let crash = 0; !isOver; crash++) {
    const world = await create({ onProtectedWrite: 'drop' });
    await world.snapshot();
    await writeSome(world, 12);
    await world.snapshot();
    await writeSome(world, 4);
    await world.volume.flush();
    const bytes = world.random.fill(new Uint8Array(2 * BLOCK_SIZE));
    let left = crash;
    world.hooks.before = ({ kind }) => {
      if (kind === 'read' || left-- > 0) return undefined;
      return new Promise(() => undefined);
    };
    const write = world.volume.write(104 * BLOCK_SIZE, bytes).then(() => 'done');
    const stuck = new Promise<string>((resolve) => {
      const look = () => (left < 0 ? resolve('stuck') : setImmediate(look));
      look();
    });
    isOver = (await Promise.race([write, stuck])) === 'done';
    await world.kill();
    const now = await world.volume.read(104 * BLOCK_SIZE, 2 * BLOCK_SIZE);
    const isWritten = Buffer.compare(now, bytes) === 0;
    if (isWritten || isOver) world.model.write(104 * BLOCK_SIZE, bytes);
    if (isWritten) expect(world.volume.snapshots).toHaveLength(0);
    await world.expectRight();
    await world.snapshot();
    await writeSome(world, 10);
    await world.expectRight();
    await world.volume.close();
    expect(await check(world), `crash ${crash}`).toEqual([]);
  }
});

test('a store gives way at any moment of merging the newest snapshot, which was deleted', async () => {
  let isOver = false;
  for (let stop = 1; !isOver; stop++) {
    const world = await create({ onProtectedWrite: 'drop' });
    await world.snapshot();
    await writeSome(world, 5);
    const newest = await world.snapshot();
    await writeSome(world, 5);
    await newest.delete();
    const go = signal();
    // The last of these writes takes the deleted one out.
    let controlWrites = 0;
    world.hooks.before = ({ kind, offset }) => {
      const isControl = kind === 'write' && offset >= 10 * BLOCK_SIZE && offset < 19 * BLOCK_SIZE;
      return isControl && ++controlWrites === stop ? go.promise : undefined;
    };
    await settle();
    isOver = controlWrites < stop;
    const writing = world.writeBlock(104);
    await settle();
    go.fire();
    await writing;
    expect(world.volume.snapshots).toEqual([]);
    await world.kill();
    await world.expectRight();
  }
});

test('nothing is given up while it cannot be told whether a snapshot exists', async () => {
  const world = await create({ onProtectedWrite: 'drop' });
  await world.snapshot();
  await writeSome(world, 5);
  world.hooks.before = ({ kind, offset }) => {
    const isControl = kind === 'write' && offset >= 10 * BLOCK_SIZE && offset < 19 * BLOCK_SIZE;
    if (isControl) throw systemFailure('EIO');
    return undefined;
  };
  await expect(world.volume.createSnapshot()).rejects.toThrow();
  world.hooks.before = () => undefined;
  for (const block of [104, 196])
    await expect(world.volume.write(block * BLOCK_SIZE, new Uint8Array(BLOCK_SIZE).fill(7))).rejects.toThrow(
      'whether it exists cannot be told',
    );
  expect(world.volume.snapshots).toHaveLength(1);
  await world.kill();
  await world.expectRight();
});

test('a device that fails at any moment of giving up refuses the write, and the next one is done', async () => {
  const bytes = new Uint8Array(2 * BLOCK_SIZE).fill(7);
  let isOver = false;
  for (let failing = 0; !isOver; failing++) {
    const world = await create({ onProtectedWrite: 'drop' });
    await world.snapshot();
    await writeSome(world, 4);
    let left = failing;
    world.hooks.before = ({ kind }) => {
      if (kind === 'read' || left-- !== 0) return undefined;
      throw systemFailure('EIO');
    };
    const outcome = await world.volume.write(104 * BLOCK_SIZE, bytes).then(
      () => 'done',
      (error: { code?: string }) => error.code,
    );
    isOver = left >= 0;
    world.hooks.before = () => undefined;
    if (outcome === 'done') world.model.write(104 * BLOCK_SIZE, bytes);
    else expect(outcome, `failure ${failing}`).toBe('EIO');
    // Some of the same blocks, and one more.
    await world.write(105 * BLOCK_SIZE, bytes);
    expect(world.volume.snapshots).toEqual([]);
    await world.snapshot();
    await writeSome(world, 20);
    await world.kill();
    await world.expectRight();
    await world.volume.close();
  }
});

test('of the two places of its list one may be bad', async () => {
  const world = await create();
  await world.snapshot();
  await writeSome(world, 5);
  await world.volume.close();
  const device = world.device();
  for (const place of [20, 21]) {
    const bytes = new Uint8Array(BLOCK_SIZE);
    await device.read(place * BLOCK_SIZE, bytes);
    await device.write(place * BLOCK_SIZE, new Uint8Array(100).fill(place));
    const opened = await world.open();
    await world.expectRight();
    await opened.close();
    await device.write(place * BLOCK_SIZE, bytes);
  }
  for (const place of [20, 21]) await device.write(place * BLOCK_SIZE, new Uint8Array(100).fill(place));
  await expect(world.open()).rejects.toMatchObject({ code: 'FORMAT' });
});

test('runs that make no sense, and policies, are refused', async () => {
  const size = 4 * MEBIBYTE;
  const wrong = [
    [],
    [{ offset: 0, length: 2 * MEBIBYTE }],
    [{ offset: MEBIBYTE, length: 8 * MEBIBYTE }],
    [{ offset: MEBIBYTE, length: MEBIBYTE }],
    [
      { offset: MEBIBYTE, length: 2 * MEBIBYTE },
      { offset: 2 * MEBIBYTE, length: MEBIBYTE },
    ],
    // Nowhere is there room for what it begins with.
    Array.from({ length: 10 }, (_, i) => ({ offset: (2 + i * 20) * BLOCK_SIZE, length: 11 * BLOCK_SIZE })),
  ];
  for (const runs of wrong) {
    const device = new MemoryDevice(size);
    const initialized = Volume.initialize(device, { store: new InVolumeStore({ runs }) });
    await expect(initialized, JSON.stringify(runs)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(device.bytes.every((byte) => byte === 0)).toBe(true);
  }
  const world = await create();
  const policy = 'perhaps' as ProtectedWritePolicy;
  await expect(world.reopen({ onProtectedWrite: policy })).rejects.toThrow(VolsnapError);
});
