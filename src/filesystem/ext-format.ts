/**
 * The structures of ext2, ext3 and ext4 that say what is free, as functions over bytes: superblock and group descriptors.
 *
 * Source: kernel.org, "ext4 Data Structures and Algorithms". Everything is little-endian. Whatever is not understood is `Unsure`.
 */
import type { ByteOffset } from '../units.js';
import { crc16, crc32c } from './checksums.js';
import { sure } from './free-space.js';

export const SUPERBLOCK_OFFSET = 1024;
export const SUPERBLOCK_SIZE = 1024;

const MAGIC = 0xef53;
/** Bits of `state`: cleanly unmounted; errors were found. */
const VALID = 1;
const ERROR = 2;

const Compatible = { journal: 0x4, excludeBitmap: 0x100, sparseSuper2: 0x200 } as const;
const Incompatible = {
  fileType: 0x2,
  recover: 0x4,
  metaBlockGroups: 0x10,
  extents: 0x40,
  bits64: 0x80,
  multipleMount: 0x100,
  flexibleGroups: 0x200,
  inodeData: 0x400,
  directoryData: 0x1000,
  checksumSeed: 0x2000,
  largeDirectory: 0x4000,
  inlineData: 0x8000,
  encryption: 0x1_0000,
  caseFolding: 0x2_0000,
} as const;
const ReadOnlyCompatible = {
  sparseSuper: 0x1,
  largeFile: 0x2,
  btreeDirectory: 0x4,
  hugeFile: 0x8,
  descriptorChecksum: 0x10,
  directoryLinks: 0x20,
  extraInode: 0x40,
  quota: 0x100,
  clusters: 0x200,
  metadataChecksum: 0x400,
  readOnly: 0x1000,
  project: 0x2000,
  verity: 0x8000,
  orphanPresent: 0x1_0000,
} as const;

const all = (bits: Readonly<Record<string, number>>): number =>
  Object.values(bits).reduce((sum, bit) => sum | bit, 0);
const KNOWN_INCOMPATIBLE = all(Incompatible);
const KNOWN_READ_ONLY = all(ReadOnlyCompatible);

export interface ExtSuperblock {
  /** Bytes of a block: 1 KiB to 64 KiB. */
  readonly blockSize: number;
  readonly blockCount: number;
  readonly firstDataBlock: number;
  /** Blocks that a bit of a bitmap stands for. */
  readonly blocksPerCluster: number;
  readonly clustersPerGroup: number;
  readonly blocksPerGroup: number;
  readonly groupCount: number;
  readonly inodeTableBlocks: number;
  readonly descriptorSize: number;
  readonly reservedDescriptorBlocks: number;
  /** Number of the first block of descriptors that lies in its own meta group; `Infinity`: all lie behind the superblock. */
  readonly firstMetaGroup: number;
  readonly checksums: 'crc32c' | 'crc16' | 'none';
  readonly checksumSeed: number;
  readonly uuid: Uint8Array;
  /** Groups that have a copy of the superblock besides group 0: all, those of the sparse scheme, or these. */
  readonly backups: 'all' | 'sparse' | readonly number[];
}

const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/**
 * @param bytes the 1,024 bytes of the superblock
 * @param size bytes of the volume
 * @param isFrozen does the caller know that it is frozen or not mounted?
 */
