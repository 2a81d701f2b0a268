/** Diff areas that are not there when the volume is opened. */
import { describe, expect, it } from 'vitest';
import type { Folder } from '../../../src/device/folder.ts';
import { FormatError, NoSpaceError, NotFoundError, OfflineError } from '../../../src/errors.ts';
import { FORMAT_SIGNATURE } from '../../../src/format/constants.ts';
import { DirectoryStore } from '../../../src/store/directory-store.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import type { VolumeOptions } from '../../../src/volume/volume.ts';
import { TestClock } from './late-clock.ts';
import { World } from './world.ts';

const LIMIT_MS = 5000;

/** A world whose diff areas lie on a device that comes and goes. */
class LateWorld {
  isThere = true;
  readonly clock = new TestClock();
  readonly deleted: string[] = [];
  readonly arrived: number[] = [];

  private constructor(readonly world: World) {}

  static async create(): Promise<LateWorld> {
    return new LateWorld(await World.create());
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
    return {
      name: inner.name,
      list: () => inner.list(),
      create: (name) => inner.create(name),
      remove: (name) => inner.remove(name),
      sync: () => inner.sync(),
      open: async (name, options) => {
        if (!this.isThere && !name.startsWith(`{${FORMAT_SIGNATURE}}`))
          throw new NotFoundError(`there is no ${name}`);
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

  it('waits on for one that is held, and lets writes fail when the memory is full', async () => {
    const late = await LateWorld.create();
    const { world } = late;
    const first = await world.snapshot();
    await first.hold();
    await late.openLate(16 * BLOCK_SIZE);
    await world.writeBlock(0);
    await late.wait(LIMIT_MS + 200);
    expect(late.deleted).toEqual([]);
    const bytes = new Uint8Array(BLOCK_SIZE).fill(7);
    const write = async (block: number) => world.write(block * BLOCK_SIZE, bytes);
    const writeAll = async () => {
      for (let block = 0; block < 40; block++) await write(block);
    };
    await expect(writeAll()).rejects.toThrow(NoSpaceError);
    await late.arrive();
    expect(world.volume.snapshots.map(({ id }) => id)).toEqual([first.id]);
    await writeAll();
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

  it('gives them up at a close, if there are copies in memory', async () => {
    const late = await LateWorld.create();
    const { world } = late;
    const { id } = await world.snapshot();
    await late.openLate();
    await world.writeRandomly(5);
    late.isThere = true;
    await world.reopen();
    expect(late.deleted).toEqual([`${id} late`]);
    expect(world.volume.snapshots).toEqual([]);
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
