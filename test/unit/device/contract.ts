/**
 * The contract of block-device.ts and folder.ts as tests, to be run on every implementation.
 *
 * Not here: what survives a power cut. Only a device that can cut its power can show that; see the simulated one.
 */
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { AllocationExtent } from '../../../src/device/allocation.js';
import { type BlockDevice, type ResizableDevice, writeAll } from '../../../src/device/block-device.js';
import type { Folder } from '../../../src/device/folder.js';
import {
  ClosedError,
  DeviceError,
  InvalidArgumentError,
  NotFoundError,
  ReadOnlyError,
} from '../../../src/errors.js';

export interface BlockDeviceFixture {
  /** Makes a writable device that holds `content`; what it leaves behind goes away when the test finishes. */
  make(content: Uint8Array): Promise<BlockDevice>;
  /** The same, open for reading only. Left out where there is no such thing. */
  makeReadOnly?(content: Uint8Array): Promise<BlockDevice>;
  /** Makes the next flush of the device fail, and only that one. Left out where it cannot be done. */
  failNextFlush?(device: BlockDevice): void;
  /** Runs of the model-based test. Default: 50. */
  readonly runs?: number;
}

const SIZE = 5 * 4096 + 512;
/** Bytes in which every sector, and nearly every byte, differs from its neighbours. */
export const pattern = (length: number, seed = 1): Uint8Array =>
  Uint8Array.from({ length }, (_, at) => (at * 31 + (at >> 8) * 7 + seed * 101) & 0xff);

async function read(device: BlockDevice, offset = 0, length = device.size - offset): Promise<Uint8Array> {
  const target = new Uint8Array(length).fill(0xee);
  await device.read(offset, target);
  return target;
}

/** Far faster on long arrays than the comparison of `toEqual`. */
const same = (left: Uint8Array, right: Uint8Array): boolean => Buffer.compare(left, right) === 0;

