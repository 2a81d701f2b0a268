/** The crash model, line by line: what may be found after a crash is found for some seed, and nothing else for any. */
import { describe, expect, test } from 'vitest';
import {
  type CrashModel,
  Scheduler,
  SeededRandom,
  type SimulatedDevice,
  SimulatedDisk,
  type SimulatedDiskOptions,
} from '../../../src/testing/index.js';

const SECTOR = 512;
const filled = (value: number, sectors = 1) => new Uint8Array(sectors * SECTOR).fill(value);

function makeDisk(seed: string | number = 1, options: Partial<SimulatedDiskOptions> = {}): SimulatedDisk {
  const random = new SeededRandom(seed);
  return new SimulatedDisk({ size: 8 * SECTOR, scheduler: new Scheduler(random), random, ...options });
}

/** The value that each sector is filled with. */
function sectors(disk: SimulatedDisk): number[] {
  const bytes = disk.peek();
  return Array.from({ length: Math.ceil(bytes.byteLength / SECTOR) }, (_, sector) => {
    const content = bytes.subarray(sector * SECTOR, (sector + 1) * SECTOR);
    const value = content[0] ?? -1;
    expect(content.every((byte) => byte === value)).toBe(true);
    return value;
  });
}

/** Far faster on long arrays than the comparison of `toEqual`. */
const same = (left: Uint8Array, right: Uint8Array): boolean => Buffer.compare(left, right) === 0;

const SEEDS = 300;

/** All that was found after a crash at the end of the task, or after so many steps of it, over many seeds. */
async function outcomes(
  task: (device: SimulatedDevice, disk: SimulatedDisk) => Promise<unknown>,
  {
    model = 'power-cut',
    show = (disk) => sectors(disk).slice(0, 2).join(),
    steps = () => Infinity,
    options = {},
  }: {
    model?: CrashModel;
    show?: (disk: SimulatedDisk) => string;
    steps?: (random: SeededRandom) => number;
    options?: Partial<SimulatedDiskOptions>;
  } = {},
): Promise<Set<string>> {
  const found = new Set<string>();
  for (let seed = 0; seed < SEEDS; seed++) {
    const disk = makeDisk(seed, options);
    const random = new SeededRandom(seed).fork('crash');
    await disk.scheduler.runSteps(() => task(disk.open(), disk), steps(random));
    disk.scheduler.crash();
    disk.crash(random, model);
    found.add(show(disk));
    expect(disk.content.unflushed()).toEqual([]);
    expect(same(disk.content.durableBytes(0, disk.size), disk.peek())).toBe(true);
    expect(disk.violations).toEqual([]);
  }
  return found;
}

