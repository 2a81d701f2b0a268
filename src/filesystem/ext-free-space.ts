/** What an ext2, ext3 or ext4 file system does not use: its block bitmaps, if they can be relied on. */
import type { ByteLength } from '../units.js';
import {
  decodeGroupDescriptor,
  decodeSuperblock,
  descriptorBlock,
  type ExtSuperblock,
  type GroupDescriptor,
  groupHead,
  isBitmapSound,
  SUPERBLOCK_OFFSET,
  SUPERBLOCK_SIZE,
} from './ext-format.js';
import {
  clearRuns,
  type FileSystemSource,
  type FreeSpaceProvider,
  sure,
  UnusedRanges,
  unlessUnsure,
} from './free-space.js';

/** Bitmaps of neighbouring groups mostly lie together, and are read together: at most so many bytes. */
const READ_MAX = 256 * 1024;

export interface ExtFreeSpaceOptions {
  /** The caller knows that the file system is frozen or not mounted; matters only to one without a journal. Default: no. */
  readonly frozen?: boolean;
}

export const extFreeSpace = ({ frozen = false }: ExtFreeSpaceOptions = {}): FreeSpaceProvider => ({
  name: 'ext2/3/4',
  unusedBlocks: (source, size, signal) =>
    unlessUnsure(() => new ExtReader(source, size, signal).read(frozen)),
});

class ExtReader {
  readonly #source: FileSystemSource;
  readonly #size: ByteLength;
  readonly #signal: AbortSignal;
  readonly #ranges: UnusedRanges;

  constructor(source: FileSystemSource, size: ByteLength, signal: AbortSignal) {
    this.#source = source;
    this.#size = size;
    this.#signal = signal;
    this.#ranges = new UnusedRanges(size);
  }

  async read(isFrozen: boolean): Promise<Uint8Array> {
    sure(this.#size >= SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE, () => 'the volume is too small');
    const bytes = new Uint8Array(SUPERBLOCK_SIZE);
    await this.#source.read(SUPERBLOCK_OFFSET, bytes);
    const superblock = decodeSuperblock(bytes, this.#size, isFrozen);
    await this.#eachBlock(superblock, (first, some) => this.#takeGroups(superblock, first, some));
    // The bitmaps say so themselves, but for those that were never written. Read again: there may be millions.
    await this.#eachBlock(superblock, (first, some) => {
      for (const [index, descriptor] of some.entries())
        this.#keepMetadata(superblock, first + index, descriptor);
    });
    return this.#ranges.finish();
  }

  async #eachBlock(
    superblock: ExtSuperblock,
    visit: (first: number, some: readonly GroupDescriptor[]) => void | Promise<void>,
  ): Promise<void> {
    const perBlock = superblock.blockSize / superblock.descriptorSize;
    for (let group = 0; group < superblock.groupCount; group += perBlock) {
      this.#signal.throwIfAborted();
      await visit(group, await this.#readDescriptors(superblock, group));
    }
  }

  /** Reads one block of descriptors, of `first` and on. */
  async #readDescriptors(superblock: ExtSuperblock, first: number): Promise<GroupDescriptor[]> {
    const { blockSize, descriptorSize, groupCount } = superblock;
    const perBlock = blockSize / descriptorSize;
    const block = new Uint8Array(blockSize);
    await this.#readBlocks(superblock, descriptorBlock(superblock, first / perBlock), block);
    return Array.from({ length: Math.min(perBlock, groupCount - first) }, (_, index) => {
      const at = index * descriptorSize;
      return decodeGroupDescriptor(block.subarray(at, at + descriptorSize), first + index, superblock);
    });
  }

  async #takeGroups(
    superblock: ExtSuperblock,
    first: number,
    some: readonly GroupDescriptor[],
  ): Promise<void> {
    const { blockSize } = superblock;
    for (let from = 0, to: number; from < some.length; from = to) {
      to = from + 1;
      const start = some[from];
      if (start === undefined || start.isUninitialized) {
        if (start !== undefined) this.#takeBits(superblock, first + from, EMPTY);
        continue;
      }
      while (
        (to - from + 1) * blockSize <= READ_MAX &&
        some[to]?.isUninitialized === false &&
        some[to]?.blockBitmap === start.blockBitmap + to - from
      )
        to++;
      this.#signal.throwIfAborted();
      const bitmaps = new Uint8Array((to - from) * blockSize);
      await this.#readBlocks(superblock, start.blockBitmap, bitmaps);
      for (let index = from; index < to; index++) {
        const descriptor = some[index];
        const at = (index - from) * blockSize;
        if (descriptor === undefined) continue;
        this.#takeBitmap(superblock, first + index, descriptor, bitmaps.subarray(at, at + blockSize));
      }
    }
  }

  #takeBitmap(superblock: ExtSuperblock, group: number, descriptor: GroupDescriptor, bits: Uint8Array): void {
    sure(
      isBitmapSound(bits, descriptor, superblock),
      () => `the bitmap of group ${group} fails its checksum`,
    );
    const free = this.#takeBits(superblock, group, bits);
    sure(
      free === descriptor.freeClusters,
      () => `group ${group} has ${free} free clusters, its descriptor says ${descriptor.freeClusters}`,
    );
  }

  /** @returns clusters that are free */
  #takeBits(superblock: ExtSuperblock, group: number, bits: Uint8Array | typeof EMPTY): number {
    const { blockSize, blocksPerCluster, clustersPerGroup, firstDataBlock, blockCount, blocksPerGroup } =
      superblock;
    const first = firstDataBlock + group * blocksPerGroup;
    const clusters = Math.min(clustersPerGroup, Math.ceil((blockCount - first) / blocksPerCluster));
    const runs: Iterable<readonly [number, number]> =
      bits === EMPTY ? [[0, clusters] as const] : clearRuns(bits, clusters);
    let free = 0;
    for (const [start, end] of runs) {
      free += end - start;
      const last = Math.min(blockCount, first + end * blocksPerCluster);
      this.#ranges.add((first + start * blocksPerCluster) * blockSize, last * blockSize);
    }
    return free;
  }

  #keepMetadata(superblock: ExtSuperblock, group: number, descriptor: GroupDescriptor): void {
    const { blockSize, blockCount, inodeTableBlocks } = superblock;
    const { blockBitmap, inodeBitmap, inodeTable } = descriptor;
    const parts = [
      groupHead(superblock, group),
      [blockBitmap, blockBitmap + 1],
      [inodeBitmap, inodeBitmap + 1],
      [inodeTable, inodeTable + inodeTableBlocks],
    ] as const;
    for (const [index, [start, end]] of parts.entries()) {
      sure(index === 0 || end <= blockCount, () => `metadata of group ${group} lies past the end`);
      this.#ranges.remove(start * blockSize, end * blockSize);
    }
  }

  async #readBlocks(
    { blockSize, blockCount }: ExtSuperblock,
    block: number,
    target: Uint8Array,
  ): Promise<void> {
    sure(
      block > 0 && block + target.byteLength / blockSize <= blockCount,
      () => `block ${block} lies past the end`,
    );
    await this.#source.read(block * blockSize, target);
  }
}

/** The bitmap of a group that was never written. */
const EMPTY = 'empty';
