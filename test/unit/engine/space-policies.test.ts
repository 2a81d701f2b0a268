/** What happens to writes when there is no room for copies, and to snapshots that are held. */
import { expect, test } from 'vitest';
import { systemEnvironment } from '../../../src/environment.ts';
import { HeldError, InvalidArgumentError, NoSpaceError } from '../../../src/errors.ts';
import { SpaceMonitor } from '../../../src/snapshot/forecast.ts';
import { SimulatedClock } from '../../../src/testing/simulated-clock.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import type { VolumeOptions } from '../../../src/volume/volume.ts';
import { settle, signal, systemFailure } from './hooks.ts';
import { MEBIBYTE, World } from './world.ts';

const MAXIMUM = 40 * BLOCK_SIZE;
const TOO_MUCH = 60;

async function fullWorld(options: VolumeOptions = {}): Promise<World> {
  const world = await World.create({ size: 4 * MEBIBYTE, maximumSize: MAXIMUM });
  await world.reopen(options);
  await world.snapshot();
  return world;
}

/** Writes blocks one by one until there is no room. @returns how many were written */
async function fill(world: World): Promise<number> {
  for (let block = 0; ; block++) {
    try {
      await world.writeBlock(block);
    } catch (error) {
      expect(error).toBeInstanceOf(NoSpaceError);
      return block;
    }
  }
}

test('fail-writes: the write fails, nothing of it is done, and snapshots stay right', async () => {
  const world = await fullWorld();
  await world.volume.setSpacePolicy('fail-writes');
  const told: string[] = [];
  world.volume.on('overflow', ({ action, reason }) => told.push(`${action} ${reason}`));
  world.volume.on('writesResumed', ({ reason }) => told.push(reason));
  const written = await fill(world);
  expect(written).toBeGreaterThan(20);
  await expect(world.volume.write(0, new Uint8Array(MEBIBYTE))).rejects.toThrow('the policy is fail-writes');
  await world.expectRight();
  // What has its copy already can be written.
  await world.writeBlock(0, 3);
  await world.volume.flush();
  expect(world.volume.figures.space?.isFull).toBe(true);
  await world.volume.setMaximumSize(2 * MAXIMUM);
  await world.writeBlock(written, 10);
  await world.expectRight();
  expect(told).toEqual(['fail-writes limit', 'space-given']);
  await world.kill();
  expect(world.volume.figures.space?.policy).toBe('fail-writes');
  await world.expectRight();
});

test('fail-writes: a new snapshot is refused, and a lower limit deletes nothing', async () => {
  const world = await fullWorld();
  await world.volume.setSpacePolicy('fail-writes');
  await fill(world);
  await expect(world.volume.createSnapshot()).rejects.toThrow(NoSpaceError);
  await world.volume.setMaximumSize(10 * BLOCK_SIZE);
  expect(world.volume.snapshots).toHaveLength(1);
  await world.expectRight();
});

test.each<[string, (world: World) => Promise<unknown>]>([
  ['a higher limit', ({ volume }) => volume.setMaximumSize(0)],
  ['a deletion', ({ volume }) => volume.deleteOldest()],
  ['another policy', ({ volume }) => volume.setSpacePolicy('delete-oldest')],
])('hold-writes: a write waits until there is %s; reads go on', async (_, relieve) => {
  const world = await fullWorld({ environment: { ...systemEnvironment, clock: new SimulatedClock() } });
  await world.volume.setSpacePolicy('hold-writes', { waitMs: 10_000 });
  const writing = world.writeBlock(0, TOO_MUCH);
  let isDone = false;
  void writing.then(() => {
    isDone = true;
  });
  await settle();
  expect([isDone, world.volume.figures.space?.waiting]).toEqual([false, 1]);
  await world.expectRight();
  await relieve(world);
  await writing;
  await world.expectRight();
});

