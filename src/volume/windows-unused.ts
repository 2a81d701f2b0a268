/**
 * What differs because a shadow copy of Windows declares blocks unused: they read as zeros in it, while the volume, and
 * older snapshots, still show what was left there. No table knows, so the blocks have to be read.
 */
import type { ByteSource } from '../snapshot/snapshot.js';
import { BLOCK_SIZE, type BlockNumber, type ByteOffset, offsetOfBlock } from '../units.js';
import type { UnusedBlocks } from '../windows/unused-blocks.js';
import type { BlockRun } from './changed-blocks.js';

export interface UnusedSearch extends BlockRun {
  readonly unused: UnusedBlocks;
  /** Where the shorter of the two ends. */
  readonly size: ByteOffset;
  /** The two moments. */
  readonly a: ByteSource;
  readonly b: ByteSource;
  readonly signal: AbortSignal | undefined;
}

/** Blocks that are read at a time. */
const WINDOW = 64;

/** Blocks of `written`, which is ascending, and unused ones that differ, from `start` up to `end`, some at a time. */
export async function* withUnused(
  written: readonly BlockNumber[],
  search: UnusedSearch,
): AsyncGenerator<readonly BlockNumber[]> {
  const { start, end, unused, signal } = search;
  const buffers: Buffers = [Buffer.alloc(WINDOW * BLOCK_SIZE), Buffer.alloc(WINDOW * BLOCK_SIZE)];
  let next = 0;
  for (let from: number = start; from < end; from += WINDOW) {
    signal?.throwIfAborted();
    const to = Math.min(from + WINDOW, end);
    const blocks = new Set<BlockNumber>();
    for (let block = written[next]; block !== undefined && block < to; block = written[++next])
      blocks.add(block);
    const candidates: BlockNumber[] = [];
    for (let block = from; block < to; block++)
      if (!blocks.has(block) && unused.has(block)) candidates.push(block);
    for await (const block of differing(search, candidates, buffers)) blocks.add(block);
    yield [...blocks].sort((a, b) => a - b);
  }
}

type Buffers = readonly [Buffer, Buffer];

/** Those of the ascending `blocks` that differ; reads from the first to the last of them at once. */
async function* differing(
  { a, b, size }: UnusedSearch,
  blocks: readonly BlockNumber[],
  [left, right]: Buffers,
): AsyncGenerator<BlockNumber> {
  const [first, last] = [blocks.at(0), blocks.at(-1)];
  if (first === undefined || last === undefined) return;
  const start = offsetOfBlock(first);
  const length = Math.min(offsetOfBlock(last + 1), size) - start;
  await a.read(start, left.subarray(0, length));
  await b.read(start, right.subarray(0, length));
  for (const block of blocks) {
    const from = offsetOfBlock(block) - start;
    const to = Math.min(from + BLOCK_SIZE, length);
    if (left.compare(right, from, to, from, to) !== 0) yield block;
  }
}
