/**
 * A volume in memory with its store, and a plain model of what must be in it.
 *
 * The bytes outlive every `Volume`: `reopen` closes, `kill` just forgets the object, as a killed process would.
 */
import { expect } from 'vitest';
import type { BlockDevice } from '../../../src/device/block-device.ts';
import type { Folder } from '../../../src/device/folder.ts';
import { MemoryContent, MemoryDevice } from '../../../src/device/memory-device.ts';
import { MemoryFolder } from '../../../src/device/memory-folder.ts';
import type { CreateSnapshotOptions } from '../../../src/snapshot/create.ts';
import type { Growth } from '../../../src/snapshot/growth.ts';
import type { Snapshot } from '../../../src/snapshot/snapshot.ts';
import { DirectoryStore } from '../../../src/store/directory-store.ts';
import { type InVolumeOptions, InVolumeStore } from '../../../src/store/in-volume-store.ts';
import type { Store } from '../../../src/store/store.ts';
import { SeededRandom } from '../../../src/testing/seeded-random.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { Volume, type VolumeOptions } from '../../../src/volume/volume.ts';
import { HookedDevice, HookedFolder, Hooks } from './hooks.ts';

export const KIBIBYTE = 1024;
export const MEBIBYTE = 1024 * 1024;
export type Layout = 'directory' | 'in-volume';
export const LAYOUTS: readonly Layout[] = ['directory', 'in-volume'];

/** Small steps, so that growth happens often. */
export const TINY_GROWTH: Growth = { initial: 16 * BLOCK_SIZE, maximum: 64 * BLOCK_SIZE };

export interface WorldOptions {
  readonly layout?: Layout;
  readonly size?: number;
  readonly reserve?: number;
  /** In-volume: where inside the volume the store lies, instead of behind it. */
  readonly runs?: InVolumeOptions['runs'];
  readonly maximumSize?: number;
  readonly growth?: Growth;
  readonly seed?: string;
  /** The volume's bytes at the beginning; by default random ones. */
  readonly filled?: boolean;
}

/** Bytes of the volume now and of every snapshot, kept by the test itself. */
export class Model {
  readonly bytes: Uint8Array;
  readonly snapshots = new Map<string, Uint8Array>();

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  write(offset: number, source: Uint8Array): void {
    this.bytes.set(source, offset);
  }

  /** Blocks in which two moments differ, `undefined` meaning now. */
  changed(since: string, until?: string): Set<number> {
    const a = this.of(since);
    const b = until === undefined ? this.bytes : this.of(until);
    const blocks = new Set<number>();
    for (let at = 0; at < a.byteLength; at += BLOCK_SIZE) {
      if (Buffer.compare(a.subarray(at, at + BLOCK_SIZE), b.subarray(at, at + BLOCK_SIZE)) !== 0)
        blocks.add(at / BLOCK_SIZE);
    }
    return blocks;
  }

  of(id: string): Uint8Array {
    const bytes = this.snapshots.get(id);
    if (bytes === undefined) throw new Error(`the model has no snapshot ${id}`);
    return bytes;
  }
}

export class World {
  readonly hooks = new Hooks();
  readonly content: MemoryContent;
  readonly folder: MemoryFolder;
  readonly random: SeededRandom;
  readonly layout: Layout;
  readonly size: number;
  readonly model: Model;
  readonly #growth: Growth;
  #volume: Volume | undefined;
  /** Used for the next openings, besides store and growth. */
  options: VolumeOptions = {};

  private constructor(options: WorldOptions) {
    this.layout = options.layout ?? 'directory';
    this.size = options.size ?? MEBIBYTE;
    this.random = new SeededRandom(options.seed ?? 'world');
    const bytes = new Uint8Array(this.size);
    if (options.filled !== false) this.random.fill(bytes);
    this.model = new Model(bytes.slice());
    this.content = new MemoryContent(bytes);
    this.folder = new MemoryFolder('store');
    this.#growth = options.growth ?? TINY_GROWTH;
  }

