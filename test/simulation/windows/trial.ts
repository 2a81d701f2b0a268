/**
 * What every simulation of a volume with shadow copies of Windows has: a generated volume on a disk of a simulated world, a model of it, what its
 * shadow copies must read as, and the way from one crash to the next.
 */
import {
  DeviceError,
  HoldTimeoutError,
  NoSpaceError,
  SnapshotDeletedError,
  type Volume,
} from '../../../src/index.js';
import { ModelMismatch, type SeededRandom, SimulatedWorld, VolumeModel } from '../../../src/testing/index.js';
import { BLOCK_SIZE, SECTOR_SIZE } from '../../../src/units.js';
import { randomWritableImage, type WritableImage } from '../../interop/support/random-windows-image.js';
import { ExpectedCopies } from './expected.js';

/** What runs did, added up. */
export interface TrialCounters {
  cycles: number;
  crashes: number;
  faults: number;
  writes: number;
  copies: number;
  /** Writes for which there was no room. */
  refused: number;
  deleted: number;
  blocksCompared: number;
}

export const noTrialCounters = (): TrialCounters => ({
  cycles: 0,
  crashes: 0,
  faults: 0,
  writes: 0,
  copies: 0,
  refused: 0,
  deleted: 0,
  blocksCompared: 0,
});

export interface TrialOptions {
  readonly cycles: number;
  readonly faults: boolean;
}

export interface TrialParts {
  readonly world: SimulatedWorld;
  readonly image: WritableImage;
  readonly expected: ExpectedCopies;
  readonly options: TrialOptions;
}

/** How long a volume is used: whether it is closed at the end, and after how many steps else it is cut off. */
interface Pace {
  readonly closes: number;
  readonly steps: readonly number[];
}

/** The volume of a seed, on the disk `volume`. @param spare as `randomWritableImage` */
export async function setUp(
  seed: string,
  options: TrialOptions,
  spareOf: (random: SeededRandom) => number,
): Promise<TrialParts & { readonly spare: number }> {
  const world = new SimulatedWorld(seed);
  const spare = spareOf(world.random);
  const image = randomWritableImage(world.random.fork('image'), spare);
  const expected = await ExpectedCopies.of(image);
  world.addDisk('volume', { size: image.bytes.byteLength, atOnce: world.random.chance(0.5) });
  await world.run(async () => {
    const device = world.device('volume');
    await device.write(0, image.bytes);
    await device.flush();
  });
  return { world, image, expected, options, spare };
}

/** @returns the trace hash @throws whatever shows that a promise was broken, with the cycle */
export async function runTrial(
  trial: Trial,
  seed: number | string,
  { cycles }: TrialOptions,
): Promise<number> {
  let cycle = 0;
  try {
    for (; cycle < cycles; cycle++) await trial.cycle();
    await trial.finish();
  } catch (error) {
    const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    throw new Error(`seed ${seed}, cycle ${cycle}: ${text}`, { cause: error });
  }
  return trial.traceHash;
}

export abstract class Trial {
  protected readonly world: SimulatedWorld;
  protected readonly random: SeededRandom;
  protected readonly image: WritableImage;
  protected readonly expected: ExpectedCopies;
  protected readonly model: VolumeModel;
  protected readonly policy: 'keep' | 'drop';
  /** Blocks that the model knows nothing of: stores above all. */
  protected readonly hidden: Set<number>;
  /** Do devices fail for now? */
  protected failing = false;
  readonly #options: TrialOptions;
  readonly #counters: TrialCounters;

  protected constructor(
    { world, image, expected, options }: TrialParts,
    counters: TrialCounters,
    keeps: number,
  ) {
    this.world = world;
    this.random = world.random;
    this.image = image;
    this.expected = expected;
    this.policy = world.random.chance(keeps) ? 'keep' : 'drop';
    this.model = new VolumeModel(image.bytes);
    this.hidden = new Set(expected.stores);
    this.#options = options;
    this.#counters = counters;
  }

  /** Something happens to the volume, until it is over or cut off. */
  protected abstract live(): Promise<void>;

  /** After a crash everything on the disk is compared. @throws ModelMismatch */
  protected abstract compare(bytes: Uint8Array): Promise<void>;

  /** May the process hold acknowledged writes in its memory? */
  protected get isBuffered(): boolean {
    return false;
  }

  /** Does the volume have a sector at 0x1E00 that users may write? Else the start block of Windows lies there. */
  protected get mayWriteStart(): boolean {
    return false;
  }

  get traceHash(): number {
    return this.world.traceHash;
  }

  /** Of the volume, in bytes. */
  protected get size(): number {
    return this.image.bytes.byteLength;
  }

  async cycle(): Promise<void> {
    this.#counters.cycles++;
    await this.live();
    this.world.faults.clear();
    await this.crash();
    this.failing = false;
    const { violations } = this.world;
    if (violations.length > 0) throw new ModelMismatch(`device contract broken: ${violations.join('; ')}`);
  }

  async finish(): Promise<void> {
    for (const count of Object.values(this.world.faults.counters)) this.#counters.faults += count;
    this.#counters.blocksCompared += this.expected.blocksCompared;
  }

