/**
 * What this package adds to a block header, in bytes that Windows leaves zero and that libvshadow does not read.
 *
 * Without the magic a block is a foreign one. A store of ours must find the magic in every block of its own, so its
 * reader asks `requireExtension` too: a damaged magic must not turn a block of ours into a foreign one, unchecked.
 *
 * The checksum is CRC-32 with its own field taken as zero. It covers the header of table and control blocks, whose
 * payload changes in place sector by sector, and the whole block of the types that are written once.
 */
import { crc32 } from '../crc32.js';
import { assert, FormatError, UnsupportedError } from '../errors.js';
import { BLOCK_SIZE } from '../units.js';
import { badField, checkReserved, hex, type ReadContext, readU64, viewOf, writeU64 } from './binary.js';
import { BLOCK_TYPE_NAMES, BlockType, HEADER_SIZE, type MetadataBlockType } from './constants.js';
import { structure } from './structure.js';

/** Three words of feature bits; what an unknown bit forbids depends on the word that it is in. */
export interface Features {
  /** An unknown bit here: the store cannot be read. */
  readonly incompatible: number;
  /** An unknown bit here: the store can be read, but not written. */
  readonly readOnlyCompatible: number;
  /** An unknown bit here changes nothing for a reader or a writer that does not know it. */
  readonly compatible: number;
}

export interface HeaderExtension extends Features {
  /** Random number of the diff-area file, so that no stale block of a deleted one is taken for a block of it. */
  readonly epoch: bigint;
  /** Table blocks: entries of the chain known to be durable when this block was last written. Others: 0. */
  readonly watermark: number;
  /** Control blocks: `VolumeFlag`s. Others: 0. */
  readonly volumeFlags: number;
  /** Table blocks: CRC-32 of those of its own entries that are below the watermark. Others: 0. */
  readonly entriesChecksum: number;
}

/** Bits of `incompatible`. */
export const IncompatibleFeature = {
  /** Start block: the control blocks name shadow copies of Windows too (`SnapshotState.shadowCopy`). */
  shadowCopies: 1,
} as const;
/** Bits of `readOnlyCompatible`. */
export const ReadOnlyFeature = {
  /** The last word of an ordinary table entry is a checksum of entry and data. */
  checksummedEntries: 1,
} as const;
/** Bits of `volumeFlags`. */
export const VolumeFlag = { revertInProgress: 1 } as const;

const KNOWN_INCOMPATIBLE = IncompatibleFeature.shadowCopies;
const KNOWN_READ_ONLY_COMPATIBLE = ReadOnlyFeature.checksummedEntries;
const KNOWN_VOLUME_FLAGS = VolumeFlag.revertInProgress;

/** "VSN1" as it lies on disk. */
export const EXTENSION_MAGIC = 0x31_4e_53_56;

// 56 u32 magic | 60 u32 incompatible | 64 u32 read-only compatible | 68 u32 compatible
// 72 u64 epoch | 80 u64 watermark | 88 u32 checksum | 92 u32 volume flags | 96 u32 entries checksum | 100..127 zero
export const EXTENSION = structure(
  'header extension',
  HEADER_SIZE,
  {
    magic: 4,
    incompatible: 4,
    readOnlyCompatible: 4,
    compatible: 4,
    epoch: 8,
    watermark: 8,
    checksum: 4,
    volumeFlags: 4,
    entriesChecksum: 4,
    reserved: 28,
  },
  56,
);
const at = EXTENSION.at;

/** Whether the block with this header was written by this package. */
export const hasExtension = (block: Uint8Array): boolean =>
  viewOf(block).getUint32(at.magic, true) === EXTENSION_MAGIC;

/** Writes the extension into the header at the start of `block`, without its checksum. */
export function encodeExtension(block: Uint8Array, extension: HeaderExtension): void {
  const view = viewOf(block);
  view.setUint32(at.magic, EXTENSION_MAGIC, true);
  encodeFeatures(view, at, extension);
  view.setBigUint64(at.epoch, extension.epoch, true);
  writeU64(view, at.watermark, extension.watermark);
  view.setUint32(at.checksum, 0, true);
  view.setUint32(at.volumeFlags, extension.volumeFlags, true);
  view.setUint32(at.entriesChecksum, extension.entriesChecksum, true);
}

/**
 * The extension of a block that has one.
 * @throws FormatError `checksum`, or a field that breaks its rule; UnsupportedError for an incompatible feature
 */
