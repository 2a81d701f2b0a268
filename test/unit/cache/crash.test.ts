import { expect, test } from 'vitest';
import { CachedDevice } from '../../../src/cache/cached-device.js';
import { CacheImage } from '../../../src/cache/image.js';
import { SimulatedWorld } from '../../../src/testing/index.js';

const MEBIBYTE = 1024 * 1024;
const REGION = 65_536;
const modificationId = '11111111-1111-4111-8111-111111111111';

async function newWorld(): Promise<SimulatedWorld> {
  const world = new SimulatedWorld('cache');
  world.addDisk('backing', { size: MEBIBYTE, noise: true });
  world.addDisk('image', { strictOverlap: true });
  await world.run(() => CacheImage.create(world.device('image'), { size: 4 * MEBIBYTE }));
  return world;
}

async function open(world: SimulatedWorld, options = {}): Promise<CachedDevice> {
  const image = await CacheImage.open(world.device('image'), { environment: world.environment() });
  return CachedDevice.open(image, world.device('backing'), { readAhead: 0, modificationId, ...options });
}

/** Which regions of the volume are cached. */
const cachedRegions = async ({ image, size }: CachedDevice): Promise<boolean[]> =>
  Promise.all(
    Array.from({ length: size / REGION }, async (_, index) => {
      const { cached, length } = await image.find(index * REGION, REGION);
      return cached && length === REGION;
    }),
  );

async function readAll(device: CachedDevice): Promise<Uint8Array> {
  const target = new Uint8Array(device.size);
  for (let at = 0; at < device.size; at += REGION) await device.read(at, target.subarray(at, at + REGION));
  return target;
}

test('after a power cut all is kept but the regions that were written since the last commit', async () => {
  const world = await newWorld();
  await world.run(async () => {
    const device = await open(world);
    await readAll(device);
    await device.close();
    const again = await open(world);
    await again.write(3 * REGION + 5000, new Uint8Array(100));
    await again.write(9 * REGION, new Uint8Array(2 * REGION));
  });
  world.crash('power-cut');
  await world.run(async () => {
    const device = await open(world);
    expect(device.image.recovery).toMatchObject({ wasUnclean: true });
    const expected = Array.from({ length: 16 }, (_, region) => ![3, 9, 10].includes(region));
    expect(await cachedRegions(device)).toEqual(expected);
    expect(Buffer.compare(await readAll(device), world.disk('backing').peek())).toBe(0);
  });
});

test('what is committed after a write is kept, and the next crash drops nothing', async () => {
  const world = await newWorld();
  await world.run(async () => {
    const device = await open(world);
    await readAll(device);
    await device.write(3 * REGION, new Uint8Array(REGION));
    await device.image.flush();
  });
  world.crash('power-cut');
  await world.run(async () => {
    const device = await open(world);
    expect(await cachedRegions(device)).toEqual(Array(16).fill(true));
    expect(Buffer.compare(await readAll(device), world.disk('backing').peek())).toBe(0);
  });
});

test('without a commit nothing is kept of what was cached, and nothing is wrong', async () => {
  const world = await newWorld();
  await world.run(async () => {
    const device = await open(world);
    await readAll(device);
  });
  world.crash('power-cut');
  await world.run(async () => {
    const device = await open(world);
    expect(Buffer.compare(await readAll(device), world.disk('backing').peek())).toBe(0);
  });
});

test('a commit comes by itself some seconds after a change', async () => {
  const world = await newWorld();
  await world.run(async () => {
    const device = await open(world);
    await readAll(device);
    await new Promise<void>((resolve) => world.scheduler.clock.after(10_000, resolve));
    expect(device.image.figures.commits).toBe(1);
  });
  world.crash('power-cut');
  await world.run(async () => expect(await cachedRegions(await open(world))).toEqual(Array(16).fill(true)));
});

test('a file that was written after the last commit has another time, so its cache starts empty after a crash', async () => {
  const world = await newWorld();
  const untold = { modificationId: undefined };
  await world.run(async () => {
    const device = await open(world, untold);
    await readAll(device);
    await device.image.flush();
  });
  world.crash('kill');
  await world.run(async () => {
    const device = await open(world, untold);
    expect(device.wasInvalidated).toBe(false);
    await device.write(0, new Uint8Array(512));
  });
  world.crash('kill');
  await world.run(async () => {
    const device = await open(world, untold);
    expect(device.wasInvalidated).toBe(true);
    expect(await cachedRegions(device)).toEqual(Array(16).fill(false));
  });
});
