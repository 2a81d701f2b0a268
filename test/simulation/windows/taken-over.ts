/**
 * A store of volsnap takes the shadow copies of a volume over, in a simulated world, from one seed: that is crashed at any step, and
 * begun anew. Afterwards clients write, take snapshots, delete some and read, the device fails, everything crashes; every shadow copy must read as Windows
 * left it, but for what it left undefined, and every snapshot as the model says.
 *
 * At the end all of it is read by Windows' rules alone, as libvshadow does.
 */

import { isZeros } from '../../../src/device/zeros.js';
import { isStartBlock } from '../../../src/format/start-block.js';
import {
  checkVolume,
  DeviceError,
  HeldError,
  HoldTimeoutError,
  InVolumeStore,
  MemoryDevice,
  NoSpaceError,
  ReadOnlyError,
  type Snapshot,
  SnapshotDeletedError,
  UnsupportedError,
  Volume,
} from '../../../src/index.js';
import { ModelMismatch, type SeededRandom, SimulatedWorld, VolumeModel } from '../../../src/testing/index.js';
import { BLOCK_SIZE, SECTOR_SIZE } from '../../../src/units.js';
import { ForeignStore } from '../../../src/windows/foreign-store.js';
import { randomWritableImage, type WritableImage } from '../../interop/support/random-windows-image.js';
import { ExpectedCopies } from './expected.js';

export interface TakenOverCounters {
  cycles: number;
  crashes: number;
  faults: number;
  /** Attempts to take over, those that were cut off or failed, and stores that were made in the midst of the volume. */
  attempts: number;
  cutOff: number;
  inside: number;
  writes: number;
  copies: number;
  refused: number;
  taken: number;
  deleted: number;
  /** Shadow copies that went, and those of them that went because there was no room for them. */
  shadowCopiesGone: number;
  dropped: number;
  blocksCompared: number;
  snapshotsCompared: number;
}

export const noTakenOverCounters = (): TakenOverCounters => ({
  cycles: 0,
  crashes: 0,
  faults: 0,
  attempts: 0,
  cutOff: 0,
  inside: 0,
  writes: 0,
  copies: 0,
  refused: 0,
  taken: 0,
  deleted: 0,
  shadowCopiesGone: 0,
  dropped: 0,
  blocksCompared: 0,
  snapshotsCompared: 0,
});

export interface TakenOverOptions {
  readonly cycles: number;
  readonly faults: boolean;
}

/** @returns the trace hash @throws whatever shows that a promise was broken, with the cycle */
export async function runTakenOver(
  seed: number | string,
  options: TakenOverOptions,
  counters: TakenOverCounters,
): Promise<number> {
  const run = await TakenOverRun.create(seed, options, counters);
  let cycle = 0;
  try {
    for (; cycle < options.cycles; cycle++) await run.cycle();
    await run.finish();
  } catch (error) {
    const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    throw new Error(`seed ${seed}, cycle ${cycle}: ${text}`, { cause: error });
  }
  return run.traceHash;
}

/** Label of the snapshot that shadow copies are read through. */
const BASE = 'as volsnap found it';
/** Blocks that are spare for a store in the midst of the volume. */
const SPARE = 140;
const RESERVE_LEAST = 74;
const INSIDE_LEAST = 76;
/** In a start block: what those of volsnap have, and what leads to the catalog. */
const START_MAGIC = 96;
const CATALOG_OFFSET = 48;

class TakenOverRun {
  readonly #world: SimulatedWorld;
  readonly #random: SeededRandom;
  readonly #options: TakenOverOptions;
  readonly #counters: TakenOverCounters;
  readonly #image: WritableImage;
  readonly #model: VolumeModel;
  readonly #expected: ExpectedCopies;
  readonly #policy: 'keep' | 'drop';
  /** In the midst of the volume; empty: the reserve lies behind it. */
  readonly #runs: readonly { readonly offset: number; readonly length: number }[];
  readonly #reserve: number;
  /** Blocks that the model knows nothing of: stores, and the reserve. */
  readonly #hidden: ReadonlySet<number>;
  readonly #labels = new Map<string, string>();
  #label = 0;
  #isTaken = false;
  #failing = false;

