/**
 * Ranges of a volume, found by what they overlap.
 *
 * The volume is looked at in stretches of 64 KiB; each keeps a list of the ranges that touch it, in the order in which
 * they were added. So asking about a small range looks at one or two short lists, and costs nothing while there are none.
 */
import type { ByteOffset } from '../units.js';

const STRETCH = 65_536;

export interface IndexedRange {
  readonly offset: ByteOffset;
  /** First byte behind it. */
  readonly end: ByteOffset;
  /** Ascending in the order in which ranges are added. */
  readonly sequence: number;
}

const NONE: readonly never[] = [];

export class OverlapIndex<Item extends IndexedRange> {
  readonly #stretches = new Map<number, Item[]>();

  get isEmpty(): boolean {
    return this.#stretches.size === 0;
  }

  add(item: Item): void {
    const last = Math.floor((item.end - 1) / STRETCH);
    for (let stretch = Math.floor(item.offset / STRETCH); stretch <= last; stretch++) {
      const items = this.#stretches.get(stretch);
      if (items === undefined) this.#stretches.set(stretch, [item]);
      else items.push(item);
    }
  }

  remove(item: Item): void {
    const last = Math.floor((item.end - 1) / STRETCH);
    for (let stretch = Math.floor(item.offset / STRETCH); stretch <= last; stretch++) {
      const items = this.#stretches.get(stretch);
      if (items === undefined) continue;
      if (items.length > 1) items.splice(items.indexOf(item), 1);
      else this.#stretches.delete(stretch);
    }
  }

  /** What has a byte in `[offset, end)`, oldest first. */
  overlapping(offset: ByteOffset, end: ByteOffset): readonly Item[] {
    if (this.#stretches.size === 0) return NONE;
    const first = Math.floor(offset / STRETCH);
    const last = Math.floor((end - 1) / STRETCH);
    if (last - first >= this.#stretches.size) return this.#overlappingMuch(offset, end);
    let found: Item[] | undefined;
    for (let stretch = first; stretch <= last; stretch++) {
      const items = this.#stretches.get(stretch);
      if (items === undefined) continue;
      for (const item of items) {
        if (item.offset >= end || item.end <= offset) continue;
        // One that touches several of the stretches counts in the first of them.
        if (stretch > first && item.offset < stretch * STRETCH) continue;
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
    for (const items of this.#stretches.values())
      for (const item of items) if (item.offset < end && item.end > offset) found.add(item);
    return [...found].sort((a, b) => a.sequence - b.sequence);
  }
}
