/**
 * Blocks of acknowledged writes for whose copies room is set aside in a diff area, so that no lack of room can come
 * between a write and what was promised of it.
 *
 * A block is *open* until slots are reserved for its copy. However many writes touch it, it has one copy, so it counts once.
 */
import { assert } from '../errors.js';
import type { BlockNumber } from '../units.js';

interface Ahead {
  writes: number;
  isOpen: boolean;
}

export class RoomAhead {
  readonly #blocks = new Map<BlockNumber, Ahead>();
  #open = 0;
  readonly #fits: (open: number) => boolean;
  readonly #onChange: () => void;

  /** @param fits would there be room for copies of so many blocks? */
  constructor(fits: (open: number) => boolean, onChange: () => void) {
    this.#fits = fits;
    this.#onChange = onChange;
  }

  /** Blocks that still need slots. */
  get open(): number {
    return this.#open;
  }

  has(block: BlockNumber): boolean {
    return this.#blocks.has(block);
  }

  openAmong(blocks: readonly BlockNumber[]): number {
    if (this.#open === 0) return 0;
    return blocks.reduce((sum, block) => sum + (this.#blocks.get(block)?.isOpen === true ? 1 : 0), 0);
  }

  /** One more write that needs copies of the blocks. @returns false, setting nothing aside, if there is too little room */
  add(blocks: readonly BlockNumber[]): boolean {
    if (blocks.length === 0) return true;
    const further = blocks.reduce((sum, block) => sum + (this.#blocks.has(block) ? 0 : 1), 0);
    if (further > 0 && !this.#fits(this.#open + further)) return false;
    for (const block of blocks) {
      const ahead = this.#blocks.get(block);
      if (ahead !== undefined) ahead.writes++;
      else {
        this.#blocks.set(block, { writes: 1, isOpen: true });
        this.#open++;
      }
    }
    this.#onChange();
    return true;
  }

  /** One write less: it is over. */
  remove(blocks: readonly BlockNumber[]): void {
    if (blocks.length === 0) return;
    for (const block of blocks) {
      const ahead = this.#blocks.get(block);
      assert(ahead !== undefined, () => `no room is set aside for block ${block}`);
      if (--ahead.writes > 0) continue;
      this.#blocks.delete(block);
      if (ahead.isOpen) this.#open--;
    }
    this.#onChange();
  }

  /** Slots were reserved for copies of the blocks. */
  use(blocks: readonly BlockNumber[]): void {
    this.#setOpen(blocks, false);
  }

  /** They were given back. */
  unuse(blocks: readonly BlockNumber[]): void {
    this.#setOpen(blocks, true);
  }

  #setOpen(blocks: readonly BlockNumber[], isOpen: boolean): void {
    if (this.#blocks.size === 0) return;
    for (const block of blocks) {
      const ahead = this.#blocks.get(block);
      if (ahead === undefined || ahead.isOpen === isOpen) continue;
      ahead.isOpen = isOpen;
      this.#open += isOpen ? 1 : -1;
    }
  }
}
