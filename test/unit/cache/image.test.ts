import { crc32 } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { CacheImage } from '../../../src/cache/image.js';
import { MemoryContent, MemoryDevice } from '../../../src/device/memory-device.js';
import {
  AlreadyInitializedError,
  ClosedError,
  FormatError,
  InvalidArgumentError,
  ReadOnlyError,
  UnsupportedError,
} from '../../../src/errors.js';
import { SeededRandom } from '../../../src/testing/index.js';

const MEBIBYTE = 1024 * 1024;
const bytesOf = (length: number, seed: number): Uint8Array => {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at++) bytes[at] = at * 31 + (at >> 9) * 7 + seed * 101;
  return bytes;
};

/** An image in memory, which outlives whoever has it open. */
class Place {
  readonly content = new MemoryContent(0);

  device(writable = true): MemoryDevice {
    return new MemoryDevice(this.content, { name: 'disk.vci', writable });
  }

  static async make(size = 4 * MEBIBYTE, type: 'dynamic' | 'fixed' = 'dynamic'): Promise<Place> {
    const place = new Place();
    await CacheImage.create(place.device(), { size, type });
    return place;
  }

  open(): Promise<CacheImage> {
    return CacheImage.open(this.device());
  }

  async check(): Promise<readonly string[]> {
    return (await CacheImage.check(this.device(false))).map(({ message }) => message);
  }
}

/** A short stand-in for bytes that are to be equal: what `toEqual` does with long arrays takes seconds. */
const sumOf = (bytes: Uint8Array | number): string | number =>
  typeof bytes === 'number' ? bytes : `${bytes.byteLength} bytes, ${crc32(bytes)}`;

async function read(image: CacheImage, offset: number, length: number): Promise<Uint8Array | number> {
  const target = new Uint8Array(length);
  const run = await image.read(offset, target);
  return run.cached ? target.subarray(0, run.length) : run.length;
}

describe('an image', () => {
  test('is known by its first bytes', async () => {
    const place = await Place.make();
    expect(await CacheImage.probe(place.device())).toBe(true);
    expect(await CacheImage.probe(new MemoryDevice(4096))).toBe(false);
    expect(await CacheImage.probe(new MemoryDevice(0))).toBe(false);
    await expect(CacheImage.open(new MemoryDevice(4096))).rejects.toThrow(FormatError);
  });

  test('keeps what was cached, and says how long that is, or how long nothing is', async () => {
    const place = await Place.make();
    {
      await using image = await place.open();
      expect(await image.write(65_536, bytesOf(8192, 1))).toBe(true);
      expect(await image.write(1 << 30, bytesOf(4096, 2))).toBe(true);
      expect(await read(image, 0, 100_000)).toBe(65_536);
      expect(sumOf(await read(image, 65_536, 100_000))).toBe(sumOf(bytesOf(8192, 1)));
      expect(sumOf(await read(image, 70_000, 100))).toBe(sumOf(bytesOf(8192, 1).subarray(4464, 4564)));
      expect(await image.find(73_728, 2 ** 40)).toEqual({ cached: false, length: 2 ** 30 - 73_728 });
      expect(await image.find(2 ** 31, 10)).toEqual({ cached: false, length: 10 });
      expect(image.flags).toEqual({ readOnly: false, unclean: true, failed: false });
    }
    expect(await place.check()).toEqual([]);
    await using again = await place.open();
    expect(again.recovery).toEqual({ wasUnclean: false, droppedExtents: 0, isForeign: false });
    expect(sumOf(await read(again, 65_536, 100_000))).toBe(sumOf(bytesOf(8192, 1)));
    expect(sumOf(await read(again, 1 << 30, 4096))).toBe(sumOf(bytesOf(4096, 2)));
    expect(again.figures).toMatchObject({ extents: 2, dataBytes: 12_288 });
  });

  test('caches anew what is written over, and forgets what is discarded, by the block', async () => {
    const place = await Place.make();
    {
      await using image = await place.open();
      await image.write(0, bytesOf(16_384, 1));
      await image.write(4096, bytesOf(512, 2));
      await image.discard(8192, 100);
      expect(sumOf(await read(image, 0, 16_384))).toBe(sumOf(bytesOf(16_384, 1).subarray(0, 4096)));
      expect(sumOf(await read(image, 4096, 16_384))).toBe(sumOf(bytesOf(512, 2)));
      expect(sumOf(await read(image, 4608, 16_384))).toBe(sumOf(bytesOf(16_384, 1).subarray(4608, 8192)));
      expect(await read(image, 8192, 16_384)).toBe(512);
      expect(sumOf(await read(image, 8704, 16_384))).toBe(sumOf(bytesOf(16_384, 1).subarray(8704)));
    }
    expect(await place.check()).toEqual([]);
  });

  test('extents that follow each other in the volume and in the image become one', async () => {
    const place = await Place.make();
    await using image = await place.open();
    for (let at = 0; at < 16; at++) await image.write(at * 4096, bytesOf(4096, at));
    expect(image.figures.extents).toBe(1);
    expect(await image.find(0, MEBIBYTE)).toEqual({ cached: true, length: 65_536 });
  });

  test('has names of its own', async () => {
    const place = new Place();
    const id = '11111111-2222-3333-4444-555555555555';
    await CacheImage.create(place.device(), { size: 2 * MEBIBYTE, type: 'fixed', id });
    const modified = '22222222-3333-4444-5555-666666666666';
    {
      await using image = await place.open();
      expect(image.id).toBe(id);
      expect(image.type).toBe('fixed');
      expect([image.size, image.fileSize]).toEqual([2 * MEBIBYTE, 2 * MEBIBYTE]);
      await image.setModificationId(modified);
      await expect(image.setModificationId('x')).rejects.toThrow(InvalidArgumentError);
    }
    await using again = await place.open();
    expect(again.modificationId).toBe(modified);
  });
});

