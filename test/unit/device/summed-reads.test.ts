/** Reads whose checksums another thread computes: the same figures as on this one, and never anybody left waiting. */
import { open } from 'node:fs/promises';
import { Worker } from 'node:worker_threads';
import { crc32 } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { FileDevice } from '../../../src/device/file-device.js';
import { SummedReads } from '../../../src/device/summed-reads.js';
import { ClosedError, InvalidArgumentError } from '../../../src/errors.js';
import { pattern } from './contract.js';
import { shared } from './shared.js';
import { temporaryFile } from './temporary.js';

const PARTS = 24;
const PART = 16_384;
const SIZE = PARTS * PART;
const CONTENT = pattern(3 * SIZE);
const seeds = () => Uint32Array.from({ length: PARTS }, (_, i) => crc32(`part ${i}`));

/** The threads that were given work. */
const threads = new Set<Worker>();
const { ref } = Worker.prototype;
beforeEach(() => {
  threads.clear();
  vi.spyOn(Worker.prototype, 'ref').mockImplementation(function (this: Worker) {
    threads.add(this);
    ref.call(this);
  });
});
afterEach(() => {
  vi.restoreAllMocks();
});

async function reads(processors = 2) {
  const file = await open(await temporaryFile(CONTENT));
  const summed = new SummedReads(file.fd, processors);
  onTestFinished(async () => {
    await summed.close();
    await file.close();
  });
  return summed;
}

/** Reads until the thread does it: while it starts, it does not. */
const byThread = (summed: SummedReads, position: number, target: Uint8Array) =>
  vi.waitUntil(() => summed.read(position, target, seeds), { timeout: 10_000, interval: 5 });

describe('the thread', () => {
  test('reads, and continues each seed over its part', async () => {
    const summed = await reads();
    const whole = shared(3 * SIZE).fill(0);
    const target = whole.subarray(1000, 1000 + SIZE);
    const sums = await byThread(summed, 777, target);
    const expected = CONTENT.subarray(777, 777 + SIZE);
    expect(Buffer.compare(target, expected)).toBe(0);
    expect(whole[999]).toBe(0);
    expect(whole[1000 + SIZE]).toBe(0);
    const own = seeds().map((seed, i) => crc32(expected.subarray(i * PART, (i + 1) * PART), seed));
    expect(sums).toEqual(own);
    expect(threads.size).toBe(1);
  });

  test('answers each of several reads with its own sums', async () => {
    const summed = await reads();
    await byThread(summed, 0, shared(SIZE));
    const positions = Array.from({ length: 4 }, (_, i) => i * 5000);
    const all = await Promise.all(positions.map((at) => summed.read(at, shared(SIZE), seeds)));
    for (const [i, at] of positions.entries()) {
      const own = seeds().map((seed, part) =>
        crc32(CONTENT.subarray(at + part * PART, at + (part + 1) * PART), seed),
      );
      expect(all[i], `read ${i}`).toEqual(own);
    }
  });

  test('is left out for small reads, for memory that it does not see, and where there is one processor', async () => {
    const asked = vi.fn(seeds);
    const summed = await reads();
    await byThread(summed, 0, shared(SIZE));
    expect(await summed.read(0, shared(8 * PART), asked)).toBeUndefined();
    expect(await summed.read(0, new Uint8Array(SIZE), asked)).toBeUndefined();
    expect(await summed.read(0, new Uint8Array(new SharedArrayBuffer(SIZE)), asked)).toBeUndefined();
    const alone = await reads(1);
    expect(await alone.read(0, shared(SIZE), asked)).toBeUndefined();
    expect(asked).not.toHaveBeenCalled();
  });

  test('is left out when it is behind', async () => {
    const summed = await reads();
    const target = shared(SIZE);
    await byThread(summed, 0, target);
    const all = await Promise.all(Array.from({ length: 40 }, () => summed.read(0, target, seeds)));
    expect(all.filter((sums) => sums === undefined)).toHaveLength(40 - 12);
  });

  test('that cannot read everything says so, and goes on', async () => {
    const summed = await reads();
    await byThread(summed, 0, shared(SIZE));
    expect(await summed.read(CONTENT.byteLength - 100_000, shared(SIZE), seeds)).toBeUndefined();
    expect(await summed.read(0, shared(SIZE), seeds)).toHaveLength(PARTS);
  });

  test('that dies leaves nobody waiting, and nobody asks it again', async () => {
    const summed = await reads();
    const target = shared(SIZE);
    await byThread(summed, 0, target);
    const all = Array.from({ length: 12 }, () => summed.read(0, target, seeds));
    await [...threads][0]?.terminate();
    expect((await Promise.all(all)).at(-1)).toBeUndefined();
    threads.clear();
    expect(await summed.read(0, target, seeds)).toBeUndefined();
    expect(threads.size).toBe(0);
  });

  test('is shared, ends with its last user, and is there again for the next', async () => {
    const [first, second] = [await reads(), await reads()];
    await byThread(first, 0, shared(SIZE));
    await byThread(second, 0, shared(SIZE));
    expect(threads.size).toBe(1);
    const [thread] = threads;
    await first.close();
    await first.close();
    expect(thread?.threadId).toBeGreaterThan(0);
    await second.close();
    expect(thread?.threadId).toBe(-1);
    await byThread(await reads(), 0, shared(SIZE));
    expect(threads.size).toBe(2);
  });
});

test('a file that is closed waits for the thread, then lets it go', async () => {
  const device = await FileDevice.open(await temporaryFile(CONTENT));
  await vi.waitUntil(() => device.readSummed(0, shared(SIZE), seeds), { timeout: 10_000, interval: 5 });
  await expect(device.readSummed(2 * SIZE + 1, shared(SIZE), seeds)).rejects.toThrow(InvalidArgumentError);
  const last = device.readSummed(0, shared(SIZE), seeds);
  await device.close();
  expect(await last).toHaveLength(PARTS);
  expect([...threads].map(({ threadId }) => threadId)).toEqual([-1]);
  await expect(device.readSummed(0, shared(SIZE), seeds)).rejects.toThrow(ClosedError);
});
