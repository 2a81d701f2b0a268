/**
 * What is known to be zero in a snapshot: copies of zeros, what is skipped as unused, and what the volume knows of the blocks
 * that have no copy.
 *
 * The order is that of reading: the volume is asked first, the tables are looked at after its answer. A copy is published
 * before its block is overwritten, so a block without one then was in the volume what it was in the snapshot when the
 * volume answered. However late that look is, it is right.
 *
 * The cost follows what is in the tables and extents of the volume, not the size of either: what is empty is passed over at once.
 */
import { type AllocationExtent, allocationOf } from '../device/allocation.js';
import type { BlockDevice } from '../device/block-device.js';
import { FixedSlot } from '../diff-area/area-slots.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { firstPageOf, type PagedBlocks } from '../diff-area/paged-blocks.js';
import { BLOCKS_PER_PAGE, emptyPresence, setBits } from '../diff-area/presence.js';
import { foundIn } from '../diff-area/unused-blocks.js';
import {
  BLOCK_SIZE,
  type BlockNumber,
  type ByteLength,
  type ByteOffset,
  blockOf,
  offsetOfBlock,
} from '../units.js';

const PAGE_BYTES = BLOCKS_PER_PAGE * BLOCK_SIZE;

/** Consecutive extents of the volume. */
interface Group {
  readonly offset: ByteOffset;
  readonly extents: readonly AllocationExtent[];
}

/**
 * @param areas gives the diff areas of the snapshot itself and of all newer ones, in order of age; asked again and again,
 *   because a snapshot may have been taken meanwhile
 * @returns extents that make up the range; neighbours may be of one kind
 */
export async function* snapshotAllocation(
  areas: () => readonly DiffArea[],
  volume: BlockDevice,
  offset: ByteOffset,
  length: ByteLength,
): AsyncGenerator<AllocationExtent> {
  for await (const group of groupsOf(volume, offset, length)) yield* underCopies(areas, group);
}

/** What the volume knows of the range. Short extents come together, so that tables are looked at page by page. */
async function* groupsOf(volume: BlockDevice, offset: ByteOffset, length: ByteLength): AsyncGenerator<Group> {
  const end = offset + length;
  let extents: AllocationExtent[] = [];
  let start = offset;
  let at = offset;
  const inVolume = Math.max(0, Math.min(end, volume.size) - offset);
  for await (const extent of allocationOf(volume, offset, inVolume)) {
    extents.push(extent);
    at += extent.length;
    if (at - start < PAGE_BYTES) continue;
    yield { offset: start, extents };
    extents = [];
    start = at;
  }
  // Of a volume that was cut off only the copies are left.
  if (at < end) extents.push({ length: end - at, zero: false });
  if (extents.length > 0) yield { offset: start, extents };
}

/** Lays what the tables say over what the volume said. */
function* underCopies(
  areas: () => readonly DiffArea[],
  { offset, extents }: Group,
): Generator<AllocationExtent> {
  const end = extents.reduce((sum, { length }) => sum + length, offset);
  let at = offset;
  let index = 0;
  let extentEnd: ByteOffset = offset + (extents[0]?.length ?? 0);
  for (const run of copiesIn(areas, offset, end)) {
    if (run.copiesAreZero !== undefined) {
      yield { length: run.end - at, zero: run.copiesAreZero };
      at = run.end;
    }
    while (at < run.end) {
      while (extentEnd <= at) extentEnd += extents[++index]?.length ?? end;
      const until = Math.min(run.end, extentEnd);
      yield { length: until - at, zero: extents[index]?.zero ?? false };
      at = until;
    }
  }
}

/** Blocks of one kind, from the end of the run before. */
interface CopyRun {
  readonly end: ByteOffset;
  /** `undefined`: they have no copy. */
  readonly copiesAreZero: boolean | undefined;
}

function* copiesIn(
  areas: () => readonly DiffArea[],
  offset: ByteOffset,
  end: ByteOffset,
): Generator<CopyRun> {
  for (let at = offset; at < end; ) {
    const page = Math.floor(at / PAGE_BYTES);
    const having = areas().filter((area) => blocksOf(area).some((blocks) => blocks.hasPage(page)));
    let until: ByteOffset;
    if (having.length > 0) {
      until = Math.min(end, (page + 1) * PAGE_BYTES);
      yield* copiesInPage(having, page, at, until);
    } else {
      const next = firstPageOf(areas().flatMap(blocksOf), page);
      until = next === undefined ? end : Math.min(end, next * PAGE_BYTES);
      yield { end: until, copiesAreZero: undefined };
    }
    at = until;
  }
}

const blocksOf = (area: DiffArea): readonly PagedBlocks[] => [...foundIn(area), area.moves];

function* copiesInPage(
  areas: readonly DiffArea[],
  page: number,
  offset: ByteOffset,
  end: ByteOffset,
): Generator<CopyRun> {
  const base = page * BLOCKS_PER_PAGE;
  const copied = emptyPresence();
  const zeros = emptyPresence();
  for (const { table, moves, unused } of areas) {
    const own = emptyPresence();
    table.addPresence(page, own);
    // What has moved is somewhere else, and nobody asks whether it is zero there.
    moves.addPresence(page, own);
    addTo(copied, own);
    for (const block of setBits(own, base)) {
      if (table.slotOf(block) === FixedSlot.zeros) setBit(zeros, block - base);
    }
    if (unused === undefined) continue;
    const skipped = emptyPresence();
    unused.addPresence(page, skipped);
    addTo(copied, skipped);
    for (let i = 0; i < skipped.length; i++) zeros[i] = (zeros[i] ?? 0) | (skipped[i] ?? 0);
  }
  const kindOf = (block: BlockNumber) =>
    hasBit(copied, block - base) ? hasBit(zeros, block - base) : undefined;
  const last = blockOf(end - 1);
  let kind = kindOf(blockOf(offset));
  for (let block = blockOf(offset) + 1; block <= last; block++) {
    // Most words of most pages are empty.
    if (kind === undefined && block % 32 === 0 && (copied[(block - base) >>> 5] ?? 0) === 0) {
      block += 31;
      continue;
    }
    const next = kindOf(block);
    if (next === kind) continue;
    yield { end: offsetOfBlock(block), copiesAreZero: kind };
    kind = next;
  }
  yield { end, copiesAreZero: kind };
}

/** Leaves in `own` only what `copied` does not have yet, because the oldest counts, and adds that. */
function addTo(copied: Uint32Array, own: Uint32Array): void {
  for (let i = 0; i < own.length; i++) own[i] = (own[i] ?? 0) & ~(copied[i] ?? 0);
  for (let i = 0; i < own.length; i++) copied[i] = (copied[i] ?? 0) | (own[i] ?? 0);
}

const hasBit = (bitmap: Uint32Array, bit: number): boolean =>
  (((bitmap[bit >>> 5] ?? 0) >>> (bit & 31)) & 1) === 1;

function setBit(bitmap: Uint32Array, bit: number): void {
  bitmap[bit >>> 5] = (bitmap[bit >>> 5] ?? 0) | (1 << (bit & 31));
}
