/**
 * Diff-area table blocks: 508 entries of 32 bytes, each saying where one block of the snapshot lies.
 *
 * A table can have millions of entries, so reading and writing one allocates nothing: functions over a view and a
 * byte position. The object form is for tests and for what happens rarely.
 */
import { crc32 } from '../crc32.js';
import { assert } from '../errors.js';
import { BLOCK_SIZE, type ByteOffset } from '../units.js';
import { badField, type ReadContext, readU64Rounded, viewOf, writeU64 } from './binary.js';
import { type BlockHeader, decodeHeader, encodeHeader, headerOf, type NewBlock } from './block-header.js';
import { BlockType, ENTRIES_PER_TABLE_BLOCK, ENTRY_SIZE, HEADER_SIZE } from './constants.js';
import { structure } from './structure.js';

/** Bits of an entry's flags that change how it is read; all others are kept and mean an ordinary copy. */
export const EntryFlag = {
  /** The content of the block now lies at another offset of the volume. */
  move: 1,
  /** Only the sectors of the bitmap are stored; they are writes to the snapshot itself. */
  overlay: 2,
  /** The entry is to be ignored. */
  unused: 4,
} as const;

export interface TableEntry {
  /** Offset of the block in the snapshot. */
  readonly originalOffset: ByteOffset;
  /** Offset of the copy in the diff-area file; of a move, the offset of the volume that it moved to. */
  readonly relativeOffset: ByteOffset;
  /** Device offset of the copy; 0 for a move. */
  readonly volumeOffset: ByteOffset;
  readonly flags: number;
  /** Overlay: its sectors, bit 0 first. Ordinary entry of ours: the checksum. Else 0. */
  readonly bitmap: number;
}

// 0 u64 original offset | 8 u64 relative offset | 16 u64 volume offset | 24 u32 flags | 28 u32 bitmap or checksum
export const ENTRY = structure('table entry', ENTRY_SIZE, {
  originalOffset: 8,
  relativeOffset: 8,
  volumeOffset: 8,
  flags: 4,
  bitmap: 4,
});
const {
  originalOffset: ORIGINAL,
  relativeOffset: RELATIVE,
  volumeOffset: VOLUME,
  flags: FLAGS,
  bitmap: BITMAP,
} = ENTRY.at;

/** The part of an entry that its checksum covers: everything before the checksum. */
export const ENTRY_CHECKED_SIZE: number = BITMAP;

/** Byte offset of entry `index` in its block. The first sector holds 12 entries, every other one 16. */
export const entryPosition = (index: number): number => HEADER_SIZE + index * ENTRY_SIZE;

/** Writes the three offsets of an entry, which come first in it; `at` is a byte position in `view`. */
export function writeEntryOffsets(
  view: DataView,
  at: number,
  originalOffset: ByteOffset,
  fileOffset: ByteOffset,
  volumeOffset: ByteOffset,
): void {
  writeU64(view, at + ORIGINAL, originalOffset);
  writeU64(view, at + RELATIVE, fileOffset);
  writeU64(view, at + VOLUME, volumeOffset);
}

/** Writes an entry for a copy of a block; `at` is a byte position in `view`. */
export function writeOrdinaryEntry(
  view: DataView,
  at: number,
  originalOffset: ByteOffset,
  fileOffset: ByteOffset,
  volumeOffset: ByteOffset,
  flags: number,
  checksum: number,
): void {
  writeEntryOffsets(view, at, originalOffset, fileOffset, volumeOffset);
  view.setUint32(at + FLAGS, flags, true);
  view.setUint32(at + BITMAP, checksum, true);
}

// The three offsets come out above Number.MAX_SAFE_INTEGER when the bytes hold more than that; whoever uses one checks
// its range against a device anyway.
/** Offset of the block in the snapshot; above `Number.MAX_SAFE_INTEGER` when it is not a usable one. */
export const entryOriginalOffset = (view: DataView, at: number): ByteOffset =>
  readU64Rounded(view, at + ORIGINAL);
/** File offset of the copy, or the target of a move; above `Number.MAX_SAFE_INTEGER` when not usable. */
export const entryRelativeOffset = (view: DataView, at: number): ByteOffset =>
  readU64Rounded(view, at + RELATIVE);
/** Device offset of the copy; above `Number.MAX_SAFE_INTEGER` when it is not a usable one. */
export const entryVolumeOffset = (view: DataView, at: number): ByteOffset =>
  readU64Rounded(view, at + VOLUME);
export const entryFlags = (view: DataView, at: number): number => view.getUint32(at + FLAGS, true);
/** The last word: sectors of an overlay, checksum of an ordinary entry of ours. */
export const entryBitmap = (view: DataView, at: number): number => view.getUint32(at + BITMAP, true);

/** Fields of many ordinary entries, one array for each; offsets as numbers of blocks of 16 KiB. */
export interface CopyColumns {
  readonly blocks: Uint32Array;
  /** Relative offset. */
  readonly slots: Uint32Array;
  /** Volume offset. */
  readonly places: Uint32Array;
  readonly checksums: Uint32Array;
}

export const copyColumns = (length: number): CopyColumns => ({
  blocks: new Uint32Array(length),
  slots: new Uint32Array(length),
  places: new Uint32Array(length),
  checksums: new Uint32Array(length),
});

/** Offsets of 64 TiB and more have bits in the upper half of their high word, and their block numbers do not fit. */
const BLOCK_SHIFT = Math.log2(BLOCK_SIZE);
const BLOCK_MASK = BLOCK_SIZE - 1;

