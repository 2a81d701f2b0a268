/**
 * Runs a cached device in a simulated world, from one seed: clients read and write, devices fail, everything crashes, and afterwards every byte read through
 * the cache must be the one that the backing has.
 */
import { CachedDevice, CacheImage, DeviceError, NoSpaceError } from '../../../src/index.js';
import { ModelMismatch, SeededRandom, SimulatedWorld, VolumeModel } from '../../../src/testing/index.js';

const SECTOR = 512;
const MEBIBYTE = 1024 * 1024;
/** What is written is taken from it, from anywhere. */
const NOISE = new SeededRandom('cache content').fill(new Uint8Array(MEBIBYTE));
const MODIFICATION = '11111111-1111-4111-8111-111111111111';

export interface CacheCounters {
  cycles: number;
  crashes: number;
  faults: number;
  operations: number;
  bytesVerified: number;
  bytesHit: number;
  /** Extents that were cached right after a crash. */
  extentsKept: number;
  evicted: number;
  invalidated: number;
  imagesFailed: number;
}

export const noCacheCounters = (): CacheCounters => ({
  cycles: 0,
  crashes: 0,
  faults: 0,
  operations: 0,
  bytesVerified: 0,
  bytesHit: 0,
  extentsKept: 0,
  evicted: 0,
  invalidated: 0,
  imagesFailed: 0,
});

export interface CacheRunOptions {
  readonly cycles: number;
  readonly faults: boolean;
}

/** @returns the trace hash @throws whatever shows that a promise was broken, with the cycle */
export async function runCache(
  seed: number,
  options: CacheRunOptions,
  counters: CacheCounters,
): Promise<number> {
  const run = new CacheRun(seed, options, counters);
  let cycle = 0;
  try {
    await run.initialize();
    for (; cycle < options.cycles; cycle++) await run.cycle();
    await run.finish();
  } catch (error) {
    throw new Error(
      `cycle ${cycle}: ${error instanceof Error ? `${error.name}: ${error.message}` : String(error)}`,
      {
        cause: error,
      },
    );
  }
  return run.traceHash;
}

class CacheRun {
  readonly #options: CacheRunOptions;
  readonly #counters: CacheCounters;
  readonly #world: SimulatedWorld;
  readonly #random: SeededRandom;
  readonly #model: VolumeModel;
  readonly #backingSize: number;
  readonly #imageSize: number;
  readonly #policy: 'write-through' | 'write-around';
  /** Does the time of the backing's last change tell its state? */
  readonly #isTimed: boolean;
  #failing = false;
  /** Sectors that were written, each with a number. */
  #contents = 0;

