/**
 * Which blocks of the volume the shadow copies still take from it, so that their content has to be kept before they are overwritten.
 *
 * All copies go to the newest shadow copy, through which the older ones read. A block needs none if the newest has it, or if it is unused in every
 * one that would read it from the volume: what is there is left undefined by Windows, which does not copy it either.
 */
import type { BlockNumber } from '../units.js';
import type { ForeignTable } from './foreign-table.js';
import type { UnusedBlocks } from './unused-blocks.js';

export interface ReadThrough {
  readonly table: ForeignTable;
  /** What it declares unused; of the newest in both its bitmaps, of an older one in its own. `undefined`: not known. */
  readonly unused: UnusedBlocks | undefined;
}

export class NeededBlocks {
  readonly #newest: ReadThrough;
  readonly #older: readonly ReadThrough[];

  /** @param older from the newest of them to the oldest */
  constructor(newest: ReadThrough, older: readonly ReadThrough[]) {
    this.#newest = newest;
    this.#older = older;
  }

  /**
   * How many ordinary entries for the block make the newest table keep what the volume holds there: none if nobody needs it; one;
   * two if it is needed also for the block that moved here, to which the first of them goes.
   */
  entriesFor(block: BlockNumber): 0 | 1 | 2 {
    const { table } = this.#newest;
    const isTarget = table.isMoveTarget(block);
    const isOwn = table.placeOf(block) === undefined && (isTarget || this.#isRead(block));
    return isTarget ? (isOwn ? 2 : 1) : isOwn ? 1 : 0;
  }

  /** Would overwriting change what somebody reads, and Windows defines? The newest has no entry for the block. */
  #isRead(block: BlockNumber): boolean {
    if (this.#newest.unused?.has(block) !== true) return true;
    for (const { table, unused } of this.#older) {
      // Its block that moved here, and those older ones that read through it, read this block of the next newer one.
      if (table.wasMoveTarget(block)) return true;
      if (table.placeOf(block) !== undefined) return false;
      if (unused?.has(block) !== true) return true;
    }
    return false;
  }
}
