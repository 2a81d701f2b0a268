/**
 * Tries every crash of a history: at every step of the scheduler, in every way that a crash can leave the devices.
 *
 * The history is a function of its seed, so it can be run again up to each step. There the world is saved, and crashed
 * from that state again and again; each time the volume is opened, held against the model as it was at that step,
 * written to everywhere, and checked.
 */
import { createHash } from 'node:crypto';
import { checkVolume, type Volume, type WriteMode } from '../../src/index.js';
import { ModelMismatch, type SavedWorld, VolumeModel } from '../../src/testing/index.js';
import { BLOCK_SIZE } from '../../src/units.js';
import { noCounters } from './counters.js';
import { CrashMoment, type CrashState } from './crash-states.js';
import { planOf } from './histories.js';
import type { History, Stage } from './history-steps.js';
import type { Operation, Plan } from './plan.js';
import { NO_WORLD } from './space-work.js';
import { labelOf, Workload } from './workload.js';
import { RunWorld } from './world.js';

export interface ExplorationOptions {
  readonly layout: Plan['layout'];
  /** Default: `ordered`. */
  readonly mode?: WriteMode;
  readonly seed: number;
  /** Up to so many states of one moment every subset is tried. */
  readonly limit: number;
  /** At most so many states of one moment and kind of crash are tried, evenly chosen from all. */
  readonly perMoment: number;
}

export interface ExplorationCounters {
  /** Moments at which the devices or the promises differ from those of the moment before. */
  moments: number;
  /** Different states that were crashed into. */
  states: number;
  /** Moments of which not every subset was tried. */
  sampled: number;
}

/** @throws Error for the first state that breaks a promise, naming it */
export async function explore(
  history: History,
  options: ExplorationOptions,
  onState: (counters: ExplorationCounters) => void = () => undefined,
): Promise<ExplorationCounters> {
  const counters: ExplorationCounters = { moments: 0, states: 0, sampled: 0 };
  const seen = new Set<string>();
  for (const steps of await momentsOf(history, options)) {
    counters.moments++;
    const replay = await Replay.until(history, options, steps);
    const saved = replay.world.world.save();
    const durable = replay.durableHash;
    for (const model of ['power-cut', 'kill'] as const) {
      replay.world.world.restore(saved);
      const base = `${model} ${replay.model.ticks.last} ${durable}`;
      const moment = new CrashMoment(replay.world.crashScope, model);
      if (2 ** moment.units.length > options.limit) counters.sampled++;
      const states = [...moment.states(options.limit, `${history.name} ${steps}`)];
      const stride = Math.max(1, Math.ceil(states.length / options.perMoment));
      for (const stateOf of states.filter((_, index) => index % stride === 0)) {
        const state = stateOf();
        const key = createHash('sha1').update(base).update(state.identity).digest('base64');
        if (seen.has(key)) continue;
        seen.add(key);
        counters.states++;
        await attempt(
          replay,
          saved,
          moment,
          model,
          state,
          `${history.name}, ${options.layout}, ${options.mode ?? 'ordered'}, step ${steps}`,
        );
        onState(counters);
      }
    }
  }
  return counters;
}

async function attempt(
  replay: Replay,
  saved: SavedWorld,
  moment: CrashMoment,
  model: 'power-cut' | 'kill',
  state: CrashState,
  where: string,
): Promise<void> {
  replay.world.world.restore(saved);
  moment.crash(replay.world.crashScope, state);
  try {
    await replay.verify(model);
  } catch (error) {
    const what = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    throw new Error(`${where}, ${model}, ${moment.describe(state)}\n  ${what}`, { cause: error });
  }
}

/** Steps after which the devices or the promises are others than one step before. */
async function momentsOf(history: History, options: ExplorationOptions): Promise<number[]> {
  const replay = await Replay.until(history, options, 0);
  const moments: number[] = [];
  let last = '';
  for (let steps = 0; ; steps++) {
    const signature = replay.signature;
    if (signature !== last) moments.push(steps);
    last = signature;
    if (await replay.step()) return moments;
  }
}

/** A history, run up to some step of its explored part. */
class Replay {
  readonly world: RunWorld;
  readonly model: VolumeModel;
  readonly #workload: Workload;
  readonly #identities = new WeakMap<object, number>();
  #lastIdentity = 0;
  #snapshotAfter = false;
  #probeBytes = 0;
  #isClosing = false;
  #work: (() => Promise<unknown>) | undefined;
  #working: Promise<unknown> | undefined;

  private constructor(plan: Plan, mode: WriteMode) {
    // Each state takes some hundred steps.
    this.world = new RunWorld(plan, { stepsMax: Infinity });
    this.world.writing = { mode, limit: BUFFER_BYTES };
    this.model = new VolumeModel(this.world.initial);
    this.#workload = this.#workloadOf(this.model);
  }

