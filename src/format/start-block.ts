/**
 * The start block: the one sector from which everything else is found.
 *
 * Its first 48 bytes are those of any block header; then come the fields of the format, then ours. The header
 * extension of other blocks has no place here, so the extension has its own magic, features and checksum at 96.
 */
import { assert } from '../errors.js';
import type { ByteLength, ByteOffset } from '../units.js';
import {
  badField,
  checkAligned,
  checkReserved,
  hex,
  type ReadContext,
  readU64,
  viewOf,
  writeU64,
} from './binary.js';
import { checkIdentity, hasIdentity, writeIdentity } from './block-header.js';
import { BLOCK_TYPE_NAMES, BlockType, START_BLOCK_OFFSET, START_BLOCK_SIZE } from './constants.js';
import { checksumWithHole, decodeFeatures, encodeFeatures, type Features } from './extension.js';
import { decodeGuid, encodeGuid, GUID_SIZE, type Guid } from './guid.js';
import { structure } from './structure.js';

/** How the volume was when it was last closed in order. */
export interface CleanRecord {
  readonly volumeSize: ByteLength;
  /** Modification time of the volume in nanoseconds since 1970; 0n where nobody keeps it. */
  readonly modifiedAt: bigint;
}

/** Where control blocks and diff areas lie: in a folder beside the volume, or on its own device. */
export type StoreLayout = 'directory' | 'in-volume';

/** What happens when diff areas may not grow any more, in the order of their codes. */
export const SPACE_POLICIES = ['delete-oldest', 'hold-writes', 'fail-writes'] as const;
export type SpacePolicy = (typeof SPACE_POLICIES)[number];

export interface SpaceRules {
  readonly policy: SpacePolicy;
  /** `hold-writes`: how long a write waits, in milliseconds; 0: the default. */
  readonly waitMs: number;
  /** `hold-writes`: what happens then. */
  readonly afterWait: Exclude<SpacePolicy, 'hold-writes'>;
}

export const DEFAULT_SPACE_RULES: SpaceRules = {
  policy: 'delete-oldest',
  waitMs: 0,
  afterWait: 'fail-writes',
};

export interface StartExtension extends Features {
  /** Bytes of the volume that snapshots cover; what lies beyond belongs to the store. */
  readonly protectedSize: ByteLength;
  readonly layout: StoreLayout;
  /** Random number of the store. */
  readonly storeId: bigint;
  /** `undefined` while the store is open, and after a crash. */
  readonly clean: CleanRecord | undefined;
  /** All zeros on disk: `DEFAULT_SPACE_RULES`. */
  readonly spaceRules: SpaceRules;
  /** Size that the volume is being made longer to; after a crash it has this one or `protectedSize`. */
  readonly growingTo?: ByteLength;
  /** Commit records of sets whose snapshots here are gone, while other members may still ask for them: their store GUIDs. */
  readonly setRecords?: readonly Guid[];
  /** Were there more of them than have room? Then of a record that is not there nothing can be told. */
  readonly setRecordsLost?: boolean;
}

/** Records of sets that a start block has room for. */
export const SET_RECORDS_MAX = 8;

export interface StartBlock {
  readonly version: 1 | 2;
  /** Device offset of the first control block; 0 when there are no snapshots. */
  readonly firstControlBlock: ByteOffset;
  /** Most bytes that diff areas may take; 0: unbounded. */
  readonly maximumSize: ByteLength;
  readonly volumeId: Guid;
  /** The volume that holds the diff area; `volumeId` in the in-volume layout. */
  readonly storageVolumeId: Guid;
  /** Absent in a start block that Windows wrote. */
  readonly extension?: StartExtension;
}

// 0..47 as in the block header (both offsets 0x1E00, next 0) | 48 u64 first control block | 56 u64 maximum size
// 64 GUID volume | 80 GUID storage volume
// ours: 96 u32 magic | 100 u32 incompatible | 104 u32 read-only compatible | 108 u32 compatible
// 112 u64 protected size | 120 u32 layout (1 directory, 2 in-volume) | 124 u32 flags (bit 0: clean record)
// 128 u64 store id | 136 u64 clean: volume size | 144 u64 clean: modified at, ns | 152 u32 checksum
// 156 u32 space policy | 160 u32 after the wait (0 fail-writes, 1 delete-oldest) | 164 u32 wait, ms | 168..371 zero
// 372 u64 size that the volume is growing to, 0: it is not | 380 u32 number of set records, bit 31: some were lost | 384 GUID each
export const START = structure('start block', START_BLOCK_SIZE, {
  signature: GUID_SIZE,
  version: 4,
  type: 4,
  fileOffset: 8,
  volumeOffset: 8,
  nextOffset: 8,
  firstControlBlock: 8,
  maximumSize: 8,
  volumeId: GUID_SIZE,
  storageVolumeId: GUID_SIZE,
  magic: 4,
  incompatible: 4,
  readOnlyCompatible: 4,
  compatible: 4,
  protectedSize: 8,
  layout: 4,
  flags: 4,
  storeId: 8,
  cleanVolumeSize: 8,
  cleanModifiedAt: 8,
  checksum: 4,
  spacePolicy: 4,
  spaceAfterWait: 4,
  spaceWaitMs: 4,
  reserved: 204,
  growingTo: 8,
  setRecordCount: 4,
  setRecords: SET_RECORDS_MAX * GUID_SIZE,
});
const at = START.at;

