/** A revert as the oracle sees it: writes of the whole volume, all at one moment. */
import { BLOCK_SIZE, type BlockNumber, type ByteOffset, blockOf } from '../units.js';
import type { WriteRecord } from './sector-history.js';

export interface ModelRevert {
  /** What it changes for certain. */
  readonly whole: readonly WriteRecord[];
  /** What it may change. */
  readonly unsure: readonly WriteRecord[];
}

/**
 * @param bytes of the whole volume
 * @param unused blocks that are put back or stay as they are
 * @param begin called for each run of blocks of one kind
 */
export function revertWrites(
  bytes: Uint8Array,
  unused: ReadonlySet<BlockNumber>,
  begin: (offset: ByteOffset, part: Uint8Array) => WriteRecord,
): ModelRevert {
  const revert = { whole: [] as WriteRecord[], unsure: [] as WriteRecord[] };
  for (let from = 0, to: number; from < bytes.byteLength; from = to) {
    const isUnused = unused.has(blockOf(from));
    to = from;
    while (to < bytes.byteLength && unused.has(blockOf(to)) === isUnused) to += BLOCK_SIZE;
    (isUnused ? revert.unsure : revert.whole).push(begin(from, bytes.slice(from, to)));
  }
  return revert;
}