test.each([
  ['fails', 'fail-writes'],
  ['costs the oldest snapshot', 'delete-oldest'],
] as const)('hold-writes: when the time is over it %s', async (_, afterWait) => {
  const clock = new SimulatedClock();
  const world = await fullWorld({ environment: { ...systemEnvironment, clock } });
  await world.volume.setSpacePolicy('hold-writes', { waitMs: 2500, afterWait });
  const result = world.writeBlock(0, TOO_MUCH).then(
    () => 'written',
    (error: unknown) => error,
  );
  await settle();
  const since = clock.monotonic();
  while (world.volume.figures.space?.waiting === 1) {
    clock.jump();
    clock.fireDue();
    await settle();
  }
  expect(clock.monotonic() - since).toBe(2500);
  if (afterWait === 'fail-writes') {
    expect(await result).toBeInstanceOf(NoSpaceError);
    expect(world.volume.snapshots).toHaveLength(1);
  } else {
    expect(await result).toBe('written');
    expect(world.volume.snapshots).toHaveLength(0);
  }
  await world.expectRight();
});

test('hold-writes: closing the volume lets nobody wait, and loses no snapshot', async () => {
  const world = await fullWorld();
  await world.volume.setSpacePolicy('hold-writes', { afterWait: 'delete-oldest' });
  const writing = world.writeBlock(0, TOO_MUCH).catch((error: unknown) => error);
  await settle();
  await world.volume.close();
  expect(await writing).toBeInstanceOf(NoSpaceError);
  await world.open();
  expect(world.volume.snapshots).toHaveLength(1);
  await world.expectRight();
});

test.each([{ waitMs: 0 }, { waitMs: 1.5 }, { waitMs: 86_400_001 }])(
  'a wait of %o is refused',
  async (options) => {
    const world = await fullWorld();
    await expect(world.volume.setSpacePolicy('hold-writes', options)).rejects.toThrow(InvalidArgumentError);
    await expect(world.volume.setSpacePolicy('never' as 'fail-writes')).rejects.toThrow(InvalidArgumentError);
  },
);

test('a snapshot that is held stays: commands, limit and lack of room do not delete it', async () => {
  const world = await fullWorld();
  const [snapshot] = world.volume.snapshots;
  await snapshot?.hold();
  await expect(snapshot?.delete()).rejects.toThrow(HeldError);
  await expect(world.volume.deleteOldest()).rejects.toThrow(HeldError);
  await fill(world);
  await world.volume.setMaximumSize(10 * BLOCK_SIZE);
  await expect(world.volume.createSnapshot()).rejects.toThrow(NoSpaceError);
  await world.expectRight();
  await world.kill();
  const [again] = world.volume.snapshots;
  expect([again?.held, again?.heldUntil]).toEqual([true, undefined]);
  await world.expectRight();
  await again?.release();
  await world.writeBlock(0, TOO_MUCH);
  expect(again?.problem).toBe('space');
});

/** The oldest held, with the first blocks; a middle one that has `shared` of these again; and the newest. */
async function heldOldest(shared: number): Promise<World> {
  // A room of so many bytes leaves a little to merges.
  const world = await World.create({ size: 16 * MEBIBYTE, maximumSize: 256 * BLOCK_SIZE });
  await world.reopen();
  const oldest = await world.snapshot();
  await world.writeBlock(0, 60);
  await world.snapshot();
  await world.writeBlock(0, shared);
  await world.writeBlock(200, 60 - shared);
  await world.snapshot();
  await oldest.hold();
  return world;
}

test('delete-oldest: where the oldest is held the next one goes, and the write waits for its merge', async () => {
  const world = await heldOldest(50);
  const [oldest, middle, newest] = world.volume.snapshots;
  const told: string[] = [];
  world.volume.on('overflow', ({ action }) => told.push(action));
  world.volume.on('deleted', ({ id, reason }) => told.push(`${id} ${reason}`));
  world.volume.on('merged', ({ id }) => told.push(`${id} merged`));
  for (let block = 300; !told.includes(`${middle?.id} space`); block++) await world.writeBlock(block);
  await world.volume.settled();
  expect(world.volume.snapshots.map(({ id }) => id)).toEqual([oldest?.id, newest?.id]);
  expect(told).toEqual(['delete-oldest', `${middle?.id} space`, `${middle?.id} merged`]);
  await world.expectRight();
  await world.kill();
  await world.expectRight();
});

test('delete-oldest: where nothing that may go makes room the write fails; the newest stays', async () => {
  const world = await heldOldest(0);
  const written = await world.writeBlock(0, 300).then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(written).toBeInstanceOf(NoSpaceError);
  await world.volume.settled();
  expect(world.volume.snapshots).toHaveLength(2);
  await world.expectRight();
  await world.volume.snapshots[0]?.release();
  await world.writeBlock(0, 300);
  await world.expectRight();
});

