/**
 * Fills a cache all over with misses of 4 KiB and prints what memory that took, as JSON: a sparse backing of 1 TiB, a sparse image of 64 GiB.
 *
 * Started by `cache-memory.ts` with plain Node.js, with the package as it is installed; so nothing here may import another file.
 */
import { readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type { CachedDevice } from 'volsnap';

export interface MemoryOptions {
  /** Where the compiled package is. */
  readonly packageUrl: string;
  readonly folder: string;
  /** Is filled, or was it already by another process? */
  readonly round: 'filling' | 'reopened';
  /** Extents that there are at the end of `filling`. */
  readonly extents: number;
  /** Misses after that: if there can be no more extents, each makes another go. */
  readonly more: number;
  /** Bytes of the setting; the default if absent. */
  readonly memory?: number;
  /** The image says that it is durable after so many milliseconds, without being so. */
  readonly flushMilliseconds?: number;
}

/** Bytes, but for the first ones. */
export interface MemoryUsed {
  readonly extents: number;
  readonly evicted: number;
  readonly commits: number;
  readonly misses: number;
  readonly seconds: number;
  /** Resident when the package was loaded, and the most ever, as the kernel counts it. */
  readonly residentBefore: number;
  readonly residentMost: number;
  /** Buffers outside the heap, at the most, looked at after every hundredth miss. */
  readonly buffersMost: number;
}

const GIBIBYTE = 2 ** 30;
const UNIT = 4096;
const UNITS = (1024 * GIBIBYTE) / UNIT;

const options: MemoryOptions = JSON.parse(process.argv[2] ?? '{}');
const volsnap: typeof import('volsnap') = await import(options.packageUrl);

const resident = (field: 'VmRSS' | 'VmHWM'): number =>
  1024 * Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(readFileSync('/proc/self/status', 'utf8'))?.[1]);

async function sparse(name: string, size: number): Promise<string> {
  const path = join(options.folder, name);
  const file = await open(path, 'a');
  await file.truncate(size);
  await file.close();
  return path;
}

async function openImage() {
  const path = join(options.folder, 'disk.vci');
  if (options.round === 'filling') {
    await sparse('disk.vci', 0);
    const device = await volsnap.FileDevice.open(path, { writable: true });
    await volsnap.CacheImage.create(device, { size: 64 * GIBIBYTE });
    await device.close();
  }
  const device = await volsnap.FileDevice.open(path, { writable: true });
  const { flushMilliseconds } = options;
  if (flushMilliseconds !== undefined) device.flush = () => setTimeout(flushMilliseconds);
  return volsnap.CacheImage.open(device, options.memory === undefined ? {} : { memory: options.memory });
}

/** A unit nobody asked for before: the steps of this walk lead to every one. */
const unitAt = (step: number): number => (step * 123_456_789 + 987_654) % UNITS;

async function run(): Promise<MemoryUsed> {
  const residentBefore = resident('VmRSS');
  const image = await openImage();
  const backing = await volsnap.FileDevice.open(await sparse('backing', 1024 * GIBIBYTE));
  const device: CachedDevice = await volsnap.CachedDevice.open(image, backing, {
    readAhead: 0,
    fillSize: UNIT,
    modificationId: '11111111-1111-4111-8111-111111111111',
  });
  const target = new Uint8Array(UNIT);
  const started = performance.now();
  let buffersMost = 0;
  let misses = 0;
  const first = options.round === 'filling' ? 0 : 10_000_000;
  const miss = async () => {
    await device.read(unitAt(first + misses++) * UNIT, target);
    if (misses % 100 === 0) buffersMost = Math.max(buffersMost, process.memoryUsage().arrayBuffers);
  };
  while (options.round === 'filling' && image.figures.extents < options.extents) await miss();
  for (let more = 0; more < options.more; more++) await miss();
  await device.close();
  const { extents, evictedExtents, commits } = image.figures;
  const seconds = (performance.now() - started) / 1000;
  return {
    extents,
    evicted: evictedExtents,
    commits,
    misses,
    seconds,
    residentBefore,
    residentMost: resident('VmHWM'),
    buffersMost,
  };
}

console.log(JSON.stringify(await run()));
