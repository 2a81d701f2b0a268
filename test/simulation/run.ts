/**
 * Runs a plan against the engine in a simulated world and holds everything that it shows against the model.
 *
 * Each cycle opens the volume, lets several clients work at once, and ends by a clean close or by a crash at some step.
 * After each crash and each opening the volume and every snapshot are compared with what the promises permit.
 */
import {
  checkVolume,
  HoldTimeoutError,
  type Snapshot,
  SnapshotDeletedError,
  VolsnapError,
  type Volume,
} from '../../src/index.js';
import { ModelMismatch, stampSectors, VolumeModel } from '../../src/testing/index.js';
import type { Cycle, Operation, Plan } from './plan.js';
import { RunWorld } from './world.js';

/** What a run did, added up over its cycles. */
export interface RunCounters {
  cycles: number;
  crashes: number;
  operations: number;
  snapshotsTaken: number;
  snapshotsVerified: number;
  snapshotsGivenUp: number;
  faults: number;
}

export const noCounters = (): RunCounters => ({
  cycles: 0,
  crashes: 0,
  operations: 0,
  snapshotsTaken: 0,
  snapshotsVerified: 0,
  snapshotsGivenUp: 0,
  faults: 0,
});

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
      if (next !== undefined) await run.cycle(next);
    }
    await run.finish();
  } catch (error) {
    throw new PromiseBroken(cycle, error);
  }
  return run.traceHash;
}

class Run {
  readonly #counters: RunCounters;
  readonly #world: RunWorld;
  readonly #model: VolumeModel;
  #sequence = 1;
  #label = 0;
  #holdTimeoutMs = 10_000;
  /** Was the last opening cut off? Then the device's time can be newer than the record of the last close. */
  #openingCrashed = false;

  constructor(plan: Plan, counters: RunCounters) {
    this.#counters = counters;
    this.#world = new RunWorld(plan);
    this.#model = new VolumeModel(this.#world.initial);
  }

  get traceHash(): number {
    return this.#world.world.traceHash;
  }

  async initialize(): Promise<void> {
    await this.#world.world.run(() => this.#world.initialize());
  }