export function blockDeviceSuite(name: string, fixture: BlockDeviceFixture): void {
  const make = async (content: Uint8Array = pattern(SIZE)): Promise<BlockDevice> => {
    const device = await fixture.make(content);
    onTestFinished(() => device.close());
    return device;
  };

  describe(`${name} as a block device`, () => {
    describe('reads and writes', () => {
      test('holds its content, byte for byte', async () => {
        const device = await make();
        expect(device.size).toBe(SIZE);
        expect(device.writable).toBe(true);
        expect(device.name).not.toBe('');
        expect(same(await read(device), pattern(SIZE))).toBe(true);
      });

      test('reads at once all that was asked for, or nothing', async (context) => {
        const device = await make();
        if (device.readNow === undefined) context.skip();
        let length = 4096;
        const target = new Uint8Array(length).fill(0xee);
        // A device may find any one call too slow to go on like this; it has to say so, and leave the target alone.
        while (length > 0 && !device.readNow?.(700, target.subarray(0, length))) {
          expect(target.every((byte) => byte === 0xee)).toBe(true);
          length >>= 1;
        }
        expect(same(target.subarray(0, length), pattern(SIZE).subarray(700, 700 + length))).toBe(true);
        expect(() => device.readNow?.(SIZE - 1, new Uint8Array(2))).toThrow(InvalidArgumentError);
        await device.close();
        expect(() => device.readNow?.(0, target)).toThrow(ClosedError);
      });

      test('writes at once all that it was given, or nothing', async (context) => {
        const device = await make();
        if (device.writeNow === undefined) context.skip();
        const expected = pattern(SIZE);
        let [first, second] = [pattern(1500, 5), pattern(700, 6)];
        while (first.byteLength > 0 && !device.writeNow?.(300, [first, second])) {
          expect(same(await read(device), expected)).toBe(true);
          [first, second] = [
            first.subarray(0, first.byteLength >> 1),
            second.subarray(0, second.byteLength >> 1),
          ];
        }
        expected.set(first, 300);
        expected.set(second, 300 + first.byteLength);
        expect(same(await read(device), expected)).toBe(true);
        expect(() => device.writeNow?.(SIZE - 1, [new Uint8Array(1), new Uint8Array(1)])).toThrow(
          InvalidArgumentError,
        );
        await device.close();
        expect(() => device.writeNow?.(0, [first])).toThrow(ClosedError);
      });

      test('a write is seen by a later read, and its neighbours keep their bytes', async () => {
        const device = await make();
        await device.write(4095, pattern(514, 9));
        const expected = pattern(SIZE);
        expected.set(pattern(514, 9), 4095);
        expect(same(await read(device), expected)).toBe(true);
      });

      test('takes buffers that are views of a larger one', async () => {
        const device = await make();
        const around = new Uint8Array(300).fill(0xaa);
        await device.read(1000, around.subarray(100, 200));
        expect(same(around.subarray(100, 200), pattern(SIZE).subarray(1000, 1100))).toBe(true);
        expect(around.subarray(0, 100).every((byte) => byte === 0xaa)).toBe(true);
        expect(around.subarray(200).every((byte) => byte === 0xaa)).toBe(true);
        await device.write(0, around.subarray(50, 150));
        expect(same(await read(device, 0, 100), around.subarray(50, 150))).toBe(true);
      });

      test('many writes in flight to different places all arrive', async () => {
        const device = await make(new Uint8Array(64 * 512));
        await Promise.all(Array.from({ length: 64 }, (_, at) => device.write(at * 512, pattern(512, at))));
        await device.flush();
        for (let at = 0; at < 64; at += 1) {
          expect(same(await read(device, at * 512, 512), pattern(512, at)), `sector ${at}`).toBe(true);
        }
      });

      test('writeAll puts buffers one after the other', async () => {
        const device = await make();
        const sources = [pattern(700, 2), new Uint8Array(0), pattern(1, 3), pattern(900, 4)];
        await writeAll(device, 123, sources);
        expect(same(await read(device, 123, 1601), Buffer.concat(sources))).toBe(true);
        expect(same(await read(device, 123 + 1601), pattern(SIZE).subarray(123 + 1601))).toBe(true);
      });

      test('discard and writeZeroes make exactly their range zero', async () => {
        const device = await make();
        const expected = pattern(SIZE);
        if (device.discard !== undefined) {
          await device.discard(100, 5000);
          expected.fill(0, 100, 5100);
        }
        if (device.writeZeroes !== undefined) {
          await device.writeZeroes(9001, 513);
          expected.fill(0, 9001, 9514);
        }
        expect(same(await read(device), expected)).toBe(true);
      });

      test('what is said to be zero reads as zeros, and nothing is left out', async () => {
        const content = pattern(SIZE);
        content.fill(0, 4096, 3 * 4096);
        const device = await make(content);
        await checkAllocation(device, content, 0, SIZE);
        await checkAllocation(device, content, 100, 5000);
        await checkAllocation(device, content, SIZE, 0);
      });

      test('behaves like an array of bytes', async () => {
        const range = fc
          .tuple(fc.nat(SIZE), fc.nat(SIZE))
          .map(([a, b]) => ({ offset: Math.min(a, b), length: Math.abs(a - b) }));
        const step = fc.record({
          kind: fc.constantFrom('read', 'write', 'writev', 'discard', 'writeZeroes', 'allocation', 'flush'),
          range,
          seed: fc.nat(250),
        });
        await fc.assert(
          fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
            const model = pattern(SIZE);
            const device = await fixture.make(model.slice());
            try {
              for (const { kind, range, seed } of steps) await apply(device, model, kind, range, seed);
              expect(same(await read(device), model)).toBe(true);
              await checkAllocation(device, model, 0, SIZE);
            } finally {
              await device.close();
            }
          }),
          { numRuns: fixture.runs ?? 50 },
        );
      });
    });

    describe('ranges', () => {
      const outside: readonly (readonly [number, number])[] = [
        [-1, 1],
        [SIZE, 1],
        [SIZE - 1, 2],
        [SIZE + 1, 0],
        [0, SIZE + 1],
        [0.5, 1],
        [Number.NaN, 1],
        [Number.MAX_SAFE_INTEGER, 1],
        [2 ** 53, 1],
      ];
      test.each(outside)('offset %d, length %d is refused and changes nothing', async (offset, length) => {
        const device = await make();
        const bytes = new Uint8Array(length).fill(0x55);
        const target = bytes.slice();
        await expect(device.read(offset, target)).rejects.toThrow(InvalidArgumentError);
        expect(same(target, bytes)).toBe(true);
        await expect(device.write(offset, bytes)).rejects.toThrow(InvalidArgumentError);
        await expect(device.writev?.(offset, [bytes]) ?? Promise.reject(outOfRange)).rejects.toThrow(
          InvalidArgumentError,
        );
        await expect(device.discard?.(offset, length) ?? Promise.reject(outOfRange)).rejects.toThrow(
          InvalidArgumentError,
        );
        await expect(device.writeZeroes?.(offset, length) ?? Promise.reject(outOfRange)).rejects.toThrow(
          InvalidArgumentError,
        );
        await expect(extentsOf(device, offset, length) ?? Promise.reject(outOfRange)).rejects.toThrow(
          InvalidArgumentError,
        );
        expect(same(await read(device), pattern(SIZE))).toBe(true);
      });
      const outOfRange = new InvalidArgumentError('the device has no such operation');

      test('an empty range is fine everywhere, also at the end', async () => {
        const device = await make();
        for (const offset of [0, 77, SIZE]) {
          await device.read(offset, new Uint8Array(0));
          await device.write(offset, new Uint8Array(0));
          await device.writev?.(offset, []);
          await device.discard?.(offset, 0);
          await device.writeZeroes?.(offset, 0);
        }
        expect(same(await read(device), pattern(SIZE))).toBe(true);
      });

      test('a device of no bytes works', async () => {
        const device = await make(new Uint8Array(0));
        expect(device.size).toBe(0);
        await device.read(0, new Uint8Array(0));
        await device.flush();
        await expect(device.read(0, new Uint8Array(1))).rejects.toThrow(InvalidArgumentError);
      });
    });

    describe('flush', () => {
      test('may be called at any time, and many at once', async () => {
        const device = await make();
        await device.flush();
        await Promise.all([device.flush(), device.write(0, pattern(512, 3)), device.flush(), device.flush()]);
        expect(same(await read(device, 0, 512), pattern(512, 3))).toBe(true);
      });

      test.skipIf(fixture.failNextFlush === undefined)('a failed one is final', async () => {
        const device = await make();
        await device.flush();
        fixture.failNextFlush?.(device);
        const first = await device.flush().catch((error: unknown) => error);
        expect(first).toBeInstanceOf(DeviceError);
        await expect(device.flush()).rejects.toThrow(DeviceError);
        await device.write(0, pattern(512, 3));
        await expect(device.flush()).rejects.toThrow(DeviceError);
      });

      test.skipIf(fixture.failNextFlush === undefined)(
        'none that waits behind a failed one succeeds',
        async () => {
          const device = await make();
          fixture.failNextFlush?.(device);
          const outcomes = await Promise.allSettled([device.flush(), device.flush(), device.flush()]);
          expect(outcomes.map((outcome) => outcome.status)).toEqual(['rejected', 'rejected', 'rejected']);
        },
      );
    });

    describe('life', () => {
      const calls: readonly (readonly [string, (device: BlockDevice) => Promise<unknown> | undefined])[] = [
        ['read', (device) => device.read(0, new Uint8Array(1))],
        ['read of nothing', (device) => device.read(0, new Uint8Array(0))],
        ['write', (device) => device.write(0, new Uint8Array(1))],
        ['writev', (device) => device.writev?.(0, [new Uint8Array(1)])],
        ['discard', (device) => device.discard?.(0, 1)],
        ['writeZeroes', (device) => device.writeZeroes?.(0, 1)],
        ['allocation', (device) => extentsOf(device, 0, 1)],
        ['flush', (device) => device.flush()],
        ['modifiedAt', (device) => device.modifiedAt?.()],
        ['resize', (device) => ('resize' in device ? (device as ResizableDevice).resize(0) : undefined)],
      ];

      test.each(calls)('%s is refused once closed', async (_, call) => {
        const device = await make();
        await device.close();
        const called = call(device);
        if (called !== undefined) await expect(called).rejects.toThrow(ClosedError);
      });

      test.each(calls)('%s is refused while closing', async (_, call) => {
        const device = await make();
        const reading = read(device);
        const closing = device.close();
        const called = call(device);
        if (called !== undefined) await expect(called).rejects.toThrow(ClosedError);
        await closing;
        await reading;
      });

      test('close waits for calls under way, which end well', async () => {
        const device = await make(pattern(1 << 20));
        const target = new Uint8Array(1 << 20);
        const done: string[] = [];
        device.read(0, target).then(() => done.push('read'));
        device.flush().then(() => done.push('flush'));
        await device.close();
        // A few steps of the promise queue, but no turn of the event loop, may lie between the two.
        for (let steps = 0; steps < 10; steps += 1) await undefined;
        expect(done.sort()).toEqual(['flush', 'read']);
        expect(same(target, pattern(1 << 20))).toBe(true);
      });

      test('close may be repeated, also at once', async () => {
        const device = await make();
        await Promise.all([device.close(), device.close()]);
        await device.close();
        await device[Symbol.asyncDispose]();
      });

      test('asyncDispose closes', async () => {
        const device = await make();
        await device[Symbol.asyncDispose]();
        await expect(read(device)).rejects.toThrow(ClosedError);
      });
    });

    describe.skipIf(fixture.makeReadOnly === undefined)('read only', () => {
      test('reads, flushes, and refuses every change', async () => {
        const device = await (fixture.makeReadOnly ?? fixture.make)(pattern(SIZE));
        onTestFinished(() => device.close());
        expect(device.writable).toBe(false);
        const changes = [
          device.write(0, new Uint8Array(1)),
          device.writev?.(0, [new Uint8Array(1)]),
          device.discard?.(0, 1),
          device.writeZeroes?.(0, 1),
          'resize' in device ? (device as ResizableDevice).resize(0) : undefined,
        ];
        for (const change of changes) {
          if (change !== undefined) await expect(change).rejects.toThrow(ReadOnlyError);
        }
        await device.flush();
        expect(same(await read(device), pattern(SIZE))).toBe(true);
      });
    });
  });
}

