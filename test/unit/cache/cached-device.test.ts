import { expect, test } from 'vitest';
import { CachedDevice, type CachedDeviceOptions } from '../../../src/cache/cached-device.js';
import { CacheImage } from '../../../src/cache/image.js';
import { MemoryContent, MemoryDevice } from '../../../src/device/memory-device.js';
import { InvalidArgumentError } from '../../../src/errors.js';
import { blockDeviceSuite, pattern } from '../device/contract.js';

const MEBIBYTE = 1024 * 1024;

/** Counts what is read from it. */
class CountingDevice extends MemoryDevice {
  reads = 0;
  modified = 1n;
  override async read(offset: number, target: Uint8Array): Promise<void> {
    this.reads++;
    await super.read(offset, target);
  }
  override async write(offset: number, source: Uint8Array): Promise<void> {
    this.modified++;
    await super.write(offset, source);
  }
  async modifiedAt(): Promise<bigint> {
    return this.modified;
  }
}

async function newImage(size = 4 * MEBIBYTE): Promise<CacheImage> {
  const device = new MemoryDevice(0);
  await CacheImage.create(device, { size });
  return CacheImage.open(device);
}

blockDeviceSuite('CachedDevice', {
  make: async (content) => CachedDevice.open(await newImage(), new MemoryDevice(content.slice())),
  makeReadOnly: async (content) =>
    CachedDevice.open(await newImage(), new MemoryDevice(content.slice(), { writable: false })),
});

/** A backing and an image that outlive the devices on them. */
class Places {
  readonly backing = new MemoryContent(pattern(2 * MEBIBYTE));
  readonly image = new MemoryContent(0);
  modified = 1n;

  static async make(): Promise<Places> {
    const places = new Places();
    await CacheImage.create(new MemoryDevice(places.image), { size: 4 * MEBIBYTE });
    return places;
  }

  async open(options: CachedDeviceOptions = {}): Promise<{ device: CachedDevice; backing: CountingDevice }> {
    const image = await CacheImage.open(new MemoryDevice(this.image));
    const backing = new CountingDevice(this.backing, { name: 'disk' });
    backing.modified = this.modified;
    return { device: await CachedDevice.open(image, backing, { readAhead: 0, ...options }), backing };
  }

  async close({ device, backing }: { device: CachedDevice; backing: CountingDevice }): Promise<void> {
    await device.close();
    this.modified = backing.modified;
  }
}

const read = async (device: CachedDevice, offset: number, length: number): Promise<Buffer> => {
  const target = Buffer.alloc(length);
  await device.read(offset, target);
  return target;
};
const isSame = (bytes: Buffer, expected: Uint8Array) => Buffer.compare(bytes, expected) === 0;

test('what was read once is not read from the backing again, also after a restart', async () => {
  const places = await Places.make();
  const expected = pattern(2 * MEBIBYTE);
  for (const reads of [16, 0]) {
    const opened = await places.open();
    for (let round = 0; round < 2; round++)
      for (let at = 0; at < MEBIBYTE; at += 65_536)
        expect(
          isSame(await read(opened.device, at + 100, 1000), expected.subarray(at + 100, at + 1100)),
        ).toBe(true);
    expect(opened.backing.reads).toBe(reads);
    expect(opened.device.wasInvalidated).toBe(false);
    await places.close(opened);
  }
});

test('what was written is cached, or not, as the policy says; it is in the backing in any case', async () => {
  for (const [policy, reads] of [
    ['write-through', 0],
    ['write-around', 1],
  ] as const) {
    const places = await Places.make();
    const opened = await places.open({ policy });
    await read(opened.device, 0, 65_536);
    await opened.device.write(8192, pattern(8192, 9));
    opened.backing.reads = 0;
    expect(isSame(await read(opened.device, 8192, 8192), pattern(8192, 9))).toBe(true);
    expect(opened.backing.reads, policy).toBe(reads);
    expect(Buffer.compare(opened.backing.bytes.subarray(8192, 16_384), pattern(8192, 9))).toBe(0);
    await places.close(opened);
    expect(await CacheImage.check(new MemoryDevice(places.image))).toEqual([]);
  }
});

test('a backing that was changed elsewhere meanwhile, or is another one, is not read from the cache', async () => {
  const places = await Places.make();
  const first = await places.open();
  await read(first.device, 0, 65_536);
  await places.close(first);
  places.backing.bytes.fill(0x77, 0, 4096);
  places.modified++;
  const second = await places.open();
  expect(second.device.wasInvalidated).toBe(true);
  expect(isSame(await read(second.device, 0, 4096), new Uint8Array(4096).fill(0x77))).toBe(true);
  await places.close(second);

  const image = await CacheImage.open(new MemoryDevice(places.image));
  const other = await CachedDevice.open(image, new MemoryDevice(2 * MEBIBYTE, { name: 'other' }));
  expect(other.wasInvalidated).toBe(true);
  await other.close();
});

test('a modification UUID says of which state the cache is', async () => {
  const places = await Places.make();
  const [one, two] = ['11111111-1111-4111-8111-111111111111', '22222222-2222-4222-8222-222222222222'];
  for (const [modificationId, isOther] of [
    [one, false],
    [one, false],
    [two, true],
    [two, false],
  ] as const) {
    places.modified++; // Nobody asks.
    const opened = await places.open({ modificationId });
    expect(opened.device.wasInvalidated).toBe(isOther);
    await read(opened.device, 0, 65_536);
    expect(opened.device.image.modificationId).toBe(modificationId);
    await places.close(opened);
  }
});

test('who reads in order finds the next bytes cached', async () => {
  const places = await Places.make();
  const opened = await places.open({ readAhead: MEBIBYTE });
  for (let at = 0; at < 2 * MEBIBYTE; at += 4096) await read(opened.device, at, 4096);
  expect(opened.backing.reads).toBeLessThan(20);
  await places.close(opened);
});

test('an image that fails is left, and everything goes on without it', async () => {
  const places = await Places.make();
  class Failing extends MemoryDevice {
    fails = false;
    override async write(offset: number, source: Uint8Array): Promise<void> {
      if (this.fails) throw Object.assign(new Error('EIO'), { code: 'EIO' });
      await super.write(offset, source);
    }
  }
  const place = new Failing(places.image);
  const failures: string[] = [];
  const device = await CachedDevice.open(await CacheImage.open(place), new MemoryDevice(places.backing), {
    onCacheFailure: ({ message }) => failures.push(message),
  });
  await read(device, 0, 65_536);
  place.fails = true;
  const expected = pattern(2 * MEBIBYTE);
  for (let at = 0; at < 2 * MEBIBYTE; at += 65_536)
    expect(isSame(await read(device, at, 65_536), expected.subarray(at, at + 65_536))).toBe(true);
  // It cannot be noted that the cached bytes would be old.
  await expect(device.write(0, new Uint8Array(4096))).rejects.toThrow('EIO');
  await expect(device.close()).rejects.toThrow('could not be closed cleanly');
  expect(failures).toEqual(['EIO']);
});

test('what cannot be is refused', async () => {
  const image = await newImage();
  await expect(CachedDevice.open(image, new MemoryDevice(512), { fillSize: 5000 })).rejects.toThrow(
    InvalidArgumentError,
  );
  await expect(CachedDevice.open(image, new MemoryDevice(512), { modificationId: 'x' })).rejects.toThrow(
    InvalidArgumentError,
  );
});
