/** What the marks in a table chain say about a revert that was under way: gathered while the chain is read, in its order. */
import { MarkKind, type RevertMark } from '../format/revert-mark.js';
import type { BlockNumber } from '../units.js';

export class RevertMarks {
  /** Blocks that need not be put back any more, in runs that may overlap. */
  done: RevertMark[] = [];
  /** Place in the chain of the mark that ended the revert; `undefined`: none has. */
  cancelledAt: number | undefined;
  /** Blocks that got their first copy after that: they were written since, and are not to be put back. */
  readonly copiedLater: BlockNumber[] = [];

  add(mark: RevertMark, place: number): void {
    if (mark.kind === MarkKind.done) {
      this.done.push(mark);
      return;
    }
    this.cancelledAt = place;
    this.done = [];
  }

  /** A copy is accepted from the entry at `place`. */
  copied(block: BlockNumber, place: number): void {
    if (this.cancelledAt !== undefined && place > this.cancelledAt) this.copiedLater.push(block);
  }
}
