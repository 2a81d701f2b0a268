/**
 * What a snapshot must read: the volume at one moment between the call that made it and its return.
 *
 * Which of the writes in flight meanwhile are in is not known until it is read. Each sector then narrows the moment
 * down (a write that is in had started before it; one that would have replaced it had not ended), and for a set of
 * snapshots there is one moment for all volumes. If no moment is left, the snapshot mixes two states. What was found
 * once must be found ever after, except in sectors that were written in the snapshot itself: what these may hold is a history of
 * its own. A block that nothing used may have been left out: then all of it is zero.
 */

import { assert } from '../errors.js';
import {
  BLOCK_SIZE,
  type BlockNumber,
  type ByteLength,
  type ByteOffset,
  blockOf,
  SECTOR_SIZE,
} from '../units.js';
import type { ModelSizes } from './model-sizes.js';
import { explainSector } from './sector-data.js';
import { type Candidate, SectorHistory, type WriteRecord } from './sector-history.js';
import type { SpareBytes } from './spare-bytes.js';

/** Bytes compared at once before single sectors are looked at. */
const CHUNK = 32 * SECTOR_SIZE;

/** The moment of a snapshot, or of a set of them, as far as it is known: after the one and before the other. */
export interface Moment {
  after: number;
  before: number;
}

/**
 * - `creating`: called, not returned; or ended by a crash or an error: whole or absent
 * - `present`: it was created
 * - `deleting`: as `creating`, for its deletion
 */
export type SnapshotState = 'creating' | 'present' | 'deleting';

export interface SnapshotParts {
  readonly name: string;
  /** When its creation began. */
  readonly start: number;
  readonly moment: Moment;
  /** How long the volume may have been at its moment. */
  readonly sizes: ModelSizes;
  /** Blocks that may be left out. */
  readonly unused?: ReadonlySet<BlockNumber> | undefined;
  readonly spare: SpareBytes;
}

export class SnapshotModel {
  readonly name: string;
  readonly moment: Moment;
  state: SnapshotState = 'creating';
  readonly start: number;
  /** Reads in flight: what they return is checked even if the snapshot is gone by then. */
  readers = 0;
  /** Its content once its window is closed, right except for the sectors in `#open`. */
  #bytes: Uint8Array | undefined;
  /** Does a clone have the same bytes? Then they are copied before they are changed. */
  #isShared = false;
  readonly #open = new Map<number, Candidate[]>();
  /** What was written to the snapshot itself, once something was. */
  #written: SectorHistory | undefined;
  /** When the reads in flight began. */
  readonly #reads = new Set<number>();
  /** Blocks that may be left out. */
  readonly #unused: ReadonlySet<BlockNumber>;
  readonly sizes: ModelSizes;
  readonly #spare: SpareBytes;

  constructor({ name, start, moment, sizes, unused = new Set<BlockNumber>(), spare }: SnapshotParts) {
    this.name = name;
    this.start = start;
    this.moment = moment;
    this.sizes = sizes;
    this.#unused = unused;
    this.#spare = spare;
  }

  get isClosed(): boolean {
    return this.#bytes !== undefined;
  }

