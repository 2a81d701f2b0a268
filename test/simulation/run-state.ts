/**
 * A simulated world with what the model permits in it and what the workload knows of it: opened, crashed, compared.
 *
 * `branch` makes another one for the same moment, whose crash ended otherwise; neither touches the other.
 */
import { checkVolume, type Volume } from '../../src/index.js';
import { type CrashModel, ModelMismatch, VolumeModel } from '../../src/testing/index.js';
import type { RunCounters } from './counters.js';
import type { Plan } from './plan.js';
import { labelOf, Workload } from './workload.js';
import { RunWorld } from './world.js';

export class RunState {
  readonly counters: RunCounters;
  readonly world: RunWorld;
  readonly model: VolumeModel;
  readonly workload: Workload;
  /** Was an opening or a close cut off? Then the device's time can be another than that of the last record of a close. */
  timeUnknown = false;
  /** Did a device fail in the last cycle? Then a file that could not be removed may be left until the next opening. */
  leftovers = false;
  /** Were copies made in memory, because diff areas were late? Until the next opening `check` finds that they are lost. */
  #copiesLost = false;

  private constructor(world: RunWorld, model: VolumeModel, counters: RunCounters) {
    this.world = world;
    this.model = model;
    this.counters = counters;
    this.workload = new Workload(model, counters, {
      now: () => world.world.scheduler.clock.now(),
      setHostSpace: (bytes) => world.setHostSpace(bytes),
      inside: world.plan.inside,
    });
  }

  static begin(plan: Plan, counters: RunCounters): RunState {
    const world = new RunWorld(plan);
    return new RunState(world, new VolumeModel(world.initial), counters);
  }

  /** What a crash of that kind would permit now. */
  modelOf(crash: CrashModel): VolumeModel {
    const model = this.model.clone();
    model.crash(crash, this.world.isBuffered);
    return model;
  }

  /** The same moment in another world, which was crashed; `reconcile` must follow. @param model of that crash, to be its own */
  branch(world: RunWorld, model: VolumeModel, counters: RunCounters): RunState {
    const branch = new RunState(world, model, counters);
    branch.workload.follow(this.workload);
    branch.timeUnknown = this.timeUnknown;
    branch.leftovers = this.leftovers;
    branch.#copiesLost = this.#copiesLost;
    return branch;
  }

  /** The world was crashed in that way: what the volume holds now must be permitted. @throws ModelMismatch */
  async crashed(model: CrashModel): Promise<void> {
    this.model.crash(model, this.world.isBuffered);
    await this.reconcile();
  }

  /** The same where the model knows of the crash already. */
  async reconcile(): Promise<void> {
    const { buffers, mayRevert } = this.workload;
    const found = await this.world.findVolume(mayRevert, buffers);
    this.model.reconcileVolume(found);
    buffers.give(found);
  }

  async open(): Promise<Volume> {
    const volume = await this.world.open(this.timeUnknown ? 'keep' : 'refuse');
    this.timeUnknown = false;
    this.#copiesLost = this.world.late !== undefined;
    this.workload.listen(volume);
    return volume;
  }

  /** Everything that was promised is there. @throws ModelMismatch */
  async verifyAfterOpening(volume: Volume): Promise<void> {
    this.model.opened(volume.size);
    this.model.reconcileNames(volume.snapshots.map(labelOf));
    this.workload.verifySpace(volume);
    await this.workload.verify(volume);
    // A revert that goes on lets diff areas grow; a merge moves space from one to the other.
    if (!isBusy(volume)) this.verifySpace(volume);
  }

  /** Promise 3: no space leaks. @throws ModelMismatch */
  verifySpace(volume: Volume): void {
    const { snapshots, figures } = volume;
    const { deletion } = figures;
    // One that rests may keep snapshots that expired, which nobody is shown.
    if (figures.revert !== undefined) return;
    const visible = snapshots.reduce((sum, snapshot) => sum + snapshot.allocatedBytes, 0);
    const allocated = visible + deletion.allocatedBytes + (figures.late?.allocatedBytes ?? 0);
    if (allocated !== figures.allocatedBytes) {
      throw new ModelMismatch(
        `snapshots have ${allocated} bytes allocated, the store counts ${figures.allocatedBytes}`,
      );
    }
    // Files of late ones that were given up are found at the next opening.
    if (this.world.late !== undefined) return;
    const { fileCount } = this.world;
    const count = snapshots.length + deletion.snapshots;
    if (fileCount !== undefined && fileCount !== 1 + count)
      throw new ModelMismatch(`${fileCount} files for ${count} snapshots`);
  }

  /** Is whatever `check` finds a mistake? */
  get isSound(): boolean {
    return !this.#copiesLost;
  }

  /** Promise 4: whatever a crash left, there is nothing wrong in it. @throws ModelMismatch */
  async check(): Promise<void> {
    const { world } = this.world;
    const device = world.device('volume');
    const problems = await world.run(() => checkVolume(device, { store: this.world.store(), scrub: true }));
    const found = problems.filter(
      ({ code }) =>
        !(code === 'volume-changed' && this.timeUnknown) && !(code === 'orphan' && this.leftovers),
    );
    if (found.length > 0)
      throw new ModelMismatch(`check finds: ${found.map(({ message }) => message).join('; ')}`);
    await world.run(() => device.close());
    this.counters.checks++;
  }

  /** Nothing was wrong besides the answers to calls. @throws ModelMismatch */
  checkViolations(): void {
    const { violations } = this.world.world;
    const { complaints } = this.workload;
    if (complaints.length > 0) throw new ModelMismatch(complaints.join('; '));
    if (violations.length > 0) throw new ModelMismatch(`device contract broken: ${violations.join('; ')}`);
  }
}

/** Is something under way that users did not ask for just now? */
export const isBusy = ({ figures }: Volume): boolean => {
  const { copy, commit, background } = figures.queues;
  const { entries = 0, parked = 0 } = figures.writeBuffer ?? {};
  return copy + commit + background + entries - parked > 0;
};
