/** Everything together: a plain device as the engine under test, the model as its oracle. */
import { describe, expect, test } from 'vitest';
import type { BlockDevice } from '../../../src/device/block-device.js';
import { DeviceError, NotFoundError } from '../../../src/errors.js';
import {
  type FaultRule,
  ModelMismatch,
  SeededRandom,
  SimulatedWorld,
  stampSectors,
  VolumeModel,
} from '../../../src/testing/index.js';

const SECTOR = 512;
const SIZE = 128 * SECTOR;

interface Run {
  readonly hash: number;
  readonly counters: Readonly<Record<string, number>>;
  readonly violations: readonly string[];
}

/** Random writes, discards, reads and flushes, several at a time, through crashes of both kinds. */
async function simulate(seed: number, crashes: number, rules: readonly FaultRule[] = []): Promise<Run> {
  const world = new SimulatedWorld(seed);
  const { random } = world;
  world.addDisk('volume', { size: SIZE, noise: true });
  world.faults.add(...rules);
  const model = new VolumeModel(world.disk('volume').peek());
  let sequence = 0;

  const outcomeOf = (call: Promise<void>) =>
    call.then(
      () => 'done' as const,
      (error: unknown) => {
        if (!(error instanceof DeviceError)) throw error;
        return 'failed' as const;
      },
    );

  const perform = async (device: BlockDevice) => {
    const first = random.below(SIZE / SECTOR);
    const offset = first * SECTOR;
    const length = (1 + random.below(Math.min(40, SIZE / SECTOR - first))) * SECTOR;
    switch (random.below(8)) {
      case 0: {
        const call = model.beginFlush();
        return model.endFlush(call, await outcomeOf(device.flush()));
      }
      case 1: {
        const call = model.beginWrite(offset, new Uint8Array(length));
        return model.endWrite(call, await outcomeOf(device.discard?.(offset, length) ?? Promise.resolve()));
      }
      case 2:
      case 3: {
        const call = model.beginRead();
        const target = new Uint8Array(length);
        if ((await outcomeOf(device.read(offset, target))) === 'done') model.endRead(call, offset, target);
        else model.cancelRead(call);
        return;
      }
      default: {
        const bytes = stampSectors(new Uint8Array(length), offset, ++sequence);
        const call = model.beginWrite(offset, bytes);
        return model.endWrite(call, await outcomeOf(device.write(offset, bytes)));
      }
    }
  };

  const client = async (device: BlockDevice) => {
    for (let round = 0; round < 30; round++) await perform(device);
  };

  for (let crash = 0; crash < crashes; crash++) {
    const device = world.device('volume');
    const task = async () => {
      await Promise.all([client(device), client(device), client(device)]);
      const bytes = new Uint8Array(SIZE);
      if ((await outcomeOf(device.read(0, bytes))) === 'done') model.check(bytes);
    };
    await world.runSteps(task, random.below(250));
    const kind = random.chance(0.25) ? 'kill' : 'power-cut';
    world.crash(kind);
    model.crash(kind);
    model.reconcile(world.disk('volume').peek(), new Map());
  }
  return { hash: world.traceHash, counters: world.counters, violations: world.violations };
}

