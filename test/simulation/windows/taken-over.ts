/**
 * A store of volsnap takes the shadow copies of a volume over, in a simulated world, from one seed: that is crashed at any step, and
 * begun anew. Afterwards clients write (in either write mode), take snapshots, some without what nothing uses, write to them, delete some, put the
 * volume back to some, and read; the device fails, everything crashes; every shadow copy must read as Windows
 * left it, but for what it left undefined, and every snapshot as the model says.
 *
 * At the end all of it is read by Windows' rules alone, as libvshadow does.
 */
import { isZeros } from '../../../src/device/zeros.js';
import { isStartBlock } from '../../../src/format/start-block.js';
import {
  checkVolume,
  HeldError,
  HoldTimeoutError,
  InVolumeStore,
  MemoryDevice,
  ReadOnlyError,
  RevertInProgressError,
  type Snapshot,
  UnsupportedError,
  VolsnapError,
  Volume,
} from '../../../src/index.js';
import { ModelMismatch } from '../../../src/testing/index.js';
import { BLOCK_SIZE, SECTOR_SIZE } from '../../../src/units.js';
import { ForeignStore } from '../../../src/windows/foreign-store.js';
import { Calls, DEVICE_FAILS, GONE, NO_ERROR } from '../calls.js';
import { REVERTING, RevertWork } from '../revert-work.js';
import { drawUnused, providerOf } from '../unused.js';
import {
  noTrialCounters,
  runTrial,
  setUp,
  Trial,
  type TrialCounters,
  type TrialOptions,
  type TrialParts,
} from './trial.js';

export interface TakenOverCounters extends TrialCounters {
  /** Attempts to take over, those that were cut off or failed, and stores that were made in the midst of the volume. */
  attempts: number;
  cutOff: number;
  inside: number;
  /** Openings with a write buffer. */
  buffered: number;
  taken: number;
  /** Of these, snapshots that leave out what nothing uses. */
  skipping: number;
  snapshotWrites: number;
  reverts: number;
  revertsToBase: number;
  revertsCancelled: number;
  /** Shadow copies that went, and those of them that went because there was no room for them. */
  shadowCopiesGone: number;
  dropped: number;
  snapshotsCompared: number;
}

export const noTakenOverCounters = (): TakenOverCounters => ({
  ...noTrialCounters(),
  attempts: 0,
  cutOff: 0,
  inside: 0,
  buffered: 0,
  taken: 0,
  skipping: 0,
  snapshotWrites: 0,
  reverts: 0,
  revertsToBase: 0,
  revertsCancelled: 0,
  shadowCopiesGone: 0,
  dropped: 0,
  snapshotsCompared: 0,
});

