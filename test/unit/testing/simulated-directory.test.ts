import { describe, expect, test } from 'vitest';
import type { Folder } from '../../../src/device/folder.js';
import { DeviceError } from '../../../src/errors.js';
import {
  type CrashModel,
  FaultPlan,
  type FaultRule,
  Scheduler,
  SeededRandom,
  SimulatedDirectory,
} from '../../../src/testing/index.js';
import { blockDeviceSuite, folderSuite, resizableDeviceSuite } from '../device/contract.js';

function makeDirectory(seed: string | number, rules: readonly FaultRule[] = [], capacity = Infinity) {
  const random = new SeededRandom(seed);
  const scheduler = new Scheduler(random);
  return new SimulatedDirectory({ scheduler, random, faults: new FaultPlan(random, rules), capacity });
}

let made = 0;
const makeFolder = async () => {
  const directory = makeDirectory(`contract ${made++}`);
  directory.scheduler.autorun();
  return directory.open();
};
const makeFile = async (content: Uint8Array) => {
  const file = await (await makeFolder()).create('a');
  await file.resize(content.byteLength);
  await file.write(0, content);
  return file;
};
folderSuite('SimulatedFolder', makeFolder);
blockDeviceSuite('a file of SimulatedFolder', { make: makeFile });
resizableDeviceSuite('a file of SimulatedFolder', makeFile);

/** Adds a file of one byte, flushed, not synced. */
async function add(folder: Folder, name: string, value: number): Promise<void> {
  const file = await folder.create(name);
  await file.resize(1);
  await file.write(0, Uint8Array.of(value));
  await file.flush();
  await file.close();
}

const show = (directory: SimulatedDirectory): string =>
  directory.fileNames
    .sort()
    .map((name) => `${name}${[...directory.file(name).peek()].join('')}`)
    .join();

async function outcomes(
  task: (folder: Folder) => Promise<unknown>,
  {
    model = 'power-cut',
    steps = () => Infinity,
  }: { model?: CrashModel; steps?: (random: SeededRandom) => number } = {},
): Promise<Set<string>> {
  const found = new Set<string>();
  for (let seed = 0; seed < 200; seed++) {
    const directory = makeDirectory(seed);
    const random = new SeededRandom(seed).fork('crash');
    await directory.scheduler.runSteps(() => task(directory.open()), steps(random));
    directory.scheduler.crash();
    directory.crash(random, model);
    found.add(show(directory));
    const listed = await directory.scheduler.run(() => directory.open().list());
    expect(listed.sort()).toEqual(directory.fileNames.sort());
  }
  return found;
}

describe('a power cut', () => {
  test('keeps or loses each creation that was not synced', async () => {
    const found = await outcomes(async (folder) => {
      await add(folder, 'a', 1);
      await add(folder, 'b', 2);
    });
    expect(found).toEqual(new Set(['', 'a1', 'b2', 'a1,b2']));
  });

  test('keeps what a sync made durable, but not the content that nobody flushed', async () => {
    const found = await outcomes(async (folder) => {
      const file = await folder.create('a');
      await folder.sync();
      await file.resize(1);
      await file.write(0, Uint8Array.of(1));
    });
    expect(found).toEqual(new Set(['a', 'a0', 'a1']));
  });

  test('undoes or keeps a removal that was not synced', async () => {
    const found = await outcomes(async (folder) => {
      await add(folder, 'a', 1);
      await folder.sync();
      await folder.remove('a');
    });
    expect(found).toEqual(new Set(['', 'a1']));
  });

  test('leaves a name with any file it stood for since it was synced, or none', async () => {
    const found = await outcomes(async (folder) => {
      await add(folder, 'a', 1);
      await folder.sync();
      await folder.remove('a');
      await add(folder, 'a', 2);
    });
    expect(found).toEqual(new Set(['', 'a1', 'a2']));
  });

  test('a sync is about changes completed before it began', async () => {
    const found = await outcomes(async (folder) => {
      const creation = folder.create('a');
      await folder.sync();
      await creation;
    });
    expect(found).toEqual(new Set(['', 'a']));
  });

  test('a sync that takes long is not about what completes meanwhile', async () => {
    const found = new Set<string>();
    for (let seed = 0; seed < 50; seed++) {
      const directory = makeDirectory(seed, [{ operation: 'sync', effect: 'delay' }]);
      await directory.scheduler.run(async () => {
        const folder = directory.open();
        const sync = folder.sync();
        await folder.create('a');
        await sync;
      });
      directory.crash(new SeededRandom(seed), 'power-cut');
      found.add(show(directory));
    }
    expect(found).toEqual(new Set(['', 'a']));
  });

  test('changes of a name land in the order of their effects, not of their calls', async () => {
    const directory = makeDirectory(1, [{ operation: 'create', effect: 'delay', skip: 1 }]);
    await directory.scheduler.run(async () => {
      const folder = directory.open();
      await add(folder, 'a', 1);
      await folder.sync();
      const creation = add(folder, 'a', 2);
      await folder.remove('a');
      await creation;
      await folder.sync();
    });
    directory.crash(new SeededRandom(1), 'power-cut');
    expect(show(directory)).toBe('a2');
  });

  test('keeps or loses a creation and a removal in flight', async () => {
    const found = await outcomes(
      async (folder) => {
        await add(folder, 'a', 1);
        await folder.sync();
        await Promise.all([folder.remove('a'), folder.create('b')]);
      },
      { steps: (random) => 18 + random.below(8) },
    );
    for (const outcome of ['', 'a1', 'b', 'a1,b']) expect(found).toContain(outcome);
  });
});

