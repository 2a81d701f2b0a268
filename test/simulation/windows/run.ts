/**
 * Writes to a volume with shadow copies of Windows in a simulated world, from one seed: clients write, the device fails, everything crashes, and
 * afterwards every shadow copy must read as Windows left it, but for what it left undefined: blocks that nothing used, and the stores.
 *
 * After each crash the bytes on the disk are read by `ForeignStore` alone, so nothing that the writer knows is trusted.
 */
import {
  DeviceError,
  MemoryDevice,
  NoSpaceError,
  ReadOnlyError,
  SnapshotDeletedError,
  Volume,
} from '../../../src/index.js';
import { ModelMismatch, type SeededRandom, SimulatedWorld, VolumeModel } from '../../../src/testing/index.js';
import { BLOCK_SIZE, SECTOR_SIZE } from '../../../src/units.js';
import { ForeignStore } from '../../../src/windows/foreign-store.js';
import { randomWritableImage, type WritableImage } from '../../interop/support/random-windows-image.js';
import { type Expected, ExpectedCopies } from './expected.js';

export interface WindowsCounters {
  cycles: number;
  crashes: number;
  faults: number;
  writes: number;
  copies: number;
  /** Writes for which there was no room. */
  refused: number;
  deleted: number;
  /** Of the longest newest table; a block holds 508. */
  entriesMax: number;
  blocksCompared: number;
}

export const noWindowsCounters = (): WindowsCounters => ({
  cycles: 0,
  crashes: 0,
  faults: 0,
  writes: 0,
  copies: 0,
  refused: 0,
  deleted: 0,
  entriesMax: 0,
  blocksCompared: 0,
});

export interface WindowsRunOptions {
  readonly cycles: number;
  readonly faults: boolean;
}

/** @returns the trace hash @throws whatever shows that a promise was broken, with the cycle */
export async function runWindows(
  seed: number | string,
  options: WindowsRunOptions,
  counters: WindowsCounters,
): Promise<number> {
  const run = await WindowsRun.create(seed, options, counters);
  let cycle = 0;
  try {
    for (; cycle < options.cycles; cycle++) await run.cycle();
    run.count();
  } catch (error) {
    const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    throw new Error(`seed ${seed}, cycle ${cycle}: ${text}`, { cause: error });
  }
  return run.traceHash;
}

class WindowsRun {
  readonly #world: SimulatedWorld;
  readonly #random: SeededRandom;
  readonly #options: WindowsRunOptions;
  readonly #counters: WindowsCounters;
  readonly #image: WritableImage;
  readonly #model: VolumeModel;
  readonly #policy: 'keep' | 'drop';
  readonly #expected: ExpectedCopies;
  #failing = false;

  private constructor(
    world: SimulatedWorld,
    image: WritableImage,
    expected: ExpectedCopies,
    options: WindowsRunOptions,
    counters: WindowsCounters,
  ) {
    this.#options = options;
    this.#counters = counters;
    this.#world = world;
    this.#random = world.random;
    this.#image = image;
    this.#expected = expected;
    this.#policy = this.#random.chance(0.8) ? 'keep' : 'drop';
    this.#model = new VolumeModel(image.bytes);
  }

  static async create(
    seed: number | string,
    options: WindowsRunOptions,
    counters: WindowsCounters,
  ): Promise<WindowsRun> {
    const world = new SimulatedWorld(`windows ${seed}`);
    const image = randomWritableImage(world.random.fork('image'));
    const run = new WindowsRun(world, image, await ExpectedCopies.of(image), options, counters);
    await run.#begin();
    return run;
  }