/** "VSNS" as it lies on disk. */
export const START_MAGIC = 0x53_4e_53_56;
const CLEAN_FLAG = 1;
const LOST_BIT = 0x8000_0000;
const LAYOUT_CODES: Readonly<Record<StoreLayout, number>> = { directory: 1, 'in-volume': 2 };
const LAYOUTS: ReadonlyMap<number, StoreLayout> = new Map([
  [1, 'directory'],
  [2, 'in-volume'],
]);

/** Whether a start block lies in these bytes, ours or one of Windows: signature and type, nothing more. */
export const isStartBlock = (bytes: Uint8Array): boolean =>
  bytes.byteLength >= START_BLOCK_SIZE && hasIdentity(bytes, BlockType.start);

/** The 512 bytes of `start`, checksum included. They lie at `START_BLOCK_OFFSET`. */
export function encodeStartBlock(start: StartBlock): Uint8Array {
  const bytes = new Uint8Array(START_BLOCK_SIZE);
  writeIdentity(bytes, start.version, BlockType.start);
  const view = viewOf(bytes);
  writeU64(view, at.fileOffset, START_BLOCK_OFFSET);
  writeU64(view, at.volumeOffset, START_BLOCK_OFFSET);
  writeU64(view, at.firstControlBlock, start.firstControlBlock);
  writeU64(view, at.maximumSize, start.maximumSize);
  encodeGuid(bytes, at.volumeId, start.volumeId);
  encodeGuid(bytes, at.storageVolumeId, start.storageVolumeId);
  if (start.extension !== undefined) encodeStartExtension(bytes, view, start.extension);
  return bytes;
}

function encodeStartExtension(bytes: Uint8Array, view: DataView, extension: StartExtension): void {
  view.setUint32(at.magic, START_MAGIC, true);
  encodeFeatures(view, at, extension);
  writeU64(view, at.protectedSize, extension.protectedSize);
  view.setUint32(at.layout, LAYOUT_CODES[extension.layout], true);
  view.setBigUint64(at.storeId, extension.storeId, true);
  if (extension.clean !== undefined) {
    const { volumeSize, modifiedAt } = extension.clean;
    assert(modifiedAt >= 0n && modifiedAt < 1n << 64n, () => `modification time ${modifiedAt} is no u64`);
    view.setUint32(at.flags, CLEAN_FLAG, true);
    writeU64(view, at.cleanVolumeSize, volumeSize);
    view.setBigUint64(at.cleanModifiedAt, modifiedAt, true);
  }
  const { policy, waitMs, afterWait } = extension.spaceRules;
  view.setUint32(at.spacePolicy, SPACE_POLICIES.indexOf(policy), true);
  view.setUint32(at.spaceAfterWait, afterWait === 'fail-writes' ? 0 : 1, true);
  view.setUint32(at.spaceWaitMs, waitMs, true);
  const { growingTo = 0, setRecords = [], setRecordsLost = false } = extension;
  writeU64(view, at.growingTo, growingTo);
  assert(setRecords.length <= SET_RECORDS_MAX, () => `${setRecords.length} set records`);
  view.setUint32(at.setRecordCount, (setRecords.length | (setRecordsLost ? LOST_BIT : 0)) >>> 0, true);
  for (const [index, id] of setRecords.entries()) encodeGuid(bytes, at.setRecords + index * GUID_SIZE, id);
  view.setUint32(at.checksum, checksumWithHole(bytes, at.checksum), true);
}

/**
 * The start block in these 512 bytes. Without our magic it is one of Windows, whose bytes from 96 on mean nothing.
 * @throws FormatError naming the field; UnsupportedError for an unknown incompatible feature
 */
