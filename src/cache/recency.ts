/**
 * The extents in the order in which they were last used, in 24 bytes each.
 *
 * A doubly linked list in typed arrays, with a hash from an extent's first block to its place (open addressing, at most half full). Place 0
 * is both ends of the list.
 *
 * Shared state: changed between awaits only.
 */
import { assert } from '../errors.js';
import type { NodeColumns, NodeLinks } from '../format/vci-node.js';
import { grown } from './treap.js';

const FIRST_CAPACITY = 64;
/** Extents from which on there is room for all that there may be: memory that is not used yet costs nothing, but copies of it would. */
const MANY = 65_536;

export class Recency {
  /** Most extents that there may be. */
  readonly limit: number;
  #capacity = FIRST_CAPACITY;
  #firsts: Uint32Array = new Uint32Array(FIRST_CAPACITY);
  #addresses: Uint32Array = new Uint32Array(FIRST_CAPACITY);
  /** Towards those used earlier, and later. */
  #older: Uint32Array = new Uint32Array(FIRST_CAPACITY);
  #newer: Uint32Array = new Uint32Array(FIRST_CAPACITY);
  #table: Uint32Array = new Uint32Array(2 * FIRST_CAPACITY);
  /** The first place that is not used any more; the others follow as `#newer` says, to 0. */
  #spare = 0;
  #places = 1;
  #size = 0;
  #isStored = false;

  /** @param expected extents, if that is known: there is room for them at once */
  constructor(limit: number, expected = 0) {
    this.limit = limit;
    if (expected < FIRST_CAPACITY) return;
    this.#makeRoom(expected < MANY ? expected + 1 : limit + 1);
    this.#table = new Uint32Array(2 ** Math.ceil(Math.log2(2 * expected)));
  }

  get size(): number {
    return this.#size;
  }

  /** Is the order, with the addresses, as it was when `store` was called last? */
  get isStored(): boolean {
    return this.#isStored;
  }

  /** The order as it is now is in the image, or will be with the next commit. */
  store(): void {
    this.#isStored = true;
  }

  /** Adds the extent that begins with block `first`, as the one used last; or as if used just before another. */
  add(first: number, address: number, before?: number): void {
    const other = before === undefined ? 0 : this.#placeOf(before);
    const place = this.#takePlace();
    this.#firsts[place] = first;
    this.#addresses[place] = address;
    this.#link(place, other);
    this.#enter(place);
  }

  /** The extent was used. */
  touch(first: number): void {
    const place = this.#placeOf(first);
    if (this.#newer[place] === 0) return;
    this.#unlink(place);
    this.#link(place, 0);
  }

  remove(first: number): void {
    const place = this.#placeOf(first);
    this.#unlink(place);
    this.#leave(place);
    this.#newer[place] = this.#spare;
    this.#spare = place;
    this.#size--;
  }

  /** The extent that begins with block `from` now begins with block `to`, and its data elsewhere. */
  rename(from: number, to: number, address: number): void {
    const place = this.#placeOf(from);
    this.#leave(place);
    this.#firsts[place] = to;
    this.#addresses[place] = address;
    this.#enter(place);
    this.#isStored = false;
  }

  has(first: number): boolean {
    return this.#find(first) !== 0;
  }

  /** First block of the extent that was not used for the longest time. */
  get oldest(): number | undefined {
    const place = this.#newer[0] ?? 0;
    return place === 0 ? undefined : this.#firsts[place];
  }

  /** Which extents were used before, and after, those of a leaf. @param links that are filled, as many as the leaf has extents */
  linksOf({ firsts, size }: NodeColumns, links: NodeLinks): void {
    for (let index = 0; index < size; index++) {
      const place = this.#placeOf(firsts[index] ?? 0);
      const older = this.#older[place] ?? 0;
      const newer = this.#newer[place] ?? 0;
      links.previous[index] = older === 0 ? 0 : (this.#addresses[older] ?? 0);
      links.next[index] = newer === 0 ? 0 : (this.#addresses[newer] ?? 0);
    }
  }

  /** First blocks, the longest unused first: as it is now. */
  firsts(): Uint32Array {
    const firsts = new Uint32Array(this.#size);
    let at = 0;
    for (let place = this.#newer[0] ?? 0; place !== 0; place = this.#newer[place] ?? 0)
      firsts[at++] = this.#firsts[place] ?? 0;
    return firsts;
  }

  #takePlace(): number {
    this.#size++;
    const place = this.#spare;
    if (place !== 0) {
      this.#spare = this.#newer[place] ?? 0;
      return place;
    }
    if (this.#places === this.#capacity) {
      const isLarge = MANY <= this.#capacity && this.#capacity <= this.limit;
      this.#makeRoom(isLarge ? this.limit + 1 : 2 * this.#capacity);
    }
    return this.#places++;
  }

  /** Puts `place` before `other`, in order of use; before the end if that is 0. */
  #link(place: number, other: number): void {
    const older = this.#older[other] ?? 0;
    this.#older[place] = older;
    this.#newer[place] = other;
    this.#newer[older] = place;
    this.#older[other] = place;
    this.#isStored = false;
  }

  #unlink(place: number): void {
    const older = this.#older[place] ?? 0;
    const newer = this.#newer[place] ?? 0;
    this.#newer[older] = newer;
    this.#older[newer] = older;
    this.#isStored = false;
  }

  #placeOf(first: number): number {
    const place = this.#find(first);
    assert(place !== 0, () => `no extent begins with block ${first}`);
    return place;
  }

  #find(first: number): number {
    const mask = this.#table.length - 1;
    for (let at = hash(first) & mask; ; at = (at + 1) & mask) {
      const place = this.#table[at] ?? 0;
      if (place === 0 || this.#firsts[place] === first) return place;
    }
  }

  #enter(place: number): void {
    if (2 * this.#size > this.#table.length) this.#growTable();
    const mask = this.#table.length - 1;
    const first = this.#firsts[place] ?? 0;
    let at = hash(first) & mask;
    for (; this.#table[at] !== 0; at = (at + 1) & mask) {
      assert(this.#firsts[this.#table[at] ?? 0] !== first, () => `two extents begin with block ${first}`);
    }
    this.#table[at] = place;
  }

  #leave(place: number): void {
    const mask = this.#table.length - 1;
    let hole = hash(this.#firsts[place] ?? 0) & mask;
    while (this.#table[hole] !== place) hole = (hole + 1) & mask;
    // Whoever was pushed on by the one that goes moves back, or would not be found any more.
    for (let at = (hole + 1) & mask; ; at = (at + 1) & mask) {
      const other = this.#table[at] ?? 0;
      if (other === 0) break;
      const home = hash(this.#firsts[other] ?? 0) & mask;
      if (((at - home) & mask) < ((at - hole) & mask)) continue;
      this.#table[hole] = other;
      hole = at;
    }
    this.#table[hole] = 0;
  }

  #growTable(): void {
    const old = this.#table;
    this.#table = new Uint32Array(2 * old.length);
    for (const place of old) if (place !== 0) this.#enter(place);
  }

  #makeRoom(capacity: number): void {
    this.#capacity = capacity;
    this.#firsts = grown(this.#firsts, this.#capacity);
    this.#addresses = grown(this.#addresses, this.#capacity);
    this.#older = grown(this.#older, this.#capacity);
    this.#newer = grown(this.#newer, this.#capacity);
  }
}

/** Neighbouring extents begin at numbers that differ little; multiplication spreads them (Knuth). */
function hash(first: number): number {
  const mixed = Math.imul(first, 0x9e3779b1);
  return (mixed ^ (mixed >>> 15)) >>> 0;
}
