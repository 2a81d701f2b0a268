/**
 * Runs a plan against the engine in a simulated world and holds everything that it shows against the model.
 *
 * Each cycle opens the volume, lets several clients work at once, and ends by a clean close or by a crash at some step.
 * After each crash and each opening the volume and every snapshot are compared with what the promises permit.
 */
import { VolsnapError, type Volume } from '../../src/index.js';
import { type CrashModel, ModelMismatch, type VolumeModel } from '../../src/testing/index.js';
import { DEVICE_FAILS } from './calls.js';
import { noCounters, type RunCounters } from './counters.js';
import type { LateDisk } from './late.js';
import { Outcomes } from './outcomes.js';
import type { Cycle, Late, Plan } from './plan.js';
import { findRot } from './rot.js';
import { isBusy, RunState } from './run-state.js';
import { scrubRotten } from './scrub-rot.js';
import { scrubMeanwhile } from './scrubbing.js';
import type { Workload } from './workload.js';
import type { RunWorld } from './world.js';

/** The engine broke a promise. `cycle` says where. */
export class PromiseBroken extends Error {
  override readonly name = 'PromiseBroken';
  constructor(
    readonly cycle: number,
    cause: unknown,
  ) {
    super(`cycle ${cycle}: ${cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause)}`, {
      cause,
    });
  }
}

/** @returns the trace hash: equal for equal plans. @throws PromiseBroken */
export async function runPlan(plan: Plan, counters: RunCounters = noCounters()): Promise<number> {
  const run = new Run(plan, counters);
  let cycle = 0;
  try {
    await run.initialize();
    for (; cycle < plan.cycles.length; cycle++) {
      const next = plan.cycles[cycle];
      if (next !== undefined && (await run.cycle(next)) === 'damaged') return run.traceHash;
    }
    await run.finish();
  } catch (error) {
    throw new PromiseBroken(cycle, error);
  }
  return run.traceHash;
}

/** Steps within which a close that is cut off is cut off. */
const CLOSING_STEPS = 60;
/** Steps between two looks whether the engine is at rest. */
const REST_STEPS = 32;
/** Looks in a row that find it at rest, before it counts as that. */
const IDLE_TIMES = 20;
/** Times that late diff areas are looked for before they are given up, at most. */
const LATE_LOOKS_MAX = 1000;
/** Milliseconds between two looks whether late diff areas are there. */
const LATE_LOOK_MS = 5;
/** Milliseconds for which a look may hold writes, and some to go on with. */
const HOLD_MS = 11_000;

class Run {
  readonly #counters: RunCounters;
  readonly #state: RunState;
  readonly #world: RunWorld;
  readonly #model: VolumeModel;
  readonly #workload: Workload;
  readonly #outcomes: Outcomes;

  constructor(plan: Plan, counters: RunCounters) {
    this.#counters = counters;
    this.#state = RunState.begin(plan, counters);
    this.#world = this.#state.world;
    this.#model = this.#state.model;
    this.#workload = this.#state.workload;
    this.#outcomes = new Outcomes(plan, this.#state);
  }

  get traceHash(): number {
    return this.#world.world.traceHash;
  }

  initialize(): Promise<void> {
    return this.#world.initialize();
  }

