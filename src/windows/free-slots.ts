/**
 * The free part of a diff-area file that Windows made: blocks of its runs behind everything that it holds.
 *
 * Windows hands the blocks of the file out in order, so what lies behind the last one in use was never used. A slot is
 * given out once; one whose copy failed is free again when the volume is opened the next time.
 */
import { assert } from '../errors.js';
import { BLOCK_SIZE, type ByteOffset, offsetOfBlock } from '../units.js';
import type { BlockRanges } from './block-ranges.js';
import type { FileRun } from './store-layout.js';

/** One block of the file. */
export interface FreeSlot {
  readonly fileOffset: ByteOffset;
  readonly volumeOffset: ByteOffset;
}

export class FreeSlots {
  readonly #runs: FileRun[];
  #count: number;

  /**
   * @param runs of the file, in its order
   * @param from file offset behind everything in use
   * @param taken blocks of the volume that hold something else, whatever the runs say
   */
  constructor(runs: readonly FileRun[], from: ByteOffset, taken: BlockRanges) {
    this.#runs = runs.flatMap((run) => [...partsOf(behind(run, from), taken)]);
    this.#count = this.#runs.reduce((sum, { blocks }) => sum + blocks, 0);
  }

  /** Slots that are left. */
  get count(): number {
    return this.#count;
  }

  /** The next slot, in the order of the file. There must be one. */
  take(): FreeSlot {
    const run = this.#runs[0];
    assert(run !== undefined, () => 'no free slot is left, and none was reserved');
    const { fileOffset, firstBlock, blocks } = run;
    if (blocks === 1) this.#runs.shift();
    else
      this.#runs[0] = { fileOffset: fileOffset + BLOCK_SIZE, firstBlock: firstBlock + 1, blocks: blocks - 1 };
    this.#count--;
    return { fileOffset, volumeOffset: offsetOfBlock(firstBlock) };
  }
}

function behind({ fileOffset, firstBlock, blocks }: FileRun, from: ByteOffset): FileRun {
  const passed = Math.min(blocks, Math.max(0, Math.ceil((from - fileOffset) / BLOCK_SIZE)));
  return {
    fileOffset: fileOffset + passed * BLOCK_SIZE,
    firstBlock: firstBlock + passed,
    blocks: blocks - passed,
  };
}

/** What of the run is not taken. */
function* partsOf({ fileOffset, firstBlock, blocks }: FileRun, taken: BlockRanges): Generator<FileRun> {
  const end = firstBlock + blocks;
  let start: number = firstBlock;
  const part = (to: number): FileRun => ({
    fileOffset: fileOffset + (start - firstBlock) * BLOCK_SIZE,
    firstBlock: start,
    blocks: to - start,
  });
  for (const range of taken.list) {
    if (range.end <= start) continue;
    if (range.start >= end) break;
    if (range.start > start) yield part(range.start);
    start = Math.min(end, range.end);
  }
  if (start < end) yield part(end);
}