  protected async crash(): Promise<void> {
    this.#counters.crashes++;
    const kind = this.failing ? 'power-cut' : this.random.pick(['kill', 'power-cut'] as const);
    this.world.crash(kind);
    this.model.crash(kind, this.isBuffered);
    await this.compare(this.world.disk('volume').peek());
  }

  /** From now on devices fail, perhaps. */
  protected mayFail(chance: number, rates: readonly number[]): void {
    this.failing = this.#options.faults && this.random.chance(chance);
    if (this.failing) this.world.faults.draw(this.random.pick(rates));
  }

  /** Opens the volume, works with it, and closes it, if it comes to that. */
  protected async use(
    open: () => Promise<Volume>,
    work: (volume: Volume) => Promise<void>,
    pace: Pace,
  ): Promise<void> {
    const { random } = this;
    const opening = await this.world.runSteps(open, random.chance(0.1) ? random.below(100) : Infinity);
    if (!opening.finished) return;
    const volume = opening.value;
    this.mayFail(0.3, [0.01, 0.05]);
    const isClosed = random.chance(pace.closes);
    const steps = isClosed ? Infinity : random.pick(pace.steps);
    const { finished } = await this.world.runSteps(() => work(volume), steps);
    this.#counters.copies += volume.figures.copies.copiedBlocks;
    if (finished && isClosed && !this.failing) await this.world.run(() => this.attempt(() => volume.close()));
  }

  /** Some clients at once. @param operate is told whether its client is alone */
  protected async clients(
    counts: readonly number[],
    operate: (isAlone: boolean) => Promise<void>,
  ): Promise<void> {
    const operations = this.random.pick(counts);
    const count = this.random.between(1, 4);
    const client = async () => {
      for (let done = 0; done < operations; done++) await this.attempt(() => operate(count === 1));
    };
    await Promise.all(Array.from({ length: count }, client));
  }

  /** May a call end in this error now? */
  protected isPermitted(error: unknown): boolean {
    return this.failing && (error instanceof DeviceError || error instanceof HoldTimeoutError);
  }

  protected async attempt(operate: () => Promise<void>): Promise<void> {
    try {
      await operate();
    } catch (error) {
      if (error instanceof NoSpaceError) this.#counters.refused++;
      else if (!(error instanceof SnapshotDeletedError || this.isPermitted(error))) throw error;
    }
  }

  protected async flush(volume: Volume): Promise<void> {
    const flush = this.model.beginFlush();
    try {
      await volume.flush();
    } catch (error) {
      this.model.endFlush(flush, 'failed');
      throw error;
    }
    this.model.endFlush(flush);
  }

  /** @param shown what the model knows of the bytes that were read */
  protected async read(
    volume: Volume,
    shown: (offset: number, bytes: Uint8Array) => Uint8Array = (_, bytes) => bytes,
  ): Promise<void> {
    const [offset, length] = this.drawRange();
    const read = this.model.beginRead();
    try {
      this.model.endRead(read, offset, shown(offset, await volume.read(offset, length)));
    } catch (error) {
      this.model.cancelRead(read);
      throw error;
    }
  }

  protected async write(volume: Volume): Promise<void> {
    this.#counters.writes++;
    const [offset, length] = this.drawRange();
    const isZero = this.random.chance(0.1);
    const bytes = isZero ? new Uint8Array(length) : this.random.fill(new Uint8Array(length));
    await this.changing(offset, bytes, () =>
      isZero ? volume.writeZeroes(offset, length) : volume.write(offset, bytes),
    );
  }

  protected async changing(offset: number, bytes: Uint8Array, change: () => Promise<void>): Promise<void> {
    const write = this.model.beginWrite(offset, bytes);
    try {
      await change();
    } catch (error) {
      this.model.endWrite(write, 'failed');
      throw error;
    }
    this.model.endWrite(write);
  }

  /** Up to three blocks, in whole sectors, that the model knows. Mostly among the first, which entries are about. */
  protected drawRange(): [offset: number, length: number] {
    const { random } = this;
    for (;;) {
      const sectors = random.pick([1, 2, 8, 32, 64, 96]);
      const blocks = random.chance(0.55) ? 16 : this.size / BLOCK_SIZE;
      const offset = random.below(blocks * 32 - sectors) * SECTOR_SIZE;
      const end = offset + sectors * SECTOR_SIZE;
      let isFree = this.mayWriteStart || offset >= 0x2000 || end <= 0x1e00;
      for (let block = Math.floor(offset / BLOCK_SIZE); block * BLOCK_SIZE < end; block++)
        isFree &&= !this.hidden.has(block);
      if (isFree) return [offset, end - offset];
    }
  }

  /** The bytes of the whole volume, with what the model knows nothing of as it was. */
  protected shown(bytes: Uint8Array): Uint8Array {
    const shown = bytes.slice();
    for (const block of this.hidden) {
      const [from, to] = [block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE];
      shown.set(this.image.bytes.subarray(from, to), from);
    }
    return shown;
  }
}
