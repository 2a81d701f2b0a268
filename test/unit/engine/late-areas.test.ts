/** Diff areas that are not there when the volume is opened. */
import { describe, expect, it } from 'vitest';
import type { Folder } from '../../../src/device/folder.ts';
import { DeviceError, FormatError, NoSpaceError, NotFoundError, OfflineError } from '../../../src/errors.ts';
import type { FreeSpaceProvider } from '../../../src/filesystem/free-space.ts';
import { FORMAT_SIGNATURE } from '../../../src/format/constants.ts';
import { DirectoryStore } from '../../../src/store/directory-store.ts';
import { BLOCK_SIZE, blocksIn } from '../../../src/units.ts';
import type { VolumeOptions } from '../../../src/volume/volume.ts';
import { TestClock } from './late-clock.ts';
import { World, type WorldOptions } from './world.ts';

const LIMIT_MS = 5000;

/** Says that these blocks are unused. */
const freeing = (blocks: readonly number[]): FreeSpaceProvider => ({
  name: 'test',
  async unusedBlocks(_, size) {
    const unused = new Uint8Array(Math.ceil(blocksIn(size) / 8));
    for (const block of blocks) unused[block >>> 3] = (unused[block >>> 3] ?? 0) | (1 << (block & 7));
    return { unused };
  },
});

/** A world whose diff areas lie on a device that comes and goes. */
class LateWorld {
  isThere = true;
  /** Of those that are not: all, unless it is about one snapshot's. */
  missing: string | undefined;
  readonly clock = new TestClock();
  readonly deleted: string[] = [];
  readonly arrived: number[] = [];
  /** Names of errors told by `backgroundFailure`. */
  readonly failures: string[] = [];

  private constructor(readonly world: World) {}

  static async create(options: WorldOptions = {}): Promise<LateWorld> {
    return new LateWorld(await World.create(options));
  }

  options(memoryLimit = 4 * 1024 * 1024): VolumeOptions {
    return {
      store: new DirectoryStore(this.#folder()),
      environment: { clock: this.clock, random: this.world.random },
      lateAreas: { timeLimitMs: LIMIT_MS, memoryLimit, intervalMs: 100 },
    };
  }

  #folder(): Folder {
    const inner = this.world.hookedFolder();
    const has = (name: string) =>
      this.isThere || name.startsWith(`{${FORMAT_SIGNATURE}}`) || !name.includes(this.missing ?? '');
    const check = (name: string) => {
      if (!has(name)) throw new NotFoundError(`there is no ${name}`);
    };
    return {
      name: inner.name,
      list: async () => (await inner.list()).filter(has),
      create: (name) => inner.create(name),
      remove: async (name) => {
        check(name);
        return inner.remove(name);
      },
      sync: () => inner.sync(),
      open: async (name, options) => {
        check(name);
        return inner.open(name, options);
      },
    };
  }

  /** Without its diff areas. */
  async openLate(memoryLimit?: number): Promise<void> {
    await this.world.volume.close();
    this.isThere = false;
    await this.world.open(this.options(memoryLimit));
    this.world.volume.on('deleted', ({ id, reason }) => this.deleted.push(`${id} ${reason}`));
    this.world.volume.on('arrived', ({ copies }) => this.arrived.push(copies));
    this.world.volume.on('backgroundFailure', ({ error }) =>
      this.failures.push(error instanceof Error ? error.name : ''),
    );
  }

  async wait(milliseconds: number): Promise<void> {
    await this.clock.pass(milliseconds);
  }

  async arrive(): Promise<void> {
    this.isThere = true;
    await this.wait(200);
  }
}

