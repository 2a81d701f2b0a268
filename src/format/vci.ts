/**
 * The header and the block map of a cache image: VirtualBox's VCI, version 1 (VCICache.cpp names the fields).
 *
 * Addresses and sizes are in blocks of 512 bytes. Where VirtualBox has reserved bytes, which it does not look at, volsnap keeps
 * an extension: what it takes to say after a power cut which cached blocks are surely right. All that is needed for that lies in the first
 * sector, so one sector write changes it as a whole.
 */
import { crc32 } from '../crc32.js';
import { SECTOR_SIZE } from '../units.js';
import { badField, isZero, type ReadContext, readU64, viewOf, writeU64 } from './binary.js';
import { decodeGuid, encodeGuid, GUID_SIZE, type Guid } from './guid.js';
import { structure } from './structure.js';

/** The unit of addresses and sizes in a cache image, in bytes. */
export const VCI_BLOCK_SIZE = SECTOR_SIZE;
/** "VCI\0". */
export const VCI_SIGNATURE = 0x0049_4356;
export const VCI_VERSION = 1;
export const VCI_HEADER_BLOCKS = 2;
/** "VBLK". */
export const VCI_MAP_MAGIC = 0x4b4c_4256;
export const VCI_MAP_VERSION = 1;
/**
 * Block numbers and addresses stay below this: 2 TiB. Internal nodes count the blocks below them in 32 bits, so the format itself
 * cannot describe a larger volume.
 */
export const VCI_BLOCKS_MAX = 0xffff_ffff;
/** "VSvc". */
const EXTENSION_MAGIC = 0x6376_5356;
const EXTENSION_VERSION = 1;
const EXTENSION_SIZE = 56;
const EXTENSION_AT = 128;
const DERIVED_MODIFICATION = 1;

// 0 u32 signature | 4 u32 version | 8 u64 size | 16 u8 unclean | 17 u32 type | 21 u64 tree root | 29 u64 block map
// 37 u32 blocks of the block map | 41 UUID image | 57 UUID modification | 73..1023 reserved
export const VCI_HEADER = structure('VCI header', VCI_HEADER_BLOCKS * VCI_BLOCK_SIZE, {
  signature: 4,
  version: 4,
  size: 8,
  unclean: 1,
  type: 4,
  treeRoot: 8,
  blockMap: 8,
  blockMapSize: 4,
  imageId: GUID_SIZE,
  modificationId: GUID_SIZE,
  reserved: 951,
});
// In reserved bytes of the header. 128 u32 magic | 132 u32 version | 136 u64 generation | 144 u64 address of the intents
// 152 u32 blocks of the intents | 156 u32 flags | 160 u64 size of the backing, bytes
// 168 u64 hash of its name | 176..179 zero | 180 u32 CRC-32
export const VCI_EXTENSION = structure(
  'VCI header extension',
  EXTENSION_AT + EXTENSION_SIZE,
  {
    magic: 4,
    version: 4,
    generation: 8,
    intents: 8,
    intentsSize: 4,
    flags: 4,
    backingSize: 8,
    backingName: 8,
    reserved: 4,
    checksum: 4,
  },
  EXTENSION_AT,
);
// 0 u32 magic | 4 u32 version | 8 u64 blocks | 16 u64 free | 24 u64 metadata | 32 u64 data | 40..511 reserved
export const VCI_BLOCK_MAP = structure('VCI block map', VCI_BLOCK_SIZE, {
  magic: 4,
  version: 4,
  blocks: 8,
  free: 8,
  metadata: 8,
  data: 8,
  reserved: 472,
});

export type VciType = 'dynamic' | 'fixed';
const TYPES: Readonly<Record<VciType, number>> = { dynamic: 1, fixed: 2 };

/** What volsnap adds to the header. */
export interface VciExtension {
  /** Grows with every commit; no node of the tree is younger. */
  readonly generation: number;
  /** Where the intents are, and how many blocks they take. */
  readonly intents: number;
  readonly intentsSize: number;
  /** The modification UUID was made of the backing's time of change, when the image was closed. */
  readonly derivedModification: boolean;
  /** Bytes of the backing that it was last used with; 0: none yet. */
  readonly backingSize: number;
  /** A hash of that backing's name; 0: none yet. */
  readonly backingName: bigint;
}

