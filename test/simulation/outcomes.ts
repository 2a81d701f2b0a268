/**
 * Further outcomes of the same crash: a cycle is dear, and what its crash leaves is drawn once; here it is drawn again.
 *
 * The disks as they are at the crash are restored into a world of their own, crashed with another subset of what was not
 * flushed, killed or without power, opened (now and then only after one more crash while it is being opened), and compared
 * with the model. Then that world is dropped; the run itself goes on as if nothing had been. The same is done at moments before
 * the crash, at which the run goes on.
 */
import { createHash } from 'node:crypto';
import type { Volume } from '../../src/index.js';
import { type CrashModel, type SavedWorld, SeededRandom, type VolumeModel } from '../../src/testing/index.js';
import { addCounters, noCounters } from './counters.js';
import { CrashMoment, type CrashState } from './crash-states.js';
import type { Cycle, OutcomeName, Plan } from './plan.js';
import type { RunState } from './run-state.js';
import type { RunWorld } from './world.js';

/** Share of outcomes that are drawn as other crashes are; the rest are dangerous ones. */
const DRAWN = 0.4;
/** Share of outcomes that are checked, and of those that crash again while they are opened. */
const CHECKED = 0.15;
const CRASHED_AGAIN = 0.15;
/** Steps within which that comes. */
const OPENING_STEPS = 120;

/** One outcome of a crash broke a promise. */
export class OutcomeBroken extends Error {
  override readonly name = 'OutcomeBroken';

  constructor(
    readonly at: OutcomeName,
    what: string,
    cause: unknown,
  ) {
    const why = cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause);
    super(`outcome ${at.crash}.${at.outcome} (${what}): ${why}`, { cause });
  }
}

/** What a crash left, by the bytes of it. */
type Identity = string;
/** By a crash of the run itself, or by one that was tried besides. */
type Known = Map<Identity, 'own' | 'further'>;

export class Outcomes {
  readonly #plan: Plan;
  readonly #state: RunState;
  #crashes = 0;
  /** What was left in this cycle, and whose it is: the same bytes count once. */
  #known: Known = new Map();

  constructor(plan: Plan, state: RunState) {
    this.#plan = plan;
    this.#state = state;
  }

  /** To be called where the work of a cycle begins: it is interrupted some times for crashes of its world in others. */
  interruptWork({ steps }: Pick<Cycle, 'steps'>, models: () => readonly CrashModel[]): void {
    this.#known = new Map();
    const { moments = 0, seed } = this.#plan;
    const { scheduler } = this.#state.world.world;
    const random = new SeededRandom(`${seed}, moments after ${scheduler.steps} steps`);
    for (let moment = 0; moment < moments; moment++)
      scheduler.interruptAfter(random.below(steps + 1), () => this.explore(models()));
  }

