/**
 * Ranges of the volume that are being changed, or being read to be cached.
 *
 * What was read from the backing before, or while, somebody changed it may be old: it must not be cached. So a change makes overlapping fills void, and
 * a fill that begins during a change is void from the beginning. Two changes at once of the same bytes have no order, so neither is cached.
 *
 * Shared state: the list, changed between awaits only.
 */
export interface RangeInUse {
  readonly first: number;
  readonly end: number;
  readonly isChange: boolean;
  /** Its bytes may not be those of the backing. */
  void: boolean;
}

export class RangesInUse {
  /** In no order. A list, as a set whose elements come and go leaves much to the collector. */
  readonly #ranges: RangeInUse[] = [];

  /** From block `first` up to `end`. */
  begin(first: number, end: number, isChange: boolean): RangeInUse {
    const range = { first, end, isChange, void: false };
    for (const other of this.#ranges) {
      if (other.first >= end || other.end <= first) continue;
      if (isChange) other.void = true;
      if (other.isChange) range.void = true;
    }
    this.#ranges.push(range);
    return range;
  }

  end(range: RangeInUse): void {
    removeFrom(this.#ranges, range);
  }
}

/** The last element takes the place of the one that goes. */
export function removeFrom<T>(list: T[], element: T): void {
  const index = list.indexOf(element);
  const last = list.pop();
  if (index >= 0 && index < list.length && last !== undefined) list[index] = last;
}
