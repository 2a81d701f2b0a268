import { describe, expect, test } from 'vitest';
import { AssertionError, DeviceError } from '../../../src/errors.js';
import {
  FaultPlan,
  type FaultRule,
  Scheduler,
  SeededRandom,
  type SimulatedDevice,
  SimulatedDisk,
  type SimulatedDiskOptions,
} from '../../../src/testing/index.js';
import { blockDeviceSuite, resizableDeviceSuite } from '../device/contract.js';

const plans = new Map<unknown, FaultPlan>();
let made = 0;

async function make(content: Uint8Array, writable = true): Promise<SimulatedDevice> {
  const random = new SeededRandom(`contract ${made++}`);
  const scheduler = new Scheduler(random).autorun();
  const faults = new FaultPlan(random);
  const disk = new SimulatedDisk({ size: content.byteLength, scheduler, random, faults, atOnce: true });
  const device = disk.open();
  await device.write(0, content);
  const opened = disk.open({ writable });
  plans.set(opened, faults);
  return opened;
}

blockDeviceSuite('SimulatedDevice', {
  make,
  makeReadOnly: (content) => make(content, false),
  failNextFlush: (device) => plans.get(device)?.add({ operation: 'flush', effect: 'EIO' }),
});
resizableDeviceSuite('SimulatedDevice', make);

const SECTOR = 512;
const filled = (value: number, length = SECTOR) => new Uint8Array(length).fill(value);

function withFaults(seed: number, rules: readonly FaultRule[], options: Partial<SimulatedDiskOptions> = {}) {
  const random = new SeededRandom(seed);
  const scheduler = new Scheduler(random);
  const faults = new FaultPlan(random, rules);
  const disk = new SimulatedDisk({ size: 16 * SECTOR, scheduler, random, faults, ...options });
  return { disk, faults, scheduler, device: disk.open() };
}

const codeOf = async (call: Promise<unknown>): Promise<unknown> => {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error === undefined) return 'done';
  expect(error).toBeInstanceOf(DeviceError);
  return ((error as DeviceError).cause as { code?: unknown }).code;
};

describe('moments of effect', () => {
  test('a read beside a write sees the old or the new bytes', async () => {
    const seen = new Set<number | undefined>();
    for (let seed = 0; seed < 50; seed++) {
      const { device, scheduler } = withFaults(seed, []);
      await scheduler.run(async () => {
        const target = filled(9);
        await Promise.all([device.write(0, filled(1)), device.read(0, target)]);
        expect(new Set(target).size).toBe(1);
        seen.add(target[0]);
      });
    }
    expect(seen).toEqual(new Set([0, 1]));
  });

  test('overlapping writes in flight together end either way', async () => {
    const seen = new Set<number | undefined>();
    for (let seed = 0; seed < 50; seed++) {
      const { disk, device, scheduler } = withFaults(seed, []);
      await scheduler.run(() => Promise.all([device.write(0, filled(1)), device.write(0, filled(2))]));
      seen.add(disk.peek(0, 1)[0]);
    }
    expect(seen).toEqual(new Set([1, 2]));
  });

  test('a read that a shrink overtakes finds zeros where nothing is left', async () => {
    const { device, scheduler } = withFaults(1, [{ operation: 'read', effect: 'delay' }]);
    await scheduler.run(async () => {
      await device.write(0, filled(1, 16 * SECTOR));
      const target = filled(9, 2 * SECTOR);
      const reading = device.read(SECTOR, target);
      await device.resize(2 * SECTOR);
      await reading;
      expect([target[SECTOR - 1], target[SECTOR], target[2 * SECTOR - 1]]).toEqual([1, 0, 0]);
    });
  });

  test('a target that is used before the read is complete holds nonsense', async () => {
    const { device, scheduler } = withFaults(1, []);
    await scheduler.run(async () => {
      const target = filled(0);
      const reading = device.read(0, target);
      expect(target[0]).toBe(0xdb);
      await reading;
      expect(target[0]).toBe(0);
    });
  });

  test('nothing that a device of before a crash is asked for happens', async () => {
    const { disk, device, scheduler } = withFaults(1, []);
    scheduler.crash();
    disk.crash(new SeededRandom(1), 'power-cut');
    let settled = 0;
    for (const call of [
      device.write(0, filled(1)),
      device.resize(SECTOR),
      device.flush(),
      device.read(0, filled(0)),
    ]) {
      void call.finally(() => settled++);
    }
    await scheduler.run(() => scheduler.pause(Infinity));
    expect(settled).toBe(0);
    expect(disk.peek()).toEqual(new Uint8Array(16 * SECTOR));
    expect(disk.content.unflushed()).toEqual([]);
  });
});

