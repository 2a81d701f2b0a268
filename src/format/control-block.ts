/**
 * Control blocks: the catalog of snapshots, as 127 items of 128 bytes.
 *
 * A snapshot is two items that name the same store: what it is, and where its copies lie. No item crosses a sector of
 * 512 bytes, so one sector write publishes or removes it whole; a writer takes two places of one sector
 * (`ITEM_PAIRS`), which makes the whole snapshot appear at once. A reader matches the two by GUID, in any order.
 */
import { crc32 } from '../crc32.js';
import { assert } from '../errors.js';
import { BLOCK_SIZE, type ByteLength, type ByteOffset, SECTOR_SIZE } from '../units.js';
import {
  badField,
  checkAligned,
  checkReserved,
  hex,
  isZero,
  type ReadContext,
  readU64,
  readU64Rounded,
  viewOf,
  writeU64,
} from './binary.js';
import { type BlockHeader, decodeHeader, encodeHeader, headerOf, type NewBlock } from './block-header.js';
import { BlockType, HEADER_SIZE, ITEM_SIZE, ITEMS_PER_BLOCK } from './constants.js';
import { decodeGuid, encodeGuid, GUID_SIZE, type Guid } from './guid.js';
import { structure } from './structure.js';
import { epochBytesOf } from './table-block.js';

/** Bits of a snapshot item's `flags`. Windows sets others too; they are kept as they are. */
export const SnapshotFlag = {
  /** The volume is being put back to this snapshot. */
  revertTarget: 0x001,
  writable: 0x002,
  visible: 0x004,
  crashDumpDirty: 0x008,
  hibernationFileCopied: 0x010,
  pageFileCopied: 0x020,
  /** Unused space of the diff area need not be filled. */
  noDiffAreaFill: 0x040,
  dirtyOnDetection: 0x080,
  offline: 0x100,
} as const;

/** Bits of a diff-area item's `state`: what volsnap knows of a snapshot beyond Windows' flags. A foreign store has none. */
export const SnapshotState = {
  /** It is being deleted: what older ones read through it is being merged into its elder neighbour. Nobody sees it. */
  deleting: 0x01,
  /** It is gone after the volume was closed, and after a crash. */
  volatile: 0x02,
  /** It goes when whoever took it goes. */
  autoRelease: 0x04,
  /** It counts only if the commit record of its set is there. */
  setPending: 0x08,
  /** Nothing may delete it: until `heldUntil`, or for good where that is 0. */
  held: 0x10,
  /** It was taken at the beginning of a revert and holds what the volume was before. */
  beforeRevert: 0x20,
  /** Of such a one: nobody wants it once the revert is done. */
  dropAfterRevert: 0x40,
  /** It is the commit record of its set, and other members may still be pending. */
  setRecord: 0x80,
  /** Windows made it before the store was: its diff area is read by Windows' rules, and never written. */
  shadowCopy: 0x100,
  /** The oldest of volsnap, taken when the store took shadow copies over: they are read through it. */
  base: 0x200,
  /** Copies for it were made in memory while its diff area had not arrived: without them it is worth nothing. */
  copiesInMemory: 0x400,
} as const;

const KNOWN_STATE = Object.values(SnapshotState).reduce((all, bit) => all | bit, 0);

export interface SnapshotItem {
  readonly kind: 'snapshot';
  readonly volumeSize: ByteLength;
  /** Ties the two items of a snapshot together, and names its diff-area file. */
  readonly storeId: Guid;
  readonly order: number;
  readonly flags: number;
  /** FILETIME of the commit; age order in a foreign store. */
  readonly createdAt: bigint;
}

