/**
 * `npx tsx test/bench/cache-image.ts [memory|warm|hits] [FOLDER]`
 *
 * - `memory`: a sparse backing of 1 TiB and a sparse image of 64 GiB, filled all over; the memory of a process that runs the compiled package
 * - `warm`: a backing of 5 ms a request, without and with a warm cache, at several depths
 * - `hits`: cached reads against the same reads of the file itself
 */
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { type BlockDevice, CachedDevice, CacheImage, FileDevice, MemoryDevice } from '../../src/index.js';
import { SeededRandom } from '../../src/testing/index.js';
import { cacheMemory } from './cache-memory.js';

const MEBIBYTE = 2 ** 20;
const [mode = 'hits', place = tmpdir()] = process.argv.slice(2);

async function sparse(path: string, size: number): Promise<string> {
  const file = await open(path, 'w');
  await file.truncate(size);
  await file.close();
  return path;
}

async function newImage(path: string, size: number): Promise<void> {
  await using device = await FileDevice.open(await sparse(path, 0), { writable: true });
  await CacheImage.create(device, { size });
}

const megabytes = (bytes: number): string => `${(bytes / MEBIBYTE).toFixed(0)} MiB`;

/** In two processes that do nothing else; the second one opens what the first one closed. */
async function memory(folder: string): Promise<void> {
  const extents = Number(process.env.EXTENTS ?? 1_000_000);
  for (const [round, more] of [
    ['filling', extents / 10],
    ['reopened', 10_000],
  ] as const) {
    const used = await cacheMemory({ folder, round, extents, more });
    console.log(
      `${round}: ${used.misses} misses, ${used.extents} extents, ${used.evicted} evicted, ${used.commits} commits, ${used.seconds.toFixed(0)} s; ` +
        `resident ${megabytes(used.residentBefore)} at first, ${megabytes(used.residentMost)} at the most, buffers ${megabytes(used.buffersMost)}`,
    );
  }
}

async function time(device: BlockDevice, size: number, reads: number): Promise<number> {
  const random = new SeededRandom('hits');
  const target = new Uint8Array(size);
  const started = performance.now();
  for (let done = 0; done < reads; done++) {
    const offset = random.below(Math.floor(device.size / size)) * size;
    if (device.readNow?.(offset, target) !== true) await device.read(offset, target);
  }
  return reads / (performance.now() - started);
}

/** Takes 5 ms for each read, however many are under way: what nbdkit's delay filter does. */
class SlowDevice extends MemoryDevice {
  override async read(offset: number, target: Uint8Array): Promise<void> {
    await setTimeout(5);
    return super.read(offset, target);
  }
}

/** Reads of 4 KiB a second, so many at a time. */
async function rate(device: BlockDevice, depth: number): Promise<number> {
  const seconds = 2;
  const random = new SeededRandom('warm');
  const until = performance.now() + 1000 * seconds;
  let reads = 0;
  const reader = async () => {
    const target = new Uint8Array(4096);
    for (; performance.now() < until; reads++) {
      const offset = random.below(device.size / 4096) * 4096;
      if (device.readNow?.(offset, target) !== true) await device.read(offset, target);
    }
  };
  await Promise.all(Array.from({ length: depth }, reader));
  return reads / seconds;
}

/** A slow backing without and with a cache that holds all of it, opened again after it was filled. */
async function warm(folder: string): Promise<void> {
  const size = 64 * MEBIBYTE;
  const path = join(folder, 'disk.vci');
  await newImage(path, 4 * size);
  const content = new Uint8Array(size);
  const cached = async (backing: BlockDevice) => {
    const image = await CacheImage.open(await FileDevice.open(path, { writable: true }));
    return CachedDevice.open(image, backing);
  };
  const filling = await cached(new MemoryDevice(content, { writable: false }));
  for (let at = 0; at < size; at += MEBIBYTE) {
    await filling.read(at, new Uint8Array(MEBIBYTE));
    // The backing answers at once, so that nothing else would have a turn; and what finds too many others being cached is not.
    await setTimeout(20);
  }
  await filling.close();
  for (const depth of [1, 4, 16, 64]) {
    const backing = new SlowDevice(content, { writable: false });
    const without = await rate(backing, depth);
    await using device = await cached(backing);
    const withCache = await rate(device, depth);
    const { hitBytes, missBytes } = device.figures;
    console.log(
      `${depth} at a time: ${without.toFixed(0)} and ${withCache.toFixed(0)} reads a second, ${(withCache / without).toFixed(0)} times; ` +
        `${((100 * hitBytes) / (hitBytes + missBytes)).toFixed(1)} % hits`,
    );
  }
}

async function hits(folder: string): Promise<void> {
  const size = 64 * MEBIBYTE;
  const path = join(folder, 'disk.vci');
  await newImage(path, 4 * size);
  const plain = await FileDevice.open(path);
  const bytes = new Uint8Array(size);
  new SeededRandom('content').fill(bytes);
  await using file = await FileDevice.open(await sparse(join(folder, 'plain'), size), { writable: true });
  await file.write(0, bytes);
  await plain.close();
  const image = await CacheImage.open(await FileDevice.open(path, { writable: true }));
  await using device = await CachedDevice.open(image, new MemoryDevice(bytes, { writable: false }), {
    readAhead: 0,
  });
  for (let at = 0; at < size; at += 65_536) await device.read(at, bytes.subarray(at, at + 65_536));
  for (const unit of [4096, 65_536]) {
    const rates: [number, number][] = [];
    for (let round = 0; round < 5; round++)
      rates.push([await time(file, unit, 20_000), await time(device, unit, 20_000)]);
    const shares = rates.map(([one, two]) => two / one).sort((a, b) => a - b);
    console.log(
      `${unit} bytes: ${(100 * (shares[2] ?? 0)).toFixed(0)} % of the file's reads a second (median of 5)`,
    );
  }
  console.log(JSON.stringify(device.figures));
}

const folder = await mkdtemp(join(place, 'volsnap-cache-'));
try {
  await (mode === 'memory' ? memory : mode === 'warm' ? warm : hits)(folder);
} finally {
  await rm(folder, { recursive: true, force: true });
}
