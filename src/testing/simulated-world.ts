/**
 * Everything outside the engine, from one seed: time, randomness, disks and folders by name, faults and crashes.
 *
 *   const world = new SimulatedWorld('42');
 *   world.disk('volume', { size: 1 << 20 });
 *   await world.runSteps(() => useEngine(world.device('volume'), world.environment()), 500);
 *   world.crash('power-cut');
 *   await world.run(() => reopenEngine(world.device('volume'), world.environment()));
 *
 * Devices, folders and environments are handles of the present generation. A crash ends them all; taking new ones is
 * what reopening means.
 */
import type { Folder } from '../device/folder.js';
import type { Environment } from '../environment.js';
import { NotFoundError } from '../errors.js';
import type { CrashModel } from './crash-model.js';
import { FaultPlan } from './faults.js';
import { type Outcome, Scheduler, type SchedulerOptions } from './scheduler.js';
import { SeededRandom } from './seeded-random.js';
import type { SimulatedDevice } from './simulated-device.js';
import {
  type SavedDirectory,
  SimulatedDirectory,
  type SimulatedDirectoryOptions,
} from './simulated-directory.js';
import { type SavedDisk, SimulatedDisk, type SimulatedDiskOptions } from './simulated-disk.js';

type Given = 'name' | 'scheduler' | 'random' | 'faults';

/** All disks and folders at one moment. */
export interface SavedWorld {
  /** Time since the start of the world. */
  readonly microseconds: number;
  readonly disks: ReadonlyMap<string, SavedDisk>;
  readonly directories: ReadonlyMap<string, SavedDirectory>;
}

export class SimulatedWorld {
  /** For the test itself: what to do next. Its draws move nothing else. */
  readonly random: SeededRandom;
  readonly scheduler: Scheduler;
  readonly faults: FaultPlan;
  readonly #crashRandom: SeededRandom;
  readonly #engineRandom: SeededRandom;
  #disks = new Map<string, SimulatedDisk>();
  #directories = new Map<string, SimulatedDirectory>();
  #crashes = { 'power-cut': 0, kill: 0 };

  constructor(seed: string | number | bigint, options: SchedulerOptions = {}) {
    const root = new SeededRandom(seed);
    this.random = root.fork('test');
    this.#crashRandom = root.fork('crash');
    this.#engineRandom = root.fork('engine');
    this.scheduler = new Scheduler(root, options);
    this.faults = new FaultPlan(root);
  }

  /** Makes a disk. */
  addDisk(name: string, options: Omit<SimulatedDiskOptions, Given> = {}): SimulatedDisk {
    const random = this.#crashRandom.fork(name);
    const disk = new SimulatedDisk({
      ...options,
      name,
      scheduler: this.scheduler,
      random,
      faults: this.faults,
    });
    this.#disks.set(name, disk);
    return disk;
  }

  /** Makes an empty folder. */
  addDirectory(name: string, options: Omit<SimulatedDirectoryOptions, Given> = {}): SimulatedDirectory {
    const random = this.#crashRandom.fork(name);
    const given = { name, scheduler: this.scheduler, random, faults: this.faults };
    const directory = new SimulatedDirectory({ ...options, ...given });
    this.#directories.set(name, directory);
    return directory;
  }

  /** The disk of that name. @throws NotFoundError */
  disk(name: string): SimulatedDisk {
    return found(this.#disks, name);
  }

  /** The directory of that name. @throws NotFoundError */
  directory(name: string): SimulatedDirectory {
    return found(this.#directories, name);
  }

  /** A device on the disk of that name, until the next crash. */
  device(name: string, options: { writable?: boolean } = {}): SimulatedDevice {
    return this.disk(name).open(options);
  }

  /** A folder on the directory of that name, until the next crash. */
  folder(name: string): Folder {
    return this.directory(name).open();
  }

  /** Time and randomness, until the next crash: the timers of a dead engine never fire. */
  environment(): Environment {
    const { scheduler } = this;
    const { clock, generation } = scheduler;
    const isAlive = () => generation === scheduler.generation;
    return {
      clock: {
        now: () => clock.now(),
        monotonic: () => clock.monotonic(),
        after: (milliseconds, action) => (isAlive() ? clock.after(milliseconds, action) : () => undefined),
      },
      random: this.#engineRandom.fork(generation),
    };
  }

  /** See `Scheduler.run`. */
  run<T>(task: () => Promise<T>): Promise<T> {
    return this.scheduler.run(task);
  }

  /** See `Scheduler.runSteps`. */
  runSteps<T>(task: () => Promise<T>, steps: number): Promise<Outcome<T>> {
    return this.scheduler.runSteps(task, steps);
  }

  /** Everything that ran is dead; disks and folders lose what this kind of crash loses. */
  crash(model: CrashModel = 'power-cut'): void {
    this.crashWith(
      model,
      (disk) => disk.crash(this.#crashRandom, model),
      (directory) => directory.crash(this.#crashRandom, model),
    );
  }

  /** The same with chosen losses: the callbacks crash each disk and each directory, with their `crashWith`. */
  crashWith(
    model: CrashModel,
    crashDisk: (disk: SimulatedDisk) => void,
    crashDirectory: (directory: SimulatedDirectory) => void,
  ): void {
    this.scheduler.crash();
    this.#crashes[model]++;
    for (const disk of this.#disks.values()) crashDisk(disk);
    for (const directory of this.#directories.values()) crashDirectory(directory);
  }

  /** The state of all disks and folders, to crash from it in many ways. */
  save(): SavedWorld {
    return {
      microseconds: this.scheduler.clock.microseconds,
      disks: new Map([...this.#disks].map(([name, disk]) => [name, disk.save()])),
      directories: new Map([...this.#directories].map(([name, directory]) => [name, directory.save()])),
    };
  }

  /** Goes to a saved state, of this world or of one with the same disks and folders. Everything that ran is dead; a crash must follow. */
  restore(saved: SavedWorld): void {
    const { clock } = this.scheduler;
    this.scheduler.crash();
    clock.advance(saved.microseconds - clock.microseconds);
    for (const [name, disk] of saved.disks) this.disk(name).restore(disk);
    for (const [name, directory] of saved.directories) this.directory(name).restore(directory);
  }

  /** Rules of the device contract that were broken anywhere. */
  get violations(): string[] {
    const holders = [...this.#disks.values(), ...this.#directories.values()];
    return holders.flatMap((holder) => holder.violations);
  }

  /** See `Scheduler.traceHash`. */
  get traceHash(): number {
    return this.scheduler.traceHash;
  }

  /** What happened so far, for reports. */
  get counters(): Readonly<Record<string, number>> {
    return {
      steps: this.scheduler.steps,
      operations: this.scheduler.completed,
      'power cuts': this.#crashes['power-cut'],
      kills: this.#crashes.kill,
      ...this.faults.counters,
    };
  }
}

function found<T>(map: ReadonlyMap<string, T>, name: string): T {
  const value = map.get(name);
  if (value === undefined) throw new NotFoundError(`this world has no ${name}`);
  return value;
}
