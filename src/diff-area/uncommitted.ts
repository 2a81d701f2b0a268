/**
 * Copies whose commit has failed: their slots and entries are there, perhaps not durable. They count with the next commit,
 * so a write that needs such a copy waits for that, and no second copy is made.
 */
import type { BlockNumber } from '../units.js';
import type { Copies } from './table-writer.js';

export class UncommittedCopies {
  #copies: Copies[] = [];
  readonly #blocks = new Set<BlockNumber>();

  add(groups: readonly Copies[]): void {
    this.#copies.push(...groups);
    for (const { blocks } of groups) for (const block of blocks) this.#blocks.add(block);
  }

  get isEmpty(): boolean {
    return this.#copies.length === 0;
  }

  get blocks(): ReadonlySet<BlockNumber> {
    return this.#blocks;
  }

  has(block: BlockNumber): boolean {
    return this.#blocks.has(block);
  }

  /** All of them, which are no longer here then. */
  take(): readonly Copies[] {
    const copies = this.#copies;
    this.#copies = [];
    this.#blocks.clear();
    return copies;
  }
}