/** What the device says of its zeros; `undefined` if it says nothing. */
function extentsOf(
  device: BlockDevice,
  offset: number,
  length: number,
): Promise<AllocationExtent[]> | undefined {
  if (device.allocation === undefined) return undefined;
  const collect = async (extents: AsyncIterable<AllocationExtent>) => {
    const all: AllocationExtent[] = [];
    for await (const extent of extents) all.push(extent);
    return all;
  };
  return collect(device.allocation(offset, length));
}

/** Checks what the device says of a range against its content. */
async function checkAllocation(
  device: BlockDevice,
  model: Uint8Array,
  offset: number,
  length: number,
): Promise<void> {
  let at = offset;
  for (const extent of (await extentsOf(device, offset, length)) ?? [{ length, zero: false }]) {
    if (length > 0) expect(extent.length).toBeGreaterThan(0);
    const isZero = model.subarray(at, at + extent.length).every((byte) => byte === 0);
    expect(isZero || !extent.zero, `${extent.length} bytes at ${at} of ${device.name}`).toBe(true);
    at += extent.length;
  }
  expect(at).toBe(offset + length);
}

async function apply(
  device: BlockDevice,
  model: Uint8Array,
  kind: string,
  { offset, length }: { offset: number; length: number },
  seed: number,
): Promise<void> {
  const bytes = pattern(length, seed);
  switch (kind) {
    case 'read':
      expect(same(await read(device, offset, length), model.subarray(offset, offset + length))).toBe(true);
      return;
    case 'write':
      await device.write(offset, bytes);
      model.set(bytes, offset);
      return;
    case 'writev': {
      const cut = Math.floor((length * (seed + 1)) / 256);
      await writeAll(device, offset, [bytes.subarray(0, cut), bytes.subarray(cut)]);
      model.set(bytes, offset);
      return;
    }
    case 'allocation':
      return checkAllocation(device, model, offset, length);
    case 'flush':
      return device.flush();
    default: {
      const zero = kind === 'discard' ? device.discard : device.writeZeroes;
      if (zero === undefined) return;
      await zero.call(device, offset, length);
      model.fill(0, offset, offset + length);
    }
  }
}

