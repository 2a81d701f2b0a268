/**
 * A folder that outlives the engine: which names are there, which of that is durable, and the files' disks.
 *
 * Fault model. Each name has a value, a file or nothing. Creating and removing change it in the cache; a sync makes
 * durable the changes completed before it began. At a power cut each change not durable is kept or lost on its own, in
 * order, so that a name ends with its durable value or with any one since: a lost creation leaves no file, a lost
 * removal brings the file back with whatever of its content was durable. A killed process loses only what was in
 * flight and had no effect yet. The content of each file follows `cached-content.ts`.
 */
import { assert, DeviceError, NotFoundError } from '../errors.js';
import type { ByteLength } from '../units.js';
import type { CrashModel } from './crash-model.js';
import { FaultPlan } from './faults.js';
import type { Scheduler } from './scheduler.js';
import { SeededRandom } from './seeded-random.js';
import { type SavedDisk, SimulatedDisk } from './simulated-disk.js';
import { SimulatedFolder } from './simulated-folder.js';

/** A creation or a removal that is not durable yet. */
export interface NameChange {
  readonly name: string;
  /** The file that the name stands for from now on; a removal has none. */
  readonly file: SimulatedDisk | undefined;
  hasEffect: boolean;
  /** Place among all completions; 0 while in flight. */
  acknowledged: number;
}

export interface SimulatedDirectoryOptions {
  readonly name?: string;
  readonly scheduler: Scheduler;
  readonly random?: SeededRandom;
  readonly faults?: FaultPlan;
  /** For its files: see `SimulatedDiskOptions`. */
  readonly strictOverlap?: boolean;
  readonly atOnce?: boolean;
  /** Bytes that all files together may have; growing beyond is ENOSPC. */
  readonly capacity?: ByteLength;
}

/** All that a directory holds, to go back to later, here or in another world. Files are told by their place in `files`. */
export interface SavedDirectory {
  readonly files: readonly { readonly name: string; readonly disk: SavedDisk }[];
  readonly cached: readonly (readonly [name: string, file: number])[];
  readonly durable: readonly (readonly [name: string, file: number])[];
  readonly log: readonly (Omit<NameChange, 'file'> & { readonly file: number | undefined })[];
  readonly acknowledgements: number;
  readonly capacity: ByteLength;
}

export class SimulatedDirectory {
  readonly name: string;
  readonly scheduler: Scheduler;
  readonly random: SeededRandom;
  readonly faults: FaultPlan;
  readonly #options: SimulatedDirectoryOptions;
  #capacity: ByteLength;
  #cached = new Map<string, SimulatedDisk>();
  #durable = new Map<string, SimulatedDisk>();
  /** Changes not durable; those that took effect in the order of that. */
  #log: NameChange[] = [];
  #acknowledgements = 0;
  /** Broken rules of files that are gone. */
  readonly #violations: string[] = [];

  constructor(options: SimulatedDirectoryOptions) {
    this.#options = options;
    this.name = options.name ?? 'folder';
    this.scheduler = options.scheduler;
    this.random = options.random ?? new SeededRandom(this.name);
    this.faults = options.faults ?? new FaultPlan(this.random);
    this.#capacity = options.capacity ?? Infinity;
  }

  /** The folder as the engine uses it, until the next crash. */
  open(): SimulatedFolder {
    return new SimulatedFolder(this);
  }