/** Offsets are those of the device that holds the diff area; 0 where there is no such block. */
export interface DiffAreaItem {
  readonly kind: 'diff-area';
  readonly tableOffset: ByteOffset;
  readonly storeId: Guid;
  readonly applicationInformationOffset: ByteOffset;
  readonly locationOffset: ByteOffset;
  readonly bitmapOffset: ByteOffset;
  /** NTFS file reference of the diff-area file. */
  readonly fileReference: bigint;
  readonly allocatedSize: ByteLength;
  readonly previousBitmapOffset: ByteOffset;
  readonly unknown: bigint;
  /** `SnapshotState`s; 0 in a foreign store, as are the two that follow. */
  readonly state: number;
  /** FILETIME up to which the snapshot is held; 0: no date. */
  readonly heldUntil: bigint;
  /** Order number of the next older snapshot where another than the number before; 0: that one. */
  readonly elderOrder: number;
}

/** A place that was used once. */
export interface FreeItem {
  readonly kind: 'free';
}
/** A place that was never used; in a foreign store others may follow. */
export interface EmptyItem {
  readonly kind: 'end';
}
export type ControlItem = SnapshotItem | DiffAreaItem | FreeItem | EmptyItem;

export const FREE_ITEM: FreeItem = { kind: 'free' };
export const EMPTY_ITEM: EmptyItem = { kind: 'end' };

const ITEM_TYPES: Readonly<Record<ControlItem['kind'], number>> = {
  end: 0,
  free: 1,
  snapshot: 2,
  'diff-area': 3,
};

// 0 u32 type (2) | 4 u32 zero | 8 u64 volume size | 16 GUID store | 32 u64 order | 40 u64 flags
// 48 u64 created at, FILETIME | 56..127 zero
export const SNAPSHOT_ITEM = structure('snapshot item', ITEM_SIZE, {
  type: 4,
  typeReserved: 4,
  volumeSize: 8,
  storeId: GUID_SIZE,
  order: 8,
  flags: 8,
  createdAt: 8,
  reserved: 72,
});
// 0 u32 type (3) | 4 u32 zero | 8 u64 table | 16 GUID store | 32 u64 application information | 40 u64 locations
// 48 u64 bitmap | 56 u64 file reference | 64 u64 allocated size | 72 u64 previous bitmap | 80 u64 unknown
// 88 u32 checksum of the pair (ours, see sealPair) | 92 u32 state (ours) | 96 u64 held until, FILETIME (ours)
// 104 u64 elder order (ours) | 112..127 zero
export const DIFF_AREA_ITEM = structure('diff-area item', ITEM_SIZE, {
  type: 4,
  typeReserved: 4,
  tableOffset: 8,
  storeId: GUID_SIZE,
  applicationInformationOffset: 8,
  locationOffset: 8,
  bitmapOffset: 8,
  fileReference: 8,
  allocatedSize: 8,
  previousBitmapOffset: 8,
  unknown: 8,
  pairChecksum: 4,
  state: 4,
  heldUntil: 8,
  elderOrder: 8,
  reserved: 16,
});

/** Byte offset of item `index` in its block. */
export const itemPosition = (index: number): number => HEADER_SIZE + index * ITEM_SIZE;

/** Byte offset, in the block, of the 512-byte sector that holds item `index`. */
export const sectorOfItem = (index: number): number =>
  Math.floor(itemPosition(index) / SECTOR_SIZE) * SECTOR_SIZE;

/** Indexes i, ascending, such that items i and i + 1 lie in one sector and no two of the pairs overlap: 63 a block. */
export const ITEM_PAIRS: readonly number[] = pairPositions();

function pairPositions(): number[] {
  const positions: number[] = [];
  for (let i = 0; i + 1 < ITEMS_PER_BLOCK; i++) {
    if (sectorOfItem(i) !== sectorOfItem(i + 1)) continue;
    positions.push(i);
    i++;
  }
  return positions;
}