export function decodeStartBlock(bytes: Uint8Array, context: ReadContext): StartBlock {
  const name = BLOCK_TYPE_NAMES[BlockType.start];
  if (bytes.byteLength !== START_BLOCK_SIZE)
    throw badField(context, `${name} length`, bytes.byteLength, `${START_BLOCK_SIZE} bytes`);
  checkIdentity(bytes, BlockType.start, context);
  const view = viewOf(bytes);
  const ours = view.getUint32(at.magic, true) === START_MAGIC;
  const extension = ours ? decodeStartExtension(bytes, view, context) : undefined;
  const version = view.getUint32(at.version, true);
  if (version !== 1 && version !== 2) throw badField(context, `${name} version`, version, '1 or 2');
  const start = {
    version,
    firstControlBlock: readU64(view, at.firstControlBlock, 'first control block', context),
    maximumSize: readU64(view, at.maximumSize, 'maximum diff-area size', context),
    volumeId: decodeGuid(bytes, at.volumeId),
    storageVolumeId: decodeGuid(bytes, at.storageVolumeId),
  } as const;
  if (extension === undefined) return start;
  const volumeOffset = readU64(view, at.volumeOffset, 'volume offset', context);
  if (volumeOffset !== context.offset)
    throw badField(context, 'volume offset', volumeOffset, `${hex(context.offset)}, where it was read`);
  checkReserved(bytes, at.nextOffset, at.firstControlBlock, 'next offset', context);
  checkAligned(start.firstControlBlock, 'first control block', context);
  return { ...start, extension };
}

function decodeStartExtension(bytes: Uint8Array, view: DataView, context: ReadContext): StartExtension {
  const stored = view.getUint32(at.checksum, true);
  const computed = checksumWithHole(bytes, at.checksum);
  if (stored !== computed)
    throw badField(context, 'start block checksum', stored, `${hex(computed)}; it is damaged`);
  const features = decodeFeatures(view, at, context);
  checkReserved(bytes, at.reserved, at.growingTo, 'start block', context);
  const growingTo = readU64(view, at.growingTo, 'size that the volume is growing to', context);
  const setRecordWord = view.getUint32(at.setRecordCount, true);
  const setRecordCount = setRecordWord & ~LOST_BIT;
  if (setRecordCount > SET_RECORDS_MAX)
    throw badField(context, 'number of set records', setRecordCount, `at most ${SET_RECORDS_MAX}`);
  checkReserved(
    bytes,
    at.setRecords + setRecordCount * GUID_SIZE,
    START_BLOCK_SIZE,
    'start block, set records',
    context,
  );
  const layoutCode = view.getUint32(at.layout, true);
  const layout = LAYOUTS.get(layoutCode);
  if (layout === undefined)
    throw badField(context, 'store layout', layoutCode, '1 (directory) or 2 (in-volume)');
  const flags = view.getUint32(at.flags, true);
  if ((flags & ~CLEAN_FLAG) !== 0)
    throw badField(context, 'start block flags', flags, `within ${CLEAN_FLAG}`);
  const clean: CleanRecord = {
    volumeSize: readU64(view, at.cleanVolumeSize, 'clean record: volume size', context),
    modifiedAt: view.getBigUint64(at.cleanModifiedAt, true),
  };
  if (flags === 0) checkReserved(bytes, at.cleanVolumeSize, at.checksum, 'absent clean record', context);
  return {
    ...features,
    protectedSize: readU64(view, at.protectedSize, 'protected size', context),
    layout,
    storeId: view.getBigUint64(at.storeId, true),
    clean: flags === 0 ? undefined : clean,
    spaceRules: decodeSpaceRules(view, context),
    ...(growingTo === 0 ? {} : { growingTo }),
    ...(setRecordWord === 0
      ? {}
      : {
          setRecords: Array.from({ length: setRecordCount }, (_, index) =>
            decodeGuid(bytes, at.setRecords + index * GUID_SIZE),
          ),
          setRecordsLost: (setRecordWord & LOST_BIT) !== 0,
        }),
  };
}

function decodeSpaceRules(view: DataView, context: ReadContext): SpaceRules {
  const code = view.getUint32(at.spacePolicy, true);
  const policy = SPACE_POLICIES[code];
  if (policy === undefined) throw badField(context, 'space policy', code, `below ${SPACE_POLICIES.length}`);
  const after = view.getUint32(at.spaceAfterWait, true);
  if (after > 1) throw badField(context, 'space policy after the wait', after, '0 or 1');
  return {
    policy,
    waitMs: view.getUint32(at.spaceWaitMs, true),
    afterWait: after === 0 ? 'fail-writes' : 'delete-oldest',
  };
}