/** Deletes a snapshot, and lets a write find no room while that is being recorded. @returns how the write went */
async function deleteWhileFull(world: World, index: number): Promise<PromiseSettledResult<void>> {
  await world.volume.setSpacePolicy('fail-writes');
  let block = 300;
  for (let isFull = false; !isFull; block++) {
    isFull = await world.writeBlock(block).then(
      () => false,
      () => true,
    );
  }
  await world.volume.setSpacePolicy('delete-oldest');
  const recording = signal();
  let isHeldUp = false;
  world.volume.on('deleting', () => {
    world.hooks.before = ({ kind }) => {
      if (kind !== 'write' || isHeldUp) return undefined;
      isHeldUp = true;
      return recording.promise;
    };
  });
  const deleting = world.volume.snapshots[index]?.delete();
  await settle();
  const writing = world.writeBlock(block);
  await settle();
  expect(isHeldUp).toBe(true);
  recording.fire();
  const [written] = await Promise.allSettled([writing, deleting]);
  await world.volume.settled();
  return written;
}

test('delete-oldest: the newest stays also where it is that only since a deletion that came before', async () => {
  const world = await heldOldest(50);
  const [oldest, middle] = world.volume.snapshots;
  await deleteWhileFull(world, 2);
  expect(world.volume.snapshots.map(({ id }) => id)).toEqual([oldest?.id, middle?.id]);
  await world.expectRight();
});

test('delete-oldest: none goes where the merge of one that was deleted before makes room', async () => {
  const world = await heldOldest(50);
  await world.writeBlock(0, 20);
  await world.snapshot();
  const ids = world.volume.snapshots.map(({ id }) => id);
  const written = await deleteWhileFull(world, 2);
  expect(world.volume.snapshots.map(({ id }) => id)).toEqual(ids.toSpliced(2, 1));
  expect(written.status).toBe('fulfilled');
  await world.expectRight();
});

test('a device that fails costs a write, not a snapshot that is held', async () => {
  const world = await fullWorld();
  const [snapshot] = world.volume.snapshots;
  await snapshot?.hold();
  world.hooks.before = ({ kind, target }) => {
    if (kind === 'write' && target.startsWith('store/{') && target.includes('}{')) throw systemFailure('EIO');
    return undefined;
  };
  await expect(world.volume.write(0, new Uint8Array(BLOCK_SIZE))).rejects.toThrow('EIO');
  world.hooks.before = () => undefined;
  await world.expectRight();
  await world.writeBlock(0, 3);
  await world.expectRight();
});

test('a hold with a date ends by the clock, and its date survives', async () => {
  const clock = new SimulatedClock();
  const environment = { ...systemEnvironment, clock };
  const world = await fullWorld({ environment });
  const until = new Date(clock.now() + 5000);
  await world.volume.snapshots[0]?.hold({ until });
  await world.kill({ environment });
  const [snapshot] = world.volume.snapshots;
  expect([snapshot?.held, snapshot?.heldUntil]).toEqual([true, until]);
  clock.advance(4_999_000);
  await expect(snapshot?.delete()).rejects.toThrow(`is held until ${until.toISOString()}`);
  clock.advance(1000);
  expect([snapshot?.held, snapshot?.heldUntil]).toEqual([false, undefined]);
  await expect(snapshot?.hold({ until })).rejects.toThrow(InvalidArgumentError);
  await snapshot?.delete();
  expect(world.volume.snapshots).toEqual([]);
});

test('writeback: what was acknowledged is never lost for lack of room', async () => {
  const world = await fullWorld({ writeMode: 'writeback' });
  await world.volume.setSpacePolicy('fail-writes');
  // All at once, so that the buffer could take them all if it did not ask for room.
  const writes = Array.from({ length: TOO_MUCH }, async (_, block) => {
    const bytes = world.random.fill(new Uint8Array(4096));
    await world.volume.write(block * BLOCK_SIZE, bytes);
    world.model.write(block * BLOCK_SIZE, bytes);
  });
  const results = await Promise.allSettled(writes);
  const refused = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
  expect(refused.length).toBeGreaterThan(10);
  for (const error of refused) expect(error).toBeInstanceOf(NoSpaceError);
  expect(world.volume.figures.writeBuffer?.buffered).toBeGreaterThan(0);
  await world.volume.flush();
  await world.expectRight();
  await world.volume.setMaximumSize(0);
  await world.writeBlock(0, TOO_MUCH);
  await world.volume.flush();
  await world.reopen();
  await world.expectRight();
});

