/**
 * The medium of a simulated disk: what is there after a power cut.
 *
 * Changes land in any order, some sectors of them or all. Each sector remembers the order of the change that its bytes
 * come from, so that an older change that lands later never covers a younger one.
 */
import { type ByteLength, type ByteOffset, SECTOR_SIZE } from '../units.js';
import { sparseCopy } from './sparse-copy.js';

/** A write or a resize that is not durable yet. */
export interface Change {
  readonly kind: 'write' | 'resize';
  /** Of a write, whole sectors once it has taken effect. Of a resize, the first sector whose content it concerns. */
  offset: ByteOffset;
  /** Of a write, its bytes. Of a resize, the sector that it cuts, if any. */
  bytes: Uint8Array;
  /** Of a resize, the new size. */
  readonly size: ByteLength;
  /** Place among all effects; 0 before its own. */
  order: number;
  /** Place among all completions; 0 while in flight. */
  acknowledged: number;
  /** A failed flush gave it up. */
  forgotten: boolean;
}

/** Which sectors of a change are kept; asked with sector numbers of the disk. A resize is asked once, with 0. */
export type SectorChoice = (sector: number) => boolean;

export const KEEP_ALL: SectorChoice = () => true;
export const KEEP_NONE: SectorChoice = () => false;
export const sectorsIn = (bytes: ByteLength): number => Math.ceil(bytes / SECTOR_SIZE);

export class DurableBytes {
  #bytes: Uint8Array;
  /** Of each sector, the order of the change it comes from; 0 at first. */
  #orders: Uint32Array;
  #size: ByteLength;
  #sizeOrder = 0;

  /** @param bytes initial content, whole sectors; the last one zeros behind `size`. */
  constructor(bytes: Uint8Array, size: ByteLength) {
    this.#bytes = bytes;
    this.#orders = new Uint32Array(sectorsIn(bytes.byteLength));
    this.#size = size;
  }

  get size(): ByteLength {
    return this.#size;
  }

  /** The bytes themselves, not a copy, also behind the size. */
  view(from: ByteOffset, to: ByteOffset): Uint8Array {
    return this.#bytes.subarray(from, to);
  }

  /** @param highWater no change concerns anything behind it. */
  land(change: Readonly<Change>, keep: SectorChoice, highWater: ByteLength): void {
    if (change.kind === 'write') this.#landWrite(change, keep);
    else if (change.order > this.#sizeOrder && keep(0)) this.#landResize(change, highWater);
  }

  #landWrite(change: Readonly<Change>, keep: SectorChoice): void {
    const { order, offset, bytes } = change;
    const first = offset / SECTOR_SIZE;
    const last = first + bytes.byteLength / SECTOR_SIZE;
    const orders = this.#orders;
    let isWhole = keep === KEEP_ALL;
    for (let sector = first; isWhole && sector < last; sector++) isWhole = (orders[sector] ?? 0) < order;
    if (isWhole) {
      this.#bytes.set(bytes, offset);
      orders.fill(order, first, last);
      return;
    }
    for (let sector = first; sector < last; sector++) {
      if ((orders[sector] ?? 0) >= order || !keep(sector)) continue;
      const at = (sector - first) * SECTOR_SIZE;
      this.#bytes.set(bytes.subarray(at, at + SECTOR_SIZE), sector * SECTOR_SIZE);
      orders[sector] = order;
    }
  }

  #landResize(change: Readonly<Change>, highWater: ByteLength): void {
    const { order, offset, bytes, size } = change;
    // Everything behind the new size, or new in it, is zeros: up to the high water, so that an older write that is
    // still volatile cannot come back behind a later growth.
    const last = sectorsIn(highWater);
    for (let sector = offset / SECTOR_SIZE; sector < last; sector++) {
      const previous = this.#orders[sector] ?? 0;
      const at = sector * SECTOR_SIZE;
      if (previous >= order || (previous === 0 && at >= this.#size)) continue;
      if (at < size && bytes.byteLength > 0) this.#bytes.set(bytes, at);
      else this.#bytes.fill(0, at, at + SECTOR_SIZE);
      this.#orders[sector] = order;
    }
    this.#size = size;
    this.#sizeOrder = order;
  }

  reserve(capacity: ByteLength): void {
    const bytes = new Uint8Array(capacity);
    bytes.set(this.#bytes.subarray(0, capacity));
    this.#bytes = bytes;
    const orders = new Uint32Array(sectorsIn(capacity));
    orders.set(this.#orders.subarray(0, orders.length));
    this.#orders = orders;
  }

  /** Becomes equal to another one, from the one offset to the other: whole sectors; outside it is so already. */
  become(source: DurableBytes, from: ByteOffset = 0, to: ByteOffset = Infinity): void {
    if (this.#bytes.byteLength !== source.#bytes.byteLength) {
      this.#bytes = sparseCopy(source.#bytes);
      this.#orders = source.#orders.slice();
    } else {
      this.#bytes.set(source.#bytes.subarray(from, to), from);
      const first = from / SECTOR_SIZE;
      this.#orders.set(source.#orders.subarray(first, to / SECTOR_SIZE), first);
    }
    this.#size = source.#size;
    this.#sizeOrder = source.#sizeOrder;
  }
}