export interface VciHeader {
  /** Blocks, metadata included. */
  readonly size: number;
  readonly unclean: boolean;
  readonly type: VciType;
  readonly treeRoot: number;
  readonly blockMap: number;
  readonly blockMapSize: number;
  readonly imageId: Guid;
  readonly modificationId: Guid;
  /** `undefined`: another program made the image. */
  readonly extension: VciExtension | undefined;
}

/** Blocks of a block map, its header included, for an image of `blocks`. */
export const blockMapSizeFor = (blocks: number): number => 1 + Math.ceil(blocks / 8 / VCI_BLOCK_SIZE);

/** The 1024 bytes of the header. */
export function encodeVciHeader(header: VciHeader): Uint8Array {
  const bytes = new Uint8Array(VCI_HEADER.size);
  const view = viewOf(bytes);
  const { at } = VCI_HEADER;
  view.setUint32(at.signature, VCI_SIGNATURE, true);
  view.setUint32(at.version, VCI_VERSION, true);
  writeU64(view, at.size, header.size);
  bytes[at.unclean] = header.unclean ? 1 : 0;
  view.setUint32(at.type, TYPES[header.type], true);
  writeU64(view, at.treeRoot, header.treeRoot);
  writeU64(view, at.blockMap, header.blockMap);
  view.setUint32(at.blockMapSize, header.blockMapSize, true);
  encodeGuid(bytes, at.imageId, header.imageId);
  encodeGuid(bytes, at.modificationId, header.modificationId);
  if (header.extension === undefined) return bytes;
  const ours = VCI_EXTENSION.at;
  view.setUint32(ours.magic, EXTENSION_MAGIC, true);
  view.setUint32(ours.version, EXTENSION_VERSION, true);
  writeU64(view, ours.generation, header.extension.generation);
  writeU64(view, ours.intents, header.extension.intents);
  view.setUint32(ours.intentsSize, header.extension.intentsSize, true);
  view.setUint32(ours.flags, header.extension.derivedModification ? DERIVED_MODIFICATION : 0, true);
  writeU64(view, ours.backingSize, header.extension.backingSize);
  view.setBigUint64(ours.backingName, header.extension.backingName, true);
  view.setUint32(ours.checksum, sectorChecksum(bytes), true);
  return bytes;
}

/** CRC-32 of the first sector without the checksum itself. */
function sectorChecksum(bytes: Uint8Array): number {
  const hole = VCI_EXTENSION.at.checksum;
  return crc32(bytes.subarray(hole + 4, SECTOR_SIZE), crc32(bytes.subarray(0, hole)));
}

/** Do these bytes, the first of a file, begin a cache image? */
export const isVci = (bytes: Uint8Array): boolean =>
  bytes.byteLength >= 4 && viewOf(bytes).getUint32(VCI_HEADER.at.signature, true) === VCI_SIGNATURE;

/**
 * The header in the first 1024 bytes of an image.
 * @throws FormatError if it is none, is of a version unknown here, names places outside the image, or fails its checksum
 */
export function decodeVciHeader(bytes: Uint8Array): VciHeader {
  const context: ReadContext = { offset: 0 };
  if (bytes.byteLength < VCI_HEADER.size)
    throw badField(context, 'length', bytes.byteLength, `${VCI_HEADER.size} bytes at least`);
  const view = viewOf(bytes);
  const { at } = VCI_HEADER;
  const signature = view.getUint32(at.signature, true);
  if (signature !== VCI_SIGNATURE) throw badField(context, 'signature', signature, '"VCI": a cache image');
  const version = view.getUint32(at.version, true);
  if (version !== VCI_VERSION) throw badField(context, 'version', version, String(VCI_VERSION));
  const extension = decodeExtension(bytes, view, context);
  const size = readU64(view, at.size, 'image size', context);
  if (size > VCI_BLOCKS_MAX) throw badField(context, 'image size', size, `${VCI_BLOCKS_MAX} blocks at most`);
  const unclean = bytes[at.unclean] ?? 0;
  if (unclean > 1) throw badField(context, 'unclean flag', unclean, '0 or 1');
  const typeNumber = view.getUint32(at.type, true);
  const type = typeNumber === TYPES.dynamic ? 'dynamic' : typeNumber === TYPES.fixed ? 'fixed' : undefined;
  if (type === undefined) throw badField(context, 'type', typeNumber, '1 (dynamic) or 2 (fixed)');
  const inside = (value: number, length: number, field: string): number => {
    if (value < VCI_HEADER_BLOCKS || value + length > size)
      throw badField(context, field, value, `within the ${size} blocks of the image, behind the header`);
    return value;
  };
  const blockMapSize = view.getUint32(at.blockMapSize, true);
  if (blockMapSize !== blockMapSizeFor(size))
    throw badField(context, 'size of the block map', blockMapSize, `${blockMapSizeFor(size)} blocks`);
  if (extension !== undefined) inside(extension.intents, extension.intentsSize, 'address of the intents');
  return {
    size,
    unclean: unclean === 1,
    type,
    treeRoot: inside(readU64(view, at.treeRoot, 'tree root', context), 8, 'address of the tree root'),
    blockMap: inside(
      readU64(view, at.blockMap, 'block map', context),
      blockMapSize,
      'address of the block map',
    ),
    blockMapSize,
    imageId: decodeGuid(bytes, at.imageId),
    modificationId: decodeGuid(bytes, at.modificationId),
    extension,
  };
}

