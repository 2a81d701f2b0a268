/** Counts events; shared by all volumes of one simulation. */
export class Ticks {
  #last: number;

  constructor(last = 0) {
    this.#last = last;
  }

  get last(): number {
    return this.#last;
  }

  next(): number {
    return ++this.#last;
  }
}
