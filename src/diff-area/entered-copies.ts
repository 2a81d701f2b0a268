/**
 * Copies whose entries are in the table chain, but whose commit failed: nobody may rely on them, and no block may be entered a second time.
 * Of a block that something moved to, a second copy would be taken for its own.
 *
 * They are right, though: what failed was the commit, and so nobody has overwritten the block. The next group takes them along.
 */
import type { BlockNumber, Slot } from '../units.js';
import { FixedSlot } from './area-slots.js';
import type { Copies } from './table-writer.js';

interface EnteredCopy {
  readonly slot: Slot;
  readonly checksum: number;
}

export class EnteredCopies {
  readonly #copies = new Map<BlockNumber, EnteredCopy>();

  get isEmpty(): boolean {
    return this.#copies.size === 0;
  }

  has(block: BlockNumber): boolean {
    return this.#copies.has(block);
  }

  /** The commit of these failed after they were entered. */
  note({ blocks, slots, checksums }: Copies): void {
    for (const [i, block] of blocks.entries())
      if (!this.has(block)) this.#copies.set(block, { slot: slots[i] ?? 0, checksum: checksums[i] ?? 0 });
  }

  /** Of copies that are to be entered: those that are not yet, and the slots that the others leave. */
  split({ blocks, slots, checksums }: Copies): { readonly fresh: Copies; readonly spare: readonly Slot[] } {
    const isFresh = (_: unknown, i: number) => !this.has(blocks[i] ?? 0);
    const fresh = {
      blocks: blocks.filter(isFresh),
      slots: slots.filter(isFresh),
      checksums: Array.from(checksums).filter(isFresh),
    };
    const spare = slots.filter((slot, i) => slot !== FixedSlot.zeros && this.has(blocks[i] ?? 0));
    return { fresh, spare };
  }

  /** The copy of `block` that was entered, which counts from now on. */
  take(block: BlockNumber): EnteredCopy | undefined {
    const copy = this.#copies.get(block);
    this.#copies.delete(block);
    return copy;
  }
}