export function decodeSuperblock(bytes: Uint8Array, size: number, isFrozen: boolean): ExtSuperblock {
  sure(bytes.byteLength === SUPERBLOCK_SIZE, () => `a superblock of ${bytes.byteLength} bytes`);
  const view = viewOf(bytes);
  const u16 = (at: number) => view.getUint16(at, true);
  const u32 = (at: number) => view.getUint32(at, true);
  sure(u16(0x38) === MAGIC, () => 'there is no ext superblock');
  const isRevised = u32(0x4c) >= 1;
  const compatible = isRevised ? u32(0x5c) : 0;
  const incompatible = isRevised ? u32(0x60) : 0;
  const readOnly = isRevised ? u32(0x64) : 0;
  checkFeatures(compatible, incompatible, readOnly);
  checkState(u16(0x3a), incompatible, isFrozen && (compatible & Compatible.journal) === 0);

  const logBlockSize = u32(0x18);
  sure(logBlockSize <= 6, () => `a block size of 2^${10 + logBlockSize}`);
  const blockSize = 1024 << logBlockSize;
  const hasClusters = (readOnly & ReadOnlyCompatible.clusters) !== 0;
  const logClusterSize = hasClusters ? u32(0x1c) : logBlockSize;
  sure(
    logClusterSize >= logBlockSize && logClusterSize <= 19,
    () => `a cluster size of 2^${10 + logClusterSize}`,
  );
  const blocksPerCluster = 1 << (logClusterSize - logBlockSize);
  const clustersPerGroup = hasClusters ? u32(0x24) : u32(0x20);
  const blocksPerGroup = u32(0x20);
  sure(
    clustersPerGroup >= 256 && clustersPerGroup % 8 === 0 && clustersPerGroup <= 8 * blockSize,
    () => `${clustersPerGroup} clusters a group`,
  );
  sure(
    blocksPerGroup === clustersPerGroup * blocksPerCluster,
    () => `${blocksPerGroup} blocks a group of ${clustersPerGroup} clusters`,
  );
  const is64 = (incompatible & Incompatible.bits64) !== 0;
  const blockCount = u32(0x4) + (is64 ? u32(0x150) * 2 ** 32 : 0);
  const firstDataBlock = u32(0x14);
  sure(
    firstDataBlock === 0 || (firstDataBlock === 1 && blockSize === 1024),
    () => `a first data block ${firstDataBlock}`,
  );
  sure(
    blockCount > firstDataBlock && blockCount <= size / blockSize,
    () => `${blockCount} blocks of ${blockSize} bytes in a volume of ${size} bytes`,
  );
  const groupCount = Math.ceil((blockCount - firstDataBlock) / blocksPerGroup);
  const inodesPerGroup = u32(0x28);
  const inodeSize = isRevised ? u16(0x58) : 128;
  sure(
    inodeSize >= 128 && inodeSize <= blockSize && (inodeSize & (inodeSize - 1)) === 0,
    () => `inodes of ${inodeSize} bytes`,
  );
  sure(inodesPerGroup > 0 && inodesPerGroup <= 8 * blockSize, () => `${inodesPerGroup} inodes a group`);
  const descriptorSize = is64 ? u16(0xfe) : 32;
  sure(
    descriptorSize >= (is64 ? 64 : 32) &&
      descriptorSize <= blockSize &&
      (descriptorSize & (descriptorSize - 1)) === 0,
    () => `group descriptors of ${descriptorSize} bytes`,
  );
  const uuid = bytes.slice(0x68, 0x78);
  const checksums =
    (readOnly & ReadOnlyCompatible.metadataChecksum) !== 0
      ? 'crc32c'
      : (readOnly & ReadOnlyCompatible.descriptorChecksum) !== 0
        ? 'crc16'
        : 'none';
  if (checksums === 'crc32c') {
    sure(view.getUint8(0x175) === 1, () => `checksums of type ${view.getUint8(0x175)}`);
    sure(crc32c(bytes.subarray(0, 0x3fc)) === u32(0x3fc), () => 'the superblock fails its checksum');
  }
  const hasSeed = (incompatible & Incompatible.checksumSeed) !== 0;
  return {
    blockSize,
    blockCount,
    firstDataBlock,
    blocksPerCluster,
    clustersPerGroup,
    blocksPerGroup,
    groupCount,
    inodeTableBlocks: Math.ceil((inodesPerGroup * inodeSize) / blockSize),
    descriptorSize,
    reservedDescriptorBlocks: isRevised ? u16(0xce) : 0,
    firstMetaGroup: (incompatible & Incompatible.metaBlockGroups) !== 0 ? u32(0x104) : Infinity,
    checksums,
    checksumSeed: hasSeed ? u32(0x270) : crc32c(uuid),
    uuid,
    backups:
      (compatible & Compatible.sparseSuper2) !== 0
        ? [u32(0x24c), u32(0x250)]
        : (readOnly & ReadOnlyCompatible.sparseSuper) !== 0
          ? 'sparse'
          : 'all',
  };
}

function checkFeatures(compatible: number, incompatible: number, readOnly: number): void {
  const hex = (bits: number) => `0x${(bits >>> 0).toString(16)}`;
  sure((incompatible & ~KNOWN_INCOMPATIBLE) === 0, () => `incompatible features ${hex(incompatible)}`);
  sure((readOnly & ~KNOWN_READ_ONLY) === 0, () => `read-only compatible features ${hex(readOnly)}`);
  sure((compatible & Compatible.excludeBitmap) === 0, () => `compatible features ${hex(compatible)}`);
}

/**
 * While a journal holds what the bitmaps do not say yet, a block may be called free that has data by now. The same holds for
 * a file system without a journal that was not unmounted. One with a journal says itself that it is frozen (fsfreeze); one without does
 * not, so there the caller's word counts.
 */
function checkState(state: number, incompatible: number, isSaidToBeFrozen: boolean): void {
  sure(
    (incompatible & Incompatible.recover) === 0,
    () => 'it is mounted, or was not unmounted: its journal is newer than its bitmaps; freeze it first',
  );
  sure((state & VALID) !== 0 || isSaidToBeFrozen, () => 'it is mounted, or was not unmounted');
  sure((state & ERROR) === 0, () => 'it is known to have errors');
}

export interface GroupDescriptor {
  readonly blockBitmap: number;
  readonly inodeBitmap: number;
  readonly inodeTable: number;
  readonly freeClusters: number;
  /** The bitmap on the volume was never written: all is free but metadata. */
  readonly isUninitialized: boolean;
  readonly bitmapChecksum: number;
}