describe('a full image', () => {
  test('gives up what was not used for the longest time, and no more than that', async () => {
    const place = await Place.make(2 * MEBIBYTE);
    await using image = await place.open();
    const [unit, room] = [65_536, 10];
    for (let at = 0; at < room; at++) expect(await image.write(2 * at * unit, bytesOf(unit, at))).toBe(true);
    await read(image, 0, unit);
    for (let at = room; at < 5 * room; at++) {
      expect(await image.write(2 * at * unit, bytesOf(unit, at))).toBe(true);
      expect(sumOf(await read(image, 0, unit)), `after ${at}`).toBe(sumOf(bytesOf(unit, 0)));
    }
    expect(image.figures.evictedExtents).toBeGreaterThan(room);
    expect(typeof (await read(image, 2 * unit, unit))).toBe('number');
    expect(sumOf(await read(image, 2 * (5 * room - 1) * unit, unit))).toBe(
      sumOf(bytesOf(unit, 5 * room - 1)),
    );
  });

  test('keeps the order of use over a restart', async () => {
    const place = await Place.make(2 * MEBIBYTE);
    const unit = 65_536;
    {
      await using image = await place.open();
      for (let at = 0; at < 10; at++) await image.write(2 * at * unit, bytesOf(unit, at));
      for (const at of [3, 0]) await read(image, 2 * at * unit, unit);
    }
    await using image = await place.open();
    for (let at = 10; image.figures.evictedExtents === 0; at++)
      await image.write(2 * at * unit, bytesOf(unit, at));
    expect(sumOf(await read(image, 0, unit))).toBe(sumOf(bytesOf(unit, 0)));
    expect(sumOf(await read(image, 6 * unit, unit))).toBe(sumOf(bytesOf(unit, 3)));
    expect(typeof (await read(image, 2 * unit, unit))).toBe('number');
  });
});

