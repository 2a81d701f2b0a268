/**
 * The 128 bytes that open every metadata block of 16 KiB: what it is, where it lies, and what comes next.
 *
 * Bytes are distrusted in this order: length, signature, type, checksum (ours), version, fields. In a block of ours
 * every field must be right; in a foreign one only those that reading depends on.
 */
import { assert, FormatError } from '../errors.js';
import { BLOCK_SIZE, type ByteOffset } from '../units.js';
import {
  badField,
  checkAligned,
  hex,
  type ReadContext,
  readU64,
  readU64Rounded,
  viewOf,
  writeU64,
} from './binary.js';
import {
  APPLICATION_INFORMATION_MAX,
  BLOCK_TYPE_NAMES,
  BlockType,
  FORMAT_SIGNATURE,
  FORMAT_VERSION,
  HEADER_SIZE,
  type MetadataBlockType,
} from './constants.js';
import {
  decodeExtension,
  encodeExtension,
  type HeaderExtension,
  hasExtension,
  ReadOnlyFeature,
  sealBlock,
} from './extension.js';
import { decodeGuid, encodeGuid, GUID_SIZE } from './guid.js';
import { structure } from './structure.js';

export interface BlockHeader {
  readonly version: number;
  readonly type: MetadataBlockType;
  /** Where the block lies in its file. Of a foreign block not checked, and rounded beyond 2^53. */
  readonly fileOffset: ByteOffset;
  /** Where the block lies on its device. Of a foreign block not checked, and rounded beyond 2^53. */
  readonly volumeOffset: ByteOffset;
  /** Device offset of the next block of the chain; 0 at the end. */
  readonly nextOffset: ByteOffset;
  /** Bytes of application information; 0 in every other type. Of a foreign block not checked, and rounded. */
  readonly informationSize: number;
  /** `undefined` in a block that Windows wrote. */
  readonly extension: HeaderExtension | undefined;
}

/** What is to be said of a block that is about to be written whole; the rest of its header follows from its type. */
export interface NewBlock {
  readonly fileOffset: ByteOffset;
  readonly volumeOffset: ByteOffset;
  readonly nextOffset: ByteOffset;
  /** Of the file that the block belongs to; `undefined` writes it as Windows would, without an extension. */
  readonly epoch: bigint | undefined;
  /** Table blocks only. */
  readonly watermark?: number;
  /** Table blocks only: of the entries below the watermark. */
  readonly entriesChecksum?: number;
  /** Control blocks only. */
  readonly volumeFlags?: number;
}

/** The header of a new block. Entries of a table of ours are declared to carry checksums. */
export function headerOf(type: MetadataBlockType, block: NewBlock): BlockHeader {
  const {
    fileOffset,
    volumeOffset,
    nextOffset,
    epoch,
    watermark = 0,
    entriesChecksum = 0,
    volumeFlags = 0,
  } = block;
  const extension =
    epoch === undefined
      ? undefined
      : {
          incompatible: 0,
          readOnlyCompatible: type === BlockType.table ? ReadOnlyFeature.checksummedEntries : 0,
          compatible: 0,
          epoch,
          watermark,
          volumeFlags,
          entriesChecksum,
        };
  return {
    version: FORMAT_VERSION,
    type,
    fileOffset,
    volumeOffset,
    nextOffset,
    informationSize: 0,
    extension,
  };
}

// 0 GUID signature | 16 u32 version | 20 u32 type | 24 u64 file offset | 32 u64 volume offset
// 40 u64 next offset | 48 u64 information size | 56..127 extension
export const HEADER = structure('block header', HEADER_SIZE, {
  signature: GUID_SIZE,
  version: 4,
  type: 4,
  fileOffset: 8,
  volumeOffset: 8,
  nextOffset: 8,
  informationSize: 8,
  extension: 72,
});
const at = HEADER.at;

const SIGNATURE_BYTES = new Uint8Array(GUID_SIZE);
encodeGuid(SIGNATURE_BYTES, 0, FORMAT_SIGNATURE);

/**
 * Writes the header into the first 128 bytes of `block`. The checksum is then right for control and table blocks; the
 * other types need `sealBlock` once their payload is filled.
 */