describe('broken rules of the contract', () => {
  test('overlapping writes in flight together, on a disk that forbids them', async () => {
    const { disk, device, scheduler } = withFaults(1, [], { strictOverlap: true });
    await scheduler.run(async () => {
      const first = device.write(0, filled(1, 2 * SECTOR));
      await expect(device.write(SECTOR, filled(2))).rejects.toThrow(AssertionError);
      await expect(device.discard(2 * SECTOR - 1, 1)).rejects.toThrow('overlaps a write in flight');
      await expect(device.resize(SECTOR)).rejects.toThrow(AssertionError);
      await device.write(2 * SECTOR, filled(3));
      await first;
      await device.write(SECTOR, filled(2));
    });
    expect(disk.violations.length).toBe(3);
    expect(disk.peek(SECTOR, 1)[0]).toBe(2);
  });

  test('a source that changes before its write is complete', async () => {
    let caught = 0;
    for (let seed = 0; seed < 30; seed++) {
      const { disk, device, scheduler } = withFaults(seed, []);
      await scheduler.run(async () => {
        const source = Buffer.alloc(SECTOR, 1);
        const writing = device.write(0, source);
        source[100] = 2;
        await expect(writing).rejects.toThrow('changed before it completed');
        const parts = [filled(1), filled(2)];
        const writingParts = device.writev(SECTOR, parts);
        await scheduler.pause(1);
        parts[1]?.fill(3);
        await writingParts.catch((error: unknown) => expect(error).toBeInstanceOf(AssertionError));
      });
      caught += disk.violations.length;
    }
    expect(caught).toBeGreaterThan(40);
  });
});