describe('compacting', () => {
  test('makes the file of a dynamic image shorter and keeps what is cached', async () => {
    const place = await Place.make(64 * MEBIBYTE);
    const unit = MEBIBYTE;
    {
      await using image = await place.open();
      for (let at = 0; at < 40; at++) await image.write(2 * at * unit, bytesOf(unit, at));
      for (let at = 0; at < 40; at++) if (at % 10 !== 9) await image.discard(2 * at * unit, unit);
      const before = image.fileSize;
      expect(await image.compact()).toBe(before - image.fileSize);
      expect(image.fileSize).toBeLessThan(8 * MEBIBYTE);
      expect(sumOf(await read(image, 18 * unit, unit))).toBe(sumOf(bytesOf(unit, 9)));
    }
    expect(await place.check()).toEqual([]);
    await using again = await place.open();
    expect(sumOf(await read(again, 78 * unit, unit))).toBe(sumOf(bytesOf(unit, 39)));
  });

  test('never makes the file longer, and closing right afterwards does not either', async () => {
    for (let seed = 0; seed < 5; seed++) {
      const random = new SeededRandom(BigInt(seed));
      const place = await Place.make(8 * MEBIBYTE);
      // From nothing at all to a tree of a few hundred nodes that takes most of the image.
      const extents = seed === 0 ? 0 : random.below(3000);
      const unit = 512 * (1 + random.below(4));
      {
        await using image = await place.open();
        for (let at = 0; at < extents; at++) await image.write(2 * at * unit, bytesOf(unit, at % 256));
        for (let at = 0; at < extents; at++)
          if (random.below(4) < seed % 4) await image.discard(2 * at * unit, unit);
      }
      const before = place.content.size;
      const image = await place.open();
      const cached = image.figures.extents;
      const saved = await image.compact();
      expect({ seed, is: image.fileSize }).toEqual({ seed, is: before - saved });
      const compacted = image.fileSize;
      await image.close();
      expect({ seed, is: place.content.size }).toEqual({ seed, is: compacted });
      expect(await place.check()).toEqual([]);
      await using again = await place.open();
      expect(again.figures.extents).toBe(cached);
    }
  });
});

describe('what is refused', () => {
  test('sizes that no image has, and places that are taken or too short', async () => {
    const place = await Place.make();
    await expect(CacheImage.create(place.device(), { size: 4 * MEBIBYTE })).rejects.toThrow(
      AlreadyInitializedError,
    );
    for (const size of [0, 512, 1_000_001, 2 ** 41 + 512])
      await expect(CacheImage.create(new MemoryDevice(0), { size })).rejects.toThrow(InvalidArgumentError);
    const short = { ...wrapped(new MemoryDevice(4096)) };
    await expect(CacheImage.create(short, { size: 4 * MEBIBYTE })).rejects.toThrow(UnsupportedError);
    await CacheImage.create(place.device(), { size: MEBIBYTE, replace: true });
    expect((await place.open()).size).toBe(MEBIBYTE);
  });

  test('changes of an image that is open for reading, odd places, and everything after the end', async () => {
    const place = await Place.make();
    const image = await CacheImage.open(place.device(false));
    await expect(image.write(0, new Uint8Array(512))).rejects.toThrow(ReadOnlyError);
    await image.close();
    await expect(image.read(0, new Uint8Array(512))).rejects.toThrow(ClosedError);
    await using writable = await place.open();
    await expect(writable.write(1, new Uint8Array(512))).rejects.toThrow(InvalidArgumentError);
    await expect(writable.write(0, new Uint8Array(500))).rejects.toThrow(InvalidArgumentError);
    await expect(writable.read(2 ** 41, new Uint8Array(512))).rejects.toThrow(InvalidArgumentError);
  });

  test('an interrupted creation leaves no image', async () => {
    const place = new Place();
    const stop = new AbortController();
    const creation = CacheImage.create(place.device(), {
      size: 64 * MEBIBYTE,
      type: 'fixed',
      signal: stop.signal,
      onProgress: () => stop.abort(),
    });
    await expect(creation).rejects.toThrow('abort');
    expect(await CacheImage.probe(place.device())).toBe(false);
  });
});

test('progress goes up to the whole', async () => {
  const steps: number[] = [];
  const onProgress = (done: number, total: number) => void steps.push(done / total);
  await CacheImage.create(new MemoryDevice(0), { size: 10 * MEBIBYTE, type: 'fixed', onProgress });
  expect(steps.at(-1)).toBe(1);
  expect(steps).toEqual([...steps].sort((a, b) => a - b));
});

/** The same device without a way to grow. */
function wrapped(device: MemoryDevice) {
  return {
    name: 'short',
    size: device.size,
    writable: true,
    read: device.read.bind(device),
    write: device.write.bind(device),
    flush: device.flush.bind(device),
    close: device.close.bind(device),
    [Symbol.asyncDispose]: device.close.bind(device),
  };
}
