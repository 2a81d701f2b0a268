/** Reads every copy and tests its checksum. */
import { FixedSlot } from '../diff-area/area-slots.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { DeviceError, IntegrityError } from '../errors.js';
import type { Guid } from '../format/guid.js';
import type { Problem } from '../snapshot/problem.js';
import type { SnapshotRecord } from '../snapshot/record.js';
import { BLOCK_SIZE, type BlockNumber, type ByteLength, type Slot } from '../units.js';
import type { Pace } from './pace.js';
import type { BadCopy } from './repair.js';

/** How copies are gone through, and what is done with what is found. */
export interface CopyWalk {
  readonly pace: Pace;
  readonly signal?: AbortSignal | undefined;
  /** Copies tested and copies in all, in bytes. */
  readonly onProgress?: ((done: ByteLength, total: ByteLength) => void) | undefined;
  /** Runs one step of the reading; by default at once. */
  readonly step?: <T>(action: () => Promise<T>) => Promise<T>;
  /** Tries to put one right. @returns the problem as it is then */
  readonly repair?: ((bad: BadCopy) => Promise<Problem>) | undefined;
  /** Told of each problem at once. */
  readonly onProblem?: ((problem: Problem) => void) | undefined;
}

/** Copies read in one request. */
const RUN_BLOCKS = 64;
/** Copies that cannot be read are findings, up to so many; with more it is the device that is gone. */
const UNREADABLE_MAX = 64;

/** All copies of all snapshots; of one that is deleted meanwhile nothing is told any more. @throws DeviceError */
export async function scrubCopies(records: readonly SnapshotRecord[], walk: CopyWalk): Promise<Problem[]> {
  const { signal, onProgress, pace, step = (action) => action() } = walk;
  const total = records.reduce((sum, { area }) => sum + (area?.table.size ?? 0) * BLOCK_SIZE, 0);
  const problems: Problem[] = [];
  let done = 0;
  let unreadable = 0;
  for (const [index, record] of records.entries()) {
    const { area } = record;
    if (area === undefined) continue;
    const found: Problem[] = [];
    // Of a deleted one nobody needs what is merged already, and it may be cut off; it may be deleted meanwhile.
    const isNeeded = (block: BlockNumber) =>
      record.deleted === undefined ||
      records
        .slice(0, index)
        .findLast((older) => !older.isGone)
        ?.area?.needs(block) === true;
    const tell = async (problem: Problem) => {
      const { block } = problem;
      const bad = { record, area, problem, isNeeded: () => block === undefined || isNeeded(block) };
      const told = (await walk.repair?.(bad)) ?? problem;
      if (record.isGone) return;
      found.push(told);
      walk.onProblem?.(told);
    };
    await pace.take(BLOCK_SIZE, signal);
    if ((await step(() => record.whileThere(() => area.copies.hasSoundZeros()))) === false)
      await tell({
        code: 'checksum',
        snapshot: record.id,
        message: 'the block of zeros is not zero; other readers see it',
      });
    for (const { block, count } of runsOf(area)) {
      signal?.throwIfAborted();
      if (slotOf(area, block) !== FixedSlot.zeros) await pace.take(count * BLOCK_SIZE, signal);
      const bad = await step(() => record.whileThere(() => testNeeded(area, block, count, isNeeded)));
      if (bad === undefined) break;
      for (const { block: each, error } of bad) {
        if (error instanceof DeviceError && ++unreadable > UNREADABLE_MAX) throw error;
        await tell({
          code: error instanceof IntegrityError ? 'checksum' : 'unreadable',
          snapshot: record.id,
          message: error.message,
          block: each,
          affected: affectedBy(records, index, each),
        });
      }
      done += count * BLOCK_SIZE;
      onProgress?.(Math.min(done, total), total);
    }
    if (!record.isGone) problems.push(...found);
  }
  return problems;
}

/** Those who read a block through the snapshot at `index`, oldest first, that one included. */
function affectedBy(records: readonly SnapshotRecord[], index: number, block: BlockNumber): Guid[] {
  const affected: Guid[] = [];
  for (let at = index; at >= 0; at--) {
    const record = records[at];
    if (record === undefined || record.isGone) continue;
    if (at < index && hasOwn(record.area, block)) break;
    if (record.deleted === undefined) affected.unshift(record.id);
  }
  return affected;
}

/** Does a snapshot answer for a block itself, instead of asking the next newer one about the same block? */
const hasOwn = (area: DiffArea | undefined, block: BlockNumber): boolean =>
  area === undefined ||
  area.table.has(block) ||
  area.unused?.has(block) === true ||
  area.moves.targetOf(block) !== undefined;

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

interface FailedRead {
  readonly block: BlockNumber;
  readonly error: IntegrityError | DeviceError;
}

/**
 * Which copies of `count` blocks from `block` are bad; one by one only if something is. The space of what is not
 * needed any more may have been given back.
 */
async function testNeeded(
  area: DiffArea,
  block: BlockNumber,
  count: number,
  isNeeded: (block: BlockNumber) => boolean,
): Promise<FailedRead[]> {
  const areNeeded = () => {
    for (let each = block; each < block + count; each++) if (!isNeeded(each)) return false;
    return true;
  };
  if (areNeeded()) {
    try {
      await area.copies.read(block, area.table.slotOf(block), new Uint8Array(count * BLOCK_SIZE));
      return [];
    } catch (error) {
      if (areNeeded()) {
        if (!(error instanceof IntegrityError || error instanceof DeviceError)) throw error;
        if (count === 1) return [{ block, error }];
      }
    }
  }
  if (count === 1) return [];
  const bad: FailedRead[] = [];
  for (let i = 0; i < count; i++) bad.push(...(await testNeeded(area, block + i, 1, isNeeded)));
  return bad;
}