export function decodeExtension(
  block: Uint8Array,
  type: MetadataBlockType,
  context: ReadContext,
): HeaderExtension {
  const view = viewOf(block);
  const stored = view.getUint32(at.checksum, true);
  const computed = blockChecksum(block, type);
  if (stored !== computed)
    throw badField(context, `${BLOCK_TYPE_NAMES[type]} checksum`, stored, `${hex(computed)}; it is damaged`);
  const features = decodeFeatures(view, at, context);
  checkReserved(block, at.reserved, HEADER_SIZE, 'header extension', context);
  const volumeFlags = view.getUint32(at.volumeFlags, true);
  const flagsAllowed = type === BlockType.control ? KNOWN_VOLUME_FLAGS : 0;
  if ((volumeFlags & ~flagsAllowed) !== 0)
    throw badField(context, 'volume flags', volumeFlags, `within ${hex(flagsAllowed)}`);
  const watermark = readU64(view, at.watermark, 'watermark', context);
  if (watermark !== 0 && type !== BlockType.table)
    throw badField(context, 'watermark', watermark, 'zero outside table blocks');
  const entriesChecksum = view.getUint32(at.entriesChecksum, true);
  if (entriesChecksum !== 0 && type !== BlockType.table)
    throw badField(context, 'entries checksum', entriesChecksum, 'zero outside table blocks');
  return { ...features, epoch: view.getBigUint64(at.epoch, true), watermark, volumeFlags, entriesChecksum };
}

/** Feature bits that are unknown here and forbid writing, as one word; 0 when writing is fine. */
export const unknownReadOnlyBits = (features: Pick<Features, 'readOnlyCompatible'>): number =>
  (features.readOnlyCompatible & ~KNOWN_READ_ONLY_COMPATIBLE) >>> 0;

/**
 * The extension of a block that must belong to the diff-area file with this epoch.
 * @throws FormatError when the block has no extension, or that of another file
 */
export function requireExtension(
  header: { readonly extension: HeaderExtension | undefined },
  epoch: bigint,
  context: ReadContext,
): HeaderExtension {
  const place = `block at offset ${hex(context.offset)}`;
  if (header.extension === undefined)
    throw new FormatError(`${place}: extension magic is missing, must be there in every block of this store`);
  if (header.extension.epoch !== epoch)
    throw badField(
      context,
      'store epoch',
      header.extension.epoch,
      `${hex(epoch)}; the block is of another file`,
    );
  return header.extension;
}

/**
 * Computes the checksum of a block whose header is encoded and stores it; needed after any change that it covers. The
 * type is taken from the header. A foreign block has no checksum and is left alone.
 */
export function sealBlock(block: Uint8Array): void {
  if (!hasExtension(block)) return;
  const view = viewOf(block);
  const type = view.getUint32(20, true);
  assert(type > BlockType.start && type <= BlockType.bitmap, () => `cannot seal a block of type ${type}`);
  view.setUint32(at.checksum, blockChecksum(block, type as MetadataBlockType), true);
}

/** Changes the watermark of a table block of ours in place, and what depends on it, its own checksum included. */
export function setWatermark(block: Uint8Array, watermark: number, entriesChecksum: number): void {
  const view = viewOf(block);
  writeU64(view, at.watermark, watermark);
  view.setUint32(at.entriesChecksum, entriesChecksum, true);
  sealBlock(block);
}

const FOUR_ZEROS = new Uint8Array(4);

/** CRC-32 of `bytes` with the four bytes at `hole` taken as zero. */
export const checksumWithHole = (bytes: Uint8Array, hole: number): number =>
  crc32(bytes.subarray(hole + 4), crc32(FOUR_ZEROS, crc32(bytes.subarray(0, hole))));

/** A header of which the checksum is computed; used within one call. */
const checkedHeader = new Uint8Array(HEADER_SIZE);

function blockChecksum(block: Uint8Array, type: MetadataBlockType): number {
  if (type !== BlockType.table && type !== BlockType.control)
    return checksumWithHole(block.subarray(0, BLOCK_SIZE), at.checksum);
  // There are many table blocks, and a copy of so little costs less than a call for each part.
  for (let i = 0; i < HEADER_SIZE; i++) checkedHeader[i] = block[i] ?? 0;
  checkedHeader.fill(0, at.checksum, at.checksum + FOUR_ZEROS.length);
  return crc32(checkedHeader);
}

type FeaturePlaces = Readonly<Record<keyof Features, number>>;

/** Writes the feature words; the start block has them too, at another place. */
export function encodeFeatures(view: DataView, places: FeaturePlaces, features: Features): void {
  view.setUint32(places.incompatible, features.incompatible, true);
  view.setUint32(places.readOnlyCompatible, features.readOnlyCompatible, true);
  view.setUint32(places.compatible, features.compatible, true);
}

/** @throws UnsupportedError for an incompatible bit that is unknown, naming it */
export function decodeFeatures(view: DataView, places: FeaturePlaces, context: ReadContext): Features {
  const incompatible = view.getUint32(places.incompatible, true);
  const unknown = (incompatible & ~KNOWN_INCOMPATIBLE) >>> 0;
  if (unknown !== 0) {
    const bit = 31 - Math.clz32(unknown & -unknown);
    throw new UnsupportedError(
      `block at offset ${hex(context.offset)}: incompatible feature bit ${bit} (of ${hex(incompatible)}) is unknown to this version; open the store with a newer volsnap`,
    );
  }
  return {
    incompatible,
    readOnlyCompatible: view.getUint32(places.readOnlyCompatible, true),
    compatible: view.getUint32(places.compatible, true),
  };
}