  private constructor(
    world: SimulatedWorld,
    image: WritableImage,
    expected: ExpectedCopies,
    isInside: boolean,
    options: TakenOverOptions,
    counters: TakenOverCounters,
  ) {
    const { random } = world;
    this.#world = world;
    this.#random = random;
    this.#image = image;
    this.#expected = expected;
    this.#options = options;
    this.#counters = counters;
    this.#policy = random.chance(0.6) ? 'keep' : 'drop';
    this.#reserve = (isInside ? INSIDE_LEAST : RESERVE_LEAST) + random.below(60);
    this.#model = new VolumeModel(image.bytes);
    const hidden = new Set(expected.stores);
    this.#runs = isInside ? this.#drawRuns() : [];
    for (const { offset, length } of this.#runs)
      for (let at = offset; at < offset + length; at += BLOCK_SIZE) hidden.add(at / BLOCK_SIZE);
    this.#hidden = hidden;
  }

  static async create(
    seed: number | string,
    options: TakenOverOptions,
    counters: TakenOverCounters,
  ): Promise<TakenOverRun> {
    const world = new SimulatedWorld(`taken over ${seed}`);
    const isInside = world.random.chance(0.4);
    const image = randomWritableImage(world.random.fork('image'), isInside ? SPARE : 0);
    const expected = await ExpectedCopies.of(image);
    const run = new TakenOverRun(world, image, expected, isInside, options, counters);
    world.addDisk('volume', { size: image.bytes.byteLength, atOnce: world.random.chance(0.5) });
    await world.run(async () => {
      const device = world.device('volume');
      await device.write(0, image.bytes);
      await device.flush();
    });
    return run;
  }

  /** Two runs at the end of the volume, but for its last block. */
  #drawRuns() {
    const end = Math.floor(this.#image.bytes.byteLength / BLOCK_SIZE) - 1;
    const first = this.#random.between(20, 40);
    const start = end - this.#reserve - 2;
    return [
      { offset: start * BLOCK_SIZE, length: first * BLOCK_SIZE },
      { offset: (start + first + 2) * BLOCK_SIZE, length: (this.#reserve - first) * BLOCK_SIZE },
    ];
  }

  get traceHash(): number {
    return this.#world.traceHash;
  }

  get #size(): number {
    return this.#image.bytes.byteLength;
  }

  async cycle(): Promise<void> {
    this.#counters.cycles++;
    if (this.#isTaken) await this.#use();
    else await this.#takeOver();
    this.#world.faults.clear();
    await this.#crash();
    this.#failing = false;
    const { violations } = this.#world;
    if (violations.length > 0) throw new ModelMismatch(`device contract broken: ${violations.join('; ')}`);
  }

  async #takeOver(): Promise<void> {
    const random = this.#random;
    this.#counters.attempts++;
    if (random.chance(0.4)) await this.#world.run(() => this.#writeAsWindows());
    this.#failing = this.#options.faults && random.chance(0.2);
    if (this.#failing) this.#world.faults.draw(0.02);
    this.#model.beginSnapshot(BASE);
    const steps = random.chance(0.5) ? Infinity : random.pick([10, 30, 60, 120]);
    const { finished } = await this.#world.runSteps(() => this.#attempt(() => this.#initialize()), steps);
    if (!finished) this.#counters.cutOff++;
    else if (isOwn(this.#world.disk('volume').peek())) {
      // Without shadow copies there is none.
      const mayBeEmpty = this.#expected.all.some(({ state }) => state !== 'there');
      this.#model.endSnapshot(BASE, mayBeEmpty ? 'uncertain' : 'done');
    }
  }

  async #initialize(): Promise<void> {
    const device = this.#world.device('volume');
    const reserve = this.#reserve * BLOCK_SIZE;
    // An attempt that was cut off may have left the device longer.
    const behind = device.size > this.#size ? { protectedSize: this.#size } : { reserve };
    const isInside = this.#runs.length > 0;
    // Without room for what the reserve needs they are all given up.
    if (isInside && this.#policy === 'drop')
      for (const each of this.#expected.all) if (each.state === 'there') each.state = 'deleting';
    if (isInside) this.#counters.inside++;
    await Volume.initialize(device, {
      store: new InVolumeStore(isInside ? { runs: this.#runs } : behind),
      shadowCopies: this.#policy,
      environment: this.#world.environment(),
    });
  }

  /** Copies go to the newest store of Windows. */
  async #writeAsWindows(): Promise<void> {
    const { random } = this.#world;
    const volume = await Volume.open(this.#world.device('volume'), {
      shadowCopies: 'keep',
      environment: this.#world.environment(),
    });
    for (let left = random.between(1, 6); left > 0; left--) await this.#attempt(() => this.#write(volume));
    await volume.close();
  }

  async #use(): Promise<void> {
    const random = this.#random;
    const opening = await this.#world.runSteps(
      () => this.#open(),
      random.chance(0.1) ? random.below(100) : Infinity,
    );
    if (!opening.finished) return;
    const volume = opening.value;
    this.#failing = this.#options.faults && random.chance(0.3);
    if (this.#failing) this.#world.faults.draw(random.pick([0.01, 0.05]));
    const isClosed = random.chance(0.3);
    const steps = isClosed ? Infinity : random.pick([50, 200, 800, 3000]);
    const { finished } = await this.#world.runSteps(() => this.#work(volume), steps);
    this.#counters.copies += volume.figures.copies.copiedBlocks;
    if (finished && isClosed && !this.#failing) await this.#world.run(() => volume.close());
  }

  async #open(): Promise<Volume> {
    const volume = await Volume.open(this.#world.device('volume'), {
      environment: this.#world.environment(),
      growth: { initial: 9 * BLOCK_SIZE, maximum: 16 * BLOCK_SIZE },
    });
    for (const { id, label } of volume.snapshots) this.#labels.set(id, label ?? '');
    volume.on('created', ({ id, label }) => this.#labels.set(id, label ?? ''));
    volume.on('deleting', ({ id, reason }) => {
      const copy = this.#expected.find(id);
      if (copy === undefined) this.#model.beginDelete(this.#labelOf(id));
      else copy.state = 'deleting';
      if (copy !== undefined && this.#policy === 'keep' && reason !== 'requested')
        throw new ModelMismatch(`shadow copy ${id} goes (${reason}), and is to be kept`);
    });
    volume.on('deleted', ({ id, reason }) => {
      const copy = this.#expected.find(id);
      if (copy === undefined) {
        this.#counters.deleted++;
        this.#model.endDelete(this.#labelOf(id));
        return;
      }
      copy.state = 'gone';
      this.#counters.shadowCopiesGone++;
      if (reason !== 'requested') this.#counters.dropped++;
    });
    return volume;
  }

  #labelOf(id: string): string {
    const label = this.#labels.get(id);
    if (label === undefined) throw new ModelMismatch(`nobody has told of snapshot ${id}`);
    return label;
  }

  async #crash(): Promise<void> {
    this.#counters.crashes++;
    const kind = this.#failing ? 'power-cut' : this.#random.pick(['kill', 'power-cut'] as const);
    this.#world.crash(kind);
    this.#model.crash(kind);
    const bytes = this.#world.disk('volume').peek();
    if (this.#isTaken || isOwn(bytes)) await this.#compareOwn(bytes);
    else await this.#compareForeign(bytes);
  }

  async #compareForeign(bytes: Uint8Array): Promise<void> {
    const { snapshots } = await ForeignStore.open(new MemoryDevice(bytes.slice(0, this.#size)));
    this.#model.reconcile(this.#shown(bytes.subarray(0, this.#size)), new Map());
    await this.#expected.compare(snapshots);
  }

  async #compareOwn(bytes: Uint8Array): Promise<void> {
    this.#isTaken = true;
    const problems = await checkVolume(new MemoryDevice(bytes.slice()), { scrub: true });
    const bad = problems.filter(({ code }) => code !== 'note');
    if (bad.length > 0) throw new ModelMismatch(bad.map(({ message }) => message).join('; '));
    await using volume = await Volume.open(new MemoryDevice(bytes.slice()), { readOnly: true });
    await this.#compare(volume, await volume.read(0, volume.size));
  }

  async #compare({ snapshots }: Pick<Volume, 'snapshots'>, content: Uint8Array): Promise<void> {
    const own = snapshots.filter(({ storeId }) => this.#expected.find(storeId) === undefined);
    const contents = new Map<string, Uint8Array>();
    for (const snapshot of own) {
      const bytes = this.#shown(await snapshot.read(0, snapshot.size));
      contents.set(snapshot.label ?? '', snapshot.label === BASE ? bytes : this.#withCatalog(0, bytes));
      this.#counters.snapshotsCompared++;
    }
    this.#model.reconcile(this.#withCatalog(0, this.#shown(content)), contents);
    await this.#expected.compare(
      snapshots.flatMap((snapshot) => (own.includes(snapshot) ? [] : [readable(snapshot)])),
    );
  }

  /** The bytes with what the model knows nothing of as it was. */
  #shown(bytes: Uint8Array): Uint8Array {
    const shown = bytes.slice();
    for (const block of this.#hidden) {
      const [from, to] = [block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE];
      shown.set(this.#image.bytes.subarray(from, to), from);
    }
    return shown;
  }

  /**
   * The bytes, in place, with the start block of Windows as the model knows it, if it is there. The volume and what is taken of it must not lead to
   * its catalog.
   */
  #withCatalog(offset: number, bytes: Uint8Array): Uint8Array {
    const at = 0x1e00 - offset;
    const sector = bytes.subarray(Math.max(0, at), Math.max(0, at + SECTOR_SIZE));
    if (at < 0 || !isStartBlock(sector) || isOwn(sector, 0)) return bytes;
    const place = sector.subarray(CATALOG_OFFSET, CATALOG_OFFSET + 8);
    if (!isZeros(place)) throw new ModelMismatch('the volume leads to the catalog of Windows');
    place.set(this.#image.bytes.subarray(0x1e00 + CATALOG_OFFSET, 0x1e00 + CATALOG_OFFSET + 8));
    return bytes;
  }

  async #work(volume: Volume): Promise<void> {
    const operations = this.#random.pick([4, 15, 40]);
    const count = this.#random.between(1, 4);
    const clients = Array.from({ length: count }, async () => {
      for (let done = 0; done < operations; done++)
        await this.#attempt(() => this.#operate(volume, count === 1));
    });
    await Promise.all(clients);
  }

  async #attempt(operate: () => Promise<void>): Promise<void> {
    try {
      await operate();
    } catch (error) {
      if (error instanceof NoSpaceError) this.#counters.refused++;
      else if (error instanceof SnapshotDeletedError) return;
      else if (!(this.#failing && (error instanceof DeviceError || error instanceof HoldTimeoutError)))
        throw error;
    }
  }

  async #operate(volume: Volume, isAlone: boolean): Promise<void> {
    const kind = this.#random.below(48);
    if (kind < 4) return this.#create(volume);
    if (kind < 6) return this.#delete(volume);
    if (kind < 8) return this.#writeStore(volume);
    if (kind < 16) return this.#readSnapshot(volume);
    if (kind < 19) return this.#flush(volume);
    if (kind < 21 && isAlone) return this.#copyRange(volume);
    if (kind < 24) return this.#read(volume);
    return this.#write(volume);
  }

  async #create(volume: Volume): Promise<void> {
    const label = `s${this.#label++}`;
    this.#model.beginSnapshot(label);
    let result: 'done' | 'failed' | 'uncertain' = 'uncertain';
    try {
      await volume.createSnapshot({ label });
      this.#counters.taken++;
      result = 'done';
    } catch (error) {
      // Writes may wait for room, or for a merge.
      if (!(error instanceof HoldTimeoutError)) throw error;
      result = 'failed';
    } finally {
      if (this.#model.has(label)) this.#model.endSnapshot(label, result);
    }
  }

  async #delete(volume: Volume): Promise<void> {
    const random = this.#random;
    if (random.chance(0.15)) return this.#attemptKept(() => volume.deleteOldest(random.pick([1, 1, 5])));
    // Mostly one of volsnap's.
    const own = volume.snapshots.filter(({ storeId }) => this.#expected.find(storeId) === undefined);
    const { snapshots } = volume;
    const snapshot = random.pick([...own, random.pick([...snapshots, undefined]), undefined]);
    if (snapshot === undefined) return;
    await this.#attemptKept(async () => {
      const isNeeded = snapshot.label === BASE && this.#expected.all.some(({ state }) => state === 'there');
      await snapshot.delete();
      if (isNeeded) throw new ModelMismatch('the snapshot that shadow copies are read through was deleted');
    });
  }

  /** What is held stays, and so do the base and all shadow copies but the oldest. */
  async #attemptKept(remove: () => Promise<void>): Promise<void> {
    try {
      await remove();
    } catch (error) {
      if (!(error instanceof HeldError || error instanceof UnsupportedError)) throw error;
    }
  }

  async #flush(volume: Volume): Promise<void> {
    const flush = this.#model.beginFlush();
    try {
      await volume.flush();
    } catch (error) {
      this.#model.endFlush(flush, 'failed');
      throw error;
    }
    this.#model.endFlush(flush);
  }