  async #begin(): Promise<void> {
    const { bytes } = this.#image;
    this.#world.addDisk('volume', { size: bytes.byteLength, atOnce: this.#random.chance(0.5) });
    await this.#world.run(async () => {
      const device = this.#world.device('volume');
      await device.write(0, bytes);
      await device.flush();
    });
  }

  get traceHash(): number {
    return this.#world.traceHash;
  }

  count(): void {
    for (const count of Object.values(this.#world.faults.counters)) this.#counters.faults += count;
    this.#counters.blocksCompared += this.#expected.blocksCompared;
  }

  async cycle(): Promise<void> {
    const random = this.#random;
    this.#counters.cycles++;
    const opening = await this.#world.runSteps(
      () => this.#open(),
      random.chance(0.1) ? random.below(100) : Infinity,
    );
    if (!opening.finished) return this.#crash();
    const volume = opening.value;
    this.#failing = this.#options.faults && random.chance(0.3);
    if (this.#failing) this.#world.faults.draw(random.pick([0.01, 0.05]));
    const isClosed = random.chance(0.2);
    const steps = isClosed ? Infinity : random.pick([20, 100, 400, 2000]);
    const { finished } = await this.#world.runSteps(() => this.#work(volume), steps);
    this.#counters.copies += volume.figures.copies.copiedBlocks;
    if (finished && isClosed && !this.#failing) await this.#world.run(() => volume.close());
    this.#world.faults.clear();
    await this.#crash();
    this.#failing = false;
    const { violations } = this.#world;
    if (violations.length > 0) throw new ModelMismatch(`device contract broken: ${violations.join('; ')}`);
  }

  async #open(): Promise<Volume> {
    const volume = await Volume.open(this.#world.device('volume'), {
      shadowCopies: this.#policy,
      environment: this.#world.environment(),
    });
    const stateOf = (id: string, state: Expected['state']) => {
      const expected = this.#expected.find(id);
      if (expected !== undefined) expected.state = state;
    };
    volume.on('deleting', ({ id }) => stateOf(id, 'deleting'));
    volume.on('deleted', ({ id }) => {
      this.#counters.deleted++;
      stateOf(id, 'gone');
    });
    return volume;
  }

  async #crash(): Promise<void> {
    this.#counters.crashes++;
    const kind = this.#failing ? 'power-cut' : this.#random.pick(['kill', 'power-cut'] as const);
    this.#world.crash(kind);
    this.#model.crash(kind);
    const bytes = this.#world.disk('volume').peek();
    this.#model.reconcileVolume(this.#withoutStores(bytes));
    await this.#compare(bytes);
  }

  /** The bytes with the stores as they were: the model knows nothing of them. */
  #withoutStores(bytes: Uint8Array): Uint8Array {
    const shown = bytes.slice();
    for (const block of this.#expected.stores) {
      const [from, to] = [block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE];
      shown.set(this.#image.bytes.subarray(from, to), from);
    }
    return shown;
  }

  async #compare(bytes: Uint8Array): Promise<void> {
    const store = await ForeignStore.open(new MemoryDevice(bytes));
    this.#counters.entriesMax = Math.max(this.#counters.entriesMax, store.snapshots.at(-1)?.entryCount ?? 0);
    await this.#expected.compare(store.snapshots);
  }

  async #work(volume: Volume): Promise<void> {
    const operations = this.#random.pick([2, 10, 30]);
    const clients = Array.from({ length: this.#random.between(1, 4) }, async () => {
      for (let done = 0; done < operations; done++) await this.#attempt(volume);
    });
    await Promise.all(clients);
  }

  async #attempt(volume: Volume): Promise<void> {
    try {
      await this.#operate(volume);
    } catch (error) {
      if (error instanceof NoSpaceError) this.#counters.refused++;
      else if (error instanceof SnapshotDeletedError) return;
      else if (!(this.#failing && error instanceof DeviceError)) throw error;
    }
  }

  async #operate(volume: Volume): Promise<void> {
    const random = this.#random;
    const kind = random.below(40);
    if (kind === 0) return random.chance(0.3) ? volume.deleteOldest() : undefined;
    if (kind < 3) return this.#writeStore(volume);
    if (kind < 10) return this.#readSnapshot(volume);
    if (kind < 13) {
      const flush = this.#model.beginFlush();
      try {
        await volume.flush();
      } catch (error) {
        this.#model.endFlush(flush, 'failed');
        throw error;
      }
      return this.#model.endFlush(flush);
    }
    const [offset, length] = this.#drawRange();
    if (kind < 16) {
      const read = this.#model.beginRead();
      try {
        this.#model.endRead(read, offset, await volume.read(offset, length));
      } catch (error) {
        this.#model.cancelRead(read);
        throw error;
      }
      return;
    }
    this.#counters.writes++;
    const isZero = random.chance(0.1);
    const bytes = isZero ? new Uint8Array(length) : random.fill(new Uint8Array(length));
    const write = this.#model.beginWrite(offset, bytes);
    try {
      await (isZero ? volume.writeZeroes(offset, length) : volume.write(offset, bytes));
    } catch (error) {
      this.#model.endWrite(write, 'failed');
      throw error;
    }
    this.#model.endWrite(write);
  }

  /** Up to three blocks, in whole sectors, that meet no store. Mostly among the first, which entries are about. */
  #drawRange(): [number, number] {
    const random = this.#random;
    for (;;) {
      const sectors = random.pick([1, 2, 8, 32, 64, 96]);
      const blocks = random.chance(0.5) ? 16 : this.#image.bytes.byteLength / BLOCK_SIZE;
      const offset = random.below(blocks * 32 - sectors) * SECTOR_SIZE;
      const end = offset + sectors * SECTOR_SIZE;
      let isFree = offset >= 0x2000 || end <= 0x1e00;
      for (let block = Math.floor(offset / BLOCK_SIZE); block * BLOCK_SIZE < end; block++)
        isFree &&= !this.#expected.stores.has(block);
      if (isFree) return [offset, end - offset];
    }
  }

  /** As long as there are shadow copies it must be refused; and whatever it would have destroyed is compared after the crash. */
  async #writeStore(volume: Volume): Promise<void> {
    const newest = this.#expected.all.at(-1);
    const block = this.#random.pick([...this.#image.stores.map(([start]) => start), 0]);
    const [oldest] = this.#expected.all;
    if (this.#policy === 'drop' || newest?.state !== 'there' || oldest?.state !== 'there') return;
    const offset = block === 0 ? 0x1e00 : block * BLOCK_SIZE;
    await volume.write(offset, new Uint8Array(SECTOR_SIZE)).then(
      () => {
        // Deleted meanwhile, it is a block as any other; the model leaves it out all the same.
        if (oldest.state === 'there') throw new ModelMismatch(`a store was overwritten at ${offset}`);
      },
      (error: unknown) => {
        if (!(error instanceof ReadOnlyError)) throw error;
      },
    );
  }

  async #readSnapshot(volume: Volume): Promise<void> {
    const snapshot = this.#random.pick([...volume.snapshots, undefined]);
    const expected = snapshot && this.#expected.find(snapshot.storeId);
    if (snapshot === undefined || expected === undefined) return;
    const length = this.#random.pick([1, 4, 12]) * BLOCK_SIZE;
    // Mostly where others write.
    const area = this.#random.chance(0.7) ? 16 * BLOCK_SIZE : snapshot.size;
    const offset = this.#random.below((area - length) / SECTOR_SIZE) * SECTOR_SIZE;
    this.#expected.check(expected, offset, await snapshot.read(offset, length));
  }
}
