import { ModelMismatch } from '../../src/testing/index.js';

/** An application that keeps count of what it is told. */
export class ModelWriter {
  readonly name = 'model';
  readonly #calls: string[] = [];
  readonly #fails: string | undefined;
  readonly #onFreeze: () => unknown;

  /** @param onFreeze is told before writes are held */
  constructor(fails: string | undefined, onFreeze: () => unknown = () => undefined) {
    this.#fails = fails;
    this.#onFreeze = onFreeze;
  }

  #note(phase: string): void {
    this.#calls.push(phase);
    if (phase === this.#fails) throw new Error(`${phase} was made to fail`);
  }

  prepare(): void {
    this.#note('prepare');
  }

  freeze(): void {
    this.#note('freeze');
    this.#onFreeze();
  }

  thaw(): void {
    this.#note('thaw');
  }

  postSnapshot(): void {
    this.#note('postSnapshot');
  }

  abort(): void {
    this.#note('abort');
  }

  /** @throws ModelMismatch */
  check(isTaken: boolean, hasUnused: boolean): void {
    const told = this.#calls.join(' ');
    const expected = isTaken
      ? ['prepare freeze thaw postSnapshot']
      : ['', 'prepare abort', 'prepare freeze abort', ...(hasUnused ? ['prepare freeze thaw abort'] : [])];
    if (!expected.includes(told))
      throw new ModelMismatch(`a set was ${isTaken ? '' : 'not '}taken, and a writer was told: ${told}`);
  }
}