describe('a whole run', () => {
  test('is a function of its seed', async () => {
    const hashes = new Set<number>();
    for (let seed = 0; seed < 10; seed++) {
      const rules: readonly FaultRule[] = [
        { operation: ['read', 'write'], effect: 'EIO', chance: 0.02, times: Infinity },
      ];
      const first = await simulate(seed, 5, rules);
      expect(await simulate(seed, 5, rules)).toEqual(first);
      hashes.add(first.hash);
    }
    expect(hashes.size).toBe(10);
  });

  test('a device that keeps its contract satisfies the model, with and without errors', async () => {
    for (let seed = 0; seed < 20; seed++) {
      const { counters, violations } = await simulate(seed, 10);
      expect((counters['power cuts'] ?? 0) + (counters.kills ?? 0)).toBe(10);
      expect(violations).toEqual([]);
      await simulate(seed, 10, [
        { operation: ['read', 'write', 'discard'], effect: 'EIO', chance: 0.05, times: Infinity },
        { operation: 'flush', effect: 'EIO', chance: 0.05, times: Infinity },
        {
          operation: ['read', 'write', 'flush'],
          effect: 'delay',
          chance: 0.05,
          times: Infinity,
          milliseconds: 20,
        },
      ]);
    }
  });

  const bugs: readonly (readonly [string, FaultRule])[] = [
    ['a flush left out', { operation: 'flush', effect: 'ignore', chance: 0.3, times: Infinity }],
    ['a lost write', { operation: 'write', effect: 'ignore', chance: 0.01, times: Infinity }],
    ['a flipped bit', { operation: 'write', effect: 'rot', chance: 0.01, times: Infinity }],
  ];
  test.each(bugs)('%s is caught within ten seeds', async (_, rule) => {
    let caught = 0;
    for (let seed = 0; seed < 10; seed++) {
      try {
        await simulate(seed, 20, [rule]);
      } catch (error) {
        expect(error).toBeInstanceOf(ModelMismatch);
        caught++;
      }
    }
    expect(caught).toBeGreaterThan(0);
  });
});

describe('SimulatedWorld', () => {
  test('holds disks and folders by name', async () => {
    const world = new SimulatedWorld('names');
    world.addDisk('volume', { size: 1024 });
    world.addDirectory('store', { capacity: 100 });
    expect(world.device('volume').size).toBe(1024);
    await world.run(async () => {
      const file = await world.folder('store').create('a');
      await file.resize(100);
      await world.folder('store').sync();
      await file.flush();
    });
    world.crash();
    expect(await world.run(() => world.folder('store').list())).toEqual(['a']);
    expect(world.directory('store').usedBytes).toBe(100);
    expect(() => world.disk('store')).toThrow(NotFoundError);
    expect(world.counters).toMatchObject({ 'power cuts': 1, kills: 0 });
  });

  test('ends everything of an engine at a crash: its devices, folders and timers', async () => {
    const world = new SimulatedWorld('dead');
    world.addDisk('volume', { size: 1024 });
    world.addDirectory('store');
    const events: string[] = [];
    const environment = world.environment();
    const device = world.device('volume');
    const folder = world.folder('store');
    environment.clock.after(10, () => events.push('timer of before'));
    world.crash();
    environment.clock.after(10, () => events.push('timer of a dead engine'))();
    environment.clock.after(10, () => events.push('timer of a dead engine'));
    void device.write(0, new Uint8Array(512)).then(() => events.push('write'));
    void folder.create('a').then(() => events.push('creation'));
    void folder.list().then(() => events.push('list'));
    await world.run(async () => {
      await new Promise<void>((resolve) => world.environment().clock.after(1000, resolve));
    });
    expect(events).toEqual([]);
    expect(world.directory('store').fileNames).toEqual([]);
  });

  test('hands the engine randomness of its own, new after each crash', () => {
    const world = new SimulatedWorld('random');
    const first = world.environment().random.fill(new Uint8Array(16));
    world.crash();
    const second = world.environment().random.fill(new Uint8Array(16));
    expect(first).not.toEqual(second);
    const again = new SimulatedWorld('random').environment().random.fill(new Uint8Array(16));
    expect(again).toEqual(first);
  });

  test('goes back to a saved state of everything', async () => {
    const world = new SimulatedWorld('saved');
    world.addDisk('volume', { size: 1024 });
    world.addDirectory('store');
    await world.run(async () => {
      await world.device('volume').write(0, new Uint8Array(512).fill(1));
      await world.folder('store').create('a');
    });
    const saved = world.save();
    const found = new Set<string>();
    for (let seed = 0; seed < 60; seed++) {
      world.restore(saved);
      const random = new SeededRandom(seed);
      world.crashWith(
        'power-cut',
        (disk) => disk.crash(random, 'power-cut'),
        (directory) => directory.crash(random, 'power-cut'),
      );
      found.add(`${world.disk('volume').peek(0, 1)[0]}${world.directory('store').fileNames}`);
    }
    expect(found).toEqual(new Set(['0', '1', '0a', '1a']));
  });
});
