/**
 * What changed between two moments: the blocks that have a copy in any snapshot from the older moment on, up to the
 * newer one. Exact at 16 KiB, and nothing has to be kept for it besides the tables.
 */
import { BLOCKS_PER_PAGE, type BlockTable, emptyPresence, setBits } from '../diff-area/block-table.js';
import { BLOCK_SIZE, type BlockNumber, type ByteLength, type ByteOffset, blocksIn } from '../units.js';

/** A range of bytes of a volume. */
export interface ChangedExtent {
  readonly offset: ByteOffset;
  readonly length: ByteLength;
}

/** Blocks in any of the tables, ascending. */
export function* blocksOf(tables: readonly BlockTable[], blockCount: number): Generator<BlockNumber> {
  const presence = emptyPresence();
  for (let page = 0; page * BLOCKS_PER_PAGE < blockCount; page++) {
    const having = tables.filter((table) => table.hasPage(page));
    if (having.length === 0) continue;
    presence.fill(0);
    for (const table of having) table.addPresence(page, presence);
    yield* setBits(presence, page * BLOCKS_PER_PAGE);
  }
}

/** Ascending blocks as extents of bytes, neighbours merged, cut at the end of the volume. */
export function* extentsOf(blocks: Iterable<BlockNumber>, volumeSize: ByteLength): Generator<ChangedExtent> {
  let start = -1;
  let end = -1;
  const extent = () => ({
    offset: start * BLOCK_SIZE,
    length: Math.min(end * BLOCK_SIZE, volumeSize) - start * BLOCK_SIZE,
  });
  for (const block of blocks) {
    if (block * BLOCK_SIZE >= volumeSize) break;
    if (block === end) {
      end++;
      continue;
    }
    if (start >= 0) yield extent();
    start = block;
    end = block + 1;
  }
  if (start >= 0) yield extent();
}

/**
 * @param sizeBefore size of the volume at the older moment
 * @param size size at the newer one; what the volume has grown by has changed
 */
export function* changedExtents(
  tables: readonly BlockTable[],
  sizeBefore: ByteLength,
  size: ByteLength,
): Generator<ChangedExtent> {
  const grownFrom = size > sizeBefore ? Math.floor(sizeBefore / BLOCK_SIZE) : blocksIn(size);
  yield* extentsOf(withEnd(blocksOf(tables, blocksIn(size)), grownFrom, blocksIn(size)), size);
}

/** `blocks` below `from`, then every block from there up to `end`. */
function* withEnd(
  blocks: Iterable<BlockNumber>,
  from: BlockNumber,
  end: BlockNumber,
): Generator<BlockNumber> {
  for (const block of blocks) {
    if (block >= from) break;
    yield block;
  }
  for (let block: number = from; block < end; block++) yield block;
}