test('writeback: a host that is full makes flushes fail; with room again everything goes on', async () => {
  const world = await fullWorld({ writeMode: 'writeback' });
  await world.volume.setSpacePolicy('fail-writes');
  world.hooks.before = ({ kind, target }) => {
    if (kind === 'write' && target.startsWith('store/{') && target.includes('}{'))
      throw systemFailure('ENOSPC');
    return undefined;
  };
  await world.writeBlock(0, 2);
  await expect(world.volume.flush()).rejects.toThrow(NoSpaceError);
  await expect(world.volume.createSnapshot()).rejects.toThrow(NoSpaceError);
  // Readers see what was acknowledged, and nothing more is.
  await world.expectRight();
  await expect(world.writeBlock(10)).rejects.toThrow(NoSpaceError);
  await expect(world.volume.write(100, new Uint8Array(3 * BLOCK_SIZE))).rejects.toThrow(NoSpaceError);
  expect(world.volume.figures.writeBuffer?.parked).toBe(1);
  world.hooks.before = () => undefined;
  await world.volume.flush();
  expect(world.volume.figures.writeBuffer?.parked).toBe(0);
  await world.writeBlock(10);
  await world.snapshot();
  await world.reopen();
  await world.expectRight();
});

test.each(['write', 'resize'] as const)(
  'files that may not be so long are no full host: a failed %s is told as what it is',
  async (kind) => {
    const world = await World.create({ size: 4 * MEBIBYTE });
    await world.snapshot();
    await settle();
    await world.volume.setSpacePolicy('fail-writes');
    const reasons: string[] = [];
    world.volume.on('overflow', ({ reason }) => reasons.push(reason));
    world.hooks.before = (call) => {
      if (call.kind === kind && call.target.startsWith('store/{') && call.target.includes('}{'))
        throw systemFailure('EFBIG');
      return undefined;
    };
    const failure = await world.writeBlock(0, 200).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(NoSpaceError);
    expect(String(failure)).toMatch(/would become longer than its file system, or .*ulimit -f/);
    expect(String(failure)).not.toContain('is full');
    expect(reasons).toEqual(['file-too-long']);
    world.hooks.before = () => undefined;
    await world.expectRight();
  },
);

test('a commit that finds the host full leaves copies that count with the next one', async () => {
  const world = await fullWorld();
  await world.volume.setSpacePolicy('fail-writes');
  const used = world.volume.figures.usedBytes;
  let writes = 0;
  world.hooks.before = ({ kind, target }) => {
    if (kind !== 'write' || !target.startsWith('store/{') || !target.includes('}{')) return undefined;
    // The copy finds room, its entry does not.
    if (++writes % 2 === 0 || writes > 2) throw systemFailure('ENOSPC');
    return undefined;
  };
  for (let i = 0; i < 5; i++) await expect(world.writeBlock(0)).rejects.toThrow(NoSpaceError);
  world.hooks.before = () => undefined;
  await world.writeBlock(0);
  expect(world.volume.figures.usedBytes - used).toBe(BLOCK_SIZE);
  await world.expectRight();
  await world.kill();
  await world.expectRight();
});

/** Three snapshots; the middle one has copies only of what the oldest has, too. */
async function threeSnapshots(options: VolumeOptions = {}): Promise<World> {
  const world = await World.create({ size: 4 * MEBIBYTE, maximumSize: 4 * MAXIMUM });
  await world.reopen(options);
  for (let i = 0; i < 2; i++) {
    await world.snapshot();
    await world.writeBlock(0, 20);
  }
  await world.snapshot();
  await settle();
  return world;
}

