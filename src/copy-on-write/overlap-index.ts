/**
 * Ranges of a volume, found by what they overlap.
 *
 * The volume is looked at in stretches of 64 KiB, and a range is listed in every stretch that it touches. Stretches share
 * a fixed number of lists, so nothing is allocated and nothing has to be looked up to find one; what is in a list because
 * of another stretch is passed over. So asking about a small range looks at one or two short lists.
 */
import { assert } from '../errors.js';
import type { ByteOffset } from '../units.js';

const STRETCH = 65_536;
const LISTS = 2048;

export interface IndexedRange {
  readonly offset: ByteOffset;
  /** First byte behind it. */
  readonly end: ByteOffset;
  /** Ascending in the order in which ranges are added. */
  readonly sequence: number;
}

const NONE: readonly never[] = [];

export class OverlapIndex<Item extends IndexedRange> {
  /** Made when something is first put there. */
  readonly #lists = new Array<Item[] | undefined>(LISTS).fill(undefined);
  #size = 0;

  get isEmpty(): boolean {
    return this.#size === 0;
  }

  #listOf(stretch: number): readonly Item[] {
    return this.#lists[stretch % LISTS] ?? NONE;
  }

  #listFor(stretch: number): Item[] {
    const list = this.#lists[stretch % LISTS] ?? [];
    this.#lists[stretch % LISTS] = list;
    return list;
  }

  /** @param item later than all those there */
  add(item: Item): void {
    const last = stretchOf(item.end - 1);
    for (let stretch = stretchOf(item.offset); stretch <= last; stretch++) this.#listFor(stretch).push(item);
    this.#size++;
  }

  remove(item: Item): void {
    const last = stretchOf(item.end - 1);
    for (let stretch = stretchOf(item.offset); stretch <= last; stretch++) {
      const list = this.#listFor(stretch);
      const at = list.indexOf(item);
      assert(at >= 0, () => `no range at ${item.offset} in the index`);
      if (at === list.length - 1) list.pop();
      else list.splice(at, 1);
    }
    this.#size--;
  }

  /** What has a byte in `[offset, end)`, oldest first. */
  overlapping(offset: ByteOffset, end: ByteOffset): readonly Item[] {
    if (this.#size === 0) return NONE;
    const first = stretchOf(offset);
    const last = stretchOf(end - 1);
    if (last - first >= LISTS) return this.#overlappingMuch(offset, end);
    let found: Item[] | undefined;
    for (let stretch = first; stretch <= last; stretch++) {
      for (const item of this.#listOf(stretch)) {
        if (item.offset >= end || item.end <= offset) continue;
        // Counts once, in the first of the stretches that it touches.
        if (stretch !== Math.max(first, stretchOf(item.offset))) continue;
        if (found === undefined) found = [item];
        else found.push(item);
      }
    }
    if (found === undefined) return NONE;
    return first === last ? found : found.sort((a, b) => a.sequence - b.sequence);
  }

  /** The range has more stretches than there are lists. */
  #overlappingMuch(offset: ByteOffset, end: ByteOffset): readonly Item[] {
    const found = new Set<Item>();
    for (const items of this.#lists)
      for (const item of items ?? NONE) if (item.offset < end && item.end > offset) found.add(item);
    return [...found].sort((a, b) => a.sequence - b.sequence);
  }
}

const stretchOf = (offset: ByteOffset): number => Math.floor(offset / STRETCH);
