/** What the block map promises, on an array with an entry for each block; far too slow for anything but comparing. */
import { expect } from 'vitest';
import { BlockMap } from '../../../src/cache/block-map.js';
import type { SeededRandom } from '../../../src/testing/index.js';

type Kind = 'metadata' | 'data';

export class ModelMap {
  readonly #kinds: (Kind | undefined)[];
  readonly #map: BlockMap;

  constructor(blocks: number) {
    this.#kinds = Array<Kind | undefined>(blocks).fill(undefined);
    this.#map = new BlockMap(blocks);
  }

  /** Does the same things to both and fails where they differ. */
  compare(random: SeededRandom, operations: number): void {
    for (let done = 0; done < operations; done++) {
      this.#operate(random);
      if (done % 64 === 0 || done === operations - 1) this.#compareAll();
    }
  }

  #operate(random: SeededRandom): void {
    const blocks = this.#kinds.length;
    const kind: Kind = random.chance(0.2) ? 'metadata' : 'data';
    const count = random.between(1, Math.max(1, Math.min(blocks, random.pick([1, 8, 40]))));
    const start = random.below(blocks);
    switch (random.below(5)) {
      case 0:
      case 1: {
        const expected = this.#bestFit(count);
        expect(this.#map.allocate(count, kind)).toBe(expected);
        if (expected !== undefined) this.#kinds.fill(kind, expected, expected + count);
        break;
      }
      case 2: {
        const isFree = start + count <= blocks && this.#all(start, count, undefined);
        expect(this.#map.isFree(start, count)).toBe(isFree);
        expect(this.#map.allocateAt(start, count, kind)).toBe(isFree);
        if (isFree) this.#kinds.fill(kind, start, start + count);
        break;
      }
      case 3: {
        const length = this.#runAt(start, count);
        const found = this.#kinds[start];
        if (found === undefined) break;
        this.#map.release(start, length, found);
        this.#kinds.fill(undefined, start, start + length);
        break;
      }
      default:
        this.#reallocate(start, this.#runAt(start, count), random.between(1, 2 * count));
    }
  }

  #reallocate(start: number, count: number, wanted: number): void {
    const kind = this.#kinds[start];
    if (kind === undefined) return;
    const inPlace = wanted <= count || this.#all(start + count, wanted - count, undefined);
    const expected = inPlace ? start : this.#bestFit(wanted);
    expect(this.#map.reallocate(start, count, wanted, kind)).toBe(expected);
    if (expected === undefined) return;
    this.#kinds.fill(undefined, start, start + count);
    this.#kinds.fill(kind, expected, expected + wanted);
  }

  /** Blocks of one kind from `start` on, at most `most`. */
  #runAt(start: number, most: number): number {
    let length = 0;
    while (
      length < most &&
      start + length < this.#kinds.length &&
      this.#kinds[start + length] === this.#kinds[start]
    )
      length++;
    return length;
  }

  #all(start: number, count: number, kind: Kind | undefined): boolean {
    if (start + count > this.#kinds.length) return false;
    for (let at = start; at < start + count; at++) if (this.#kinds[at] !== kind) return false;
    return true;
  }

  #ranges(): { start: number; count: number }[] {
    const ranges: { start: number; count: number }[] = [];
    for (let at = 0; at < this.#kinds.length; ) {
      const length = this.#runAt(at, this.#kinds.length);
      if (this.#kinds[at] === undefined) ranges.push({ start: at, count: length });
      at += length;
    }
    return ranges;
  }

  #bestFit(count: number): number | undefined {
    let best: { start: number; count: number } | undefined;
    for (const range of this.#ranges())
      if (range.count >= count && (best === undefined || range.count < best.count)) best = range;
    return best?.start;
  }

  #compareAll(): void {
    const of = (kind: Kind | undefined) => this.#kinds.filter((each) => each === kind).length;
    const { blocks, free, metadata, data } = this.#map.counts;
    expect({ free, metadata, data }).toEqual({
      free: of(undefined),
      metadata: of('metadata'),
      data: of('data'),
    });
    expect(free + metadata + data).toBe(blocks);
    const ranges = this.#ranges();
    expect(JSON.stringify([...this.#map.freeRanges()])).toBe(JSON.stringify(ranges));
    expect(this.#map.freeRangeCount).toBe(ranges.length);
    expect(this.#map.longestFree).toBe(Math.max(0, ...ranges.map(({ count }) => count)));
    const used = this.#kinds.findLastIndex((kind) => kind !== undefined) + 1;
    expect(this.#map.usedEnd).toBe(used);
    const bits = new Uint8Array(Math.ceil(blocks / 8));
    this.#map.fillBitmap(0, bits);
    const expected = new Uint8Array(bits.byteLength);
    this.#kinds.forEach((kind, at) => {
      if (kind !== undefined) expected[at >> 3] = (expected[at >> 3] ?? 0) | (1 << (at & 7));
    });
    expect(Buffer.compare(bits, expected)).toBe(0);
  }
}
