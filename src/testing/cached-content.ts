/**
 * The bytes of one simulated disk: what reads see, what is durable, and the changes in between.
 *
 * Fault model. A change (a write or a new size) is in flight from its call to its completion and takes effect on
 * the cache at one moment between. It stays volatile until a flush that began after its completion. A power cut
 * decides sector by sector (512 bytes, never torn inside) whether a volatile change, or one in flight, is kept or
 * lost; the ones kept land in the order of their effects, so a sector may end as its durable value or as any value
 * it had since. A killed process loses only what was in flight and had no effect yet.
 *
 * A flush that fails makes some of its changes durable; the rest are forgotten: still seen by reads, never durable by
 * any later flush, and gone from the cache when the disk is opened again. (Linux may show forgotten pages for longer,
 * and drops them whenever it likes; nothing could be built on a device that does so under its new user.)
 *
 * Invariants: a sector without volatile change is equal in cache and medium; cached bytes behind the size are zero.
 */
import type { Random } from '../environment.js';
import { type ByteLength, type ByteOffset, SECTOR_SIZE } from '../units.js';
import { type Change, DurableBytes, KEEP_ALL, type SectorChoice, sectorsIn } from './durable-bytes.js';
import { PageSums } from './page-sums.js';
import { sparseCopy } from './sparse-copy.js';

const NOTHING = new Uint8Array(0);
/** Bytes of noise that are drawn. */
const NOISE = 65_536;

export class CachedContent {
  #cache: Uint8Array;
  readonly #durable: DurableBytes;
  #size: ByteLength;
  /** Nothing at or behind it was ever anything but zero since the last crash. */
  #highWater: ByteLength;
  #effects = 0;
  #acknowledgements = 0;
  /** Changes that took effect and are not durable, by order. */
  #log: Change[] = [];
  readonly #inFlight = new Set<Change>();
  /** The last copy that was made; and what this is a copy of. */
  #copy: CachedContent | undefined;
  #origin: CachedContent | undefined;
  /** Everything that this and what it was copied from, or its copy, can differ in; `undefined`: not known. */
  #stale: Change[] | undefined;
  /** Of the cache, if anybody asked for it. */
  #sums: PageSums | undefined;

