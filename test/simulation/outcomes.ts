/**
 * Further outcomes of the same crash: a cycle is dear, and what its crash leaves is drawn once; here it is drawn again.
 *
 * The disks as they are at the crash are restored into a world of their own, crashed with another subset of what was not
 * flushed, killed or without power, opened (now and then only after one more crash while it is being opened), and compared
 * with the model. Then that world is dropped; the run itself goes on as if nothing had been.
 */
import { createHash } from 'node:crypto';
import type { Volume } from '../../src/index.js';
import {
  type CachedContent,
  type CrashModel,
  type SavedWorld,
  SeededRandom,
  type SimulatedDisk,
} from '../../src/testing/index.js';
import { addCounters, noCounters } from './counters.js';
import { CrashMoment } from './crash-states.js';
import type { OutcomeName, Plan } from './plan.js';
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

export class Outcomes {
  readonly #plan: Plan;
  #crashes = 0;

  constructor(plan: Plan) {
    this.#plan = plan;
  }

  /**
   * To be called before each crash.
   * @param models how it may come
   * @returns must be told what the crash of the run itself left, which is no further outcome
   * @throws OutcomeBroken
   */
  async explore(state: RunState, models: readonly CrashModel[]): Promise<(world: RunWorld) => void> {
    this.#crashes++;
    const { outcomes = 0, outcome: only } = this.#plan;
    if (outcomes === 0 || (only !== undefined && only.crash !== this.#crashes)) return () => undefined;
    const moments = models.map((model) => new CrashMoment(state.world.crashScope, model));
    // Where nothing is in doubt there is one outcome, which the run itself has.
    const doubtful = moments.filter(({ units }) => units.length > 0);
    if (doubtful.length === 0) return () => undefined;
    const crash = new BranchedCrash(state, doubtful, this.#crashes);
    for (let outcome = 1; outcome <= outcomes; outcome++)
      if (only === undefined || only.outcome === outcome) await crash.explore(outcome);
    return (world) => crash.leaveOut(world);
  }
}

/** One crash, in several ways. */
class BranchedCrash {
  readonly #state: RunState;
  readonly #moments: readonly CrashMoment[];
  readonly #number: number;
  readonly #saved: SavedWorld;
  readonly #counted = new Set<Identity>();
  /** The same bytes are looked at once more for the other kind of crash, of which the model permits less, or more. */
  readonly #seen = new Set<string>();

  constructor(state: RunState, moments: readonly CrashMoment[], number: number) {
    this.#state = state;
    this.#moments = moments;
    this.#number = number;
    this.#saved = state.world.world.save();
  }

  leaveOut(world: RunWorld): void {
    if (this.#counted.has(identityOf(world, this.#saved))) this.#state.counters.outcomes--;
  }

  /** @throws OutcomeBroken */
  async explore(outcome: number): Promise<void> {
    const seed = `${this.#state.world.plan.seed}, outcome ${this.#number}.${outcome}`;
    const random = new SeededRandom(seed);
    const moment = random.pick(this.#moments);
    const { model } = moment;
    const world = this.#state.world.branch(seed);
    world.world.restore(this.#saved);
    const what = crash(world, moment, random);
    const identity = identityOf(world, this.#saved);
    if (this.#seen.has(`${model} ${identity}`)) return;
    const counters = noCounters();
    const branch = this.#state.branch(world, counters);
    try {
      await branch.crashed(model);
      await reopen(branch, random);
    } catch (error) {
      throw new OutcomeBroken({ crash: this.#number, outcome }, what, error);
    }
    this.#seen.add(`${model} ${identity}`);
    if (!this.#counted.has(identity)) counters.outcomes++;
    this.#counted.add(identity);
    addCounters(this.#state.counters, counters);
  }
}

/** Crashes a world that was just restored. @returns how, in words */
function crash(world: RunWorld, moment: CrashMoment, random: SeededRandom): string {
  const { model } = moment;
  if (random.chance(DRAWN)) {
    world.world.crash(model);
    return model;
  }
  const state = moment.draw(random);
  moment.crash(world.crashScope, state);
  return `${model}, ${moment.describe(state)}`;
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

/** Identifies what a crash has left: only changes that were not flushed make a difference. */
function identityOf({ world }: RunWorld, saved: SavedWorld): Identity {
  const hash = createHash('sha1');
  const add = ({ name, size, content }: SimulatedDisk, saved: CachedContent) => {
    hash.update(`${name} ${size} `);
    for (const { kind, offset, bytes } of saved.unflushed()) {
      const end = kind === 'resize' ? size : offset + bytes.byteLength;
      hash.update(content.view(Math.min(offset, size), Math.min(end, size)));
    }
  };
  for (const [name, disk] of saved.disks) add(world.disk(name), disk.content);
  for (const [name, { files }] of saved.directories) {
    const directory = world.directory(name);
    const names = directory.fileNames.sort();
    hash.update(names.join());
    for (const file of files)
      if (names.includes(file.name)) add(directory.file(file.name), file.disk.content);
  }
  return hash.digest('base64');
}