/** @returns the trace hash @throws whatever shows that a promise was broken, with the cycle */
export async function runTakenOver(
  seed: number | string,
  options: TrialOptions,
  counters: TakenOverCounters,
): Promise<number> {
  const parts = await setUp(`taken over ${seed}`, options, (random) => (random.chance(0.4) ? SPARE : 0));
  return runTrial(new TakenOverRun(parts, parts.spare > 0, counters), seed, options);
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

class TakenOverRun extends Trial {
  readonly #counters: TakenOverCounters;
  /** In the midst of the volume; empty: the reserve lies behind it. */
  readonly #runs: readonly { readonly offset: number; readonly length: number }[];
  readonly #reserve: number;
  readonly #labels = new Map<string, string>();
  /** Blocks that snapshots may leave out, by label. */
  readonly #unused = new Map<string, ReadonlySet<number>>();
  readonly #calls = new Calls();
  readonly #reverts: RevertWork;
  #label = 0;
  #isTaken = false;
  #isBuffered = false;
  /** Was there no room for what a revert needs? Then a buffer may fail, with all that follows. */
  #isShort = false;

  constructor(parts: TrialParts, isInside: boolean, counters: TakenOverCounters) {
    super(parts, counters, 0.6);
    this.#counters = counters;
    this.#reserve = (isInside ? INSIDE_LEAST : RESERVE_LEAST) + this.random.below(60);
    this.#runs = isInside ? this.#drawRuns() : [];
    for (const { offset, length } of this.#runs)
      for (let at = offset; at < offset + length; at += BLOCK_SIZE) this.hidden.add(at / BLOCK_SIZE);
    this.#reverts = new RevertWork({
      model: this.model,
      counters,
      calls: this.#calls,
      read: (snapshot) => this.#readWhole(snapshot),
      errorOf: (permitted, call) => this.#calls.errorOf([...permitted, 'NO_SPACE'], call),
      // Blocks are copied by one who is alone.
      whileNothingIsCopied: (_, action) => action(),
    });
  }

  protected override get isBuffered(): boolean {
    return this.#isBuffered;
  }

  protected override get mayWriteStart(): boolean {
    return this.#isTaken;
  }

  /** Two runs at the end of the volume, but for its last block. */
  #drawRuns() {
    const end = Math.floor(this.size / BLOCK_SIZE) - 1;
    const first = this.random.between(20, 40);
    const start = end - this.#reserve - 2;
    return [
      { offset: start * BLOCK_SIZE, length: first * BLOCK_SIZE },
      { offset: (start + first + 2) * BLOCK_SIZE, length: (this.#reserve - first) * BLOCK_SIZE },
    ];
  }

  protected async live(): Promise<void> {
    if (!this.#isTaken) return this.#takeOver();
    this.#isShort = false;
    const pace = { closes: 0.3, steps: [50, 200, 800, 3000] };
    await this.use(
      () => this.#open(),
      (volume) => this.#work(volume),
      pace,
    );
    const { complaints } = this.#calls;
    if (complaints.length > 0) throw new ModelMismatch(complaints.join('; '));
  }

  protected override isPermitted(error: unknown): boolean {
    const isOfBuffer = this.#isShort && error instanceof VolsnapError && error.code === 'DEVICE';
    return isOfBuffer || super.isPermitted(error);
  }

  async #takeOver(): Promise<void> {
    const random = this.random;
    this.#counters.attempts++;
    if (random.chance(0.4)) await this.world.run(() => this.#writeAsWindows());
    this.mayFail(0.2, [0.02]);
    this.model.beginSnapshot(BASE);
    const steps = random.chance(0.5) ? Infinity : random.pick([10, 30, 60, 120]);
    const { finished } = await this.world.runSteps(() => this.attempt(() => this.#initialize()), steps);
    if (!finished) this.#counters.cutOff++;
    else if (isOwn(this.world.disk('volume').peek())) {
      // Without shadow copies there is none.
      const mayBeEmpty = this.expected.all.some(({ state }) => state !== 'there');
      this.model.endSnapshot(BASE, mayBeEmpty ? 'uncertain' : 'done');
    }
  }

  async #initialize(): Promise<void> {
    const device = this.world.device('volume');
    const reserve = this.#reserve * BLOCK_SIZE;
    // An attempt that was cut off may have left the device longer.
    const behind = device.size > this.size ? { protectedSize: this.size } : { reserve };
    const isInside = this.#runs.length > 0;
    // Without room for what the reserve needs they are all given up.
    if (isInside && this.policy === 'drop')
      for (const each of this.expected.all) if (each.state === 'there') each.state = 'deleting';
    if (isInside) this.#counters.inside++;
    await Volume.initialize(device, {
      store: new InVolumeStore(isInside ? { runs: this.#runs } : behind),
      shadowCopies: this.policy,
      environment: this.world.environment(),
    });
  }

  /** Copies go to the newest store of Windows. */
  async #writeAsWindows(): Promise<void> {
    const { random } = this.world;
    const volume = await Volume.open(this.world.device('volume'), {
      shadowCopies: 'keep',
      environment: this.world.environment(),
    });
    for (let left = random.between(1, 6); left > 0; left--) await this.attempt(() => this.write(volume));
    await volume.close();
  }

  async #open(): Promise<Volume> {
    this.#isBuffered = this.random.chance(0.5);
    if (this.#isBuffered) this.#counters.buffered++;
    const volume = await Volume.open(this.world.device('volume'), {
      ...(this.#isBuffered ? { writeMode: 'writeback', writeBackLimit: 64 * BLOCK_SIZE } : {}),
      environment: this.world.environment(),
      growth: { initial: 9 * BLOCK_SIZE, maximum: 16 * BLOCK_SIZE },
    });
    this.#reverts.begin();
    for (const { id, label } of volume.snapshots) this.#labels.set(id, label ?? '');
    volume.on('created', ({ id, label = '' }) => {
      this.#labels.set(id, label);
      this.#reverts.created(label);
    });
    const noteShort = () => {
      this.#isShort ||= this.#reverts.isAt(volume);
    };
    volume.on('overflow', noteShort);
    volume.on('backgroundFailure', noteShort);
    volume.on('deleting', ({ id, reason }) => {
      const copy = this.expected.find(id);
      if (copy === undefined) this.model.beginDelete(this.#labelOf(id));
      else copy.state = 'deleting';
      if (copy !== undefined && this.policy === 'keep' && reason !== 'requested')
        throw new ModelMismatch(`shadow copy ${id} goes (${reason}), and is to be kept`);
    });
    volume.on('deleted', ({ id, reason }) => {
      const copy = this.expected.find(id);
      if (copy === undefined) {
        this.#counters.deleted++;
        this.model.endDelete(this.#labelOf(id));
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

  protected async compare(bytes: Uint8Array): Promise<void> {
    this.#isBuffered = false;
    if (this.#isTaken || isOwn(bytes)) await this.#compareOwn(bytes);
    else await this.#compareForeign(bytes);
  }

  async #compareForeign(bytes: Uint8Array): Promise<void> {
    const { snapshots } = await ForeignStore.open(new MemoryDevice(bytes.slice(0, this.size)));
    this.model.reconcile(this.shown(bytes.subarray(0, this.size)), new Map());
    await this.expected.compare(snapshots);
  }

  async #compareOwn(bytes: Uint8Array): Promise<void> {
    this.#isTaken = true;
    const problems = await checkVolume(new MemoryDevice(bytes.slice()), { scrub: true });
    const bad = problems.filter(({ code }) => code !== 'note');
    if (bad.length > 0) throw new ModelMismatch(bad.map(({ message }) => message).join('; '));
    await using volume = await Volume.open(new MemoryDevice(bytes.slice()), { readOnly: true });
    await this.#compareAll(volume, await volume.read(0, volume.size));
  }

  async #compareAll({ snapshots }: Pick<Volume, 'snapshots'>, content: Uint8Array): Promise<void> {
    const own = snapshots.filter(({ storeId }) => this.expected.find(storeId) === undefined);
    const contents = new Map<string, Uint8Array>();
    for (const snapshot of own) {
      contents.set(snapshot.label ?? '', this.#known(snapshot, await snapshot.read(0, snapshot.size)));
      this.#counters.snapshotsCompared++;
    }
    this.model.reconcile(this.#withCatalog(0, this.shown(content)), contents);
    await this.expected.compare(
      snapshots.flatMap((snapshot) => (own.includes(snapshot) ? [] : [readable(snapshot)])),
    );
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
    place.set(this.image.bytes.subarray(0x1e00 + CATALOG_OFFSET, 0x1e00 + CATALOG_OFFSET + 8));
    return bytes;
  }

  /** What the model knows of all the bytes of a snapshot. */
  #known({ label }: Pick<Snapshot, 'label'>, bytes: Uint8Array): Uint8Array {
    const shown = this.shown(bytes);
    return label === BASE ? shown : this.#withCatalog(0, shown);
  }

  async #work(volume: Volume): Promise<void> {
    this.#calls.tolerated = this.failing ? DEVICE_FAILS : NO_ERROR;
    await this.clients([4, 15, 40], (isAlone) => this.#operate(volume, isAlone));
  }

  async #operate(volume: Volume, isAlone: boolean): Promise<void> {
    if (this.#isShort) this.#calls.tolerated = DEVICE_FAILS;
    const kind = this.random.below(60);
    if (kind < 4) return this.#create(volume);
    if (kind < 6) return this.#delete(volume);
    if (kind < 8) return this.#writeStore(volume);
    if (kind < 16) return this.#readSnapshot(volume);
    if (kind < 19) return this.flush(volume);
    if (kind < 21 && isAlone) return this.#copyRange(volume);
    if (kind < 24) return this.read(volume, (offset, bytes) => this.#withCatalog(offset, bytes));
    if (kind < 28) return this.#writeSnapshot(volume);
    if (kind < 29) return this.#flushSnapshot(volume);
    if (kind < 31) return this.#revert(volume);
    if (kind < 32) return this.#reverts.cancel(volume);
    return this.write(volume);
  }

  async #create(volume: Volume): Promise<void> {
    const label = `s${this.#label++}`;
    const unused = this.random.chance(0.4) ? drawUnused(this.random.below(2 ** 30), volume.size) : undefined;
    if (unused !== undefined) this.#unused.set(label, unused);
    this.model.beginSnapshot(label, undefined, unused);
    let result: 'done' | 'failed' | 'uncertain' = 'uncertain';
    try {
      const snapshot = await volume.createSnapshot({
        label,
        ...(unused === undefined ? {} : { unusedSpace: providerOf(unused) }),
      });
      this.#counters.taken++;
      if (snapshot.unusedBytes > 0) this.#counters.skipping++;
      result = 'done';
    } catch (error) {
      // Writes may wait for room, or for a merge.
      const isRefused = error instanceof HoldTimeoutError || error instanceof RevertInProgressError;
      if (!isRefused) throw error;
      result = 'failed';
    } finally {
      if (this.model.has(label)) this.model.endSnapshot(label, result);
    }
  }

  #own(volume: Volume): readonly Snapshot[] {
    return volume.snapshots.filter(({ storeId }) => this.expected.find(storeId) === undefined);
  }

  async #revert(volume: Volume): Promise<void> {
    const target = this.random.pick([...this.#own(volume), undefined]);
    if (target === undefined) return;
    const { reverts } = this.#counters;
    await this.#reverts.revert(volume, {
      age: volume.snapshots.indexOf(target),
      keep: this.random.chance(0.6),
      label: `r${this.#label++}`,
      holdTimeoutMs: 10_000,
    });
    if (target.label === BASE) this.#counters.revertsToBase += this.#counters.reverts - reverts;
  }

  /** All of a snapshot as the model knows it; `undefined` if it is gone. */
  async #readWhole(snapshot: Snapshot): Promise<Uint8Array | undefined> {
    const read = this.model.calls.beginRead(snapshot.label ?? '');
    let bytes: Uint8Array | undefined;
    await this.#calls.errorOf(GONE, async () => {
      bytes = this.#known(snapshot, await snapshot.read(0, snapshot.size));
    });
    if (read === undefined) return undefined;
    this.model.calls.endRead(read, 0, bytes);
    return bytes;
  }

  async #writeSnapshot(volume: Volume): Promise<void> {
    const snapshot = this.random.pick([...this.#own(volume), undefined]);
    if (snapshot === undefined) return;
    const [offset, length] = this.drawRange();
    await snapshot.setWritable(true);
    // So that the model knows what is there before.
    await this.#readPart(snapshot, offset, length);
    const bytes = this.random.fill(new Uint8Array(length));
    const write = this.model.calls.beginWrite(snapshot.label ?? '', offset, bytes);
    if (write === undefined) return;
    const call = async () => {
      if (this.#reverts.targets.has(snapshot))
        throw new RevertInProgressError('a revert to it is being asked for');
      await snapshot.write(offset, bytes);
    };
    this.#reverts.writes.add(snapshot);
    const result = await this.#calls.outcome([...GONE, ...REVERTING, 'NO_SPACE'], call);
    this.model.calls.endWrite(write, result);
    this.#reverts.writes.delete(snapshot);
    if (result === 'done') this.#counters.snapshotWrites++;
  }

  async #flushSnapshot(volume: Volume): Promise<void> {
    const snapshot = this.random.pick([...this.#own(volume), undefined]);
    if (snapshot === undefined) return;
    const flush = this.model.calls.begin(snapshot.label ?? '');
    const result = await this.#calls.outcome(GONE, () => snapshot.flush());
    if (flush !== undefined) this.model.calls.endFlush(flush, result);
  }

  async #delete(volume: Volume): Promise<void> {
    const random = this.random;
    if (random.chance(0.15)) return this.#attemptKept(() => volume.deleteOldest(random.pick([1, 1, 5])));
    // Mostly one of volsnap's.
    const { snapshots } = volume;
    const snapshot = random.pick([...this.#own(volume), random.pick([...snapshots, undefined]), undefined]);
    if (snapshot === undefined) return;
    await this.#attemptKept(async () => {
      const isNeeded = snapshot.label === BASE && this.expected.all.some(({ state }) => state === 'there');
      await snapshot.delete();
      if (isNeeded) throw new ModelMismatch('the snapshot that shadow copies are read through was deleted');
    });
  }

  /** What is held stays, and so do the base and all shadow copies but the oldest. */
  async #attemptKept(remove: () => Promise<void>): Promise<void> {
    try {
      await remove();
    } catch (error) {
      const isKept =
        error instanceof HeldError ||
        error instanceof UnsupportedError ||
        error instanceof RevertInProgressError;
      if (!isKept) throw error;
    }
  }

  /** One block within the first ones, where nobody else writes. */
  async #copyRange(volume: Volume): Promise<void> {
    const [from, to] = [this.random.between(1, 13), this.random.between(1, 13)];
    if (from === to) return;
    const bytes = await volume.read(from * BLOCK_SIZE, BLOCK_SIZE);
    const at = to * BLOCK_SIZE;
    await this.changing(at, bytes, () => volume.copyRange(from * BLOCK_SIZE, at, BLOCK_SIZE));
  }

  /** As long as there are shadow copies that are to be kept it must be refused; whatever it would have destroyed is compared later. */
  async #writeStore(volume: Volume): Promise<void> {
    const last = this.image.snapshots.length;
    const { stores } = this.image;
    const [start] = this.random.pick(stores.slice(0, last).slice(-1)) ?? [0];
    const newest = this.expected.all.at(-1);
    const offset = start * BLOCK_SIZE;
    const write = this.random.chance(0.5)
      ? () => volume.write(offset, new Uint8Array(SECTOR_SIZE).fill(0xbb))
      : () => volume.writeZeroes(offset, SECTOR_SIZE);
    // With more than one run nobody knows here which store the last one is of.
    if (newest?.state !== 'there' || this.image.snapshots.at(-1)?.free?.length !== 1) return;
    try {
      await write();
      if (newest.state === 'there' && this.policy === 'keep')
        throw new ModelMismatch(`a store was overwritten at ${offset}`);
    } catch (error) {
      if (!(error instanceof ReadOnlyError)) throw error;
    }
  }

  async #readSnapshot(volume: Volume): Promise<void> {
    const snapshot = this.random.pick([...volume.snapshots, undefined]);
    if (snapshot === undefined) return;
    const [offset, length] = this.drawRange();
    const copy = this.expected.find(snapshot.storeId);
    if (copy !== undefined) {
      this.expected.check(copy, offset, await snapshot.read(offset, length));
      return;
    }
    await this.#readPart(snapshot, offset, length);
  }

  async #readPart(snapshot: Snapshot, offset: number, length: number): Promise<void> {
    const read = this.model.calls.beginRead(snapshot.label ?? '');
    let bytes: Uint8Array | undefined;
    try {
      bytes = await snapshot.read(offset, length);
      if (snapshot.label !== BASE) this.#withCatalog(offset, bytes);
    } finally {
      if (read !== undefined) this.model.calls.endRead(read, offset, bytes);
    }
  }

  /** All of it, by the rules of Windows alone. */
  override async finish(): Promise<void> {
    if (this.#isTaken) await this.#readByWindowsRules();
    await super.finish();
  }

  async #readByWindowsRules(): Promise<void> {
    await this.world.run(async () => {
      const volume = await this.#open();
      await this.attempt(() => volume.settled());
      await this.attempt(() => volume.close());
    });
    this.world.crash('power-cut');
    this.model.crash('power-cut', this.#isBuffered);
    const bytes = this.world.disk('volume').peek();
    await using volume = await Volume.open(new MemoryDevice(bytes.slice()), { readOnly: true });
    const content = await volume.read(0, volume.size);
    const own = new Map(volume.snapshots.map((snapshot) => [snapshot.id, snapshot]));
    bytes.fill(0, 0x1e00 + START_MAGIC, 0x2000);
    const { snapshots } = await ForeignStore.open(new MemoryDevice(bytes));
    const read: Snapshot[] = [];
    for (const snapshot of snapshots) {
      const handle = own.get(snapshot.snapshotId ?? '');
      // One that was deleted, and could not be merged for lack of room, is shown to nobody here.
      if (handle === undefined && this.expected.find(snapshot.storeId) === undefined) continue;
      const shown = { ...readable(snapshot), label: handle?.label };
      read.push((handle === undefined ? shown : this.#lessUnused(shown, handle)) as unknown as Snapshot);
    }
    await this.#compareAll({ snapshots: read }, content);
  }

  /** What a snapshot leaves out reads as zeros here; by the rules of Windows only in the newest. */
  #lessUnused(shown: ReturnType<typeof readable>, handle: Snapshot) {
    const read = async (offset: number, length: number) => {
      const bytes = await shown.read(offset, length);
      const unused = handle.unusedBytes > 0 ? this.#unused.get(handle.label ?? '') : undefined;
      for (const block of unused ?? []) {
        const at = block * BLOCK_SIZE - offset;
        if (at < 0 || at >= length) continue;
        const part = bytes.subarray(at, at + BLOCK_SIZE);
        await handle.read(offset + at, part);
      }
      return bytes;
    };
    return { ...shown, read };
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