  async cycle(cycle: Cycle): Promise<void> {
    const { world } = this.#world;
    this.#counters.cycles++;
    if (cycle.crashWhileOpening !== undefined) {
      const outcome = await world.runSteps(() => this.#open(), cycle.crashWhileOpening);
      if (!outcome.finished) {
        this.#crash('power-cut');
        this.#openingCrashed = true;
      } else {
        await world.run(() => outcome.value.close());
      }
    }
    const volume = await world.run(() => this.#open());
    await world.run(() => this.#verifyAfterOpening(volume));
    if (cycle.faultRate > 0) world.faults.draw(cycle.faultRate);
    const work = () => this.#work(volume, cycle);
    if (cycle.end === 'close') {
      await world.run(work);
      world.faults.clear();
      await this.#close(volume);
    } else {
      await world.runSteps(work, cycle.steps);
      world.faults.clear();
      // After a flush that failed, unnoticed by the model, acknowledged writes may be lost as in a power cut.
      this.#crash(cycle.faultRate > 0 ? 'power-cut' : cycle.end);
    }
    this.#checkViolations();
  }

  /** Whatever happened, the volume opens, is right, and has nothing that `check` would find. */
  async finish(): Promise<void> {
    const { world } = this.#world;
    const volume = await world.run(() => this.#open());
    await world.run(() => this.#verifyAfterOpening(volume));
    await this.#close(volume);
    const device = world.device('volume');
    const problems = await world.run(() => checkVolume(device, { store: this.#world.store(), scrub: true }));
    if (problems.length > 0)
      throw new ModelMismatch(`check finds: ${problems.map(({ message }) => message).join('; ')}`);
    this.#checkViolations();
    this.#counters.faults += Object.values(world.faults.counters).reduce((sum, count) => sum + count, 0);
  }

  #checkViolations(): void {
    const { violations } = this.#world.world;
    if (violations.length > 0) throw new ModelMismatch(`device contract broken: ${violations.join('; ')}`);
  }

  #crash(model: 'kill' | 'power-cut'): void {
    this.#counters.crashes++;
    this.#world.world.crash(model);
    this.#model.crash(model);
    this.#model.reconcileVolume(this.#world.peekVolume());
  }

  async #open(): Promise<Volume> {
    const volume = await this.#world.open(this.#openingCrashed ? 'keep' : 'refuse');
    this.#openingCrashed = false;
    const labels = new Map(volume.snapshots.map(({ id, label }) => [id, label ?? '']));
    volume.on('created', ({ id, label }) => labels.set(id, label ?? ''));
    volume.on('deleting', ({ id, reason }) => {
      const label = labels.get(id) ?? '';
      if (reason !== 'requested') this.#model.beginDelete(label);
    });
    volume.on('deleted', ({ id, reason }) => {
      if (reason !== 'requested') this.#counters.snapshotsGivenUp++;
      this.#model.drop(labels.get(id) ?? '');
    });
    return volume;
  }

  /** A clean close; after a failed flush it cannot be clean, and what was not flushed may be lost. */
  async #close(volume: Volume): Promise<void> {
    try {
      await this.#world.world.run(() => volume.close());
      // Closing made everything durable.
      this.#model.endFlush(this.#model.beginFlush());
    } catch (error) {
      if (!(error instanceof VolsnapError)) throw error;
      this.#crash('power-cut');
    }
  }

  async #verifyAfterOpening(volume: Volume): Promise<void> {
    this.#model.reconcileNames(volume.snapshots.map(labelOf));
    await this.#verifyAll(volume);
    const allocated = volume.snapshots.reduce((sum, snapshot) => sum + snapshot.allocatedBytes, 0);
    if (allocated !== volume.figures.allocatedBytes) {
      throw new ModelMismatch(
        `snapshots have ${allocated} bytes allocated, the store counts ${volume.figures.allocatedBytes}`,
      );
    }
  }

  async #verifyAll(volume: Volume): Promise<void> {
    await this.#read(volume, 0, volume.size);
    for (const snapshot of volume.snapshots) await this.#readSnapshot(snapshot);
  }

  async #work(volume: Volume, { operations, clients, faultRate }: Cycle): Promise<void> {
    let next = 0;
    const client = async () => {
      for (let operation = operations[next++]; operation !== undefined; operation = operations[next++]) {
        await this.#perform(volume, operation);
        this.#counters.operations++;
      }
    };
    await Promise.all(Array.from({ length: clients }, client));
    if (faultRate === 0) await this.#verifyAll(volume);
  }

  async #perform(volume: Volume, operation: Operation): Promise<void> {
    switch (operation.kind) {
      case 'write':
        return this.#write(volume, operation.offset, operation.length, operation.zeros);
      case 'discard':
      case 'zeroes':
        return this.#clear(volume, operation);
      case 'flush':
        return this.#flush(volume);
      case 'read':
        return this.#read(volume, operation.offset, operation.length);
      case 'create':
        return this.#create(volume);
      case 'delete-oldest':
        return this.#delete(volume, 1);
      case 'delete-all':
        return this.#delete(volume, volume.snapshots.length);
      case 'read-snapshots':
        for (const snapshot of volume.snapshots) await this.#readSnapshot(snapshot);
        return;
      case 'changed':
        return this.#changed(volume);
      case 'limit':
        return permit(() => volume.setMaximumSize(operation.maximum));
      case 'shorten-hold':
        this.#holdTimeoutMs = this.#holdTimeoutMs === 1 ? 10_000 : 1;
    }
  }

