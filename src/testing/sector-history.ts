/**
 * What each sector of a volume may hold: the values that a read, a snapshot or a recovery is allowed to find.
 *
 * Time is a count of events. A write lasts from its start to its end; it happened at some moment between, for each of
 * its sectors on its own. One write supersedes another in a sector if it started after the other had ended. So:
 * - Seen from some moment up to now: any write that has started, unless one that ended before that moment supersedes
 *   it. (A read; a snapshot whose moment lies somewhere between its call and its return.)
 * - After a crash: any write, unless a stable one supersedes it. Stable is what ended before the start of a flush that
 *   returned. A write in flight at the crash never ended, so nothing supersedes it.
 * - A write that failed may be in or out by sector, so it supersedes nothing.
 * The base value, from before all writes that are remembered, is superseded by any write.
 */
import { type ByteLength, type ByteOffset, SECTOR_SIZE } from '../units.js';
import type { SpareBytes } from './spare-bytes.js';

export interface WriteRecord {
  readonly offset: ByteOffset;
  readonly bytes: Uint8Array;
  readonly start: number;
  /** `Infinity` while in flight, and for ever if a crash came before. */
  end: number;
  failed: boolean;
  stable: boolean;
  /** A flush that should have made it durable failed: it may be gone when the volume is opened again. */
  doomed: boolean;
}

/** A value that a sector may hold, and the moments at which it does. */
export interface Candidate {
  readonly bytes: Uint8Array;
  /** It is there only after this moment... */
  readonly after: number;
  /** ...and only before this one. */
  readonly before: number;
}

/** Does `later`, unless it failed, replace `earlier` wherever both wrote? */
const supersedes = (later: WriteRecord, earlier: WriteRecord): boolean => later.start > earlier.end;

export class SectorHistory {
  /** Of each sector, the value before all writes in `#writes`. */
  #base: Uint8Array;
  /** Writes still of interest, by sector, by start. */
  readonly #writes = new Map<number, WriteRecord[]>();
  #ended: WriteRecord[] = [];
  /** Sectors whose base value was given by `rebase`. */
  readonly rebased = new Set<number>();

  /** @param base its own from now on */
  constructor(base: Uint8Array) {
    this.#base = base;
  }

  get size(): ByteLength {
    return this.#base.byteLength;
  }

  /** It may be longer from now on; what is new holds zeros. */
  extend(size: ByteLength): void {
    this.#base = lengthened(this.#base, size);
  }