describe('faults', () => {
  test('a transient error strikes once, a persistent one for ever, within its range', async () => {
    const { device, scheduler, faults } = withFaults(1, [
      { operation: 'read', effect: 'EIO' },
      { operation: 'write', effect: 'EIO', from: 2 * SECTOR, to: 3 * SECTOR, times: Infinity },
    ]);
    await scheduler.run(async () => {
      expect(await codeOf(device.read(0, filled(0)))).toBe('EIO');
      expect(await codeOf(device.read(0, filled(0)))).toBe('done');
      for (let round = 0; round < 3; round++) {
        expect(await codeOf(device.write(SECTOR, filled(1, 2 * SECTOR)))).toBe('EIO');
        expect(await codeOf(device.write(0, filled(1, 2 * SECTOR)))).toBe('done');
        expect(await codeOf(device.write(3 * SECTOR, filled(1)))).toBe('done');
      }
    });
    expect(faults.counters).toEqual({ 'EIO read': 1, 'EIO write': 3 });
    faults.clear();
    await scheduler.run(() => device.write(2 * SECTOR, filled(1)));
  });

  test('skips, aims at one disk, and strikes by chance', async () => {
    const { device, scheduler, faults } = withFaults(1, [
      { operation: 'read', effect: 'EIO', target: 'another', times: Infinity },
      { operation: 'read', effect: 'EIO', skip: 2 },
      { operation: 'write', effect: 'ENODEV', chance: 0.25, times: Infinity },
    ]);
    await scheduler.run(async () => {
      const reads: unknown[] = [];
      for (let round = 0; round < 4; round++) reads.push(await codeOf(device.read(0, filled(0))));
      expect(reads).toEqual(['done', 'done', 'EIO', 'done']);
      for (let round = 0; round < 400; round++) await codeOf(device.write(0, filled(0)));
    });
    expect(faults.counters['ENODEV write']).toBeGreaterThan(60);
    expect(faults.counters['ENODEV write']).toBeLessThan(140);
  });

  test('a write that fails leaves each sector old or new', async () => {
    const counts = new Set<number>();
    for (let seed = 0; seed < 100; seed++) {
      const { disk, device, scheduler } = withFaults(seed, [{ operation: 'write', effect: 'EIO' }]);
      await scheduler.run(async () => {
        expect(await codeOf(device.write(256, filled(1, 4 * SECTOR)))).toBe('EIO');
        const bytes = disk.peek(256, 4 * SECTOR);
        const marks = [bytes.subarray(0, 256), bytes.subarray(256, 768), bytes.subarray(1792)];
        for (const mark of marks) expect(new Set(mark).size).toBe(1);
        counts.add(bytes.filter((byte) => byte === 1).length);
        const before = disk.peek();
        await device.flush();
        disk.crash(new SeededRandom(seed), 'power-cut');
        expect(Buffer.compare(disk.peek(), before)).toBe(0);
      });
    }
    expect(counts).toContain(0);
    expect(counts).toContain(4 * SECTOR);
    expect(counts.size).toBeGreaterThan(5);
  });

  test('a sticky bad sector cannot be read until it is written again', async () => {
    const { device, scheduler } = withFaults(1, [{ operation: 'read', effect: 'EIO', sticky: true }]);
    await scheduler.run(async () => {
      expect(await codeOf(device.read(SECTOR, filled(0)))).toBe('EIO');
      expect(await codeOf(device.read(0, filled(0, 2 * SECTOR)))).toBe('EIO');
      expect(await codeOf(device.read(0, filled(0)))).toBe('done');
      await device.write(0, filled(1));
      expect(await codeOf(device.read(SECTOR, filled(0)))).toBe('EIO');
      await device.write(SECTOR, filled(1));
      expect(await codeOf(device.read(SECTOR, filled(0)))).toBe('done');
    });
  });

  test('a failed flush stays failed until the device is opened again', async () => {
    const { disk, device, scheduler } = withFaults(1, [{ operation: 'flush', effect: 'EIO' }]);
    await scheduler.run(async () => {
      expect(await codeOf(device.flush())).toBe('EIO');
      expect(await codeOf(device.flush())).toBe('EIO');
      expect(await codeOf(disk.open().flush())).toBe('done');
    });
  });

  test('what a failed flush was about is seen until the device is opened again, and then may be lost', async () => {
    const show = (disk: SimulatedDisk) => [0, SECTOR, 2 * SECTOR].map((at) => disk.peek(at, 1)[0]).join();
    const found = new Set<string>();
    for (let seed = 0; seed < 200; seed++) {
      const { disk, device, scheduler } = withFaults(seed, [{ operation: 'flush', effect: 'EIO' }]);
      await scheduler.run(async () => {
        await device.write(0, filled(1, 2 * SECTOR));
        expect(await codeOf(device.flush())).toBe('EIO');
        await device.write(2 * SECTOR, filled(2));
        expect(show(disk)).toBe('1,1,2');
        const again = disk.open();
        found.add(show(disk));
        await again.flush();
      });
      const before = show(disk);
      disk.crash(new SeededRandom(seed), 'power-cut');
      expect(show(disk)).toBe(before);
    }
    expect(found).toEqual(new Set(['0,0,2', '0,1,2', '1,0,2', '1,1,2']));
  });

  test('a new size that a failed flush forgot is gone when the device is opened again', async () => {
    const found = new Set<string>();
    for (let seed = 0; seed < 200; seed++) {
      const { disk, device, scheduler } = withFaults(seed, [{ operation: 'flush', effect: 'EIO', skip: 1 }]);
      await scheduler.run(async () => {
        await device.write(0, filled(1, 16 * SECTOR));
        await device.flush();
        await device.resize(SECTOR);
        await device.resize(2 * SECTOR);
        expect(await codeOf(device.flush())).toBe('EIO');
        expect(device.size).toBe(2 * SECTOR);
        const again = disk.open();
        found.add(`${disk.size / SECTOR}: ${disk.peek(0, 1)[0]} ${disk.peek(disk.size - 1, 1)[0]}`);
        await again.flush();
      });
      const before = disk.peek();
      disk.crash(new SeededRandom(seed), 'power-cut');
      expect(Buffer.compare(disk.peek(), before)).toBe(0);
    }
    expect(found).toEqual(new Set(['16: 1 1', '1: 1 1', '2: 1 0']));
  });

  test('no flush under way when another one fails claims success', async () => {
    for (let seed = 0; seed < 50; seed++) {
      const { disk, device, scheduler } = withFaults(seed, [{ operation: 'flush', effect: 'EIO', skip: 1 }]);
      const other = disk.open();
      let wasFirstDone = false;
      await scheduler.run(async () => {
        await device.write(0, filled(1));
        const [first, second] = await Promise.all([codeOf(other.flush()), codeOf(device.flush())]);
        expect(second).toBe('EIO');
        wasFirstDone = first === 'done';
      });
      disk.open();
      disk.crash(new SeededRandom(seed), 'power-cut');
      if (wasFirstDone) expect(disk.peek(0, 1)[0]).toBe(1);
    }
  });

  test('an ignored flush, or write, reports success and does nothing', async () => {
    const found = new Set<number | undefined>();
    for (let seed = 0; seed < 50; seed++) {
      const { disk, device, scheduler } = withFaults(seed, [
        { operation: 'flush', effect: 'ignore' },
        { operation: 'write', effect: 'ignore', skip: 1 },
      ]);
      await scheduler.run(async () => {
        await device.write(0, filled(1));
        await device.flush();
        await device.write(SECTOR, filled(1));
      });
      expect(disk.peek(SECTOR, 1)[0]).toBe(0);
      disk.crash(new SeededRandom(seed), 'power-cut');
      found.add(disk.peek(0, 1)[0]);
    }
    expect(found).toEqual(new Set([0, 1]));
  });

  test('a full disk: by rule, or by what it admits', async () => {
    const { device, scheduler } = withFaults(
      1,
      [{ operation: ['write', 'resize'], effect: 'ENOSPC', times: 2 }],
      {
        admits: (growth) => growth <= SECTOR,
      },
    );
    await scheduler.run(async () => {
      expect(await codeOf(device.write(0, filled(1)))).toBe('ENOSPC');
      expect(await codeOf(device.resize(17 * SECTOR))).toBe('ENOSPC');
      expect(await codeOf(device.resize(18 * SECTOR))).toBe('ENOSPC');
      expect(device.size).toBe(16 * SECTOR);
      expect(await codeOf(device.resize(17 * SECTOR))).toBe('done');
      expect(await codeOf(device.resize(SECTOR))).toBe('done');
    });
  });

  test('rot flips one bit, for good', async () => {
    const bitsWrong = (bytes: Uint8Array, value: number) => {
      let wrong = 0;
      for (const byte of bytes) for (let bit = 0; bit < 8; bit++) wrong += ((byte ^ value) >> bit) & 1;
      return wrong;
    };
    for (const operation of ['read', 'write', 'flush'] as const) {
      const { disk, device, scheduler } = withFaults(1, [{ operation, effect: 'rot' }]);
      await scheduler.run(async () => {
        await device.write(0, filled(0, 16 * SECTOR));
        const target = filled(9, 16 * SECTOR);
        await device.read(0, target);
        await device.flush();
        if (operation !== 'flush') expect(bitsWrong(target, 0)).toBe(1);
      });
      expect(bitsWrong(disk.peek(), 0)).toBe(1);
      expect(disk.violations).toEqual([]);
      disk.crash(new SeededRandom(1), 'power-cut');
      expect(bitsWrong(disk.peek(), 0)).toBe(1);
    }
    const disk = withFaults(1, []).disk;
    disk.rot(1000, 7);
    expect(disk.peek(1000, 1)).toEqual(Uint8Array.of(0x80));
  });

  test('late operations take simulated time, and others overtake them', async () => {
    const { device, scheduler } = withFaults(1, [
      { operation: 'read', effect: 'delay', milliseconds: 60_000 },
    ]);
    await scheduler.run(async () => {
      const order: string[] = [];
      const late = device.read(0, filled(0)).then(() => order.push('late'));
      for (let round = 0; round < 20; round++) await device.read(0, filled(0));
      order.push('twenty others');
      await late;
      expect(order).toEqual(['twenty others', 'late']);
      expect(scheduler.clock.monotonic()).toBeGreaterThan(60_000);
    });
  });

  test('an operation that never completes shows as a deadlock', async () => {
    const { device, scheduler } = withFaults(1, [
      { operation: 'flush', effect: 'delay', milliseconds: Infinity },
    ]);
    await expect(scheduler.run(() => device.flush())).rejects.toThrow('never completing: flush disk');
  });

  test('a drawn plan strikes with all that the engine must survive, and nothing else', async () => {
    const counters: Record<string, number> = {};
    for (let seed = 0; seed < 60; seed++) {
      const { device, scheduler, faults } = withFaults(seed, []);
      faults.draw(0.05);
      await scheduler.run(async () => {
        for (let round = 0; round < 60; round++) {
          await codeOf(device.read(0, filled(0)));
          await codeOf(device.write(0, filled(0)));
          await codeOf(device.flush());
          await codeOf(device.resize(16 * SECTOR));
        }
      });
      for (const [kind, count] of Object.entries(faults.counters))
        counters[kind] = (counters[kind] ?? 0) + count;
    }
    expect(Object.keys(counters).sort()).toEqual([
      'EIO flush',
      'EIO read',
      'EIO write',
      'ENOSPC resize',
      'ENOSPC write',
      'delay flush',
      'delay read',
      'delay write',
    ]);
  });
});
