/**
 * One run with snapshot sets: several volumes in one world that crash together, one set after the other over some of them,
 * and openings in any order, also of one volume while the coordinator of its set cannot be asked.
 *
 * Besides what `run.ts` holds each volume to: a set has one moment for all, and after a crash all of its members or none.
 */

import {
  checkVolume,
  createSnapshotSet,
  findSetOutcome,
  HoldTimeoutError,
  type SetResolver,
  setOutcomeIn,
  type UndecidedSet,
  VolsnapError,
  type Volume,
} from '../../src/index.js';
import {
  ModelMismatch,
  type OperationLabel,
  SeededRandom,
  SimulatedWorld,
  Ticks,
  VolumeModel,
} from '../../src/testing/index.js';
import { BLOCK_SIZE } from '../../src/units.js';
import { DEVICE_FAILS, type Permitted } from './calls.js';
import { noCounters, type RunCounters } from './counters.js';
import type { Operation, Plan, Writing } from './plan.js';
import { bytesOf, drawRuns, type InsidePlan, Mapping } from './plan-inside.js';
import { PromiseBroken } from './run.js';
import { SetAim } from './set-aim.js';
import { ModelWriter } from './set-writer.js';
import { NO_WORLD } from './space-work.js';
import { drawUnused, providerOf } from './unused.js';
import { labelOf, Workload } from './workload.js';
import { RunWorld } from './world.js';

export interface SetRunOptions {
  readonly cycles: number;
  /** Do devices fail in some of the cycles? */
  readonly faults: boolean;
  /** Does every cycle end in a crash, mostly while a set is being taken? */
  readonly commits?: boolean;
}

/** What happened to sets of several volumes. */
export interface SetCounters {
  /** Crashes while one was being taken. */
  crashes: number;
  /** Of them, those that left members behind that had to be decided, one way or the other. */
  completed: number;
  aborted: number;
  /** Times that a member was found pending because its coordinator could not be asked. */
  pending: number;
}

export const noSetCounters = (): SetCounters => ({ crashes: 0, completed: 0, aborted: 0, pending: 0 });

const NOT_CREATED: Permitted = ['HOLD_TIMEOUT', 'NO_SPACE', 'LIMIT'];

/** @returns the trace hash: equal for equal seeds. @throws PromiseBroken */
export async function runSets(
  seed: string,
  options: SetRunOptions,
  counters: RunCounters = noCounters(),
  setCounters: SetCounters = noSetCounters(),
): Promise<number> {
  const run = new SetRun(seed, options, counters, setCounters);
  let cycle = 0;
  try {
    await run.initialize();
    for (; cycle < options.cycles; cycle++) await run.cycle();
    await run.finish();
  } catch (error) {
    throw new PromiseBroken(cycle, error);
  }
  return run.traceHash;
}

/** A set whose creation began, as the model knows it. */
interface KnownSet {
  readonly label: string;
  readonly members: readonly Member[];
  result: 'creating' | 'done' | 'failed' | 'uncertain';
  /** Members that were deleted, or may have been. */
  readonly touched: Set<Member>;
  /** Whether it exists, once a member has shown it. */
  exists: boolean | undefined;
}

interface Member {
  readonly world: RunWorld;
  readonly model: VolumeModel;
  readonly workload: Workload;
  /** Where the store lies inside the volume: what is drawn for the rest of it is moved. */
  readonly mapping: Mapping | undefined;
  volume: Volume | undefined;
}

/** Steps until the work of a cycle is certainly over. */
const STEPS_MAX = 4000;

class SetRun {
  readonly #random: SeededRandom;
  readonly #world: SimulatedWorld;
  readonly #members: readonly Member[];
  readonly #sets: KnownSet[] = [];
  /** Members of a set of several that the last crash cut off, the coordinator first. */
  #cutOff: readonly Member[] | undefined;
  readonly #aim: SetAim;
  readonly #counters: RunCounters;
  readonly #options: SetRunOptions;
  #environment: { generation: number; environment: ReturnType<SimulatedWorld['environment']> } | undefined;

  readonly #setCounters: SetCounters;

