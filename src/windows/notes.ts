/** What was odd about a foreign store but could be read all the same. */

/** More of them say nothing new, and an image made on purpose could hold millions. */
const NOTES_MAX = 100;

export class Notes {
  readonly #list: string[] = [];
  #left = 0;

  add(note: string): void {
    if (this.#list.length < NOTES_MAX) this.#list.push(note);
    else this.#left++;
  }

  /** The notes in the order in which they were made; a last line counts those that were left out. */
  get list(): string[] {
    return this.#left === 0 ? [...this.#list] : [...this.#list, `and ${this.#left} more`];
  }
}