export function encodeHeader(block: Uint8Array, header: BlockHeader): void {
  assert(block.byteLength >= HEADER_SIZE, () => `${block.byteLength} bytes hold no block header`);
  assert(header.version === FORMAT_VERSION, () => `version ${header.version} is not written`);
  block.fill(0, 0, HEADER_SIZE);
  writeIdentity(block, header.version, header.type);
  const view = viewOf(block);
  writeU64(view, at.fileOffset, header.fileOffset);
  writeU64(view, at.volumeOffset, header.volumeOffset);
  writeU64(view, at.nextOffset, header.nextOffset);
  writeU64(view, at.informationSize, header.informationSize);
  if (header.extension === undefined) return;
  encodeExtension(block, header.extension);
  if (header.type === BlockType.control || header.type === BlockType.table) sealBlock(block);
}

/** Changes the link to the next block of the chain in place, checksum included. */
export function setNextOffset(block: Uint8Array, nextOffset: ByteOffset): void {
  writeU64(viewOf(block), at.nextOffset, nextOffset);
  sealBlock(block);
}

/**
 * The header of a whole block that must be of `expectedType`. In a foreign block the volume offset may differ from
 * the place it was read; that is worth a note, no more.
 * @throws FormatError naming the field; UnsupportedError for an unknown incompatible feature
 */
export function decodeHeader(
  block: Uint8Array,
  expectedType: MetadataBlockType,
  context: ReadContext,
): BlockHeader {
  const name = BLOCK_TYPE_NAMES[expectedType];
  if (block.byteLength !== BLOCK_SIZE)
    throw badField(context, `${name} length`, block.byteLength, `${BLOCK_SIZE} bytes`);
  checkIdentity(block, expectedType, context);
  const view = viewOf(block);
  const ours = hasExtension(block);
  const extension = ours ? decodeExtension(block, expectedType, context) : undefined;
  const version = view.getUint32(at.version, true);
  if (version !== FORMAT_VERSION) throw badField(context, `${name} version`, version, `${FORMAT_VERSION}`);
  const nextOffset = readU64(view, at.nextOffset, 'next offset', context);
  const header: BlockHeader = {
    version,
    type: expectedType,
    fileOffset: readU64Rounded(view, at.fileOffset),
    volumeOffset: readU64Rounded(view, at.volumeOffset),
    nextOffset,
    informationSize:
      ours || expectedType === BlockType.applicationInformation
        ? readU64Rounded(view, at.informationSize)
        : 0,
    extension,
  };
  if (ours) checkOwnFields(header, context);
  return header;
}

function checkOwnFields(header: BlockHeader, context: ReadContext): void {
  if (header.volumeOffset !== context.offset)
    throw badField(
      context,
      'volume offset',
      header.volumeOffset,
      `${hex(context.offset)}, where it was read`,
    );
  checkAligned(header.fileOffset, 'file offset', context);
  if (header.fileOffset > Number.MAX_SAFE_INTEGER)
    throw badField(context, 'file offset', header.fileOffset, 'no larger than 2^53 - 1');
  checkAligned(header.nextOffset, 'next offset', context);
  const largest = header.type === BlockType.applicationInformation ? APPLICATION_INFORMATION_MAX : 0;
  if (header.informationSize > largest)
    throw badField(context, 'information size', header.informationSize, `at most ${largest}`);
}

/** Signature, version and type: what a start block has in common with every other. */
export function writeIdentity(block: Uint8Array, version: number, type: BlockType): void {
  block.set(SIGNATURE_BYTES, at.signature);
  const view = viewOf(block);
  view.setUint32(at.version, version, true);
  view.setUint32(at.type, type, true);
}

/** Whether the bytes open with the signature of the format and this type; they must be long enough for both. */
export function hasIdentity(block: Uint8Array, type: BlockType): boolean {
  for (let i = 0; i < GUID_SIZE; i++) if (block[at.signature + i] !== SIGNATURE_BYTES[i]) return false;
  return viewOf(block).getUint32(at.type, true) === type;
}

/** @throws FormatError unless signature and type are those of `expectedType` */
export function checkIdentity(block: Uint8Array, expectedType: BlockType, context: ReadContext): void {
  if (hasIdentity(block, expectedType)) return;
  const signature = decodeGuid(block, at.signature);
  if (signature !== FORMAT_SIGNATURE)
    throw new FormatError(
      `block at offset ${hex(context.offset)}: signature is ${signature}, must be ${FORMAT_SIGNATURE}; no ${BLOCK_TYPE_NAMES[expectedType]} lies here`,
    );
  const type = viewOf(block).getUint32(at.type, true);
  throw badField(context, 'block type', type, `${expectedType} (${BLOCK_TYPE_NAMES[expectedType]})`);
}
