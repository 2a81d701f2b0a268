/**
 * Marks of a revert, in the table chain of the snapshot that was taken at its beginning.
 *
 * A mark takes the place of an entry and has its flag `unused`, so readers of the format pass it over. What tells it from an
 * entry that was given up is the kind, which lies where that has zero.
 *
 *     0 u64 offset of the first block | 8 u64 length in bytes | 16 u64 kind | 24 u32 flags (4) | 28 u32 checksum
 *
 * The checksum covers the 28 bytes before it and the epoch of the diff area.
 */
import { crc32 } from '../crc32.js';
import { BLOCK_SIZE, type BlockNumber, offsetOfBlock } from '../units.js';
import { viewOf } from './binary.js';
import {
  ENTRY_CHECKED_SIZE,
  EntryFlag,
  entryBitmap,
  entryFlags,
  entryOriginalOffset,
  entryRelativeOffset,
  entryVolumeOffset,
  epochBytesOf,
  writeOrdinaryEntry,
} from './table-block.js';

export const MarkKind = {
  /** These blocks need not be put back any more: what they are to hold is in the volume, durably. */
  done: 1,
  /** From here on the volume is put back to the snapshot of this diff area; marks before this one do not count any more. */
  cancelled: 2,
} as const;
export type MarkKind = (typeof MarkKind)[keyof typeof MarkKind];

export interface RevertMark {
  readonly kind: MarkKind;
  readonly first: BlockNumber;
  /** Blocks; 0 in a mark that is not about blocks. */
  readonly count: number;
}

export const CANCELLED: RevertMark = { kind: MarkKind.cancelled, first: 0, count: 0 };

/** Writes a mark at byte `at` of the image of a table block. */
export function writeRevertMark(image: Uint8Array, at: number, mark: RevertMark, epoch: bigint): void {
  const view = viewOf(image);
  const { kind, first, count } = mark;
  writeOrdinaryEntry(view, at, offsetOfBlock(first), count * BLOCK_SIZE, kind, EntryFlag.unused, 0);
  view.setUint32(at + ENTRY_CHECKED_SIZE, markChecksum(image, at, epoch), true);
}

/** Is the entry at `at` a mark, sound or not? */
export const isRevertMark = (view: DataView, at: number): boolean =>
  entryFlags(view, at) === EntryFlag.unused && entryVolumeOffset(view, at) !== 0;

/** The mark at `at`, or `undefined` if it is not one that was written here whole. */
export function readRevertMark(image: Uint8Array, at: number, epoch: bigint): RevertMark | undefined {
  const view = viewOf(image);
  if (entryBitmap(view, at) !== markChecksum(image, at, epoch)) return undefined;
  const kind = Object.values(MarkKind).find((known) => known === entryVolumeOffset(view, at));
  const first = entryOriginalOffset(view, at) / BLOCK_SIZE;
  const count = entryRelativeOffset(view, at) / BLOCK_SIZE;
  if (kind === undefined || !Number.isSafeInteger(first) || !Number.isSafeInteger(count)) return undefined;
  return { kind, first, count };
}

const markChecksum = (image: Uint8Array, at: number, epoch: bigint): number =>
  crc32(epochBytesOf(epoch), crc32(image.subarray(at, at + ENTRY_CHECKED_SIZE)));