function decodeExtension(bytes: Uint8Array, view: DataView, context: ReadContext): VciExtension | undefined {
  const { at } = VCI_EXTENSION;
  if (isZero(bytes, VCI_HEADER.at.reserved, SECTOR_SIZE)) return undefined;
  const magic = view.getUint32(at.magic, true);
  if (magic !== EXTENSION_MAGIC) throw badField(context, 'extension', magic, 'zero, or "VSvc" (volsnap)');
  const checksum = view.getUint32(at.checksum, true);
  const actual = sectorChecksum(bytes);
  if (checksum !== actual)
    throw badField(context, 'checksum of the header', checksum, `0x${actual.toString(16)}`);
  const version = view.getUint32(at.version, true);
  if (version !== EXTENSION_VERSION)
    throw badField(context, 'version of the extension', version, String(EXTENSION_VERSION));
  const intentsSize = view.getUint32(at.intentsSize, true);
  if (intentsSize === 0) throw badField(context, 'blocks of the intents', intentsSize, '1 or more');
  return {
    generation: readU64(view, at.generation, 'generation', context),
    intents: readU64(view, at.intents, 'address of the intents', context),
    intentsSize,
    derivedModification: (view.getUint32(at.flags, true) & DERIVED_MODIFICATION) !== 0,
    backingSize: readU64(view, at.backingSize, 'size of the backing', context),
    backingName: view.getBigUint64(at.backingName, true),
  };
}

/** Counts of blocks. What is free, metadata and data add up to all. */
export interface BlockCounts {
  readonly blocks: number;
  readonly free: number;
  readonly metadata: number;
  readonly data: number;
}

/** The 512 bytes before the bitmap. */
export function encodeBlockMapHeader({ blocks, free, metadata, data }: BlockCounts): Uint8Array {
  const bytes = new Uint8Array(VCI_BLOCK_MAP.size);
  const view = viewOf(bytes);
  const { at } = VCI_BLOCK_MAP;
  view.setUint32(at.magic, VCI_MAP_MAGIC, true);
  view.setUint32(at.version, VCI_MAP_VERSION, true);
  writeU64(view, at.blocks, blocks);
  writeU64(view, at.free, free);
  writeU64(view, at.metadata, metadata);
  writeU64(view, at.data, data);
  return bytes;
}

/** @throws FormatError if it is none, or its counts do not add up */
export function decodeBlockMapHeader(bytes: Uint8Array, context: ReadContext): BlockCounts {
  if (bytes.byteLength < VCI_BLOCK_MAP.size)
    throw badField(context, 'length of the block map', bytes.byteLength, `${VCI_BLOCK_MAP.size} bytes`);
  const view = viewOf(bytes);
  const { at } = VCI_BLOCK_MAP;
  const magic = view.getUint32(at.magic, true);
  if (magic !== VCI_MAP_MAGIC) throw badField(context, 'magic of the block map', magic, '"VBLK"');
  const version = view.getUint32(at.version, true);
  if (version !== VCI_MAP_VERSION)
    throw badField(context, 'version of the block map', version, String(VCI_MAP_VERSION));
  const counts = {
    blocks: readU64(view, at.blocks, 'blocks', context),
    free: readU64(view, at.free, 'free blocks', context),
    metadata: readU64(view, at.metadata, 'metadata blocks', context),
    data: readU64(view, at.data, 'data blocks', context),
  };
  const sum = counts.free + counts.metadata + counts.data;
  if (sum !== counts.blocks)
    throw badField(context, 'free, metadata and data blocks together', sum, `${counts.blocks}, all blocks`);
  return counts;
}