/** Writes the 128 bytes of `item` at `at`. */
export function encodeItem(bytes: Uint8Array, at: number, item: ControlItem): void {
  const place = bytes.subarray(at, at + ITEM_SIZE);
  assert(place.byteLength === ITEM_SIZE, () => `no room for an item at ${at} of ${bytes.byteLength} bytes`);
  place.fill(0);
  const view = viewOf(place);
  view.setUint32(0, ITEM_TYPES[item.kind], true);
  if (item.kind === 'snapshot') {
    const fields = SNAPSHOT_ITEM.at;
    writeU64(view, fields.volumeSize, item.volumeSize);
    encodeGuid(place, fields.storeId, item.storeId);
    writeU64(view, fields.order, item.order);
    writeU64(view, fields.flags, item.flags);
    view.setBigUint64(fields.createdAt, item.createdAt, true);
  } else if (item.kind === 'diff-area') {
    const fields = DIFF_AREA_ITEM.at;
    writeU64(view, fields.tableOffset, item.tableOffset);
    encodeGuid(place, fields.storeId, item.storeId);
    writeU64(view, fields.applicationInformationOffset, item.applicationInformationOffset);
    writeU64(view, fields.locationOffset, item.locationOffset);
    writeU64(view, fields.bitmapOffset, item.bitmapOffset);
    view.setBigUint64(fields.fileReference, item.fileReference, true);
    writeU64(view, fields.allocatedSize, item.allocatedSize);
    writeU64(view, fields.previousBitmapOffset, item.previousBitmapOffset);
    view.setBigUint64(fields.unknown, item.unknown, true);
    view.setUint32(fields.state, item.state, true);
    view.setBigUint64(fields.heldUntil, item.heldUntil, true);
    writeU64(view, fields.elderOrder, item.elderOrder);
  }
}

/**
 * CRC-32 over the epoch of the store and both items of the snapshot whose first item is `index`, without the checksum
 * itself. Rot in an order number or a time would otherwise pass unseen.
 */
function pairChecksum(block: Uint8Array, index: number, epoch: bigint): number {
  const start = itemPosition(index);
  const end = itemPosition(index + 1) + ITEM_SIZE;
  const hole = pairChecksumAt(index);
  const before = crc32(block.subarray(start, hole), crc32(epochBytesOf(epoch)));
  return crc32(block.subarray(hole + 4, end), before);
}

/** Stores the checksum of a pair of items of ours; needed after any change of either. */
export function sealPair(block: Uint8Array, index: number, epoch: bigint): void {
  viewOf(block).setUint32(pairChecksumAt(index), pairChecksum(block, index, epoch), true);
}

/** Are both items of a pair of ours as they were written? */
export const isPairSound = (block: Uint8Array, index: number, epoch: bigint): boolean =>
  viewOf(block).getUint32(pairChecksumAt(index), true) === pairChecksum(block, index, epoch);

const pairChecksumAt = (index: number): number => itemPosition(index + 1) + DIFF_AREA_ITEM.at.pairChecksum;

/**
 * The item at `at`. In a foreign block the reserved bytes of an item are not looked at, and numbers may be rounded.
 * @throws FormatError for an unknown type, and (ours) a number beyond 2^53, reserved bytes or odd offsets
 */
export function decodeItem(bytes: Uint8Array, at: number, context: ReadContext): ControlItem {
  const place = bytes.subarray(at, at + ITEM_SIZE);
  if (place.byteLength !== ITEM_SIZE)
    throw badField(context, 'control item length', place.byteLength, `${ITEM_SIZE} bytes`);
  const type = viewOf(place).getUint32(0, true);
  const name = `control item at byte ${at}`;
  if (context.foreign !== true) checkReserved(place, 4, 8, `${name}, type`, context);
  switch (type) {
    case ITEM_TYPES.end:
    case ITEM_TYPES.free:
      if (context.foreign !== true) checkReserved(place, 8, ITEM_SIZE, name, context);
      return type === ITEM_TYPES.end ? EMPTY_ITEM : FREE_ITEM;
    case ITEM_TYPES.snapshot:
      return decodeSnapshotItem(place, name, context);
    case ITEM_TYPES['diff-area']:
      return decodeDiffAreaItem(place, name, context);
    default:
      throw badField(context, `${name}: type`, type, '0 (end), 1 (free), 2 (snapshot) or 3 (diff area)');
  }
}

/**
 * Of a foreign item a number beyond 2^53 comes out rounded. One damaged item must not hide all the others: such an offset
 * is past the end of any device, which whoever follows it finds out.
 */
