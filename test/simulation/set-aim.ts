/** Where a crash is to come while a set is being taken: soon after writes are held, or around the record that makes the set exist. */
import type { OperationLabel, Scheduler, SeededRandom } from '../../src/testing/index.js';
import type { RunWorld } from './world.js';

export class SetAim {
  readonly #random: SeededRandom;
  readonly #scheduler: Scheduler;
  #isOn = false;
  /** The volume that has the record. */
  #coordinator: RunWorld | undefined;

  constructor(random: SeededRandom, scheduler: Scheduler) {
    this.#random = random;
    this.#scheduler = scheduler;
  }

  /** The next set of several volumes is cut off. */
  begin(): void {
    this.#isOn = true;
  }

  /** The crash has come. */
  end(): void {
    this.#isOn = false;
    this.#coordinator = undefined;
  }

  /** The writes of a set of several volumes are about to be held. */
  frozen(coordinator: RunWorld): void {
    if (!this.#isOn) return;
    this.#isOn = false;
    if (this.#random.chance(0.5)) this.#coordinator = coordinator;
    else this.#scheduler.stopWithin(this.#random.below(this.#random.pick([20, 60, 120])));
  }

  /** Of what the world does. */
  observe(event: string, { kind, target, offset }: OperationLabel): void {
    if (event !== 'effect' || kind !== 'write' || this.#coordinator?.isControl(target, offset) !== true)
      return;
    this.#coordinator = undefined;
    this.#scheduler.stopWithin(this.#random.below(6));
  }
}