  async #read(volume: Volume): Promise<void> {
    const [offset, length] = this.#drawRange();
    const read = this.#model.beginRead();
    try {
      this.#model.endRead(read, offset, this.#withCatalog(offset, await volume.read(offset, length)));
    } catch (error) {
      this.#model.cancelRead(read);
      throw error;
    }
  }

  async #write(volume: Volume): Promise<void> {
    this.#counters.writes++;
    const [offset, length] = this.#drawRange();
    const isZero = this.#random.chance(0.1);
    const bytes = isZero ? new Uint8Array(length) : this.#random.fill(new Uint8Array(length));
    await this.#changing(offset, bytes, () =>
      isZero ? volume.writeZeroes(offset, length) : volume.write(offset, bytes),
    );
  }

  async #changing(offset: number, bytes: Uint8Array, change: () => Promise<void>): Promise<void> {
    const write = this.#model.beginWrite(offset, bytes);
    try {
      await change();
    } catch (error) {
      this.#model.endWrite(write, 'failed');
      throw error;
    }
    this.#model.endWrite(write);
  }

  /** One block within the first ones, where nobody else writes. */
  async #copyRange(volume: Volume): Promise<void> {
    const [from, to] = [this.#random.between(1, 13), this.#random.between(1, 13)];
    if (from === to) return;
    const bytes = await volume.read(from * BLOCK_SIZE, BLOCK_SIZE);
    const at = to * BLOCK_SIZE;
    await this.#changing(at, bytes, () => volume.copyRange(from * BLOCK_SIZE, at, BLOCK_SIZE));
  }

  /** Up to three blocks, in whole sectors, that the model knows. Mostly among the first, which entries are about. */
  #drawRange(): [number, number] {
    const random = this.#random;
    for (;;) {
      const sectors = random.pick([1, 2, 8, 32, 64, 96]);
      const blocks = random.chance(0.6) ? 16 : this.#size / BLOCK_SIZE;
      const offset = random.below(blocks * 32 - sectors) * SECTOR_SIZE;
      const end = offset + sectors * SECTOR_SIZE;
      // Before it is taken over, the start block is Windows' own.
      let isFree = this.#isTaken || offset >= 0x2000 || end <= 0x1e00;
      for (let block = Math.floor(offset / BLOCK_SIZE); block * BLOCK_SIZE < end; block++)
        isFree &&= !this.#hidden.has(block);
      if (isFree) return [offset, end - offset];
    }
  }

  /** As long as there are shadow copies that are to be kept it must be refused; whatever it would have destroyed is compared later. */
  async #writeStore(volume: Volume): Promise<void> {
    const last = this.#image.snapshots.length;
    const { stores } = this.#image;
    const [start] = this.#random.pick(stores.slice(0, last).slice(-1)) ?? [0];
    const newest = this.#expected.all.at(-1);
    const offset = start * BLOCK_SIZE;
    const write = this.#random.chance(0.5)
      ? () => volume.write(offset, new Uint8Array(SECTOR_SIZE).fill(0xbb))
      : () => volume.writeZeroes(offset, SECTOR_SIZE);
    // With more than one run nobody knows here which store the last one is of.
    if (newest?.state !== 'there' || this.#image.snapshots.at(-1)?.free?.length !== 1) return;
    try {
      await write();
      if (newest.state === 'there' && this.#policy === 'keep')
        throw new ModelMismatch(`a store was overwritten at ${offset}`);
    } catch (error) {
      if (!(error instanceof ReadOnlyError)) throw error;
    }
  }

  async #readSnapshot(volume: Volume): Promise<void> {
    const snapshot = this.#random.pick([...volume.snapshots, undefined]);
    if (snapshot === undefined) return;
    const [offset, length] = this.#drawRange();
    const copy = this.#expected.find(snapshot.storeId);
    if (copy !== undefined) {
      this.#expected.check(copy, offset, await snapshot.read(offset, length));
      return;
    }
    const read = this.#model.calls.beginRead(snapshot.label ?? '');
    let bytes: Uint8Array | undefined;
    try {
      bytes = await snapshot.read(offset, length);
      if (snapshot.label !== BASE) this.#withCatalog(offset, bytes);
    } finally {
      if (read !== undefined) this.#model.calls.endRead(read, offset, bytes);
    }
  }

  /** All of it, by the rules of Windows alone. */
  async finish(): Promise<void> {
    for (const count of Object.values(this.#world.faults.counters)) this.#counters.faults += count;
    if (this.#isTaken) {
      await this.#world.run(async () => {
        const volume = await this.#open();
        await this.#attempt(() => volume.settled());
        await volume.close();
      });
      this.#world.crash('power-cut');
      this.#model.crash('power-cut');
      const bytes = this.#world.disk('volume').peek();
      await using volume = await Volume.open(new MemoryDevice(bytes.slice()), { readOnly: true });
      const content = await volume.read(0, volume.size);
      const labels = new Map(volume.snapshots.map(({ id, label }) => [id, label]));
      bytes.fill(0, 0x1e00 + START_MAGIC, 0x2000);
      const { snapshots } = await ForeignStore.open(new MemoryDevice(bytes));
      // One that was deleted, and could not be merged for lack of room, is shown to nobody here.
      const read = snapshots.flatMap((snapshot) =>
        labels.has(snapshot.snapshotId ?? '') || this.#expected.find(snapshot.storeId) !== undefined
          ? [{ ...readable(snapshot), label: labels.get(snapshot.snapshotId ?? '') }]
          : [],
      );
      await this.#compare({ snapshots: read as unknown as Snapshot[] }, content);
    }
    this.#counters.blocksCompared += this.#expected.blocksCompared;
  }
}

const isOwn = (bytes: Uint8Array, start = 0x1e00): boolean => bytes[start + START_MAGIC] !== 0;

/** What is compared of a snapshot, whoever reads it. */
const readable = (snapshot: {
  readonly storeId: string;
  readonly size: number;
  readonly problem?: string | undefined;
  read(offset: number, length: number): Promise<Uint8Array>;
}) => ({
  storeId: snapshot.storeId,
  size: snapshot.size,
  reason: snapshot.problem,
  read: (offset: number, length: number) => snapshot.read(offset, length),
});