function number(view: DataView, at: number, field: string, context: ReadContext): number {
  return context.foreign === true ? readU64Rounded(view, at) : readU64(view, at, field, context);
}

function decodeSnapshotItem(place: Uint8Array, name: string, context: ReadContext): SnapshotItem {
  const at = SNAPSHOT_ITEM.at;
  const view = viewOf(place);
  if (context.foreign !== true) checkReserved(place, at.reserved, ITEM_SIZE, name, context);
  return {
    kind: 'snapshot',
    volumeSize: number(view, at.volumeSize, `${name}: volume size`, context),
    storeId: decodeGuid(place, at.storeId),
    order: number(view, at.order, `${name}: order number`, context),
    flags: number(view, at.flags, `${name}: flags`, context),
    createdAt: view.getBigUint64(at.createdAt, true),
  };
}

function decodeDiffAreaItem(place: Uint8Array, name: string, context: ReadContext): DiffAreaItem {
  const at = DIFF_AREA_ITEM.at;
  const view = viewOf(place);
  const offset = (position: number, field: string): ByteOffset => {
    const value = number(view, position, `${name}: ${field}`, context);
    if (context.foreign !== true) checkAligned(value, `${name}: ${field}`, context);
    return value;
  };
  const isOurs = context.foreign !== true;
  if (isOurs) checkReserved(place, at.reserved, ITEM_SIZE, name, context);
  const state = isOurs ? view.getUint32(at.state, true) : 0;
  if ((state & ~KNOWN_STATE) !== 0)
    throw badField(context, `${name}: state`, state, `within ${hex(KNOWN_STATE)}`);
  return {
    kind: 'diff-area',
    tableOffset: offset(at.tableOffset, 'table offset'),
    storeId: decodeGuid(place, at.storeId),
    applicationInformationOffset: offset(at.applicationInformationOffset, 'application-information offset'),
    locationOffset: offset(at.locationOffset, 'location offset'),
    bitmapOffset: offset(at.bitmapOffset, 'bitmap offset'),
    fileReference: view.getBigUint64(at.fileReference, true),
    allocatedSize: number(view, at.allocatedSize, `${name}: allocated size`, context),
    previousBitmapOffset: offset(at.previousBitmapOffset, 'previous bitmap offset'),
    unknown: view.getBigUint64(at.unknown, true),
    state,
    heldUntil: isOurs ? view.getBigUint64(at.heldUntil, true) : 0n,
    elderOrder: isOurs ? readU64(view, at.elderOrder, `${name}: elder order`, context) : 0,
  };
}

/** A whole control block; places beyond `items` are empty. */
export function encodeControlBlock(place: NewBlock, items: readonly ControlItem[]): Uint8Array {
  assert(items.length <= ITEMS_PER_BLOCK, () => `${items.length} items do not fit one control block`);
  const block = new Uint8Array(BLOCK_SIZE);
  encodeHeader(block, headerOf(BlockType.control, place));
  items.forEach((item, index) => {
    encodeItem(block, itemPosition(index), item);
  });
  return block;
}

/** The header and all 127 items of a control block. @throws as `decodeHeader` and `decodeItem` */
export function decodeControlBlock(
  block: Uint8Array,
  context: ReadContext,
): { header: BlockHeader; items: ControlItem[] } {
  const header = decodeHeader(block, BlockType.control, context);
  const itemContext = { offset: context.offset, foreign: header.extension === undefined };
  const items: ControlItem[] = [];
  for (let index = 0; index < ITEMS_PER_BLOCK; index++) {
    // Most blocks hold few items, and the rest is looked at as a whole.
    if (isZero(block, itemPosition(index), itemPosition(ITEMS_PER_BLOCK)))
      return { header, items: items.concat(Array<EmptyItem>(ITEMS_PER_BLOCK - index).fill(EMPTY_ITEM)) };
    items.push(decodeItem(block, itemPosition(index), itemContext));
  }
  return { header, items };
}