/** What a `ResizableDevice` does beyond a `BlockDevice`. */
export function resizableDeviceSuite(
  name: string,
  make: (content: Uint8Array) => Promise<ResizableDevice>,
): void {
  describe(`${name} as a resizable device`, () => {
    test('keeps what is left, and new bytes are zero, also where there was content once', async () => {
      const device = await make(pattern(SIZE));
      onTestFinished(() => device.close());
      await device.resize(1000);
      expect(device.size).toBe(1000);
      await expect(device.read(0, new Uint8Array(1001))).rejects.toThrow(InvalidArgumentError);
      await device.resize(SIZE - 1);
      expect((await read(device, 1000)).every((byte) => byte === 0)).toBe(true);
      await device.resize(SIZE + 1);
      const expected = new Uint8Array(SIZE + 1);
      expected.set(pattern(1000));
      expect(same(await read(device), expected)).toBe(true);
      await device.write(SIZE, Uint8Array.of(7));
      await device.flush();
      expect(await read(device, SIZE)).toEqual(Uint8Array.of(7));
    });

    test('grows block by block', async () => {
      const device = await make(new Uint8Array(0));
      onTestFinished(() => device.close());
      for (let at = 0; at < 20; at += 1) {
        await device.resize((at + 1) * 512);
        await device.write(at * 512, pattern(512, at));
      }
      for (let at = 0; at < 20; at += 1) {
        expect(same(await read(device, at * 512, 512), pattern(512, at))).toBe(true);
      }
    });

    test.each([-1, 0.5, Number.NaN, 2 ** 53])('refuses the size %d', async (size) => {
      const device = await make(pattern(SIZE));
      onTestFinished(() => device.close());
      await expect(device.resize(size)).rejects.toThrow(InvalidArgumentError);
      expect(device.size).toBe(SIZE);
    });
  });
}

