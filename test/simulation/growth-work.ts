/** Making the volume longer, one growth at a time, and what the model has to know of it. */
import type { Volume } from '../../src/index.js';
import type { VolumeModel } from '../../src/testing/index.js';
import { type Calls, NO_ERROR, type Permitted } from './calls.js';
import type { RunCounters } from './counters.js';

const NOT_GROWN: Permitted = ['REVERT_IN_PROGRESS'];
const LESS: Permitted = ['INVALID_ARGUMENT'];

/** Of one opening: a growth that a crash cut off never ends. */
export class GrowthWork {
  readonly #model: VolumeModel;
  readonly #calls: Calls;
  readonly #counters: RunCounters;
  #isGrowing = false;

  constructor(model: VolumeModel, calls: Calls, counters: RunCounters) {
    this.#model = model;
    this.#calls = calls;
    this.#counters = counters;
  }

  async grow(volume: Volume, size: number): Promise<void> {
    if (this.#isGrowing) return;
    this.#isGrowing = true;
    const isMore = size > volume.size;
    const isLess = size < volume.size;
    const { revert } = volume.figures;
    if (isMore) this.#model.beginGrow(size);
    const permitted = [...NOT_GROWN, ...(isLess ? LESS : NO_ERROR)];
    const error = await this.#calls.errorOf(permitted, () => volume.grow(size));
    if (error === undefined && isLess) this.#calls.complaints.push(`the volume was cut to ${size} bytes`);
    // One that was under way before, and is still, was so all the time. With everything put back only snapshots are left to drop.
    const { revert: now } = volume.figures;
    const isReverting =
      now !== undefined && now.previousId === revert?.previousId && now.doneBytes < now.totalBytes;
    if (error === undefined && isReverting)
      this.#calls.complaints.push(`the volume became ${size} bytes long while it was put back to a snapshot`);
    if (error === undefined && isMore) {
      this.#model.endGrow(size);
      this.#counters.growths++;
    }
    this.#isGrowing = false;
  }
}
