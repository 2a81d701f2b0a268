/**
 * What changed between two moments: the blocks that have a copy in any snapshot from the older moment on, up to the
 * newer one, or whose content moved, or that only one of the two skips as unused. Exact at 16 KiB, and nothing has to be kept for it besides the tables. A range of the volume costs what
 * it covers, 32 blocks at a time.
 */

import type { DiffArea } from '../diff-area/diff-area.js';
import { firstPageOf, type PagedBlocks, pagesOf } from '../diff-area/paged-blocks.js';
import { BLOCKS_PER_PAGE, emptyPresence } from '../diff-area/presence.js';
import { foundIn } from '../diff-area/unused-blocks.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import { BLOCK_SIZE, type BlockNumber, type ByteLength, type ByteOffset, blocksIn } from '../units.js';

/** A range of bytes of a volume. */
export interface ChangedExtent {
  readonly offset: ByteOffset;
  readonly length: ByteLength;
}

export interface ChangedBlocksOptions {
  /** Default: when the volume was all zeros, so that everything but what is known to be zero has changed. */
  readonly since?: Snapshot | undefined;
  /** Default: now. */
  readonly until?: Snapshot | undefined;
  /** Extents begin and end at multiples of so many bytes, or at the volume's end; default: where the changes do. */
  readonly alignment?: ByteLength;
  /** Compare the bytes and leave out blocks that are equal again. */
  readonly compare?: boolean;
  /** Without what `since` leaves out as unused, which may read otherwise now: for pictures and figures, not for backups. */
  readonly copiedOnly?: boolean;
  /** Only what lies in this range, which costs accordingly; default: all. */
  readonly offset?: ByteOffset;
  readonly length?: ByteLength;
  readonly signal?: AbortSignal;
}

/** Consecutive blocks `[start, end)`. */
export interface BlockRun {
  readonly start: BlockNumber;
  readonly end: BlockNumber;
}

const WORD_BITS = 32;

/** Longest runs of blocks `[first, end)` that are in any of the tables, ascending. */
export function* runsOf(
  tables: readonly PagedBlocks[],
  first: BlockNumber,
  end: BlockNumber,
): Generator<BlockRun> {
  if (first >= end) return;
  const presence = emptyPresence();
  let start = -1;
  /** The end of the last page that was looked at. */
  let known = first;
  const firstPage = Math.floor(first / BLOCKS_PER_PAGE);
  for (const page of pagesOf(tables, firstPage, Math.ceil(end / BLOCKS_PER_PAGE))) {
    const base = page * BLOCKS_PER_PAGE;
    if (start >= 0 && base > known) {
      yield { start, end: known };
      start = -1;
    }
    known = Math.min(end, base + BLOCKS_PER_PAGE);
    presence.fill(0);
    for (const table of tables) table.addPresence(page, presence);
    for (let word = 0; word < presence.length; word++) {
      const at = base + word * WORD_BITS;
      const bits = (presence[word] ?? 0) & wordMask(at, first, end);
      for (let bit = 0; bit < WORD_BITS; ) {
        const rest = (start < 0 ? bits : ~bits) >>> bit;
        if (rest === 0) break; // Nothing begins, or nothing ends, in what is left of the word.
        bit += lowestBit(rest);
        if (start < 0) start = at + bit;
        else {
          yield { start, end: at + bit };
          start = -1;
        }
      }
    }
  }
  if (start >= 0) yield { start, end: known };
}

const lowestBit = (word: number): number => WORD_BITS - 1 - Math.clz32(word & -word);

/** The bits of the word for blocks from `at` on that lie within `[first, end)`, which is not empty. */
function wordMask(at: BlockNumber, first: BlockNumber, end: BlockNumber): number {
  if (at >= first && at + WORD_BITS <= end) return -1;
  if (at + WORD_BITS <= first || at >= end) return 0;
  const low = Math.max(0, first - at);
  const high = Math.min(WORD_BITS, end - at);
  return (-1 >>> (WORD_BITS - (high - low))) << low;
}

