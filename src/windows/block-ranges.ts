/** Sets of blocks as ascending ranges: what the stores of a volume lie in, however large, takes little memory. */
import type { BlockNumber } from '../units.js';

/** Blocks `[start, end)`. */
export interface BlockRange {
  readonly start: BlockNumber;
  readonly end: BlockNumber;
}

export class BlockRanges {
  /** Ascending, and apart from each other. */
  readonly list: readonly BlockRange[];

  /** @param ranges in any order; they may overlap */
  constructor(ranges: readonly BlockRange[]) {
    const list: { start: BlockNumber; end: BlockNumber }[] = [];
    for (const { start, end } of [...ranges].sort((a, b) => a.start - b.start)) {
      if (start >= end) continue;
      const last = list.at(-1);
      if (last !== undefined && start <= last.end) last.end = Math.max(last.end, end);
      else list.push({ start, end });
    }
    this.list = list;
  }

  /** The first block of `[start, end)` that is in the set. */
  firstWithin(start: BlockNumber, end: BlockNumber): BlockNumber | undefined {
    const range = this.list[this.#endingAfter(start)];
    return range === undefined || range.start >= end ? undefined : Math.max(range.start, start);
  }

  /** The last one. */
  lastWithin(start: BlockNumber, end: BlockNumber): BlockNumber | undefined {
    const index = this.#endingAfter(end - 1);
    const range = this.list[index];
    if (range !== undefined && range.start < end) return end - 1;
    const before = this.list[index - 1];
    return before === undefined || before.end <= start ? undefined : before.end - 1;
  }

  /** Index of the first range that ends after `block`. */
  #endingAfter(block: BlockNumber): number {
    let low = 0;
    let high = this.list.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.list[middle]?.end ?? 0) <= block) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The first block that is in two of the ranges. */
  static overlapOf(ranges: readonly BlockRange[]): BlockNumber | undefined {
    const sorted = [...ranges].sort((a, b) => a.start - b.start);
    return sorted.find(({ start }, index) => index > 0 && start < (sorted[index - 1]?.end ?? 0))?.start;
  }
}