  /** @param noise what never-written bytes are; zeros without it. */
  constructor(size: ByteLength, noise?: Random) {
    this.#cache = new Uint8Array(sectorsIn(size) * SECTOR_SIZE);
    if (noise !== undefined) fillRepeating(this.#cache.subarray(0, size), noise);
    this.#durable = new DurableBytes(sparseCopy(this.#cache), size);
    this.#size = size;
    this.#highWater = size;
  }

  get size(): ByteLength {
    return this.#size;
  }

  /** The size that a power cut would leave if it lost every volatile change. */
  get durableSize(): ByteLength {
    return this.#durable.size;
  }

  /** What reads see there, not a copy; good until the next change. */
  view(from: ByteOffset, to: ByteOffset): Uint8Array {
    return this.#cache.subarray(from, to);
  }

  read(offset: ByteOffset, target: Uint8Array): void {
    target.set(this.#cache.subarray(offset, offset + target.byteLength));
  }

  /** What a power cut would leave if it lost every volatile change. */
  durableBytes(offset: ByteOffset, length: ByteLength): Uint8Array {
    return this.#durable.view(offset, offset + length).slice();
  }

  /** Changes that are not durable, those without effect last: what a crash decides about. */
  unflushed(): readonly Readonly<Change>[] {
    return [...this.#log, ...[...this.#inFlight].filter((change) => change.order === 0)];
  }

  /** A write begins. `bytes` is kept: hand in a copy. */
  beginWrite(offset: ByteOffset, bytes: Uint8Array): Change {
    return this.#begin('write', offset, bytes, 0);
  }

  beginResize(size: ByteLength): Change {
    return this.#begin('resize', Math.min(size, this.#size), NOTHING, size);
  }

  #begin(kind: Change['kind'], offset: ByteOffset, bytes: Uint8Array, size: ByteLength): Change {
    const change: Change = { kind, offset, bytes, size, order: 0, acknowledged: 0, forgotten: false };
    this.#inFlight.add(change);
    this.#stale?.push(change);
    return change;
  }

  /** A change in flight that touches the range; a resize touches everything from the smaller size on. */
  overlapping(offset: ByteOffset, length: ByteLength): Change | undefined {
    for (const change of this.#inFlight) {
      const end = change.kind === 'resize' ? Infinity : change.offset + change.bytes.byteLength;
      if (change.offset < offset + length && offset < end) return change;
    }
    return undefined;
  }

  /** The moment at which reads begin to see a change, or only some of its sectors. */
  take(change: Change, keep: SectorChoice = KEEP_ALL): void {
    if (change.kind === 'write') this.#takeWrite(change, keep);
    else if (keep(0)) this.#takeResize(change);
  }

  #takeResize(change: Change): void {
    const previous = this.#size;
    if (change.size < previous) {
      change.offset = Math.floor(change.size / SECTOR_SIZE) * SECTOR_SIZE;
      this.#cache.fill(0, change.size, previous);
      // Cutting inside a sector changes the sector; it lands together with the size.
      if (change.offset < change.size)
        change.bytes = this.#cache.slice(change.offset, change.offset + SECTOR_SIZE);
    } else {
      change.offset = sectorsIn(previous) * SECTOR_SIZE;
      this.#reserve(change.size);
    }
    change.order = ++this.#effects;
    this.#size = change.size;
    this.#highWater = Math.max(this.#highWater, change.size);
    this.#log.push(change);
  }

  #takeWrite(change: Change, keep: SectorChoice): void {
    const from = change.offset;
    change.order = ++this.#effects;
    // A shrink in flight together with this write may have cut its range off.
    const end = Math.min(from + change.bytes.byteLength, this.#size);
    if (end <= from) return;
    const first = Math.floor(from / SECTOR_SIZE);
    const last = sectorsIn(end);
    if (keep === KEEP_ALL) {
      this.#cache.set(change.bytes.subarray(0, end - from), from);
    } else {
      for (let sector = first; sector < last; sector++) {
        if (!keep(sector)) continue;
        const begin = Math.max(from, sector * SECTOR_SIZE);
        const stop = Math.min(end, (sector + 1) * SECTOR_SIZE);
        this.#cache.set(change.bytes.subarray(begin - from, stop - from), begin);
      }
    }
    const isWhole = keep === KEEP_ALL && change.bytes.byteLength === (last - first) * SECTOR_SIZE;
    if (!isWhole || from % SECTOR_SIZE !== 0) {
      change.bytes = this.#cache.slice(first * SECTOR_SIZE, last * SECTOR_SIZE);
      change.offset = first * SECTOR_SIZE;
    }
    this.#log.push(change);
  }

  /** The change completed, well or badly; a flush that begins from now on is about it too. */
  acknowledge(change: Change): void {
    change.acknowledged = ++this.#acknowledgements;
    this.#inFlight.delete(change);
  }

  /** Marks the changes completed so far: a flush takes it when it begins. */
  flushPoint(): number {
    return this.#acknowledgements;
  }

  /** Everything completed before the flush point becomes durable. */
  makeDurable(point: number): void {
    this.#log = this.#log.filter((change) => {
      if (change.forgotten || !isBefore(change, point)) return true;
      this.#durable.land(change, KEEP_ALL, this.#highWater);
      return false;
    });
  }

  /** A flush failed: some sectors became durable after all, the rest never will by themselves. */
  forget(point: number, choose: (change: Change) => SectorChoice): void {
    for (const change of this.#log) {
      if (change.forgotten || !isBefore(change, point)) continue;
      this.#durable.land(change, choose(change), this.#highWater);
      change.forgotten = true;
    }
  }

  /** The disk is opened again: what failed flushes forgot is no longer seen either. */
  dropForgotten(): void {
    const forgotten = this.#log.filter((change) => change.forgotten);
    if (forgotten.length === 0) return;
    this.#log = this.#log.filter((change) => !change.forgotten);
    this.#uncache(forgotten);
    for (const change of this.#log) {
      if (change.kind === 'write') {
        this.#cache.set(change.bytes, change.offset);
      } else {
        this.#cache.fill(0, change.size, Math.max(change.size, this.#size));
        this.#size = change.size;
      }
    }
    this.#cache.fill(0, this.#size);
  }

  /** Takes the cache back to what is durable, in size and wherever these changes were. */
  #uncache(changes: readonly Change[]): void {
    const { size } = this.#durable;
    this.#durable.view(size, this.#highWater).fill(0);
    let resized = Infinity;
    for (const { kind, offset, bytes } of changes) {
      if (kind === 'write') this.#cache.set(this.#durable.view(offset, offset + bytes.byteLength), offset);
      else resized = Math.min(resized, offset);
    }
    if (resized < this.#highWater) this.#cache.set(this.#durable.view(resized, this.#highWater), resized);
    this.#size = size;
  }

  /** `choose` is asked once for every change not durable, in the order of `unflushed`. */
  cutPower(choose: (change: Readonly<Change>) => SectorChoice): void {
    for (const change of this.#inFlight) if (change.order === 0) this.take(change);
    for (const change of this.#log) this.#durable.land(change, choose(change), this.#highWater);
    this.#uncache(this.#log);
    this.#highWater = this.#size;
    this.#log = [];
    this.#inFlight.clear();
  }

  /** The process died; the operating system still holds, unflushed, whatever reached it. */
  kill(choose: (change: Readonly<Change>) => SectorChoice): void {
    for (const change of [...this.#inFlight]) {
      if (change.order === 0) this.take(change, choose(change));
      this.acknowledge(change);
    }
    this.dropForgotten();
  }

  /** Rot: the bit is wrong wherever the byte is held. */
  flipBit(offset: ByteOffset, bit: number): void {
    this.#stale = undefined;
    const flip = (bytes: Uint8Array, at: number) => {
      bytes[at] = (bytes[at] ?? 0) ^ (1 << bit);
    };
    flip(this.#cache, offset);
    flip(this.#durable.view(offset, offset + 1), 0);
    for (const change of this.#log) {
      const at = offset - change.offset;
      if (at < 0 || at >= change.bytes.byteLength) continue;
      // A copy: the device still compares the old one with what its user handed in.
      change.bytes = change.bytes.slice();
      flip(change.bytes, at);
    }
  }

  /**
   * An equal one. What was in flight is in flight there, with nobody waiting: a crash must follow. It is kept, and the next
   * call, which is cheap as only what may differ is copied, makes it equal again: of two copies only the last is good.
   */
  copy(): CachedContent {
    const copy = this.#copy ?? new CachedContent(0);
    copy.#become(this);
    this.#copy = copy;
    return copy;
  }

  #become(source: CachedContent): void {
    const stale = this.#stale && source.#stale && [...this.#stale, ...source.#stale];
    this.#origin = source;
    if (stale === undefined || this.#cache.byteLength !== source.#cache.byteLength) {
      this.#cache = sparseCopy(source.#cache, this.#cache);
      this.#durable.become(source.#durable);
      this.#sums = undefined;
    } else {
      for (const change of stale) {
        const { from, to } = this.#rangeOf(change);
        this.#cache.set(source.#cache.subarray(from, to), from);
        this.#durable.become(source.#durable, from, to);
        this.#sums?.update(this.#cache, from, to);
      }
    }
    this.#size = source.#size;
    this.#highWater = source.#highWater;
    this.#effects = source.#effects;
    this.#acknowledgements = source.#acknowledgements;
    this.#log = source.#log.map(copyOf);
    this.#inFlight.clear();
    for (const change of source.#inFlight) if (change.order === 0) this.#inFlight.add(copyOf(change));
    // These may become durable on either side.
    source.#stale = [...source.#log, ...source.#inFlight];
    // A copy of this one is as it was.
    this.#stale = this.#copy === undefined ? source.#stale.slice() : stale && [...stale, ...source.#stale];
  }

  /** Which whole sectors a change concerns. */
  #rangeOf({ kind, offset, bytes }: Change): { readonly from: ByteOffset; readonly to: ByteOffset } {
    const from = Math.floor(offset / SECTOR_SIZE) * SECTOR_SIZE;
    const to = sectorsIn(offset + bytes.byteLength) * SECTOR_SIZE;
    return { from, to: kind === 'resize' ? this.#cache.byteLength : to };
  }

  /** Checksums of what reads see, equal where that is equal: cheap where a copy of it was made, or it is one, and that other was not changed since. */
  sums(): Uint32Array {
    const other = this.#copy ?? this.#origin;
    const isLike = other !== undefined && this.#cache.byteLength === other.#cache.byteLength;
    if (!isLike || this.#stale === undefined) return PageSums.of(this.#cache).upTo(this.#size);
    other.#sums ??= PageSums.of(other.#cache);
    const sums = other.#sums.clone();
    for (const change of this.#stale) {
      const { from, to } = this.#rangeOf(change);
      sums.update(this.#cache, from, to);
    }
    return sums.upTo(this.#size);
  }

  #reserve(size: ByteLength): void {
    if (size <= this.#cache.byteLength) return;
    const capacity = sectorsIn(Math.max(size, this.#cache.byteLength * 2)) * SECTOR_SIZE;
    const cache = new Uint8Array(capacity);
    cache.set(this.#cache);
    this.#cache = cache;
    this.#durable.reserve(capacity);
  }
}

/** Random bytes up to `NOISE`, and those again and again: they only must not be zeros, nor anything that was written. */
function fillRepeating(target: Uint8Array, noise: Random): void {
  noise.fill(target.subarray(0, NOISE));
  for (let done = NOISE; done < target.byteLength; done *= 2) target.copyWithin(done, 0, done);
}

// The bytes of a change are never altered in place, so copies may share them.
const copyOf = (change: Change): Change => ({ ...change });

const isBefore = (change: Change, point: number): boolean =>
  change.acknowledged !== 0 && change.acknowledged <= point;