test('hold-writes: a merge gives room to a write that waits, though the oldest snapshot is held', async () => {
  const world = await threeSnapshots({
    environment: { ...systemEnvironment, clock: new SimulatedClock() },
  });
  const [oldest, middle] = world.volume.snapshots;
  await oldest?.hold();
  await world.volume.setSpacePolicy('fail-writes');
  const written = await fill(world);
  await world.volume.setSpacePolicy('hold-writes', { waitMs: 10_000 });
  const writing = world.writeBlock(written, 2);
  await settle();
  expect(world.volume.figures.space?.waiting).toBe(1);
  await middle?.delete({ wait: true });
  await writing;
  expect(world.volume.snapshots).toHaveLength(2);
  await world.expectRight();
});

test('hold-writes: a commit that waits for the host keeps no merge from going on', async () => {
  const clock = new SimulatedClock();
  const world = await threeSnapshots({ environment: { ...systemEnvironment, clock } });
  await world.volume.setSpacePolicy('hold-writes', { waitMs: 10_000 });
  const [, middle, newest] = world.volume.snapshots;
  let writes = 0;
  world.hooks.before = ({ kind, target }) => {
    // The copy finds room, its entry does not.
    if (kind === 'write' && target.includes(`{${newest?.id}}`) && ++writes > 1) throw systemFailure('ENOSPC');
    return undefined;
  };
  const writing = world.writeBlock(0);
  await settle();
  expect(writes).toBeGreaterThan(1);
  expect(world.volume.figures.space?.waiting).toBe(1);
  await middle?.delete({ wait: true });
  await settle();
  world.hooks.before = () => undefined;
  clock.jump();
  clock.fireDue();
  await writing;
  await world.expectRight();
  await world.kill();
  await world.expectRight();
});

test('a copy that fails costs no older snapshot if one of them is held', async () => {
  const world = await threeSnapshots();
  const [, middle, newest] = world.volume.snapshots;
  await middle?.hold();
  world.hooks.before = ({ kind, target }) => {
    if (kind === 'write' && target.includes(`{${newest?.id}}`)) throw systemFailure('EIO');
    return undefined;
  };
  await expect(world.writeBlock(0)).rejects.toThrow('EIO');
  world.hooks.before = () => undefined;
  expect(world.volume.snapshots).toHaveLength(3);
  await world.expectRight();
});

test('growth: steps get longer when writers wait for them, and shorter when they do not', async () => {
  const world = await World.create({ size: 16 * MEBIBYTE });
  await world.snapshot();
  const step = () => world.volume.figures.space?.growthStep ?? 0;
  expect(step()).toBe(16 * BLOCK_SIZE);
  await world.writeBlock(0, 256);
  await settle();
  const longest = step();
  expect(longest).toBeGreaterThan(16 * BLOCK_SIZE);
  for (let block = 300; block < 800; block++) {
    await world.writeBlock(block);
    await settle();
  }
  expect(step()).toBeLessThan(longest);
});

test('a forecast, and warnings that are told once', () => {
  const clock = new SimulatedClock();
  const told: string[] = [];
  const use = { usedBytes: 0, roomBytes: 1_000_000, copiedBytes: 0 };
  const monitor = new SpaceMonitor(
    clock,
    (name, ...event) =>
      told.push(`${name} ${JSON.stringify(event.map((each) => Reflect.get(each, 'reason')))}`),
    { share: 0.8, secondsToFull: 60 },
    () => use,
  );
  const copy = (bytes: number, seconds: number) => {
    use.usedBytes += bytes;
    use.roomBytes -= bytes;
    use.copiedBytes += bytes;
    clock.advance(seconds * 1_000_000);
    monitor.look();
  };
  for (let i = 0; i < 300; i++) copy(1000, 1);
  const { bytesPerSecond, secondsToFull } = monitor.forecast;
  expect(bytesPerSecond).toBeGreaterThan(980);
  expect(bytesPerSecond).toBeLessThanOrEqual(1000);
  expect(secondsToFull).toBeCloseTo(704, -1);
  expect(told).toEqual([]);
  for (let i = 0; i < 660; i++) copy(1000, 1);
  expect(told).toEqual(['spaceLow ["share"]', 'spaceLow ["forecast"]']);
  use.roomBytes += 10_000_000;
  copy(0, 3600);
  expect(told.slice(2)).toEqual(['spaceEnough ["share"]', 'spaceEnough ["forecast"]']);
  expect(monitor.forecast).toMatchObject({ bytesPerSecond: 0, secondsToFull: undefined });
});