describe('diff areas that arrive late', () => {
  it('hides what needs them, and has everything when they arrive', async () => {
    const late = await LateWorld.create();
    const { world } = late;
    const first = await world.snapshot();
    await world.writeRandomly(10);
    const second = await world.snapshot();
    await world.writeRandomly(5);
    await late.openLate();
    expect(world.volume.snapshots).toEqual([]);
    expect(world.volume.recovery.warnings.join()).toContain(`${first.id}, ${second.id}`);
    await world.writeRandomly(30);
    await world.write(5 * BLOCK_SIZE, new Uint8Array(BLOCK_SIZE));
    await world.volume.copyRange(0, 8 * BLOCK_SIZE, BLOCK_SIZE);
    world.model.bytes.copyWithin(8 * BLOCK_SIZE, 0, BLOCK_SIZE);
    await late.wait(1000);
    expect(world.volume.snapshots).toEqual([]);
    await late.arrive();
    expect(late.arrived).toHaveLength(1);
    expect(late.deleted).toEqual([]);
    expect(world.volume.snapshots.map(({ id }) => id)).toEqual([first.id, second.id]);
    await world.expectRight();
    await world.writeRandomly(30);
    await world.expectRight();
    await world.reopen();
    await world.expectRight();
    expect((await world.volume.scrub()).problems).toEqual([]);
  });

  it('can be opened without anything written, time and again', async () => {
    const late = await LateWorld.create();
    await late.world.snapshot();
    await late.world.writeRandomly(5);
    await late.openLate();
    await late.openLate();
    await late.arrive();
    expect(late.world.volume.snapshots).toHaveLength(1);
    await late.world.expectRight();
  });

  it('takes new snapshots meanwhile, which are not deleted before their elders have arrived', async () => {
    const late = await LateWorld.create();
    const { world } = late;
    await world.snapshot();
    await world.writeRandomly(5);
    await late.openLate();
    await world.writeRandomly(5);
    const newer = await world.snapshot();
    await world.writeRandomly(10);
    await world.expectRight();
    await expect(newer.delete()).rejects.toThrow(OfflineError);
    await expect(world.volume.scrub()).rejects.toThrow(OfflineError);
    await late.arrive();
    expect(world.volume.snapshots).toHaveLength(2);
    await world.expectRight();
    await newer.delete();
    await world.volume.settled();
    await world.expectRight();
    await world.reopen();
    await world.expectRight();
  });

  it.each([[[2]], [[9]], [[2, 9]]])(
    'lets a new snapshot skip nothing because of copies in memory (%j)',
    async (written) => {
      const late = await LateWorld.create();
      const { world } = late;
      await world.snapshot();
      // What was in block 2 counts where it lies now: a copy of block 2 is none that the snapshot takes.
      await world.volume.copyRange(2 * BLOCK_SIZE, 9 * BLOCK_SIZE, BLOCK_SIZE);
      world.model.bytes.copyWithin(9 * BLOCK_SIZE, 2 * BLOCK_SIZE, 3 * BLOCK_SIZE);
      await late.openLate();
      for (const block of written) await world.writeBlock(block);
      const newer = await world.snapshot({ unusedSpace: freeing([2, 9]) });
      expect(newer.unusedBytes).toBe(0);
      await world.writeBlock(2);
      await world.writeBlock(9);
      await late.arrive();
      expect(late.arrived).toHaveLength(1);
      await world.expectRight();
      expect((await world.volume.scrub()).problems).toEqual([]);
      await world.reopen();
      await world.expectRight();
    },
  );

  it('gives the snapshots up when they do not arrive in time', async () => {
    const late = await LateWorld.create();
    const { world } = late;
    const { id } = await world.snapshot();
    await late.openLate();
    await world.writeRandomly(20);
    await late.wait(LIMIT_MS + 200);
    expect(late.deleted).toEqual([`${id} late`]);
    await world.snapshot();
    await world.writeRandomly(20);
    late.isThere = true;
    await world.reopen();
    expect(world.volume.snapshots).toHaveLength(1);
    await world.expectRight();
    expect((await world.folder.list()).length).toBe(2);
  });

  it('gives the snapshots up when the memory is full, and the writes go on', async () => {
    const late = await LateWorld.create();
    const { world } = late;
    const first = await world.snapshot();
    const second = await world.snapshot();
    await late.openLate(16 * BLOCK_SIZE);
    for (let block = 0; block < 40; block++) await world.writeBlock(block);
    expect(late.deleted).toEqual([`${first.id} late`, `${second.id} late`]);
    await late.arrive();
    expect(world.volume.snapshots).toEqual([]);
    await world.expectRight();
  });

  it('lets writes fail when the memory is full, if the policy is to keep snapshots', async () => {
    const late = await LateWorld.create();
    const { world } = late;
    await world.volume.setSpacePolicy('fail-writes');
    const first = await world.snapshot();
    await late.openLate(16 * BLOCK_SIZE);
    const told: string[] = [];
    world.volume.on('overflow', ({ action, reason }) => told.push(`${action} ${reason}`));
    world.volume.on('writesResumed', ({ reason }) => told.push(reason));
    const bytes = new Uint8Array(BLOCK_SIZE).fill(7);
    const writeAll = async () => {
      for (let block = 0; block < 40; block++) await world.write(block * BLOCK_SIZE, bytes);
    };
    await expect(writeAll()).rejects.toThrow(NoSpaceError);
    expect(world.volume.figures.space?.isFull).toBe(true);
    await late.arrive();
    expect(world.volume.snapshots.map(({ id }) => id)).toEqual([first.id]);
    expect(told).toEqual(['fail-writes memory', 'space-given']);
    await writeAll();
    await world.expectRight();
  });

  it('does not open where copies in memory would be all that a held snapshot has', async () => {
    const late = await LateWorld.create();
    const { world } = late;
    const first = await world.snapshot();
    await world.snapshot();
    await first.hold();
    await expect(late.openLate()).rejects.toThrow(OfflineError);
    late.isThere = true;
    await world.open(late.options());
    expect(world.volume.snapshots).toHaveLength(2);
    await world.expectRight();
  });

  it('waits on for one that is held where nothing is in memory', async () => {
    const late = await LateWorld.create();
    const { world } = late;
    const first = await world.snapshot();
    await first.hold();
    await world.writeRandomly(5);
    await world.snapshot();
    late.missing = first.id;
    await late.openLate();
    expect(world.volume.snapshots).toHaveLength(1);
    await world.writeRandomly(10);
    await late.wait(2 * LIMIT_MS + 1000);
    expect(late.failures).toEqual(['HeldError', 'HeldError']);
    await late.arrive();
    expect(world.volume.snapshots).toHaveLength(2);
    await world.expectRight();
  });

  it.each(['read-only', 'writable'])('gives them up after a crash before they arrived (%s)', async (mode) => {
    const late = await LateWorld.create();
    const { world } = late;
    const { id } = await world.snapshot();
    await world.writeRandomly(5);
    await late.openLate();
    await world.writeRandomly(5);
    late.isThere = true;
    if (mode === 'read-only') {
      const volume = await world.kill({ readOnly: true });
      expect(volume.snapshots.map(({ state }) => state)).toEqual(['damaged']);
      return;
    }
    const volume = await world.kill();
    expect(volume.snapshots).toEqual([]);
    expect(volume.recovery.droppedSnapshots).toEqual([{ id, reason: 'late' }]);
    await world.expectRight();
  });

  it('loses nothing in a crash if nothing was overwritten', async () => {
    const late = await LateWorld.create();
    const { world } = late;
    await world.snapshot();
    await world.writeRandomly(5);
    await late.openLate();
    late.isThere = true;
    await world.kill();
    expect(world.volume.snapshots).toHaveLength(1);
    await world.expectRight();
  });

  it.each(['away', 'there'])('gives them up at a close only if the device is away (%s)', async (device) => {
    const late = await LateWorld.create();
    const { world } = late;
    const { id } = await world.snapshot();
    await late.openLate();
    await world.writeRandomly(5);
    late.isThere = device === 'there';
    await world.volume.close();
    expect(late.deleted).toEqual(device === 'there' ? [] : [`${id} late`]);
    late.isThere = true;
    await world.open();
    expect(world.volume.snapshots).toHaveLength(device === 'there' ? 1 : 0);
    await world.expectRight();
    expect((await world.volume.scrub()).problems).toEqual([]);
  });

  it('tells once what stands in the way, and takes them up when it is gone', async () => {
    const late = await LateWorld.create();
    const { world } = late;
    const { id } = await world.snapshot();
    await late.openLate();
    await world.writeRandomly(20);
    world.hooks.before = ({ kind, target }) => {
      if (kind === 'flush' && target.includes(id)) throw new DeviceError('worn out');
      return undefined;
    };
    await late.arrive();
    await late.wait(500);
    expect(late.failures).toEqual(['DeviceError']);
    expect(world.volume.snapshots).toEqual([]);
    world.hooks.before = () => undefined;
    await late.wait(200);
    expect(late.arrived).toHaveLength(1);
    await world.expectRight();
    await world.reopen();
    await world.expectRight();
  });

  it('counts them against the limit, and only once however often they are looked for', async () => {
    const late = await LateWorld.create({ maximumSize: 80 * BLOCK_SIZE });
    const { world } = late;
    const { id } = await world.snapshot();
    await world.writeBlock(0, 10);
    const before = world.volume.figures.allocatedBytes;
    await late.openLate();
    expect(world.volume.figures).toMatchObject({
      allocatedBytes: before,
      late: { ids: [id], copiedBytes: 0 },
    });
    world.hooks.before = ({ kind, target }) => {
      if (kind === 'flush' && target.includes(id)) throw new DeviceError('worn out');
      return undefined;
    };
    await late.arrive();
    await late.wait(1000);
    expect(world.volume.figures.allocatedBytes).toBe(before);
    world.hooks.before = () => undefined;
    await late.wait(200);
    expect(world.volume.figures).toMatchObject({ allocatedBytes: before, late: undefined });
    expect(world.volume.snapshots[0]?.allocatedBytes).toBe(before);
    await world.volume.deleteOldest();
    await world.volume.settled();
    expect(world.volume.figures.allocatedBytes).toBe(0);
  });

  it('gives the space of what is given up back', async () => {
    const late = await LateWorld.create({ maximumSize: 40 * BLOCK_SIZE });
    const { world } = late;
    await world.snapshot();
    await world.writeBlock(0, 20);
    await late.openLate();
    await late.wait(LIMIT_MS + 200);
    expect(world.volume.figures.allocatedBytes).toBe(0);
    await world.snapshot();
    await world.writeBlock(0, 20);
    await world.expectRight();
  });

  it('lets older ones go where an arrived one lacks room for its copies', async () => {
    const late = await LateWorld.create({ maximumSize: 60 * BLOCK_SIZE });
    const { world } = late;
    const first = await world.snapshot();
    await world.writeBlock(0, 20);
    const second = await world.snapshot();
    await late.openLate();
    await world.writeBlock(10, 40);
    await late.arrive();
    expect(late.deleted).toEqual([`${first.id} space`]);
    expect(world.volume.snapshots.map(({ id }) => id)).toEqual([second.id]);
    await world.expectRight();
    expect((await world.volume.scrub()).problems).toEqual([]);
  });

  it('gives up what has no room when the time is over, and not before', async () => {
    const late = await LateWorld.create({ maximumSize: 30 * BLOCK_SIZE });
    const { world } = late;
    const { id } = await world.snapshot();
    await late.openLate();
    await world.writeBlock(0, 60);
    await late.arrive();
    await late.wait(1000);
    expect(late.failures).toEqual(['NoSpaceError']);
    expect(late.deleted).toEqual([]);
    await late.wait(LIMIT_MS);
    expect(late.deleted).toEqual([`${id} late`]);
    await world.expectRight();
  });

  it('goes on with writes of the buffer that come while they arrive', async () => {
    const late = await LateWorld.create();
    const { world } = late;
    world.options = { writeMode: 'writeback' };
    await world.snapshot();
    await late.openLate();
    await world.writeRandomly(20);
    late.isThere = true;
    const arriving = late.wait(300);
    for (let round = 0; round < 10; round++) {
      await world.writeRandomly(3);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await arriving;
    expect(late.arrived).toHaveLength(1);
    await world.volume.flush();
    await world.expectRight();
    await world.kill();
    await world.expectRight();
  });

  it('ends a revert that was begun meanwhile, though the older snapshots were lost in a crash', async () => {
    const late = await LateWorld.create();
    const { world } = late;
    const first = await world.snapshot();
    await late.openLate();
    await world.writeRandomly(5);
    const second = await world.snapshot();
    await world.writeRandomly(20);
    const goal = world.model.of(second.id);
    let writes = 0;
    world.hooks.before = ({ kind, target }) => {
      // Soon after it has begun to put blocks back.
      if (kind !== 'write' || target !== 'volume' || ++writes < 3) return undefined;
      return new Promise(() => undefined);
    };
    world.volume.revert(second, { keepPrevious: false });
    await late.wait(500);
    late.isThere = true;
    const volume = await world.kill();
    expect(volume.recovery.droppedSnapshots).toEqual([{ id: first.id, reason: 'late' }]);
    for (let turn = 0; turn < 1000 && volume.figures.revert !== undefined; turn++)
      await new Promise((resolve) => setImmediate(resolve));
    expect(volume.figures.revert).toBeUndefined();
    expect(Buffer.compare(await volume.read(0, world.size), goal)).toBe(0);
  });

  it('lets what was not to stay wait until the elder that it is merged into has arrived', async () => {
    const late = await LateWorld.create();
    const { world } = late;
    const first = await world.snapshot();
    await world.writeRandomly(5);
    await world.snapshot({ autoRelease: true });
    await world.writeRandomly(5);
    late.isThere = false;
    late.missing = first.id;
    const volume = await world.kill(() => late.options());
    expect(volume.snapshots).toEqual([]);
    await late.arrive();
    await volume.settled();
    expect(volume.snapshots.map(({ id }) => id)).toEqual([first.id]);
    await world.expectRight();
  });

  it('does not wait without being told to', async () => {
    const late = await LateWorld.create();
    await late.world.snapshot();
    await late.world.volume.close();
    late.isThere = false;
    const { lateAreas: _, ...options } = late.options();
    await expect(late.world.open(options)).rejects.toThrow(FormatError);
  });
});