  /** A world whose volume has an empty store and is open. */
  static async create(options: WorldOptions = {}): Promise<World> {
    const world = new World(options);
    const device = world.device();
    await Volume.initialize(device, {
      store:
        world.layout === 'directory'
          ? world.store()
          : new InVolumeStore(
              options.runs === undefined
                ? { reserve: options.reserve ?? 8 * MEBIBYTE }
                : { runs: options.runs },
            ),
      maximumSize: options.maximumSize ?? 0,
    });
    await device.close();
    await world.open();
    return world;
  }

  device(options: { writable?: boolean } = {}): HookedDevice {
    return new HookedDevice(
      new MemoryDevice(this.content, { name: 'volume', writable: options.writable ?? true }),
      this.hooks,
    );
  }

  hookedFolder(): Folder {
    return new HookedFolder(this.folder, this.hooks);
  }

  store(): Store {
    return this.layout === 'directory' ? new DirectoryStore(this.hookedFolder()) : new InVolumeStore();
  }

  get volume(): Volume {
    if (this.#volume === undefined) throw new Error('the volume is not open');
    return this.#volume;
  }

  async open(options: VolumeOptions = {}, device: BlockDevice = this.device()): Promise<Volume> {
    this.#volume = await Volume.open(device, {
      store: this.store(),
      growth: this.#growth,
      ...this.options,
      ...options,
    });
    return this.#volume;
  }

  async reopen(options: VolumeOptions = {}): Promise<Volume> {
    await this.volume.close();
    return this.open(options);
  }

  /**
   * As if the process had been killed between two operations.
   * @param options made only then, if they have to do with folders or devices: those from before are dead
   */
  async kill(options: VolumeOptions | (() => VolumeOptions) = {}): Promise<Volume> {
    this.#volume = undefined;
    this.hooks.generation++;
    this.hooks.before = () => undefined;
    return this.open(typeof options === 'function' ? options() : options);
  }

  async write(offset: number, source: Uint8Array): Promise<void> {
    await this.volume.write(offset, source);
    this.model.write(offset, source);
  }

  /** Writes random bytes to a whole block. */
  async writeBlock(block: number, count = 1): Promise<void> {
    const offset = block * BLOCK_SIZE;
    const length = Math.min(count * BLOCK_SIZE, this.size - offset);
    await this.write(offset, this.random.fill(new Uint8Array(length)));
  }

  /** `count` writes of random bytes, or now and then of zeros, at random places. */
  async writeRandomly(count: number, longest = 3 * BLOCK_SIZE): Promise<void> {
    for (let i = 0; i < count; i++) {
      const length = this.random.between(1, Math.min(longest, this.size));
      const offset = this.random.below(this.size - length + 1);
      const bytes = new Uint8Array(length);
      if (this.random.chance(0.85)) this.random.fill(bytes);
      await this.write(offset, bytes);
    }
  }

  async snapshot(options: CreateSnapshotOptions = {}): Promise<Snapshot> {
    const snapshot = await this.volume.createSnapshot(options);
    this.model.snapshots.set(snapshot.id, this.model.bytes.slice());
    return snapshot;
  }

  /** The volume and every snapshot there is hold what the model says. */
  async expectRight(): Promise<void> {
    expectSame(await this.volume.read(0, this.size), this.model.bytes, 'the volume');
    for (const snapshot of this.volume.snapshots) {
      expectSame(
        await snapshot.read(0, snapshot.size),
        this.model.of(snapshot.id),
        `snapshot ${snapshot.order}`,
      );
    }
  }
}

/** Says where the bytes differ instead of printing megabytes. */
export function expectSame(actual: Uint8Array, wanted: Uint8Array, what: string): void {
  expect(actual.byteLength, `size of ${what}`).toBe(wanted.byteLength);
  if (Buffer.compare(actual, wanted) === 0) return;
  const blocks: number[] = [];
  for (let at = 0; at < wanted.byteLength; at += BLOCK_SIZE) {
    if (Buffer.compare(actual.subarray(at, at + BLOCK_SIZE), wanted.subarray(at, at + BLOCK_SIZE)) !== 0)
      blocks.push(at / BLOCK_SIZE);
  }
  expect.fail(`${what} differs in ${blocks.length} blocks: ${blocks.slice(0, 20).join(', ')}`);
}
