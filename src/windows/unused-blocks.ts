/**
 * Which blocks a foreign snapshot declares unused. They were never copied, and read as zeros while the snapshot is the
 * newest: in its bitmap, and in the bitmap of the snapshot before it where there is one.
 */
import { bitAt, bitmapBlocksFor, decodeBitmapBlock } from '../format/bitmap-block.js';
import { BITS_PER_BITMAP_BLOCK, BlockType } from '../format/constants.js';
import type { DiffAreaItem } from '../format/control-block.js';
import type { BlockNumber } from '../units.js';
import type { MetadataReader } from './metadata-reader.js';

export class UnusedBlocks {
  readonly #parts: readonly Uint8Array[][];

  /** @param chains for each bitmap that counts, the bits of its blocks in order */
  private constructor(chains: readonly Uint8Array[][]) {
    this.#parts = chains;
  }

  /** @param blockCount blocks of the volume; bitmap blocks beyond them are read over, not kept */
  static async read(reader: MetadataReader, item: DiffAreaItem, blockCount: number): Promise<UnusedBlocks> {
    // A previous bitmap alone says nothing.
    if (item.bitmapOffset === 0) return new UnusedBlocks([]);
    const wanted = bitmapBlocksFor(blockCount);
    const chains: Uint8Array[][] = [];
    for (const first of [item.bitmapOffset, item.previousBitmapOffset]) {
      if (first === 0) continue;
      const bits: Uint8Array[] = [];
      await reader.readChain(first, BlockType.bitmap, (block, context) => {
        const decoded = decodeBitmapBlock(block, context);
        if (bits.length < wanted) bits.push(decoded.bits.slice());
        return decoded.header;
      });
      chains.push(bits);
    }
    return new UnusedBlocks(chains);
  }

  /** A chain that ends early declares nothing for the blocks that it does not reach. */
  has(block: BlockNumber): boolean {
    if (this.#parts.length === 0) return false;
    return this.#parts.every((chain) => {
      const bits = chain[Math.floor(block / BITS_PER_BITMAP_BLOCK)];
      return bits !== undefined && bitAt(bits, block % BITS_PER_BITMAP_BLOCK);
    });
  }
}