  /**
   * To be called before each crash.
   * @param models how it may come
   * @throws OutcomeBroken
   */
  async explore(models: readonly CrashModel[]): Promise<void> {
    this.#crashes++;
    const { outcomes = 0, outcome: only } = this.#plan;
    if (outcomes === 0 || (only !== undefined && only.crash !== this.#crashes)) return;
    const moments = models.map((model) => new CrashMoment(this.#state.world.crashScope, model));
    // Where nothing is in doubt there is one outcome, which the run itself has.
    const doubtful = moments.filter(({ units }) => units.length > 0);
    if (doubtful.length === 0) return;
    const crash = new BranchedCrash(this.#state, doubtful, this.#crashes, this.#known);
    for (let outcome = 1; outcome <= outcomes; outcome++)
      if (only === undefined || only.outcome === outcome) await crash.explore(outcome);
    crash.end();
  }

  /** To be called after each crash of the run itself: what it left is no further outcome. */
  crashed(): void {
    if (this.#known.size === 0) return;
    const identity = identityOf(this.#state.world);
    if (this.#known.get(identity) === 'further') this.#state.counters.outcomes--;
    this.#known.set(identity, 'own');
  }
}

/** One crash, in several ways. */
class BranchedCrash {
  readonly #state: RunState;
  readonly #moments: readonly CrashMoment[];
  readonly #number: number;
  readonly #saved: SavedWorld;
  readonly #known: Known;
  /** The same bytes are looked at once more for the other kind of crash, of which the model permits less, or more. */
  readonly #seen = new Set<string>();
  /** States that were chosen before: the same leaves the same bytes, and need not be made again to know. */
  readonly #chosen = new Set<string>();
  /** What is permitted after a crash of each kind. */
  readonly #models = new Map<CrashModel, VolumeModel>();

  constructor(state: RunState, moments: readonly CrashMoment[], number: number, known: Known) {
    this.#state = state;
    this.#moments = moments;
    this.#number = number;
    this.#known = known;
    this.#saved = state.world.world.save();
  }

  /** @throws OutcomeBroken */
  async explore(outcome: number): Promise<void> {
    const seed = `${this.#state.world.plan.seed}, outcome ${this.#number}.${outcome}`;
    const random = new SeededRandom(seed);
    const moment = random.pick(this.#moments);
    const { model } = moment;
    const state = random.chance(DRAWN) ? undefined : moment.draw(random);
    if (state !== undefined && this.#isRepeated(model, state)) return;
    const world = this.#state.world.branch(seed);
    world.world.restore(this.#saved);
    if (state === undefined) world.world.crash(model);
    else moment.crash(world.crashScope, state);
    const identity = identityOf(world);
    if (this.#seen.has(`${model} ${identity}`)) return;
    const counters = noCounters();
    const branch = this.#state.branch(world, this.#modelOf(model).clone(), counters);
    try {
      await branch.reconcile();
      await reopen(branch, random);
    } catch (error) {
      const what = state === undefined ? model : `${model}, ${moment.describe(state)}`;
      throw new OutcomeBroken({ crash: this.#number, outcome }, what, error);
    }
    branch.model.release();
    this.#seen.add(`${model} ${identity}`);
    if (!this.#known.has(identity)) {
      this.#known.set(identity, 'further');
      counters.outcomes++;
    }
    addCounters(this.#state.counters, counters);
  }

  #isRepeated(model: CrashModel, { isKept, torn }: CrashState): boolean {
    const key = `${model} ${torn} ${isKept.map(Number).join('')}`;
    const isRepeated = this.#chosen.has(key);
    this.#chosen.add(key);
    return isRepeated;
  }

  /** No further outcome is explored. */
  end(): void {
    for (const model of this.#models.values()) model.release();
  }

  #modelOf(crash: CrashModel): VolumeModel {
    const model = this.#models.get(crash) ?? this.#state.modelOf(crash);
    this.#models.set(crash, model);
    return model;
  }
}

/** Opens what a crash has left, and compares. @throws Error whatever is wrong */
async function reopen(branch: RunState, random: SeededRandom): Promise<void> {
  if (random.chance(CHECKED) && branch.isSound) await branch.check();
  const steps = random.chance(CRASHED_AGAIN) ? random.below(OPENING_STEPS) : Infinity;
  const volume = await openWithin(branch, steps, random);
  await branch.world.world.run(() => branch.verifyAfterOpening(volume));
  branch.checkViolations();
}

/** Crashes once more if opening takes more steps than that. */
async function openWithin(branch: RunState, steps: number, random: SeededRandom): Promise<Volume> {
  const { world } = branch.world;
  const first = await world.runSteps(() => branch.open(), steps);
  if (first.finished) return first.value;
  const model = random.pick(['power-cut', 'kill'] as const);
  world.crash(model);
  branch.timeUnknown = true;
  await branch.crashed(model);
  return world.run(() => branch.open());
}

/** Equal where all bytes that a crash has left are, and all names. */
function identityOf({ crashScope: { disks, directory } }: RunWorld): Identity {
  const names = directory?.fileNames.sort() ?? [];
  const left =
    directory === undefined ? disks : [...disks.slice(0, 1), ...names.map((name) => directory.file(name))];
  const hash = createHash('sha1').update(names.join());
  for (const { size, content } of left) hash.update(`${size} `).update(content.sums());
  return hash.digest('base64');
}