  async #write(volume: Volume, offset: number, length: number, zeros: boolean): Promise<void> {
    const bytes = new Uint8Array(length);
    if (!zeros) stampSectors(bytes, offset, this.#sequence++);
    const write = this.#model.beginWrite(offset, bytes);
    this.#model.endWrite(write, await outcome(() => volume.write(offset, bytes)));
  }

  async #clear(
    volume: Volume,
    { kind, offset, length }: { kind: 'discard' | 'zeroes'; offset: number; length: number },
  ): Promise<void> {
    const write = this.#model.beginDiscard(offset, length);
    const call = () =>
      kind === 'discard' ? volume.discard(offset, length) : volume.writeZeroes(offset, length);
    this.#model.endWrite(write, await outcome(call));
  }

  async #flush(volume: Volume): Promise<void> {
    const flush = this.#model.beginFlush();
    this.#model.endFlush(flush, await outcome(() => volume.flush()));
  }

  async #read(volume: Volume, offset: number, length: number): Promise<void> {
    const read = this.#model.beginRead();
    const bytes = new Uint8Array(length);
    if ((await outcome(() => volume.read(offset, bytes))) === 'done')
      this.#model.endRead(read, offset, bytes);
    else this.#model.cancelRead(read);
  }

  async #create(volume: Volume): Promise<void> {
    const label = `s${this.#label++}`;
    this.#model.beginSnapshot(label);
    try {
      await volume.createSnapshot({ label, holdTimeoutMs: this.#holdTimeoutMs });
      this.#counters.snapshotsTaken++;
      this.#model.endSnapshot(label);
    } catch (error) {
      if (!(error instanceof VolsnapError)) throw error;
      // After an error of the device only the next opening tells.
      this.#model.endSnapshot(label, error instanceof HoldTimeoutError ? 'failed' : 'uncertain');
    }
  }

  async #delete(volume: Volume, count: number): Promise<void> {
    const labels = volume.snapshots.slice(0, count).map(labelOf);
    for (const label of labels) if (this.#model.snapshotNames.includes(label)) this.#model.beginDelete(label);
    await permit(() => volume.deleteOldest(count));
  }

  async #readSnapshot(snapshot: Snapshot): Promise<void> {
    const label = labelOf(snapshot);
    const bytes = new Uint8Array(snapshot.size);
    try {
      await snapshot.read(0, bytes);
    } catch (error) {
      if (error instanceof SnapshotDeletedError) return;
      if (!(error instanceof VolsnapError) || error.code !== 'DEVICE') throw error;
      return;
    }
    if (!this.#model.snapshotNames.includes(label)) return;
    this.#model.checkSnapshot(label, 0, bytes);
    this.#counters.snapshotsVerified++;
  }

  /** Every block that differs between two neighbouring snapshots is reported as changed. */
  async #changed(volume: Volume): Promise<void> {
    const { snapshots } = volume;
    const [since, until] = [snapshots.at(-2), snapshots.at(-1)];
    if (since === undefined || until === undefined) return;
    await permit(async () => {
      const changed = new Uint8Array(volume.size);
      for await (const { offset, length } of volume.changedBlocks({ since, until }))
        changed.fill(1, offset, offset + length);
      const [before, after] = [await since.read(0, since.size), await until.read(0, until.size)];
      const missed = before.findIndex((byte, at) => byte !== after[at] && changed[at] === 0);
      if (missed >= 0)
        throw new ModelMismatch(
          `byte ${missed} differs between ${since.label} and ${until.label}, but is not reported as changed`,
        );
    });
  }
}

const labelOf = ({ label }: Snapshot): string => label ?? '';

/** Runs a call that may fail, but only in the ways that the documentation names. */
async function outcome(call: () => Promise<unknown>): Promise<'done' | 'failed'> {
  try {
    await call();
    return 'done';
  } catch (error) {
    if (error instanceof VolsnapError) return 'failed';
    throw error;
  }
}

const permit = async (call: () => Promise<unknown>): Promise<void> => void (await outcome(call));