describe('a power cut', () => {
  test('keeps or loses each sector of a write that was not flushed', async () => {
    const found = await outcomes((device) => device.write(0, filled(1, 2)));
    expect(found).toEqual(new Set(['0,0', '0,1', '1,0', '1,1']));
  });

  test('keeps what a flush made durable', async () => {
    const found = await outcomes(async (device) => {
      await device.write(0, filled(1, 2));
      await device.flush();
    });
    expect(found).toEqual(new Set(['1,1']));
  });

  test('leaves in each sector its durable value or any later one', async () => {
    const found = await outcomes(async (device) => {
      await device.write(0, filled(1, 2));
      await device.flush();
      await device.write(0, filled(2, 2));
      await device.write(0, filled(3, 1));
    });
    expect(found).toEqual(new Set(['1,1', '1,2', '2,1', '2,2', '3,1', '3,2']));
  });

  test('a flush is about writes completed before it began: a later one may be lost, down to the older version', async () => {
    const found = await outcomes(async (device) => {
      await device.write(0, filled(1, 2));
      const flush = device.flush();
      await device.write(0, filled(2, 2));
      await flush;
    });
    expect(found).toEqual(new Set(['1,1', '1,2', '2,1', '2,2']));
  });

  test('a flush is not about writes in flight when it began', async () => {
    const found = await outcomes(async (device) => {
      const write = device.write(0, filled(1, 2));
      await device.flush();
      await write;
    });
    expect(found).toEqual(new Set(['0,0', '0,1', '1,0', '1,1']));
  });

  test('tears a write in flight by sector, wherever it was', async () => {
    const found = await outcomes((device) => device.write(0, filled(1, 2)), {
      steps: (random) => random.below(3),
    });
    expect(found).toEqual(new Set(['0,0', '0,1', '1,0', '1,1']));
  });

  test('never tears inside a sector, also not by a write that covers parts of sectors', async () => {
    const found = await outcomes(
      async (device) => {
        await device.write(0, filled(1, 2));
        await device.flush();
        await device.write(256, filled(2, 1));
        await device.write(300, filled(3, 1).subarray(0, 10));
      },
      {
        show: (disk) => [255, 256, 300, 311, 512, 768].map((at) => disk.peek(at, 1)[0]).join(),
      },
    );
    expect(found).toEqual(
      new Set([
        // First sector: before, after the first, after both. Second: before, after the first.
        '1,1,1,1,1,1',
        '1,1,1,1,2,1',
        '1,2,2,2,1,1',
        '1,2,2,2,2,1',
        '1,2,3,2,1,1',
        '1,2,3,2,2,1',
      ]),
    );
  });

  test('an older write that becomes durable later never covers a younger one', async () => {
    // The first write is in flight over the second, and completes after the flush that made the second durable.
    for (let seed = 0; seed < SEEDS; seed++) {
      const disk = makeDisk(seed);
      await disk.scheduler.run(async () => {
        const device = disk.open();
        const slow = device.write(0, filled(1));
        await device.write(0, filled(2));
        await device.flush();
        await slow;
        await device.flush();
      });
      const before = sectors(disk);
      disk.crash(new SeededRandom(seed), 'power-cut');
      expect(sectors(disk)).toEqual(before);
    }
  });

  test('loses or keeps a discard like any write', async () => {
    const found = await outcomes(async (device) => {
      await device.write(0, filled(1, 2));
      await device.flush();
      await device.discard(0, 2 * SECTOR);
    });
    expect(found).toEqual(new Set(['0,0', '0,1', '1,0', '1,1']));
  });

  test('keeps whole writes, and loses whole ones, often enough to matter', async () => {
    const found = await outcomes((device) => device.write(0, filled(1, 8)), {
      show: (disk) =>
        sectors(disk)
          .reduce((sum, value) => sum + value, 0)
          .toString(),
    });
    expect([...found].map(Number).sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    let whole = 0;
    for (let seed = 0; seed < 100; seed++) {
      const disk = makeDisk(seed, { size: 64 * SECTOR });
      await disk.scheduler.run(() => disk.open().write(0, filled(1, 64)));
      disk.crash(new SeededRandom(seed), 'power-cut');
      if (sectors(disk).every((value) => value === 1)) whole++;
    }
    expect(whole).toBeGreaterThan(15);
    expect(whole).toBeLessThan(60);
  });
});

describe('a killed process', () => {
  test('loses nothing that completed', async () => {
    const found = await outcomes((device) => device.write(0, filled(1, 2)), {
      model: 'kill',
      show: (disk) => {
        const shown = sectors(disk).slice(0, 2).join();
        disk.crash(new SeededRandom('again'), 'kill');
        expect(sectors(disk).slice(0, 2).join()).toBe(shown);
        // The operating system still has it in memory only; a device of the next process can flush it.
        disk.content.makeDurable(disk.content.flushPoint());
        return shown;
      },
    });
    expect(found).toEqual(new Set(['1,1']));
  });

  test('keeps or loses a write in flight by sector', async () => {
    const found = await outcomes((device) => device.write(0, filled(1, 2)), {
      model: 'kill',
      steps: () => 0,
      show: (disk) => {
        const shown = sectors(disk).slice(0, 2).join();
        disk.content.makeDurable(disk.content.flushPoint());
        return shown;
      },
    });
    expect(found).toEqual(new Set(['0,0', '0,1', '1,0', '1,1']));
  });

  test('followed by a power cut loses what the next process did not flush', async () => {
    const found = new Set<string>();
    for (let seed = 0; seed < SEEDS; seed++) {
      const disk = makeDisk(seed);
      await disk.scheduler.run(() => disk.open().write(0, filled(1)));
      disk.scheduler.crash();
      disk.crash(new SeededRandom(seed), 'kill');
      disk.crash(new SeededRandom(seed), 'power-cut');
      found.add(sectors(disk).slice(0, 1).join());
    }
    expect(found).toEqual(new Set(['0', '1']));
  });
});

describe('a new size', () => {
  const size = (disk: SimulatedDisk) => `${disk.size / SECTOR}: ${sectors(disk).join('')}`;
  const options = { size: 2 * SECTOR };

  test('is lost or kept until it is flushed; a file whose growth is lost is short', async () => {
    const found = await outcomes(
      async (device) => {
        await device.resize(3 * SECTOR);
        await device.write(2 * SECTOR, filled(1));
      },
      { show: size, options },
    );
    expect(found).toEqual(new Set(['2: 00', '3: 000', '3: 001']));
  });

  test('is durable after a flush', async () => {
    const found = await outcomes(
      async (device) => {
        await device.resize(3 * SECTOR);
        await device.write(2 * SECTOR, filled(1));
        await device.flush();
      },
      { show: size, options },
    );
    expect(found).toEqual(new Set(['3: 001']));
  });

  test('that was lost, when smaller, brings the content back', async () => {
    const found = await outcomes(
      async (device) => {
        await device.write(0, filled(1, 2));
        await device.flush();
        await device.resize(SECTOR);
      },
      { show: size, options },
    );
    expect(found).toEqual(new Set(['2: 11', '1: 1']));
  });

  test('smaller and larger again reads as zeros, and is durable as zeros', async () => {
    const shrinkAndGrow = async (device: SimulatedDevice) => {
      await device.write(0, filled(1, 2));
      await device.flush();
      await device.resize(700);
      await device.resize(2 * SECTOR);
      const bytes = filled(9, 2);
      await device.read(0, bytes);
      expect(bytes.subarray(0, 700).every((byte) => byte === 1)).toBe(true);
      expect(bytes.subarray(700).every((byte) => byte === 0)).toBe(true);
      await device.flush();
    };
    const found = await outcomes(shrinkAndGrow, {
      show: (disk) => {
        const bytes = disk.peek();
        return `${bytes.byteLength} ${bytes.lastIndexOf(1)}`;
      },
      options,
    });
    expect(found).toEqual(new Set(['1024 699']));
  });

  test('an old write behind a shrink never comes back by a later growth', async () => {
    for (let seed = 0; seed < SEEDS; seed++) {
      const disk = makeDisk(seed, options);
      await disk.scheduler.run(async () => {
        const device = disk.open();
        const slow = device.write(SECTOR, filled(1));
        await device.resize(SECTOR);
        await device.resize(2 * SECTOR);
        await device.flush();
        await slow;
        await device.flush();
      });
      const before = sectors(disk);
      disk.crash(new SeededRandom(seed), 'power-cut');
      expect(sectors(disk)).toEqual(before);
    }
  });

  test('growing far keeps the content', async () => {
    const disk = makeDisk(1, options);
    await disk.scheduler.run(async () => {
      const device = disk.open();
      await device.write(0, filled(7, 2));
      await device.resize(1 << 20);
      await device.write((1 << 20) - SECTOR, filled(8));
      await device.flush();
    });
    disk.crash(new SeededRandom(1), 'power-cut');
    expect(disk.size).toBe(1 << 20);
    expect(sectors(disk).slice(0, 3)).toEqual([7, 7, 0]);
    expect(sectors(disk).at(-1)).toBe(8);
  });
});

describe('SimulatedDisk', () => {
  test('holds zeros at first, or noise of its seed', () => {
    expect(makeDisk().peek()).toEqual(new Uint8Array(8 * SECTOR));
    const noise = makeDisk(1, { noise: true }).peek();
    expect(noise).toEqual(makeDisk(1, { noise: true }).peek());
    expect(noise).not.toEqual(makeDisk(2, { noise: true }).peek());
    expect(new Set(noise).size).toBeGreaterThan(200);
  });

  test('noise is durable, growth is zeros all the same', async () => {
    const disk = makeDisk(1, { noise: true });
    const noise = disk.peek();
    await disk.scheduler.run(() => disk.open().resize(9 * SECTOR));
    expect(disk.peek(8 * SECTOR)).toEqual(new Uint8Array(SECTOR));
    disk.crash(new SeededRandom(5), 'power-cut');
    expect(disk.peek(0, 8 * SECTOR)).toEqual(noise);
  });

  test('goes back to a saved state, to be crashed in every way there is', async () => {
    const disk = makeDisk();
    await disk.scheduler.runSteps(async () => {
      const device = disk.open();
      await device.write(0, filled(1));
      await device.flush();
      await device.write(0, filled(2));
      void device.write(SECTOR, filled(3, 2));
      await disk.scheduler.pause(Infinity);
    }, Infinity);
    const saved = disk.save();
    const found = new Set<string>();
    for (let state = 0; state < 8; state++) {
      disk.scheduler.crash();
      disk.restore(saved);
      let bit = 0;
      disk.crashWith('power-cut', () => () => (state & (1 << bit++)) !== 0);
      expect(bit).toBe(3);
      found.add(sectors(disk).slice(0, 3).join());
    }
    expect(found.size).toBe(8);
    expect(found).toContain('1,0,0');
    expect(found).toContain('2,3,3');
  });

  test('when it was last changed never repeats, and may be lost with the change', async () => {
    const disk = makeDisk();
    await disk.scheduler.run(async () => {
      const device = disk.open();
      const times: (bigint | undefined)[] = [];
      for (let round = 0; round < 20; round++) {
        await device.write(0, filled(round));
        times.push(await device.modifiedAt());
      }
      expect(new Set(times).size).toBe(20);
      const last = await device.modifiedAt();
      await device.read(0, filled(0));
      await device.flush();
      expect(await device.modifiedAt()).toBe(last);
    });
  });
});