  constructor(seed: string, options: SetRunOptions, counters: RunCounters, setCounters: SetCounters) {
    this.#setCounters = setCounters;
    this.#random = new SeededRandom(`sets ${seed}`);
    this.#options = options;
    this.#counters = counters;
    const stragglers = this.#random.pick([1 / 64, 1 / 64, 1 / 6]);
    const observe = (event: string, label: OperationLabel) => this.#aim.observe(event, label);
    this.#world = new SimulatedWorld(`sets ${seed}`, { stragglers, observe });
    this.#aim = new SetAim(this.#random, this.#world.scheduler);
    const ticks = new Ticks();
    this.#members = Array.from({ length: 2 + this.#random.below(2) }, (_, index) => {
      const plan = this.#planOf(`${seed} ${index}`);
      const member = {
        world: this.#world,
        name: `volume${index}`,
        environment: () => this.#environmentNow(),
      };
      const world = new RunWorld(plan, {}, member);
      const model = new VolumeModel(world.initial, ticks);
      const { inside } = plan;
      const workload = new Workload(model, counters, { ...NO_WORLD, inside });
      const mapping = inside === undefined ? undefined : new Mapping(this.#random, inside);
      return { world, model, workload, mapping, volume: undefined };
    });
  }

  get traceHash(): number {
    return this.#world.traceHash;
  }

  #environmentNow() {
    const { generation } = this.#world.scheduler;
    if (this.#environment?.generation !== generation)
      this.#environment = { generation, environment: this.#world.environment() };
    return this.#environment.environment;
  }

  #planOf(seed: string): Plan {
    const random = this.#random;
    const blocks = 3 + random.below(10);
    const atOnce = random.chance(0.2);
    const layout = random.pick(['directory', 'in-volume'] as const);
    const size = blocks * BLOCK_SIZE - (random.chance(0.3) ? random.below(31) * 512 : 0);
    const inside: InsidePlan | undefined =
      layout === 'in-volume' && random.chance(0.2)
        ? drawRuns(random, Math.floor(size / BLOCK_SIZE))
        : undefined;
    return {
      seed,
      atOnce,
      layout,
      volumeSize: size + (inside === undefined ? 0 : bytesOf(inside)),
      ...(inside === undefined ? {} : { inside }),
      reserve: (10 + 512) * BLOCK_SIZE,
      noise: false,
      maximumSize: 0,
      hostSpace: 0,
      growth: { initial: 10 * BLOCK_SIZE, maximum: 20 * BLOCK_SIZE },
      memoryLimit: (1 + random.below(64)) * BLOCK_SIZE,
      crashesWhileInitializing: [],
      stragglers: 0,
      cycles: [],
    };
  }

  async initialize(): Promise<void> {
    for (const { world } of this.#members) await world.initialize();
  }

  async cycle(): Promise<void> {
    const random = this.#random;
    this.#counters.cycles++;
    const writing = (): Writing => ({
      mode: random.pick(['ordered', 'writeback'] as const),
      limit: random.pick([1, 4, 64]) * BLOCK_SIZE,
    });
    for (const member of this.#members) member.world.writing = writing();
    // Now and then a volume is opened alone, or without a way to ask the coordinator.
    const all = random.chance(0.7);
    const alone = this.#drawAlone();
    const order = alone ?? this.#shuffled(this.#members).filter(() => all || random.chance(0.5));
    const isBlind = random.chance(0.3);
    if (random.chance(0.2)) {
      const { finished } = await this.#world.runSteps(() => this.#openAll(order, isBlind), random.below(120));
      if (!finished) await this.#crash('power-cut');
      else await this.#closeAll();
    }
    await this.#world.run(() => this.#openAll(order, isBlind));
    await this.#world.run(() => this.#verifyAll());
    const faulty = this.#options.faults && random.chance(0.3);
    for (const { workload } of this.#members) workload.tolerated = faulty ? DEVICE_FAILS : [];
    if (faulty)
      for (const { world } of this.#members)
        world.drawFaults({ faultRate: 0.01, controlFaults: random.chance(0.5) });
    // What one that was opened alone found out is held against what a power cut leaves of the others.
    const end = !this.#options.commits
      ? random.pick(['close', 'kill', 'power-cut', 'power-cut'] as const)
      : alone === undefined
        ? random.pick(['kill', 'kill', 'power-cut'] as const)
        : random.pick(['kill', 'power-cut', 'power-cut', 'power-cut'] as const);
    const work = () => this.#work();
    if (end === 'close') await this.#world.run(work);
    else await this.#world.runSteps(work, this.#drawSteps());
    this.#aim.end();
    this.#world.faults.clear();
    if (end === 'close') await this.#closeAll();
    else await this.#crash(faulty ? 'power-cut' : end);
    for (const { workload } of this.#members) workload.tolerated = [];
    this.#checkViolations();
  }

  /** Steps of work until the crash. */
  #drawSteps(): number {
    const random = this.#random;
    if (!this.#options.commits) return random.below(random.chance(0.3) ? 900 : 260);
    if (!random.chance(0.7)) return random.below(160);
    this.#aim.begin();
    return STEPS_MAX;
  }

  /** After a crash that cut a set off one of its members is opened alone, now and then: what it decides has to hold for the others. */
  #drawAlone(): readonly Member[] | undefined {
    const members = this.#cutOff;
    this.#cutOff = undefined;
    if (members === undefined || !this.#random.chance(0.5)) return undefined;
    // Mostly not the one that has the record.
    return [this.#random.pick(this.#random.chance(0.7) ? members.slice(1) : members)];
  }

  /** Whatever happened: all of them open, and every set is whole. */
  async finish(): Promise<void> {
    await this.#world.run(() => this.#openAll(this.#shuffled(this.#members), false));
    // The first one that was opened may have had to wait for none of them.
    await this.#world.run(() => this.#verifyAll());
    const pending = this.#members.flatMap(({ volume }) =>
      (volume?.snapshots ?? []).filter(({ state }) => state === 'pending'),
    );
    if (pending.length > 0) throw new ModelMismatch(`still pending: ${pending.map(labelOf).join(', ')}`);
    await this.#closeAll();
    for (const { world } of this.#members) {
      const device = this.#world.device(world.volumeName);
      const options = { store: world.store(), scrub: true };
      const problems = await this.#world.run(() => checkVolume(device, options));
      await this.#world.run(() => device.close());
      if (problems.length > 0)
        throw new ModelMismatch(`check finds: ${problems.map(({ message }) => message).join('; ')}`);
      this.#counters.checks++;
    }
    this.#checkViolations();
    this.#counters.faults += Object.values(this.#world.faults.counters).reduce(
      (sum, count) => sum + count,
      0,
    );
  }

  #shuffled<T>(items: readonly T[]): T[] {
    const left = [...items];
    return items.flatMap(() => left.splice(this.#random.below(left.length), 1));
  }

  async #openAll(order: readonly Member[], isBlind: boolean): Promise<void> {
    for (const member of order) {
      const resolver: SetResolver = (question) => this.#resolve(question, isBlind);
      const volume = await member.world.open('keep', 'refuse', resolver);
      member.volume = volume;
      member.model.opened(volume.size);
      member.workload.listen(volume);
      this.#watchDeletions(member, volume);
    }
  }

  /** The coordinator may be open already, which the engine finds out itself; else its store is looked at. */
  async #resolve(question: UndecidedSet, isBlind: boolean): ReturnType<SetResolver> {
    const outcome = isBlind ? 'unknown' : await this.#outcomeOf(question);
    if (outcome === 'unknown') this.#setCounters.pending++;
    else this.#setCounters[outcome === 'committed' ? 'completed' : 'aborted']++;
    return outcome;
  }

  async #outcomeOf(question: UndecidedSet): ReturnType<SetResolver> {
    const { coordinator, writable } = question;
    const environment = this.#environmentNow();
    const owner = this.#members.find(({ world }) => world.volumeName === coordinator.volume);
    if (owner === undefined) throw new ModelMismatch(`no volume is called ${coordinator.volume}`);
    if (owner.volume !== undefined) return findSetOutcome(question, environment);
    const device = this.#world.device(owner.world.volumeName);
    try {
      return await setOutcomeIn(device, owner.world.store(), coordinator, { environment, writable });
    } finally {
      await device.close();
    }
  }

  #watchDeletions(member: Member, volume: Volume): void {
    const labels = new Map(volume.snapshots.map((snapshot) => [snapshot.id, labelOf(snapshot)]));
    volume.on('created', ({ id, label }) => labels.set(id, label ?? ''));
    volume.on('deleting', ({ id }) => {
      const label = labels.get(id);
      this.#sets.find((set) => set.label === label)?.touched.add(member);
    });
  }

  async #verifyAll(): Promise<void> {
    for (const member of this.#members) {
      const { volume, model, workload } = member;
      if (volume === undefined) continue;
      const pending = volume.snapshots.filter(({ state }) => state === 'pending').map(labelOf);
      const known = volume.snapshots.filter(({ state }) => state !== 'pending').map(labelOf);
      model.reconcileNames(known, pending);
      await workload.verify(volume);
      for (const set of this.#sets) {
        if (!set.members.includes(member) || set.touched.has(member) || pending.includes(set.label)) continue;
        const isThere = known.includes(set.label);
        if (set.exists !== undefined && set.exists !== isThere) {
          throw new ModelMismatch(
            `set ${set.label}: its member of ${member.world.volumeName} is ${isThere ? 'there' : 'not there'}, another one was found to be ${isThere ? 'absent' : 'present'}`,
          );
        }
        set.exists = isThere;
      }
    }
  }

  async #work(): Promise<void> {
    const open = this.#members.filter(({ volume }) => volume !== undefined);
    const isQuiet = this.#options.commits || this.#random.chance(0.3);
    const work = open.map(async (member) => {
      const { volume, workload } = member;
      if (volume === undefined) return;
      const operations = Array.from({ length: isQuiet ? 2 : 3 + this.#random.below(20) }, () =>
        this.#drawOperation(member),
      );
      await workload.run(volume, { operations, clients: 1 + this.#random.below(4) });
    });
    const sets = Array.from({ length: open.length === 0 ? 0 : 1 + this.#random.below(2) }, async () => {
      const { scheduler } = this.#world;
      const { generation } = scheduler;
      await scheduler.pause(this.#random.below(isQuiet ? 4 : 60));
      // It ended with the crash, which is of another time.
      if (scheduler.generation !== generation) return;
      const least = this.#options.commits ? Math.min(2, open.length) : 1;
      const members = this.#shuffled(open).slice(0, least + this.#random.below(open.length + 1 - least));
      await this.#createSet(members);
    });
    await Promise.all([...work, ...sets]);
  }

  async #createSet(members: readonly Member[]): Promise<void> {
    const label = `set${this.#sets.length}`;
    const set: KnownSet = { label, members, result: 'creating', touched: new Set(), exists: undefined };
    this.#sets.push(set);
    const volumes = members.flatMap(({ volume }) => volume ?? []);
    const moment = members[0]?.model.beginMoment();
    const free = this.#random.chance(0.25) ? this.#random.below(1 << 30) : undefined;
    const smallest = Math.min(...volumes.map(({ size }) => size));
    const unused = free === undefined ? undefined : drawUnused(free, smallest);
    for (const { model } of members) model.beginSnapshot(label, moment, unused);
    const holdTimeoutMs = this.#random.chance(0.1) ? 1 : 10_000;
    const { generation } = this.#world.scheduler;
    const [coordinator] = members;
    const writer = new ModelWriter(
      this.#random.chance(0.1) ? this.#random.pick(['prepare', 'freeze']) : undefined,
      () => coordinator && members.length > 1 && this.#aim.frozen(coordinator.world),
    );
    try {
      const taken = await createSnapshotSet(volumes, {
        label,
        holdTimeoutMs,
        writers: [writer],
        ...(unused === undefined ? {} : { unusedSpace: providerOf(unused) }),
      });
      for (const { unusedBytes } of taken.snapshots) if (unusedBytes > 0) this.#counters.snapshotsSkipping++;
      if (this.#world.scheduler.generation === generation) set.result = 'done';
      if (new Set([taken.id, ...taken.snapshots.map(({ setId }) => setId)]).size !== 1)
        throw new ModelMismatch(`set ${label}: its members have different set ids`);
      this.#counters.snapshotsTaken += members.length;
    } catch (error) {
      if (!(error instanceof VolsnapError)) throw error;
      const tolerated = members.flatMap(({ workload }) => workload.tolerated);
      if (![...NOT_CREATED, 'WRITER_FAILED', ...tolerated].includes(error.code)) throw error;
      if (this.#world.scheduler.generation === generation)
        set.result = error instanceof HoldTimeoutError ? 'failed' : 'uncertain';
    }
    // Somebody who is dead is not told.
    if (this.#world.scheduler.generation !== generation) return new Promise(() => undefined);
    writer.check(set.result === 'done', unused !== undefined);
    if (set.result !== 'done' && set.result !== 'uncertain' && set.touched.size > 0)
      throw new ModelMismatch(`set ${label} was not taken, but a member of it was deleted`);
    const result = set.result === 'creating' ? 'uncertain' : set.result;
    for (const { model } of members) if (model.has(label)) model.endSnapshot(label, result);
    if (set.result !== 'uncertain') set.exists = set.result === 'done';
    // Whether one of them sees it, that has to be so for all.
    const seen = volumes.filter(({ snapshots }) => snapshots.some((snapshot) => labelOf(snapshot) === label));
    if (set.result !== 'done' && seen.length > 0)
      throw new ModelMismatch(`set ${label} was not taken, but ${seen.length} of its members are listed`);
  }

  #drawOperation({ volume, mapping, world }: Member): Operation {
    const random = this.#random;
    const { layout, inside } = world.plan;
    const size = (volume?.size ?? 0) - (inside === undefined ? 0 : bytesOf(inside));
    if (random.chance(0.04)) {
      if (layout === 'directory') return { kind: 'grow', size: size + random.below(70) * 512 };
      if (mapping !== undefined) return mapping.drawOver();
    }
    const operation = drawOperation(random, size);
    return mapping === undefined ? operation : mapping.operation(operation);
  }

  async #crash(model: 'kill' | 'power-cut'): Promise<void> {
    this.#counters.crashes++;
    this.#world.crash(model);
    for (const member of this.#members) {
      member.volume = undefined;
      member.model.crash(model, member.world.isBuffered);
      member.model.reconcileVolume(await member.world.findVolume(false));
    }
    for (const set of this.#sets) {
      if (set.result !== 'creating') continue;
      set.result = 'uncertain';
      if (set.members.length === 1) continue;
      this.#setCounters.crashes++;
      if (this.#options.commits) this.#cutOff = set.members;
    }
  }

  async #closeAll(): Promise<void> {
    for (const member of this.#shuffled(this.#members)) {
      const { volume, model, workload } = member;
      if (volume === undefined) continue;
      try {
        await this.#world.run(() => volume.close());
        model.endFlush(model.beginFlush());
      } catch (error) {
        if (!(error instanceof VolsnapError && workload.tolerated.includes(error.code))) throw error;
        await this.#crash('power-cut');
        return;
      }
      member.volume = undefined;
    }
  }

  #checkViolations(): void {
    const complaints = this.#members.flatMap(({ workload }) => workload.complaints);
    if (complaints.length > 0) throw new ModelMismatch(complaints.join('; '));
    const { violations } = this.#world;
    if (violations.length > 0) throw new ModelMismatch(`device contract broken: ${violations.join('; ')}`);
  }
}

function drawOperation(random: SeededRandom, size: number): Operation {
  const kind = random.pick([
    ...(['write', 'write', 'write', 'write', 'write', 'write', 'write', 'flush'] as const),
    ...(['read-snapshots', 'create', 'delete-oldest', 'delete', 'zeroes'] as const),
  ]);
  if (kind === 'delete') return { kind, age: random.below(8), wait: random.chance(0.3) };
  if (kind !== 'write' && kind !== 'zeroes') return { kind };
  const sectors = size / 512;
  const length = 1 + random.below(Math.min(random.pick([1, 8, 40]), sectors));
  const range = { offset: random.below(sectors - length + 1) * 512, length: length * 512 };
  return kind === 'write' ? { kind, ...range, zeros: false } : { kind, ...range };
}