  /** An equal one, which what happens to this one does not touch. Writes in flight cannot be ended there. */
  clone(spare: SpareBytes): SectorHistory {
    const copy = new SectorHistory(spare.copy(this.#base));
    const copies = new Map<WriteRecord, WriteRecord>();
    const copyOf = (write: WriteRecord): WriteRecord => {
      const known = copies.get(write) ?? { ...write };
      copies.set(write, known);
      return known;
    };
    for (const [sector, writes] of this.#writes) copy.#writes.set(sector, writes.map(copyOf));
    copy.#ended = this.#ended.map(copyOf);
    for (const sector of this.rebased) copy.rebased.add(sector);
    return copy;
  }

  /** Nobody asks this one any more: its room is for others. */
  release(spare: SpareBytes): void {
    spare.give(this.#base);
    this.#base = new Uint8Array(0);
  }

  /** Sectors that may hold something else than the base value. */
  get sectors(): readonly number[] {
    return [...this.#writes.keys()];
  }

  /** Copies the base values. */
  copyBase(target: Uint8Array): void {
    target.set(this.#base);
  }

  /** Says what a sector held before its first write. Of later ones it knows better. */
  rebase(sector: number, bytes: Uint8Array): void {
    if (this.rebased.has(sector)) return;
    this.rebased.add(sector);
    this.#base.set(bytes, sector * SECTOR_SIZE);
  }

  begin(offset: ByteOffset, bytes: Uint8Array, now: number): WriteRecord {
    const write: WriteRecord = {
      offset,
      bytes,
      start: now,
      end: Infinity,
      failed: false,
      stable: false,
      doomed: false,
    };
    const last = lastSectorOf(write);
    for (let sector = offset / SECTOR_SIZE; sector <= last; sector++) {
      const writes = this.#writes.get(sector);
      if (writes === undefined) this.#writes.set(sector, [write]);
      else writes.push(write);
    }
    return write;
  }

  end(write: WriteRecord, now: number, failed: boolean): void {
    write.end = now;
    write.failed = failed;
    if (!failed) this.#ended.push(write);
  }

  /** A write in flight is known to have done nothing. */
  withdraw(write: WriteRecord): void {
    const last = lastSectorOf(write);
    for (let sector = write.offset / SECTOR_SIZE; sector <= last; sector++) {
      const writes = this.#writes.get(sector)?.filter((other) => other !== write) ?? [];
      if (writes.length > 0) this.#writes.set(sector, writes);
      else this.#writes.delete(sector);
    }
  }

  /**
   * Whatever ended before `start` is durable.
   * @param horizon nobody asks any more what was to be seen before it
   */
  stabilize(start: number, horizon: number): void {
    const stable = this.#ended.filter((write) => write.end < start);
    this.#ended = this.#ended.filter((write) => write.end >= start);
    for (const write of stable) write.stable = true;
    for (const write of stable) {
      const last = lastSectorOf(write);
      for (let sector = write.offset / SECTOR_SIZE; sector <= last; sector++) this.#prune(sector, horizon);
    }
  }

  /** A write that is durable by itself ended, whatever became of others before it. */
  makeStable(write: WriteRecord, horizon: number): void {
    write.stable = true;
    this.#ended = this.#ended.filter((ended) => ended !== write);
    const last = lastSectorOf(write);
    for (let sector = write.offset / SECTOR_SIZE; sector <= last; sector++) this.#prune(sector, horizon);
  }

  /** A flush that began at `start` failed. */
  doom(start: number): void {
    for (const write of this.#ended) if (write.end < start) write.doomed = true;
  }

  /** Forgets what can never be found again; a sector with one value left goes back to the base. */
  #prune(sector: number, horizon: number): void {
    const writes = this.#writes.get(sector);
    if (writes === undefined) return;
    const [single] = writes;
    const isOnly = writes.length === 1;
    if (isOnly && single?.stable && single.end < horizon) {
      this.#base.set(sectorOfWrite(single, sector), sector * SECTOR_SIZE);
      this.#writes.delete(sector);
    }
    if (isOnly) return;
    const settled = writes.filter((write) => write.stable && write.end < horizon);
    const left = writes.filter((write) => !settled.some((later) => supersedes(later, write)));
    if (left.length === writes.length) return;
    this.#writes.set(sector, left);
    // Down to one it may go to the base.
    this.#prune(sector, horizon);
  }

  /** What may be seen in a sector from a moment up to now; the base value comes first, if it may. */
  seen(sector: number, from: number): Candidate[] {
    const writes = this.#writes.get(sector) ?? [];
    const candidates: Candidate[] = [];
    const endOf = (isLater: (other: WriteRecord) => boolean) =>
      writes.reduce(
        (least, other) => (!other.failed && isLater(other) ? Math.min(least, other.end) : least),
        Infinity,
      );
    const baseUntil = endOf(() => true);
    if (baseUntil >= from) candidates.push({ bytes: this.baseOf(sector), after: -1, before: baseUntil });
    for (const write of writes) {
      const before = endOf((other) => supersedes(other, write));
      if (before >= from)
        candidates.push({ bytes: sectorOfWrite(write, sector), after: write.start, before });
    }
    return candidates;
  }

  /** What may be found in a sector after a crash. @param isStable which writes count as durable */
  surviving(sector: number, isStable: (write: WriteRecord) => boolean): Uint8Array[] {
    const writes = this.#writes.get(sector) ?? [];
    const stable = writes.filter(isStable);
    const values = writes
      .filter((write) => !stable.some((later) => supersedes(later, write)))
      .map((write) => sectorOfWrite(write, sector));
    if (stable.length === 0) values.push(this.baseOf(sector));
    return values;
  }

  /** All was found out: these are the values, and nothing else is possible any more. */
  settle(actual: Uint8Array): void {
    // All other sectors have their base value and nothing else.
    for (const sector of this.#writes.keys()) {
      const at = sector * SECTOR_SIZE;
      this.#base.set(actual.subarray(at, at + SECTOR_SIZE), at);
    }
    this.#writes.clear();
    this.#ended = [];
  }

  /**
   * The process died but its disk lives on: `actual` is what reads find from now on, but not durable yet. Where several
   * values were possible it becomes one more, which ends them for readers and leaves them open for a power cut.
   * @param died the moment it died; `now` is later
   */
  adopt(actual: Uint8Array, died: number, now: number): void {
    const bytes = new Uint8Array(actual);
    const adopted: WriteRecord = {
      offset: 0,
      bytes,
      start: now,
      end: now,
      failed: false,
      stable: false,
      doomed: false,
    };
    for (const writes of this.#writes.values()) {
      for (const write of writes) {
        if (write.end !== Infinity) continue;
        write.end = died;
        write.failed = true;
      }
      writes.push(adopted);
    }
    this.#ended.push(adopted);
  }

  /** The value of a sector before all writes that are remembered: not a copy, and good until the next change. */
  baseOf(sector: number): Uint8Array {
    return this.#base.subarray(sector * SECTOR_SIZE, (sector + 1) * SECTOR_SIZE);
  }
}

export function sectorOfWrite(write: WriteRecord, sector: number): Uint8Array {
  const at = sector * SECTOR_SIZE - write.offset;
  return write.bytes.subarray(at, at + SECTOR_SIZE);
}

/** Itself if it is as long, or longer; else the same bytes with zeros behind them. */
export function lengthened(bytes: Uint8Array, length: ByteLength): Uint8Array {
  if (bytes.byteLength >= length) return bytes;
  const longer = new Uint8Array(length);
  longer.set(bytes);
  return longer;
}

const lastSectorOf = (write: WriteRecord): number =>
  (write.offset + write.bytes.byteLength) / SECTOR_SIZE - 1;