  get fileNames(): string[] {
    return [...this.#cached.keys()];
  }

  /** All files that a crash concerns, those included that a name stands for no longer, or not yet. */
  get allFiles(): SimulatedDisk[] {
    const files = new Set([...this.#durable.values(), ...this.#cached.values()]);
    for (const change of this.#log) if (change.file !== undefined) files.add(change.file);
    return [...files];
  }

  /** The disk under a file. @throws NotFoundError */
  file(name: string): SimulatedDisk {
    const file = this.#cached.get(name);
    if (file === undefined) throw new NotFoundError(`there is no ${name} in ${this.name}`);
    return file;
  }

  get capacity(): ByteLength {
    return this.#capacity;
  }

  /** Space may come and go: other users of the file system. */
  set capacity(bytes: ByteLength) {
    this.#capacity = bytes;
  }

  get usedBytes(): ByteLength {
    let sum = 0;
    for (const file of this.#cached.values()) sum += file.size;
    return sum;
  }

  get violations(): string[] {
    const files = new Set([...this.#cached.values(), ...this.#durable.values()]);
    return [...this.#violations, ...[...files].flatMap((file) => file.violations)];
  }

  /** A creation begins, or without `isCreation` a removal. */
  begin(name: string, isCreation: boolean): NameChange {
    const file = isCreation ? this.#newFile(name) : undefined;
    const change: NameChange = { name, file, hasEffect: false, acknowledged: 0 };
    this.#log.push(change);
    return change;
  }

  /** It takes effect. @throws DeviceError if the name is taken, NotFoundError if there is none. */
  take(change: NameChange): void {
    const held = this.#cached.get(change.name);
    if (change.file === undefined && held === undefined) {
      throw new NotFoundError(`there is no ${change.name} in ${this.name}`);
    }
    if (change.file !== undefined && held !== undefined) {
      const cause = Object.assign(new Error('EEXIST: simulated'), { code: 'EEXIST' });
      throw new DeviceError(`${change.name} exists already in ${this.name}`, { cause });
    }
    if (change.file === undefined) this.#cached.delete(change.name);
    else this.#cached.set(change.name, change.file);
    // Effects, not calls, order what happens to a name.
    this.#log.splice(this.#log.indexOf(change), 1);
    this.#log.push(change);
    change.hasEffect = true;
  }

  acknowledge(change: NameChange): void {
    change.acknowledged = ++this.#acknowledgements;
    if (!change.hasEffect) this.#log.splice(this.#log.indexOf(change), 1);
  }

  flushPoint(): number {
    return this.#acknowledgements;
  }

  makeDurable(point: number): void {
    this.#log = this.#log.filter((change) => {
      if (change.acknowledged === 0 || change.acknowledged > point) return true;
      land(this.#durable, change);
      return false;
    });
  }

  crash(random: SeededRandom, model: CrashModel): void {
    const mood = random.below(8);
    const isKept = () => (mood === 0 ? true : mood === 1 ? false : random.chance(0.5));
    this.crashWith(model, isKept, (file) => file.crash(random, model));
  }

  /** The same with chosen losses: `keep` is asked for every change of `unsynced()`, `crashFile` does each file. */
  crashWith(
    model: CrashModel,
    keep: (change: Readonly<NameChange>) => boolean,
    crashFile: (file: SimulatedDisk) => void,
  ): void {
    const files = this.allFiles;
    for (const file of files) crashFile(file);
    for (const change of this.unsynced()) {
      const isLost = (model === 'power-cut' || !change.hasEffect) && !keep(change);
      if (model === 'power-cut') {
        if (!isLost) land(this.#durable, change);
      } else if (!change.hasEffect && !isLost && isPossible(this.#cached, change)) {
        this.take(change);
      }
    }
    if (model === 'power-cut') {
      this.#cached = new Map(this.#durable);
      this.#log = [];
    } else {
      this.#log = this.#log.filter((change) => change.hasEffect);
      for (const change of this.#log) if (change.acknowledged === 0) this.acknowledge(change);
    }
    const alive = new Set([...this.#cached.values(), ...this.#durable.values()]);
    for (const file of files) if (!alive.has(file)) this.#violations.push(...file.violations);
  }

  /** Changes that are not durable, those without effect last: what a crash decides about. */
  unsynced(): readonly NameChange[] {
    const waiting = this.#log.filter((change) => !change.hasEffect);
    return [...this.#log.filter((change) => change.hasEffect), ...waiting];
  }

  save(): SavedDirectory {
    const files = this.allFiles;
    const placed = (names: ReadonlyMap<string, SimulatedDisk>) =>
      [...names].map(([name, file]) => [name, files.indexOf(file)] as const);
    return {
      files: files.map((file) => ({ name: file.name.slice(this.name.length + 1), disk: file.save() })),
      cached: placed(this.#cached),
      durable: placed(this.#durable),
      log: this.#log.map(({ file, ...change }) => ({
        ...change,
        file: file === undefined ? undefined : files.indexOf(file),
      })),
      acknowledgements: this.#acknowledgements,
      capacity: this.#capacity,
    };
  }

  /** Back to a saved state, with new files; a crash must follow before the folder is opened. */
  restore(saved: SavedDirectory): void {
    const files = saved.files.map(({ name, disk }) => {
      const file = this.#newFile(name);
      file.restore(disk);
      return file;
    });
    const fileAt = (place: number): SimulatedDisk => {
      const file = files[place];
      assert(file !== undefined, () => `a saved ${this.name} has no file ${place}`);
      return file;
    };
    const named = (names: SavedDirectory['cached']) =>
      new Map(names.map(([name, place]) => [name, fileAt(place)]));
    this.#cached = named(saved.cached);
    this.#durable = named(saved.durable);
    this.#log = saved.log.map(({ file, ...change }) => ({
      ...change,
      file: file === undefined ? undefined : fileAt(file),
    }));
    this.#acknowledgements = saved.acknowledgements;
    this.#capacity = saved.capacity;
  }

  #newFile(name: string): SimulatedDisk {
    return new SimulatedDisk({
      name: `${this.name}/${name}`,
      scheduler: this.scheduler,
      random: this.random.fork(name),
      faults: this.faults,
      strictOverlap: this.#options.strictOverlap ?? false,
      atOnce: this.#options.atOnce ?? false,
      admits: (growth) => this.usedBytes + growth <= this.#capacity,
    });
  }
}

/** A removal in flight of a name that is not there does nothing, nor does a creation of one that is. */
const isPossible = (names: ReadonlyMap<string, SimulatedDisk>, change: NameChange): boolean =>
  names.has(change.name) === (change.file === undefined);

function land(names: Map<string, SimulatedDisk>, change: NameChange): void {
  if (change.file === undefined) names.delete(change.name);
  else names.set(change.name, change.file);
}
