/** Reads every copy and tests its checksum. */
import type { DiffArea } from '../diff-area/diff-area.js';
import { IntegrityError } from '../errors.js';
import type { SnapshotRecord } from '../snapshot/record.js';
import { BLOCK_SIZE, type BlockNumber, type ByteLength, type Slot } from '../units.js';
import type { Problem } from './check.js';

export interface ScrubOptions {
  readonly signal?: AbortSignal;
  /** Copies tested and copies in all, in bytes. */
  readonly onProgress?: (done: ByteLength, total: ByteLength) => void;
}

/** Copies read in one request. */
const RUN_BLOCKS = 64;

/** All copies of all snapshots; of one that is deleted meanwhile nothing is told. */
export async function scrub(
  records: readonly SnapshotRecord[],
  { signal, onProgress }: ScrubOptions,
): Promise<Problem[]> {
  const total = records.reduce((sum, { area }) => sum + (area?.table.size ?? 0) * BLOCK_SIZE, 0);
  const problems: Problem[] = [];
  let done = 0;
  for (const [index, record] of records.entries()) {
    const { area } = record;
    if (area === undefined) continue;
    const found: Problem[] = [];
    const tell = (message: string) => found.push({ code: 'checksum', snapshot: record.id, message });
    // Of a deleted one nobody needs what is merged already, and it may be cut off; it may be deleted meanwhile.
    const isNeeded = (block: BlockNumber) =>
      record.deleted === undefined ||
      records
        .slice(0, index)
        .findLast((older) => !older.isGone)
        ?.area?.needs(block) === true;
    if ((await record.whileThere(() => area.hasSoundZeros())) === false)
      tell('the block of zeros is not zero; other readers see it');
    for (const { block, count } of runsOf(area)) {
      signal?.throwIfAborted();
      const messages = await record.whileThere(() => testNeeded(area, block, count, isNeeded));
      if (messages === undefined) break;
      messages.forEach(tell);
      done += count * BLOCK_SIZE;
      onProgress?.(Math.min(done, total), total);
    }
    if (record.isGone) continue;
    problems.push(...found);
  }
  return problems;
}

/** Copies of consecutive blocks in consecutive slots. */
function* runsOf(area: DiffArea): Generator<{ block: BlockNumber; count: number }> {
  const { table } = area;
  let block = -1;
  let count = 0;
  for (const next of table.blocks()) {
    const follows = next === block + count && count < RUN_BLOCKS;
    if (follows && area.canReadTogether(slotOf(area, block), slotOf(area, next), count)) {
      count++;
      continue;
    }
    if (count > 0) yield { block, count };
    block = next;
    count = 1;
  }
  if (count > 0) yield { block, count };
}

const slotOf = ({ table }: DiffArea, block: BlockNumber): Slot => table.slotOf(block);

/**
 * What is wrong with the copies of `count` blocks from `block`; one by one only if something is. The space of what is not
 * needed any more may have been given back.
 */
async function testNeeded(
  area: DiffArea,
  block: BlockNumber,
  count: number,
  isNeeded: (block: BlockNumber) => boolean,
): Promise<string[]> {
  const areNeeded = () => {
    for (let each = block; each < block + count; each++) if (!isNeeded(each)) return false;
    return true;
  };
  if (areNeeded()) {
    try {
      await area.readCopies(block, area.table.slotOf(block), new Uint8Array(count * BLOCK_SIZE));
      return [];
    } catch (error) {
      if (areNeeded()) {
        if (!(error instanceof IntegrityError)) throw error;
        if (count === 1) return [error.message];
      }
    }
  }
  if (count === 1) return [];
  const messages: string[] = [];
  for (let i = 0; i < count; i++) messages.push(...(await testNeeded(area, block + i, 1, isNeeded)));
  return messages;
}