export function folderSuite(name: string, makeFolder: () => Promise<Folder>): void {
  describe(`${name} as a folder`, () => {
    test('is empty at first', async () => {
      const folder = await makeFolder();
      expect(await folder.list()).toEqual([]);
      await folder.sync();
    });

    test('a created file is empty, writable and listed', async () => {
      const folder = await makeFolder();
      const file = await folder.create('{a}');
      onTestFinished(() => file.close());
      expect(file.size).toBe(0);
      expect(file.writable).toBe(true);
      expect(file.name).toContain('{a}');
      expect(await folder.list()).toEqual(['{a}']);
    });

    test('a file keeps its content from one opening to the next', async () => {
      const folder = await makeFolder();
      const file = await folder.create('a');
      await file.resize(3);
      await file.write(0, Uint8Array.of(1, 2, 3));
      await file.flush();
      await file.close();
      const again = await folder.open('a', { writable: false });
      onTestFinished(() => again.close());
      expect(again.writable).toBe(false);
      expect(await read(again)).toEqual(Uint8Array.of(1, 2, 3));
      await expect(again.write(0, Uint8Array.of(1))).rejects.toThrow(ReadOnlyError);
    });

    test('a name is taken once, and the file that has it is left alone', async () => {
      const folder = await makeFolder();
      const file = await folder.create('a');
      onTestFinished(() => file.close());
      await file.resize(5);
      await expect(folder.create('a')).rejects.toThrow(DeviceError);
      const again = await folder.open('a', { writable: true });
      onTestFinished(() => again.close());
      expect(again.size).toBe(5);
    });

    test('what is not there cannot be opened or removed', async () => {
      const folder = await makeFolder();
      await expect(folder.open('a', { writable: false })).rejects.toThrow(NotFoundError);
      await expect(folder.open('a', { writable: true })).rejects.toThrow(NotFoundError);
      await expect(folder.remove('a')).rejects.toThrow(NotFoundError);
      expect(await folder.list()).toEqual([]);
    });

    test('an open device of a removed file goes on working, and the name is free', async () => {
      const folder = await makeFolder();
      const old = await folder.create('a');
      onTestFinished(() => old.close());
      await old.resize(1);
      await old.write(0, Uint8Array.of(1));
      await folder.remove('a');
      await folder.sync();
      expect(await folder.list()).toEqual([]);
      const fresh = await folder.create('a');
      onTestFinished(() => fresh.close());
      expect(fresh.size).toBe(0);
      expect(await read(old)).toEqual(Uint8Array.of(1));
    });

    const names = ['', '.', '..', '../a', 'a/b', '/a', 'a\0b', 'a'.repeat(256), 'é'.repeat(128)];
    test.each(names)('refuses the name %j', async (bad) => {
      const folder = await makeFolder();
      await expect(folder.create(bad)).rejects.toThrow(InvalidArgumentError);
      await expect(folder.open(bad, { writable: false })).rejects.toThrow(InvalidArgumentError);
      await expect(folder.remove(bad)).rejects.toThrow(InvalidArgumentError);
    });

    test('takes the longest name there is', async () => {
      const folder = await makeFolder();
      await (await folder.create('a'.repeat(255))).close();
      expect(await folder.list()).toEqual(['a'.repeat(255)]);
    });
  });
}
