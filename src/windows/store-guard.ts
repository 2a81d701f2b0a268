/** What of a volume must not be written from above while it has shadow copies: their stores, and what leads to them. */
import { START_BLOCK_OFFSET, START_BLOCK_SIZE } from '../format/constants.js';
import { type ByteLength, type ByteOffset, blockOf, blocksIn, offsetOfBlock } from '../units.js';
import type { BlockRanges } from './block-ranges.js';

export class StoreGuard {
  #blocks: BlockRanges;
  #hasStart = true;

  /** @param blocks control blocks, files of the stores, and blocks that they use elsewhere */
  constructor(blocks: BlockRanges) {
    this.#blocks = blocks;
  }

  /** One store less. */
  set blocks(blocks: BlockRanges) {
    this.#blocks = blocks;
  }

  /** No shadow copy is left: the volume may be written everywhere. */
  end(blocks: BlockRanges): void {
    this.#blocks = blocks;
    this.#hasStart = false;
  }

  /** Where the range meets a store, as an offset of the volume; `undefined`: it does not. */
  storeWithin(offset: ByteOffset, length: ByteLength): ByteOffset | undefined {
    const end = offset + length;
    const isStart = offset < START_BLOCK_OFFSET + START_BLOCK_SIZE && end > START_BLOCK_OFFSET;
    if (this.#hasStart && isStart) return START_BLOCK_OFFSET;
    const block = this.#blocks.firstWithin(blockOf(offset), blocksIn(end));
    return block === undefined ? undefined : offsetOfBlock(block);
  }
}