/**
 * Reads entries from the first on into columns: as many, up to `count`, as are ordinary ones whose flags are 0 and whose offsets are multiples of
 * 16 KiB below 64 TiB. What comes then is to be read one by one. Three times as fast as that.
 * @returns how many were read
 */
export function readCopies(view: DataView, count: number, columns: CopyColumns): number {
  const { blocks, slots, places, checksums } = columns;
  for (let i = 0, at = HEADER_SIZE; i < count; i++, at += ENTRY_SIZE) {
    const original = view.getUint32(at + ORIGINAL, true);
    const originalHigh = view.getUint32(at + ORIGINAL + 4, true);
    const relative = view.getUint32(at + RELATIVE, true);
    const relativeHigh = view.getUint32(at + RELATIVE + 4, true);
    const volume = view.getUint32(at + VOLUME, true);
    const volumeHigh = view.getUint32(at + VOLUME + 4, true);
    const odd = (original | relative | volume) & BLOCK_MASK;
    const large = (originalHigh | relativeHigh | volumeHigh) >>> BLOCK_SHIFT;
    if ((odd | large | view.getUint32(at + FLAGS, true)) !== 0) return i;
    blocks[i] = (original >>> BLOCK_SHIFT) | (originalHigh << (32 - BLOCK_SHIFT));
    slots[i] = (relative >>> BLOCK_SHIFT) | (relativeHigh << (32 - BLOCK_SHIFT));
    places[i] = (volume >>> BLOCK_SHIFT) | (volumeHigh << (32 - BLOCK_SHIFT));
    checksums[i] = view.getUint32(at + BITMAP, true);
  }
  return count;
}

/** Whether the entry at `at` is all zero: never written, to be skipped. */
export function isEmptyEntry(view: DataView, at: number): boolean {
  for (let i = 0; i < ENTRY_SIZE; i += 4) if (view.getUint32(at + i, true) !== 0) return false;
  return true;
}

/**
 * Checksum of an ordinary entry of ours. It ties the entry to its data and to its diff-area file, so that one flush can
 * make both durable.
 * @param entry the entry; only its first 28 bytes count
 * @param epochBytes the store epoch as it lies on disk, 8 bytes
 */
export const entryChecksum = (entry: Uint8Array, epochBytes: Uint8Array, data: Uint8Array): number =>
  crc32(data, crc32(epochBytes, crc32(entry.byteLength === BITMAP ? entry : entry.subarray(0, BITMAP))));

/**
 * CRC-32 of entries `from` up to `to` of a table block, going on from that of the entries before them. It finds rot in
 * entries that nothing may change any more.
 */
export const entriesChecksum = (block: Uint8Array, from: number, to: number, before = 0): number =>
  crc32(block.subarray(entryPosition(from), entryPosition(to)), before);

/** The store epoch in the form that `entryChecksum` takes. */
export function epochBytesOf(epoch: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  viewOf(bytes).setBigUint64(0, epoch, true);
  return bytes;
}

/** Writes any entry at byte `at` of `bytes`. */
export function encodeEntry(bytes: Uint8Array, at: number, entry: TableEntry): void {
  const { originalOffset, relativeOffset, volumeOffset, flags, bitmap } = entry;
  writeOrdinaryEntry(viewOf(bytes), at, originalOffset, relativeOffset, volumeOffset, flags, bitmap);
}

/** The entry at byte `at`, whatever it is. @throws FormatError for an offset beyond 2^53 */
export function decodeEntry(bytes: Uint8Array, at: number, context: ReadContext): TableEntry {
  if (at + ENTRY_SIZE > bytes.byteLength)
    throw badField(context, 'table entry length', bytes.byteLength - at, `${ENTRY_SIZE} bytes`);
  const view = viewOf(bytes);
  const offset = (value: ByteOffset, field: string): ByteOffset => {
    if (value > Number.MAX_SAFE_INTEGER)
      throw badField(context, `table entry at byte ${at}: ${field}`, value, 'no larger than 2^53 - 1');
    return value;
  };
  return {
    originalOffset: offset(entryOriginalOffset(view, at), 'original offset'),
    relativeOffset: offset(entryRelativeOffset(view, at), 'relative offset'),
    volumeOffset: offset(entryVolumeOffset(view, at), 'volume offset'),
    flags: entryFlags(view, at),
    bitmap: entryBitmap(view, at),
  };
}

/** A whole table block; places beyond `entries` are empty. */
export function encodeTableBlock(place: NewBlock, entries: readonly TableEntry[]): Uint8Array {
  assert(
    entries.length <= ENTRIES_PER_TABLE_BLOCK,
    () => `${entries.length} entries do not fit one table block`,
  );
  const block = new Uint8Array(BLOCK_SIZE);
  encodeHeader(block, headerOf(BlockType.table, place));
  entries.forEach((entry, index) => {
    encodeEntry(block, entryPosition(index), entry);
  });
  return block;
}

/** The header and all 508 entries, empty ones included. @throws as `decodeHeader` and `decodeEntry` */
export function decodeTableBlock(
  block: Uint8Array,
  context: ReadContext,
): { header: BlockHeader; entries: TableEntry[] } {
  const header = decodeHeader(block, BlockType.table, context);
  const entries: TableEntry[] = [];
  for (let index = 0; index < ENTRIES_PER_TABLE_BLOCK; index++)
    entries.push(decodeEntry(block, entryPosition(index), context));
  return { header, entries };
}