  #workloadOf(model: VolumeModel): Workload {
    return new Workload(model, noCounters(), { ...NO_WORLD, inside: this.world.plan.inside });
  }

  static async until(history: History, options: ExplorationOptions, steps: number): Promise<Replay> {
    const { layout, mode = 'ordered', seed } = options;
    const replay = new Replay(planOf(history, layout, seed), mode);
    await replay.#prepare(history);
    for (let step = 0; step < steps; step++) await replay.step();
    return replay;
  }

  async #prepare({ before, opened, explored, snapshotAfter = false, probe = 8 }: History): Promise<void> {
    this.#snapshotAfter = snapshotAfter;
    this.#probeBytes = probe * BLOCK_SIZE;
    this.#isClosing = explored === 'close';
    const { world } = this.world;
    await this.world.initialize();
    for (const { end, steps = CRASH_STEPS, ...stage } of before) {
      const volume = await this.#open();
      await world.runSteps(() => this.#run(volume, stage), end === 'close' ? Infinity : steps);
      if (end === 'close') {
        await world.run(() => volume.close());
        this.model.closed();
      } else {
        world.crash(end);
        this.model.crash(end, this.world.isBuffered);
        this.model.reconcileVolume(await this.world.findVolume(this.#workload.mayRevert));
      }
    }
    if (explored === 'opening') {
      this.#work = () => this.world.open('refuse');
      return;
    }
    const volume = await this.#open();
    await world.run(() => this.#run(volume, opened));
    this.#work = explored === 'close' ? () => volume.close() : () => this.#run(volume, explored);
  }

  async #open(): Promise<Volume> {
    const { world } = this.world;
    const volume = await world.run(() => this.world.open('keep'));
    this.#workload.listen(volume);
    this.model.reconcileNames(volume.snapshots.map(labelOf));
    await world.run(() => this.#workload.verify(volume));
    return volume;
  }

  async #run(volume: Volume, stage: Stage): Promise<void> {
    // Histories speak of whole blocks; the last one of the volume is short.
    const operations = stage.operations.map((operation) =>
      'length' in operation
        ? { ...operation, length: Math.min(operation.length, volume.size - operation.offset) }
        : operation,
    );
    await this.#workload.run(volume, { ...stage, operations });
    if (stage.untilReverted) await volume.reverting?.completed;
  }

  /** One step further; true if that was the end. */
  async step(): Promise<boolean> {
    // The same promise each time: the task goes on where it was.
    const work = () => {
      this.#working ??= this.#work?.() ?? Promise.resolve();
      return this.#working;
    };
    const { finished } = await this.world.world.runSteps(work, 1);
    return finished;
  }

  /** Differs where a crash could leave something else, or where something else is promised. */
  get signature(): string {
    const { disks, directory } = this.world.crashScope;
    const identityOf = (change: object) => {
      const known = this.#identities.get(change) ?? ++this.#lastIdentity;
      this.#identities.set(change, known);
      return known;
    };
    const changes = disks.map(({ content }) =>
      content.unflushed().map((change) => [identityOf(change), change.order]),
    );
    const names = (directory?.unsynced() ?? []).map((change) => [identityOf(change), change.hasEffect]);
    return JSON.stringify([changes, names, this.model.ticks.last]);
  }

  get durableHash(): string {
    const hash = createHash('sha1');
    for (const { content, name } of this.world.crashScope.disks)
      hash.update(name).update(content.durableBytes(0, content.durableSize));
    return hash.digest('base64');
  }

  /** After a crash: opens, compares, writes everywhere, compares, closes, checks. */
  async verify(crash: 'power-cut' | 'kill'): Promise<void> {
    const { world } = this.world;
    const model = this.model.clone();
    model.crash(crash, this.world.isBuffered);
    model.reconcileVolume(await this.world.findVolume(this.#workload.mayRevert));
    const workload = this.#workloadOf(model);
    workload.follow(this.#workload);
    // In a volume that holds its own store the record of a close changes the time that it records.
    const isTimed = this.#isClosing && this.world.plan.layout === 'directory';
    if (isTimed && crash === 'power-cut') world.disk(this.world.volumeName).loseTime();
    const volume = await world.run(() => this.world.open(isTimed ? 'refuse' : 'keep'));
    workload.listen(volume);
    model.reconcileNames(volume.snapshots.map(labelOf));
    await world.run(() => workload.verify(volume));
    await world.run(async () => volume.reverting?.completed);
    await world.run(() => workload.settle(volume));
    const unwanted = workload.unwantedIn(volume);
    if (unwanted.length > 0) throw new ModelMismatch(`still there after a revert: ${unwanted.join(', ')}`);
    const { size } = volume;
    const [store] = this.world.plan.inside?.runs ?? [];
    const length = Math.min(store?.offset ?? size, this.#probeBytes);
    const write: Operation = { kind: 'write', offset: 0, length, zeros: false };
    const operations: Operation[] = this.#snapshotAfter ? [{ kind: 'create' }, write] : [write];
    await world.run(() => workload.run(volume, { operations, clients: 1 }));
    await world.run(() => workload.verify(volume));
    await world.run(() => volume.close());
    const device = world.device('volume');
    const problems = await world.run(() => checkVolume(device, { store: this.world.store(), scrub: true }));
    await world.run(() => device.close());
    const complaints = [
      ...problems.map(({ message }) => message),
      ...workload.complaints,
      ...world.violations,
    ];
    if (complaints.length > 0) throw new ModelMismatch(complaints.join('; '));
  }
}

/** So little that some writes have to wait for room. */
const BUFFER_BYTES = 4 * BLOCK_SIZE;
/** Steps after which a history's earlier openings crash. */
const CRASH_STEPS = 90;