  /**
   * No later moment is possible: the creation returned, or a crash came.
   * @param history of the volume
   */
  close(history: SectorHistory, now: number): void {
    assert(this.#bytes === undefined, () => `the creation of ${this.name} ended twice`);
    const bytes = this.#spare.take(history.size);
    this.moment.before = Math.min(this.moment.before, now);
    history.copyBase(bytes);
    for (const sector of history.sectors) {
      const candidates = history.seen(sector, this.start);
      const [only] = candidates;
      if (candidates.length === 1 && only !== undefined) bytes.set(only.bytes, sector * SECTOR_SIZE);
      else this.#open.set(sector, candidates.map(kept));
    }
    this.#leaveOut(bytes);
    this.#bytes = bytes;
  }

  /** What may be left out is as it was, or zero. */
  #leaveOut(bytes: Uint8Array): void {
    for (const block of this.#unused) {
      const end = Math.min((block + 1) * BLOCK_SIZE, bytes.byteLength);
      const start = block * BLOCK_SIZE;
      const whole = bytes.slice(start, Math.max(start, end));
      for (let at = start; at < end; at += SECTOR_SIZE) {
        const sector = at / SECTOR_SIZE;
        const known = this.#open.get(sector) ?? [
          { bytes: whole.subarray(at - start, at - start + SECTOR_SIZE), after: -Infinity, before: Infinity },
        ];
        this.#open.set(sector, [...known, ZEROS]);
      }
    }
  }

  /** Sectors of which it is not known yet which of several values they have. */
  get openSectors(): number {
    return this.#open.size;
  }

  /** Is it known what these whole sectors hold, or may hold? */
  isKnown(offset: ByteOffset, length: ByteLength): boolean {
    if (!this.isClosed) return false;
    for (let at = offset; at < offset + length; at += SECTOR_SIZE)
      if (this.#open.has(at / SECTOR_SIZE)) return false;
    return true;
  }

  /** A write of whole sectors to the snapshot itself begins. None of them may be in doubt: they were read before. */
  beginWrite(offset: ByteOffset, source: Uint8Array, now: number): WriteRecord {
    const bytes = this.#bytes;
    assert(bytes !== undefined, () => `snapshot ${this.name} was written before it was created`);
    this.#written ??= new SectorHistory(this.#spare.copy(bytes));
    for (let at = offset; at < offset + source.byteLength; at += SECTOR_SIZE) {
      assert(!this.#open.has(at / SECTOR_SIZE), () => `sector ${at / SECTOR_SIZE} was not read before`);
      this.#written.rebase(at / SECTOR_SIZE, bytes.subarray(at, at + SECTOR_SIZE));
    }
    return this.#written.begin(offset, new Uint8Array(source), now);
  }

  endWrite(write: WriteRecord, now: number, failed: boolean): void {
    this.#written?.end(write, now, failed);
  }

  beginRead(now: number): void {
    this.#reads.add(now);
  }

  endRead(start: number): void {
    this.#reads.delete(start);
  }

  /** Writes that ended before `start` are durable. */
  flushed(start: number): void {
    this.#written?.stabilize(start, Math.min(...this.#reads, Infinity));
  }

  /** What was not flushed is there or not: in doubt until it is read. */
  crash(): void {
    const history = this.#written;
    this.#written = undefined;
    this.#reads.clear();
    for (const sector of history?.sectors ?? []) {
      const values = history?.surviving(sector, ({ stable }) => stable) ?? [];
      this.#open.set(
        sector,
        values.map((bytes) => ({ bytes, after: -1, before: Infinity })),
      );
    }
    // What went back to the base had been flushed.
    if (history === undefined) return;
    for (const sector of history.rebased)
      if (!this.#open.has(sector)) this.#setSector(sector, history.baseOf(sector));
  }

  /**
   * Compares whole sectors that were read at `offset`, and remembers what they settled. Returns what is wrong.
   * @param since when the read began
   */
  check(offset: ByteOffset, actual: Uint8Array, since: number): string[] {
    if (this.#bytes === undefined) return [`snapshot ${this.name} was read before it was created`];
    const wrong: string[] = [];
    if (this.#open.size > 0) this.#settle(offset, actual, wrong);
    const bytes = this.#bytes;
    for (const sector of differingSectors(bytes, offset, actual)) {
      if (this.#open.has(sector)) continue;
      const at = sector * SECTOR_SIZE;
      const found = actual.subarray(at - offset, at - offset + SECTOR_SIZE);
      if (this.#written?.rebased.has(sector)) continue;
      wrong.push(explainSector(sector, found, [bytes.subarray(at, at + SECTOR_SIZE)]));
    }
    this.#checkWritten(offset, actual, since, wrong);
    return wrong.map((text) => `snapshot ${this.name}: ${text}`);
  }

  #checkWritten(offset: ByteOffset, actual: Uint8Array, since: number, wrong: string[]): void {
    const history = this.#written;
    for (const sector of history?.rebased ?? []) {
      const at = sector * SECTOR_SIZE - offset;
      if (history === undefined || at < 0 || at >= actual.byteLength) continue;
      const found = actual.subarray(at, at + SECTOR_SIZE);
      const allowed = history.seen(sector, since).map((candidate) => candidate.bytes);
      if (!allowed.some((value) => Buffer.compare(value, found) === 0))
        wrong.push(explainSector(sector, found, allowed));
    }
  }

  /** Decides the open sectors in the range by what was found there. */
  #settle(offset: ByteOffset, actual: Uint8Array, wrong: string[]): void {
    for (const [sector, candidates] of this.#open) {
      const at = sector * SECTOR_SIZE - offset;
      if (at < 0 || at >= actual.byteLength) continue;
      const found = actual.subarray(at, at + SECTOR_SIZE);
      const matching = candidates.filter((candidate) => Buffer.compare(candidate.bytes, found) === 0);
      const [only] = matching;
      if (only === undefined) {
        wrong.push(
          explainSector(
            sector,
            found,
            candidates.map((candidate) => candidate.bytes),
          ),
        );
        continue;
      }
      this.#setSector(sector, found);
      this.#open.delete(sector);
      if (this.#unused.has(blockOf(sector * SECTOR_SIZE))) this.#settleBlock(sector, matching);
      // Two writes of the same bytes cannot be told apart, so they say nothing about the moment.
      if (matching.length > 1) continue;
      this.moment.after = Math.max(this.moment.after, only.after);
      this.moment.before = Math.min(this.moment.before, only.before);
      if (this.moment.after >= this.moment.before) {
        wrong.push(`it mixes two moments: sector ${sector} is as of a moment that other sectors rule out`);
      }
    }
  }

  /** A block is left out whole, or not at all: what one sector tells holds for the others. */
  #settleBlock(sector: number, matching: readonly Candidate[]): void {
    const isLeftOut = matching.every((candidate) => candidate === ZEROS);
    if (!isLeftOut && matching.includes(ZEROS)) return;
    const first = blockOf(sector * SECTOR_SIZE) * (BLOCK_SIZE / SECTOR_SIZE);
    for (let other = first; other < first + BLOCK_SIZE / SECTOR_SIZE; other++) {
      const candidates = this.#open.get(other);
      // What was written to the snapshot itself is there either way.
      if (candidates?.includes(ZEROS) !== true) continue;
      this.#open.set(other, isLeftOut ? [ZEROS] : candidates.filter((candidate) => candidate !== ZEROS));
    }
  }

  /** An equal one, which what happens to this one does not touch. @param moment its own, or that of its set */
  clone(moment: Moment): SnapshotModel {
    const { name, start } = this;
    const sizes = this.sizes.clone();
    const copy = new SnapshotModel({ name, start, moment, sizes, unused: this.#unused, spare: this.#spare });
    copy.state = this.state;
    copy.#bytes = this.#bytes;
    copy.#isShared = true;
    this.#isShared = true;
    for (const [sector, candidates] of this.#open) copy.#open.set(sector, candidates);
    copy.#written = this.#written?.clone(this.#spare);
    return copy;
  }

  /** This one is gone: the room for its content is for others, unless it is in use elsewhere. */
  release(): void {
    if (this.#bytes !== undefined && !this.#isShared && this.readers === 0) this.#spare.give(this.#bytes);
  }

  #setSector(sector: number, found: Uint8Array): void {
    const at = sector * SECTOR_SIZE;
    const bytes = this.#bytes;
    if (bytes === undefined || Buffer.compare(bytes.subarray(at, at + SECTOR_SIZE), found) === 0) return;
    if (this.#isShared) this.#bytes = this.#spare.copy(bytes);
    this.#isShared = false;
    this.#bytes?.set(found, at);
  }
}

/** A candidate to be kept. The base value, which is from before all writes, is to change. */
const kept = (candidate: Candidate): Candidate =>
  candidate.after < 0 ? { ...candidate, bytes: candidate.bytes.slice() } : candidate;

/** Of a block that is left out. */
const ZEROS: Candidate = { bytes: new Uint8Array(SECTOR_SIZE), after: -Infinity, before: Infinity };

/** Numbers of the sectors in which `actual`, read at `offset`, differs from `expected`, a whole volume. */
export function* differingSectors(
  expected: Uint8Array,
  offset: ByteOffset,
  actual: Uint8Array,
): Generator<number> {
  // As buffers, which compare ranges in place: a view for each would cost more than the comparison.
  const wanted = Buffer.from(expected.buffer, expected.byteOffset, expected.byteLength);
  const isEqual = (from: number, to: number) =>
    wanted.compare(actual, from - offset, to - offset, from, to) === 0;
  const last = offset + actual.byteLength;
  if (isEqual(offset, last)) return;
  for (let at = offset; at < last; at += CHUNK) {
    const end = Math.min(at + CHUNK, last);
    if (isEqual(at, end)) continue;
    for (let from = at; from < end; from += SECTOR_SIZE) {
      if (!isEqual(from, from + SECTOR_SIZE)) yield from / SECTOR_SIZE;
    }
  }
}
