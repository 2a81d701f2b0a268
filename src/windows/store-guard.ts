/** What of a volume must not be written from above while it has shadow copies: their stores, and what leads to them. */
import { START_BLOCK_OFFSET, START_BLOCK_SIZE } from '../format/constants.js';
import { type ByteLength, type ByteOffset, blockOf, blocksIn, offsetOfBlock } from '../units.js';
import type { BlockRanges } from './block-ranges.js';

/** Where a range meets a store. */
export interface Encounter {
  readonly offset: ByteOffset;
  /** May the range be written once there are no shadow copies any more? */
  readonly isOwn: boolean;
}

export class StoreGuard {
  readonly #others: BlockRanges;
  /** Control blocks, files of the stores, and what they use elsewhere; `undefined`: there are no shadow copies. */
  own: BlockRanges | undefined;

  /** @param others stores of shadow copies that another volume has */
  constructor(own: BlockRanges | undefined, others: BlockRanges) {
    this.own = own;
    this.#others = others;
  }

  /** `undefined`: the range meets no store, nor the start block of one. */
  meets(offset: ByteOffset, length: ByteLength): Encounter | undefined {
    const isStart = offset < START_BLOCK_OFFSET + START_BLOCK_SIZE && offset + length > START_BLOCK_OFFSET;
    const store = this.meetsStore(offset, length);
    if (store?.isOwn === false || this.own === undefined || !isStart) return store;
    return { offset: START_BLOCK_OFFSET, isOwn: true };
  }

  /** The same, where the start block lies elsewhere. */
  meetsStore(offset: ByteOffset, length: ByteLength): Encounter | undefined {
    const [start, end] = [blockOf(offset), blocksIn(offset + length)];
    const other = this.#others.firstWithin(start, end);
    if (other !== undefined) return { offset: offsetOfBlock(other), isOwn: false };
    const own = this.own?.firstWithin(start, end);
    return own === undefined ? undefined : { offset: offsetOfBlock(own), isOwn: true };
  }
}
