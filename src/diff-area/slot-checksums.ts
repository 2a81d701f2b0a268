/**
 * The checksums of copies by slot.
 *
 * Slots are handed out lowest first, so an array over all slots has hardly any gaps (a table block in 509 slots); and it
 * needs no room to grow between its members. It grows in segments of 8,192 slots (32 KiB); only one of the first
 * segments is ever copied.
 */
import type { Slot } from '../units.js';

const SEGMENT_SHIFT = 13;
const SEGMENT_SLOTS = 2 ** SEGMENT_SHIFT;
const FIRST_LENGTH = 32;
/** After so many a segment is made whole at once: less than a quarter of all is empty then. */
const MANY_SEGMENTS = 4;
/** What the objects of a segment take on the heap, besides its buffer. */
const OBJECT_BYTES = 300;

export class SlotChecksums {
  readonly #segments: (Uint32Array | undefined)[] = [];
  #bytes = 0;

  /** Bytes of memory, objects included. */
  get memoryBytes(): number {
    return this.#bytes + this.#segments.length * 8;
  }

  /** Checksum of the copy in `slot`; 0 if none was recorded. */
  get(slot: Slot): number {
    return this.#segments[slot >>> SEGMENT_SHIFT]?.[slot & (SEGMENT_SLOTS - 1)] ?? 0;
  }

  set(slot: Slot, checksum: number): void {
    const number = slot >>> SEGMENT_SHIFT;
    const index = slot & (SEGMENT_SLOTS - 1);
    let segment = this.#segments[number];
    if (segment === undefined || index >= segment.length) segment = this.#lengthen(number, index, segment);
    segment[index] = checksum;
  }

  /** Records the first `count` of `checksums`, each for the slot at the same place. */
  setAll(slots: Uint32Array, checksums: Uint32Array, count: number): void {
    let number = -1;
    let segment: Uint32Array | undefined;
    for (let i = 0; i < count; i++) {
      const slot = slots[i] ?? 0;
      const index = slot & (SEGMENT_SLOTS - 1);
      if (slot >>> SEGMENT_SHIFT !== number) {
        number = slot >>> SEGMENT_SHIFT;
        segment = this.#segments[number];
      }
      if (segment === undefined || index >= segment.length) segment = this.#lengthen(number, index, segment);
      segment[index] = checksums[i] ?? 0;
    }
  }

  #lengthen(number: number, index: number, old: Uint32Array | undefined): Uint32Array {
    const share = this.#segments.length >= MANY_SEGMENTS ? SEGMENT_SLOTS : FIRST_LENGTH;
    const length = Math.min(SEGMENT_SLOTS, Math.max(share, 2 ** Math.ceil(Math.log2(index + 1))));
    const segment = new Uint32Array(length);
    if (old === undefined) this.#bytes += OBJECT_BYTES;
    else segment.set(old);
    this.#bytes += segment.byteLength - (old?.byteLength ?? 0);
    // No holes, so that the list stays an array inside the engine.
    while (this.#segments.length < number) this.#segments.push(undefined);
    this.#segments[number] = segment;
    return segment;
  }
}