  /** @returns `damaged` if snapshots were lost by rot, and given up: the run is over */
  async cycle(cycle: Cycle): Promise<'damaged' | 'sound'> {
    const { world } = this.#world;
    this.#counters.cycles++;
    this.#world.writing = cycle.writing;
    if (cycle.check) await this.#state.check();
    if (cycle.late !== undefined) await this.#openLate(cycle.late);
    for (const { steps, end } of cycle.crashesWhileOpening) {
      const outcome = await world.runSteps(() => this.#state.open(), steps);
      if (outcome.finished) await this.#close(outcome.value);
      else {
        this.#state.timeUnknown = true;
        await this.#crash(end, ['power-cut', 'kill']);
      }
    }
    const volume = await world.run(() => this.#state.open());
    await world.run(() => this.#state.verifyAfterOpening(volume));
    this.#state.leftovers = cycle.faultRate > 0;
    this.#workload.tolerated = cycle.faultRate > 0 ? DEVICE_FAILS : [];
    if (cycle.faultRate > 0) this.#world.drawFaults(cycle);
    const work = () => this.#work(volume, cycle);
    if (cycle.end === 'close') await world.run(work);
    else await world.runSteps(work, cycle.steps);
    world.faults.clear();
    if (cycle.end === 'close')
      await this.#close(volume, cycle.crashWhileClosing ? cycle.steps % CLOSING_STEPS : Infinity);
    else await this.#crashAtWork(cycle.faultRate, cycle.end);
    this.#workload.tolerated = [];
    this.#workload.isShortOfSpace = false;
    this.#state.checkViolations();
    return cycle.rot > 0 ? this.#rot(cycle.rot, cycle.dropDamaged) : 'sound';
  }

  /** The diff areas are not there when the volume is opened; they arrive, or are given up after a time, or a crash comes first. */
  async #openLate(late: Late): Promise<void> {
    const { world } = this.#world;
    const { memoryLimit, timeLimitMs, faultRate } = late;
    const intervalMs = Math.max(1, timeLimitMs / LATE_LOOKS_MAX);
    const disk: LateDisk = { isThere: false, options: { memoryLimit, timeLimitMs, intervalMs } };
    this.#world.late = disk;
    const volume = await world.run(() => this.#state.open().catch((error: unknown) => this.#refusal(error)));
    if (volume !== undefined) {
      this.#counters.lateOpenings++;
      this.#model.opened(volume.size);
      this.#workload.waitFor(volume);
      this.#state.leftovers = faultRate > 0;
      this.#workload.tolerated = faultRate > 0 ? DEVICE_FAILS : [];
      if (faultRate > 0) this.#world.drawFaults(late);
      const { finished } = await world.runSteps(() => this.#workLate(volume, late, disk), late.steps);
      world.faults.clear();
      if (finished) await this.#close(volume);
      else await this.#crashAtWork(faultRate, late.crash);
    }
    this.#world.late = undefined;
    this.#workload.tolerated = [];
    this.#workload.isShortOfSpace = false;
    this.#state.checkViolations();
  }

  async #workLate(volume: Volume, late: Late, disk: LateDisk): Promise<void> {
    const { scheduler } = this.#world.world;
    const { operations, arrivesAfter, timeLimitMs, faultRate } = late;
    const arrival =
      arrivesAfter === Infinity
        ? undefined
        : scheduler.pause(arrivesAfter).then(() => {
            disk.isThere = true;
          });
    await this.#workload.run(volume, { operations, clients: 2 });
    if (faultRate === 0) await this.#workload.verify(volume);
    await arrival;
    // Nobody waits without end. Where devices fail, or a hold is in the way, time may begin anew once.
    for (let left = 3 * timeLimitMs + HOLD_MS; left > 0 && this.#workload.isWaiting; left -= LATE_LOOK_MS)
      await new Promise<void>((resolve) => scheduler.clock.after(LATE_LOOK_MS, resolve));
    if (this.#workload.isWaiting && faultRate === 0)
      throw new ModelMismatch('diff areas that are late are waited for without end');
    if (faultRate > 0) return;
    await this.#workload.verify(volume);
    await this.#rest(volume);
    this.#state.verifySpace(volume);
  }

  /** Until nothing is done any more: what is no task of a pool (a look, a deletion after it) may be under way while those are idle. */
  async #rest(volume: Volume): Promise<void> {
    for (let idle = 0; idle < IDLE_TIMES; idle = isBusy(volume) ? 0 : idle + 1)
      await this.#world.world.scheduler.pause(REST_STEPS);
  }

  /** A volume does not open without what a revert needs, or without diff areas of deleted snapshots; nor where one is held. */
  #refusal(error: unknown): undefined {
    if (!(error instanceof VolsnapError)) throw error;
    const isPermitted =
      error.code === 'FORMAT' || (error.code === 'OFFLINE' && this.#workload.holds('possible'));
    if (!isPermitted) throw error;
    if (error.code === 'OFFLINE') this.#counters.lateRefused++;
  }

  /** Bits rot; unless the damaged snapshots are given up then, the bits are put right again afterwards. */
  async #rot(bits: number, drop: boolean): Promise<'damaged' | 'sound'> {
    const undo = Array.from({ length: bits }, () => this.#world.rot());
    const found = await findRot(this.#world, this.#model, this.#workload, drop);
    this.#counters.bitsRotted += bits;
    if (found === 'damaged') this.#counters.damageFound++;
    this.#state.checkViolations();
    if (drop) return found;
    for (const flip of undo.reverse()) flip();
    await scrubRotten(this.#world, this.#model, this.#workload, bits);
    return 'sound';
  }

  /** Whatever happened, the volume opens, is right, and has nothing that `check` would find. */
  async finish(): Promise<void> {
    const { world } = this.#world;
    const volume = await world.run(() => this.#state.open());
    await world.run(() => this.#state.verifyAfterOpening(volume));
    await world.run(() => this.#verifyReverted(volume));
    await this.#close(volume);
    await this.#state.check();
    this.#state.checkViolations();
    this.#counters.faults += Object.values(world.faults.counters).reduce((sum, count) => sum + count, 0);
  }

  /** @param models ways in which it could come as well */
  async #crash(model: CrashModel, models: readonly CrashModel[] = [model]): Promise<void> {
    this.#counters.crashes++;
    await this.#outcomes.explore(models);
    this.#world.world.crash(model);
    this.#outcomes.crashed();
    await this.#state.crashed(model);
  }

  async #crashAtWork(faultRate: number, model: CrashModel): Promise<void> {
    const models = this.#modelsAtWork(faultRate);
    await this.#crash(models.includes(model) ? model : 'power-cut', models);
  }

  /** After a flush that failed, unnoticed by the model, acknowledged writes may be lost as in a power cut. */
  #modelsAtWork(faultRate: number): readonly CrashModel[] {
    return faultRate > 0 || this.#workload.isShortOfSpace ? ['power-cut'] : ['power-cut', 'kill'];
  }

  /** A clean close; after a failed flush it cannot be clean, and what was not flushed may be lost. */
  async #close(volume: Volume, stepsMax = Infinity): Promise<void> {
    try {
      const { finished } = await this.#world.world.runSteps(() => volume.close(), stepsMax);
      // Closing made everything durable.
      if (finished) this.#model.closed();
      else {
        // In a volume that holds its own store the record of the close changes the time that it records.
        this.#state.timeUnknown = this.#world.plan.layout === 'in-volume';
        await this.#crash('power-cut');
      }
    } catch (error) {
      const permitted = [...this.#workload.tolerated, ...(this.#workload.mayBeRefused ? ['NO_SPACE'] : [])];
      if (!(error instanceof VolsnapError && permitted.includes(error.code))) throw error;
      await this.#crash('power-cut');
    }
  }

  /** Promise 4: a revert that was cut off is finished, unless it has no room. */
  async #verifyReverted(volume: Volume): Promise<void> {
    // Its end is no task of a pool, so it may be under way while those are idle.
    for (let idle = 0; idle < 20 && (isBusy(volume) || volume.figures.revert !== undefined); ) {
      await this.#world.world.scheduler.pause(REST_STEPS);
      idle = isBusy(volume) ? 0 : idle + 1;
    }
    const { revert } = volume.figures;
    if (revert !== undefined && !this.#workload.isShortOfSpace)
      throw new ModelMismatch(`a revert does not end: ${JSON.stringify(revert)}`);
    const unwanted = this.#workload.unwantedIn(volume);
    if (unwanted.length > 0) throw new ModelMismatch(`still there after a revert: ${unwanted.join(', ')}`);
    await this.#workload.verify(volume);
  }

  async #work(volume: Volume, cycle: Cycle): Promise<void> {
    this.#outcomes.interruptWork(cycle, () => this.#modelsAtWork(cycle.faultRate));
    if (cycle.check) scrubMeanwhile(volume, cycle, this.#workload, this.#counters);
    this.#world.aimAtWrite(cycle.writeAim);
    await this.#workload.run(volume, cycle, (operation) => {
      if (operation === cycle.aim?.at) this.#world.world.scheduler.stopWithin(cycle.aim.steps);
    });
    if (cycle.faultRate > 0 || cycle.closesAtOnce) return;
    await this.#workload.verify(volume);
    while (isBusy(volume)) await this.#world.world.scheduler.pause(REST_STEPS);
    this.#state.verifySpace(volume);
  }
}