  constructor(seed: number, options: CacheRunOptions, counters: CacheCounters) {
    this.#options = options;
    this.#counters = counters;
    this.#world = new SimulatedWorld(`cache ${seed}`);
    this.#random = this.#world.random;
    this.#backingSize =
      this.#random.pick([131_072, 131_072, 262_144, 262_144, MEBIBYTE, 2 * MEBIBYTE]) +
      SECTOR * this.#random.below(9);
    this.#imageSize = this.#random.pick([MEBIBYTE, MEBIBYTE + 65_536, 2 * MEBIBYTE]);
    this.#policy = this.#random.chance(0.8) ? 'write-through' : 'write-around';
    this.#isTimed = this.#random.chance(0.2);
    const backing = this.#world.addDisk('backing', {
      size: this.#backingSize,
      noise: true,
      atOnce: this.#random.chance(0.5),
    });
    this.#world.addDisk('image', { strictOverlap: true, atOnce: this.#random.chance(0.5) });
    this.#model = new VolumeModel(backing.peek());
  }

  get traceHash(): number {
    return this.#world.traceHash;
  }

  initialize(): Promise<void> {
    const type = this.#random.pick(['dynamic', 'fixed'] as const);
    return this.#world.run(() =>
      CacheImage.create(this.#world.device('image'), {
        size: this.#imageSize,
        type,
        environment: this.#world.environment(),
      }),
    );
  }

  async cycle(): Promise<void> {
    const random = this.#random;
    this.#counters.cycles++;
    await this.#check('damaged');
    while (random.chance(0.15)) {
      const opening = await this.#world.runSteps(() => this.#open(), random.below(200));
      if (opening.finished) await this.#world.run(() => opening.value.close());
      else this.#crash();
    }
    const device = await this.#world.run(() => this.#open());
    this.#counters.extentsKept += device.image.figures.extents;
    if (random.chance(0.3)) await this.#world.run(() => this.#verify(device));
    this.#failing = this.#options.faults && random.chance(0.3);
    if (this.#failing) this.#world.faults.draw(random.pick([0.002, 0.02]));
    const work = () => this.#work(device);
    const isClosed = random.chance(0.2);
    const outcome = await this.#world.runSteps(
      work,
      isClosed ? Number.POSITIVE_INFINITY : random.pick([50, 400, 3000]),
    );
    this.#world.faults.clear();
    this.#counters.bytesHit += device.figures.hitBytes;
    this.#counters.evicted += device.image.figures.evictedExtents;
    if (device.image.flags.failed) this.#counters.imagesFailed++;
    if (outcome.finished && !this.#failing && random.chance(0.5))
      await this.#world.run(() => this.#verify(device));
    if (isClosed) await this.#close(device);
    else this.#crash();
    this.#failing = false;
    const { violations } = this.#world;
    if (violations.length > 0) throw new ModelMismatch(`device contract broken: ${violations.join('; ')}`);
  }

  async finish(): Promise<void> {
    const device = await this.#world.run(() => this.#open());
    await this.#world.run(() => this.#verify(device));
    await this.#world.run(() => device.close());
    await this.#check('unclean');
    this.#counters.faults += Object.values(this.#world.faults.counters).reduce(
      (sum, count) => sum + count,
      0,
    );
  }

  async #open(): Promise<CachedDevice> {
    const environment = this.#world.environment();
    const image = await CacheImage.open(this.#world.device('image'), { environment, memory: 65_536 });
    const backing = this.#world.device('backing');
    const device = await CachedDevice.open(image, backing, {
      policy: this.#policy,
      fillSize: 16_384,
      readAhead: 65_536,
      ...(this.#isTimed ? {} : { modificationId: MODIFICATION }),
    });
    if (device.wasInvalidated) {
      this.#counters.invalidated++;
      if (!this.#isTimed) throw new ModelMismatch('the cache was emptied although its backing is the same');
    }
    return device;
  }

  async #close(device: CachedDevice): Promise<void> {
    try {
      const { finished } = await this.#world.runSteps(
        () => device.close(),
        this.#random.chance(0.3) ? this.#random.below(100) : Number.POSITIVE_INFINITY,
      );
      if (!finished) return this.#crash();
    } catch (error) {
      if (!this.#failing || !(error instanceof DeviceError)) throw error;
      return this.#crash('power-cut');
    }
    await this.#check('unclean');
    // It flushed the backing, unless nothing had to be recorded.
    this.#crash('kill');
  }

  #crash(model: 'kill' | 'power-cut' = this.#random.pick(['kill', 'power-cut'])): void {
    this.#counters.crashes++;
    const kind = this.#failing ? 'power-cut' : model;
    this.#world.crash(kind);
    this.#model.crash(kind);
    this.#model.reconcileVolume(this.#world.disk('backing').peek());
  }

  /** @param worst what must not be found */
  async #check(worst: 'damaged' | 'unclean'): Promise<void> {
    const problems = await this.#world.run(() =>
      CacheImage.check(this.#world.device('image', { writable: false })),
    );
    const found = problems.filter(({ code }) => code === 'damaged' || code === worst);
    if (found.length > 0)
      throw new ModelMismatch(`check finds: ${found.map(({ message }) => message).join('; ')}`);
  }

  /** Every byte, twice: the second time more of it comes from the cache. */
  async #verify(device: CachedDevice): Promise<void> {
    const expected = this.#world.disk('backing').peek();
    for (let round = this.#random.below(2); round < 2; round++) {
      for (let at = 0; at < expected.byteLength; ) {
        const length = Math.min(expected.byteLength - at, 1 + this.#random.below(100_000));
        const target = new Uint8Array(length);
        await device.read(at, target);
        if (Buffer.compare(target, expected.subarray(at, at + length)) !== 0) {
          const wrong = target.findIndex((byte, index) => byte !== expected[at + index]);
          throw new ModelMismatch(`byte ${at + wrong} read through the cache is not that of the backing`);
        }
        this.#counters.bytesVerified += length;
        at += length;
      }
    }
  }

  async #work(device: CachedDevice): Promise<void> {
    const clients = 1 + this.#random.below(4);
    const operations = this.#random.pick([4, 20, 60]);
    await Promise.all(Array.from({ length: clients }, () => this.#client(device, operations)));
  }

  async #client(device: CachedDevice, operations: number): Promise<void> {
    for (let done = 0; done < operations; done++) {
      this.#counters.operations++;
      try {
        await this.#operate(device);
      } catch (error) {
        const isExpected = this.#failing && (error instanceof DeviceError || error instanceof NoSpaceError);
        if (!isExpected) throw error;
      }
    }
  }

  async #operate(device: CachedDevice): Promise<void> {
    const random = this.#random;
    const sectors = Math.floor(device.size / SECTOR);
    // Half of it happens in a small part, so that things meet.
    const part = random.chance(0.5) ? Math.min(sectors, 128) : sectors;
    const count = Math.min(part, random.pick([1, 3, 8, 16, 64, 200]));
    const offset = random.below(part - count + 1) * SECTOR;
    const length = count * SECTOR;
    switch (random.below(10)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return this.#read(device, offset, length);
      case 4:
      case 5:
      case 6:
        return this.#change(offset, this.#newContent(length), (bytes) => device.write(offset, bytes));
      case 7:
        return this.#change(offset, new Uint8Array(length), () =>
          random.chance(0.5) || device.writeZeroes === undefined
            ? (device.discard?.(offset, length) ?? Promise.resolve())
            : device.writeZeroes(offset, length),
        );
      case 8: {
        const flush = this.#model.beginFlush();
        try {
          await device.flush();
        } catch (error) {
          this.#model.endFlush(flush, 'failed');
          throw error;
        }
        return this.#model.endFlush(flush);
      }
      default:
        return this.#onImage(device);
    }
  }

  /** Noise, and no sector like any other: to draw every byte of it would take a tenth of the time of a run. */
  #newContent(length: number): Uint8Array {
    const from = this.#random.below(NOISE.byteLength - length);
    const bytes = NOISE.slice(from, from + length);
    const view = new DataView(bytes.buffer);
    for (let at = 0; at < length; at += SECTOR) view.setUint32(at, ++this.#contents, true);
    return bytes;
  }

  async #onImage({ image }: CachedDevice): Promise<void> {
    try {
      const kind = this.#random.below(10);
      const first = 8 * this.#random.below(Math.floor(this.#backingSize / 4096));
      // As an eviction does; the last commit goes on naming it.
      if (kind < 4) await image.store.drop(first, first + 8 * this.#random.pick([1, 16]));
      else if (kind < 9) await image.flush();
      else await image.compact();
    } catch (error) {
      if (!this.#failing) throw error;
    }
  }

  async #read(device: CachedDevice, offset: number, length: number): Promise<void> {
    const read = this.#model.beginRead();
    const target = new Uint8Array(length);
    try {
      if (!device.readNow(offset, target)) await device.read(offset, target);
    } catch (error) {
      this.#model.cancelRead(read);
      throw error;
    }
    this.#model.endRead(read, offset, target);
  }

  async #change(
    offset: number,
    bytes: Uint8Array,
    action: (bytes: Uint8Array) => Promise<void>,
  ): Promise<void> {
    const write = this.#model.beginWrite(offset, bytes);
    try {
      await action(bytes);
    } catch (error) {
      this.#model.endWrite(write, 'failed');
      throw error;
    }
    this.#model.endWrite(write);
  }
}