describe('a killed process', () => {
  test('loses no creation and no removal that completed', async () => {
    const found = await outcomes(
      async (folder) => {
        await add(folder, 'a', 1);
        await add(folder, 'b', 2);
        await folder.remove('a');
      },
      { model: 'kill' },
    );
    expect(found).toEqual(new Set(['b2']));
  });

  test('may lose one in flight', async () => {
    const found = await outcomes((folder) => folder.create('a'), { model: 'kill', steps: () => 0 });
    expect(found).toEqual(new Set(['', 'a']));
  });

  test('in flight, what could not be done is not done', async () => {
    const found = await outcomes(
      (folder) => Promise.all([folder.remove('a'), folder.create('b'), folder.create('b')]),
      {
        model: 'kill',
        steps: () => 0,
      },
    );
    expect(found).toEqual(new Set(['', 'b']));
  });

  test('leaves it to the next process to sync', async () => {
    const found = new Set<string>();
    for (let seed = 0; seed < 50; seed++) {
      const directory = makeDirectory(seed);
      await directory.scheduler.run(() => add(directory.open(), 'a', 1));
      directory.scheduler.crash();
      directory.crash(new SeededRandom(seed), 'kill');
      if (seed % 2 === 0) await directory.scheduler.run(() => directory.open().sync());
      directory.crash(new SeededRandom(seed), 'power-cut');
      if (seed % 2 === 0) expect(show(directory)).toBe('a1');
      found.add(show(directory));
    }
    expect(found).toEqual(new Set(['', 'a1']));
  });
});

describe('SimulatedDirectory', () => {
  test('goes back to a saved state', async () => {
    const directory = makeDirectory(1);
    await directory.scheduler.run(async () => {
      await add(directory.open(), 'a', 1);
      await directory.open().sync();
      await add(directory.open(), 'b', 2);
      await directory.open().remove('a');
    });
    const saved = directory.save();
    const found = new Set<string>();
    for (let state = 0; state < 4; state++) {
      directory.scheduler.crash();
      directory.restore(saved);
      let bit = 0;
      directory.crashWith(
        'power-cut',
        () => (state & (1 << bit++)) !== 0,
        (file) => file.crashWith('power-cut', () => () => false),
      );
      found.add(show(directory));
    }
    expect(found).toEqual(new Set(['a1', 'a1,b2', '', 'b2']));
  });

  test('has room for so many bytes in all files together', async () => {
    const directory = makeDirectory(1, [], 1000);
    await directory.scheduler.run(async () => {
      const folder = directory.open();
      const first = await folder.create('a');
      const second = await folder.create('b');
      await first.resize(600);
      await expect(second.resize(500)).rejects.toMatchObject({ cause: { code: 'ENOSPC' } });
      await first.resize(500);
      await second.resize(500);
      directory.capacity = 2000;
      await second.resize(1500);
      expect(directory.usedBytes).toBe(2000);
    });
  });

  test('fails by rule; what failed did not happen, and a failed sync stays failed', async () => {
    const directory = makeDirectory(1, [
      { operation: 'create', effect: 'ENOSPC' },
      { operation: 'remove', effect: 'EIO' },
      { operation: ['list', 'open'], effect: 'EIO' },
      { operation: 'sync', effect: 'EIO' },
    ]);
    await directory.scheduler.run(async () => {
      const folder = directory.open();
      await expect(folder.create('a')).rejects.toMatchObject({ cause: { code: 'ENOSPC' } });
      await add(folder, 'a', 1);
      await expect(folder.remove('a')).rejects.toThrow(DeviceError);
      await expect(folder.list()).rejects.toThrow(DeviceError);
      expect(await folder.list()).toEqual(['a']);
      await expect(folder.sync()).rejects.toThrow(DeviceError);
      await expect(folder.sync()).rejects.toThrow(DeviceError);
      await directory.open().sync();
    });
    expect(directory.faults.counters).toEqual({
      'ENOSPC create': 1,
      'EIO remove': 1,
      'EIO list': 1,
      'EIO sync': 1,
    });
  });

  test('remembers broken rules of files that are gone', async () => {
    const random = new SeededRandom(1);
    const directory = new SimulatedDirectory({ scheduler: new Scheduler(random), strictOverlap: true });
    await directory.scheduler.run(async () => {
      const file = await directory.open().create('a');
      await file.resize(10);
      const write = file.write(0, new Uint8Array(10));
      await expect(file.write(5, new Uint8Array(1))).rejects.toThrow('overlaps');
      await write;
    });
    expect(directory.violations.length).toBe(1);
    directory.crashWith(
      'power-cut',
      () => false,
      (file) => file.crash(random, 'power-cut'),
    );
    expect(directory.fileNames).toEqual([]);
    expect(directory.violations.length).toBe(1);
  });
});