const BLOCK_UNINIT = 2;

/** @param bytes the descriptor alone */
export function decodeGroupDescriptor(
  bytes: Uint8Array,
  group: number,
  superblock: ExtSuperblock,
): GroupDescriptor {
  const { descriptorSize, checksums } = superblock;
  sure(bytes.byteLength === descriptorSize, () => `group descriptor ${group} has ${bytes.byteLength} bytes`);
  const view = viewOf(bytes);
  const is64 = descriptorSize >= 64;
  const number = (low: number, high: number) =>
    view.getUint32(low, true) + (is64 ? view.getUint32(high, true) * 2 ** 32 : 0);
  const half = (low: number, high: number) =>
    view.getUint16(low, true) + (is64 ? view.getUint16(high, true) * 2 ** 16 : 0);
  if (checksums !== 'none') {
    sure(
      view.getUint16(0x1e, true) === descriptorChecksum(bytes, group, superblock),
      () => `the descriptor of group ${group} fails its checksum`,
    );
  }
  const flags = view.getUint16(0x12, true);
  const isUninitialized = (flags & BLOCK_UNINIT) !== 0;
  sure(!isUninitialized || checksums !== 'none', () => `group ${group} has flags that are without meaning`);
  return {
    blockBitmap: number(0x0, 0x20),
    inodeBitmap: number(0x4, 0x24),
    inodeTable: number(0x8, 0x28),
    freeClusters: half(0xc, 0x2c),
    isUninitialized,
    bitmapChecksum: half(0x18, 0x38),
  };
}

function descriptorChecksum(bytes: Uint8Array, group: number, superblock: ExtSuperblock): number {
  const number = new Uint8Array(4);
  viewOf(number).setUint32(0, group, true);
  const before = bytes.subarray(0, 0x1e);
  const after = bytes.subarray(0x20);
  if (superblock.checksums === 'crc16') {
    const head = crc16(before, crc16(number, crc16(superblock.uuid)));
    return crc16(after, head);
  }
  const head = crc32c(before, crc32c(number, superblock.checksumSeed));
  return crc32c(after, crc32c(new Uint8Array(2), head)) & 0xffff;
}

/** Is the bitmap of a group what was written last, as far as can be told? @param bits one a cluster of a group */
export function isBitmapSound(
  bits: Uint8Array,
  descriptor: GroupDescriptor,
  superblock: ExtSuperblock,
): boolean {
  if (superblock.checksums !== 'crc32c') return true;
  const checksum = crc32c(bits.subarray(0, superblock.clustersPerGroup / 8), superblock.checksumSeed);
  return (superblock.descriptorSize >= 64 ? checksum : checksum & 0xffff) === descriptor.bitmapChecksum;
}

/** Number of the block that holds descriptors `number * descriptors per block` and on. */
export function descriptorBlock(superblock: ExtSuperblock, number: number): number {
  const { blockSize, firstMetaGroup, firstDataBlock, blocksPerGroup, descriptorSize } = superblock;
  const first = blockSize === 1024 ? 1 : 0;
  if (number < firstMetaGroup) return first + 1 + number;
  const group = number * (blockSize / descriptorSize);
  const isFirst = blockSize === 1024 && number === 0 && firstDataBlock === 0;
  return firstDataBlock + group * blocksPerGroup + (hasBackup(superblock, group) ? 1 : 0) + (isFirst ? 1 : 0);
}

/** Does the group begin with a superblock? */
export function hasBackup({ backups }: ExtSuperblock, group: number): boolean {
  if (group === 0 || backups === 'all') return true;
  if (backups !== 'sparse') return backups.includes(group);
  return group === 1 || [3, 5, 7].some((base) => isPowerOf(base, group));
}

function isPowerOf(base: number, value: number): boolean {
  let power = base;
  while (power < value) power *= base;
  return power === value;
}

/**
 * Blocks of superblocks and group descriptors at the beginning of a group, `[start, end)`. Its bitmap says so too, if it was
 * ever written; rather some too many.
 */
export function groupHead(
  superblock: ExtSuperblock,
  group: number,
): readonly [start: ByteOffset, end: ByteOffset] {
  const { firstDataBlock, blocksPerGroup, blockSize, descriptorSize, groupCount } = superblock;
  const { firstMetaGroup, reservedDescriptorBlocks } = superblock;
  const start = firstDataBlock + group * blocksPerGroup;
  const perBlock = blockSize / descriptorSize;
  const inMeta = Math.floor(group / perBlock) >= firstMetaGroup;
  const place = group % perBlock;
  const isKeeper = place < 2 || place === perBlock - 1;
  let length = inMeta && isKeeper ? 2 : 0;
  if (hasBackup(superblock, group)) {
    const descriptors = Math.min(firstMetaGroup, Math.ceil(groupCount / perBlock));
    length = Math.max(length, 2 + descriptors + reservedDescriptorBlocks);
  }
  return [start, start + length];
}