/** Ascending runs as extents of bytes, neighbours merged, cut at the end of the volume. */
export function* extentsOf(runs: Iterable<BlockRun>, volumeSize: ByteLength): Generator<ChangedExtent> {
  let start = -1;
  let end = -1;
  const extent = () => ({
    offset: start * BLOCK_SIZE,
    length: Math.min(end * BLOCK_SIZE, volumeSize) - start * BLOCK_SIZE,
  });
  for (const run of runs) {
    if (run.start * BLOCK_SIZE >= volumeSize) break;
    if (start >= 0 && run.start <= end) {
      end = Math.max(end, run.end);
      continue;
    }
    if (start >= 0) yield extent();
    start = run.start;
    end = run.end;
  }
  if (start >= 0) yield extent();
}

export interface ChangedRange {
  /** Size of the volume at the older moment. */
  readonly sizeBefore: ByteLength;
  /** Size at the newer one; what the volume has grown by has changed. */
  readonly size: ByteLength;
  /** Only what lies from here on; default 0. */
  readonly offset?: ByteOffset | undefined;
  /** Only so much; default: to the end. */
  readonly length?: ByteLength | undefined;
}

/** What changed, cut at the edges of the range. */
export function* changedExtents(
  tables: readonly PagedBlocks[],
  { sizeBefore, size, offset = 0, length = size }: ChangedRange,
): Generator<ChangedExtent> {
  const end = Math.min(size, offset + length);
  if (offset >= end) return;
  const [first, last] = [Math.floor(offset / BLOCK_SIZE), blocksIn(end)];
  const known = Math.min(last, Math.max(first, grownFrom(sizeBefore, size)));
  for (const extent of extentsOf(withEnd(runsOf(tables, first, known), known, last), end))
    yield cutBefore(extent, offset);
}

/**
 * The blocks that read otherwise at the newer moment, as far as diff areas know: that have a copy in any of `passed`, the areas
 * from the older moment on; also those that the older one skips as unused, unless the newer one skips them too.
 * @param later the areas from the newer moment on; none if that is now
 */
export function blocksChanged(passed: readonly DiffArea[], later: readonly DiffArea[]): PagedBlocks[] {
  // What has moved may have been overwritten without a copy.
  const all = passed.flatMap((area) => [...foundIn(area), area.moves]);
  if (passed.every(({ unused }) => unused === undefined)) return all;
  return [
    {
      hasPage: (page) => all.some((blocks) => blocks.hasPage(page)),
      pageFrom: (page) => firstPageOf(all, page),
      addPresence: (page, bitmap) => {
        const before = emptyPresence();
        const changed = emptyPresence();
        addSkipped(passed, page, before, changed);
        if (before.some((word) => word !== 0)) {
          const after = emptyPresence();
          addSkipped(later, page, after, emptyPresence());
          for (let i = 0; i < changed.length; i++)
            changed[i] = (changed[i] ?? 0) & ~((before[i] ?? 0) & (after[i] ?? 0));
        }
        for (let i = 0; i < bitmap.length; i++) bitmap[i] = (bitmap[i] ?? 0) | (changed[i] ?? 0);
      },
    },
  ];
}

/** @param skipped receives what reads as zeros because it is skipped; @param found what a reader finds in the areas at all */
function addSkipped(
  areas: readonly DiffArea[],
  page: number,
  skipped: Uint32Array,
  found: Uint32Array,
): void {
  for (const { table, moves, unused } of areas) {
    table.addPresence(page, found);
    moves.addPresence(page, found);
    if (unused === undefined) continue;
    const own = emptyPresence();
    unused.addPresence(page, own);
    for (let i = 0; i < own.length; i++) {
      skipped[i] = (skipped[i] ?? 0) | ((own[i] ?? 0) & ~(found[i] ?? 0));
      found[i] = (found[i] ?? 0) | (own[i] ?? 0);
    }
  }
}

/** The first block that was not there, or not whole, at the older moment; behind the end if the volume has not grown. */
export const grownFrom = (sizeBefore: ByteLength, size: ByteLength): BlockNumber =>
  size > sizeBefore ? Math.floor(sizeBefore / BLOCK_SIZE) : blocksIn(size);

/** What is left of an extent, which ends behind `offset`, from there on. */
export function cutBefore(extent: ChangedExtent, offset: ByteOffset): ChangedExtent {
  const from = Math.max(offset, extent.offset);
  return { offset: from, length: extent.offset + extent.length - from };
}

/** `runs` below `from`, then every block from there up to `end`. */
function* withEnd(runs: Iterable<BlockRun>, from: BlockNumber, end: BlockNumber): Generator<BlockRun> {
  yield* runs;
  if (from < end) yield { start: from, end };
}
