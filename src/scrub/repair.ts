/**
 * Puts a bad copy right, where that is safe: where bytes are found that its checksum proves to be those that were copied.
 *
 * A block often holds again what it held before, or was never overwritten after all. So the volume is asked, and the copies
 * of the same block in other snapshots. Nothing else is changed, and a crash in the middle leaves a copy that is bad still.
 */

import type { BlockDevice } from '../device/block-device.js';
import { FixedSlot } from '../diff-area/area-slots.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { DeviceError, IntegrityError } from '../errors.js';
import type { Problem } from '../snapshot/problem.js';
import type { SnapshotRecord } from '../snapshot/record.js';
import { BLOCK_SIZE, type BlockNumber, offsetOfBlock, type Slot } from '../units.js';

/** A copy that was found bad. */
export interface BadCopy {
  readonly record: SnapshotRecord;
  readonly area: DiffArea;
  readonly problem: Problem;
  /** Does anybody need it still? Else its slot may be somebody else's by now. */
  readonly isNeeded: () => boolean;
}

/**
 * @param volume below everything that changes it
 * @param records all there are now
 * @returns the problem, `repaired` if that could be done
 */
export async function repairCopy(
  volume: BlockDevice,
  records: readonly SnapshotRecord[],
  { record, area, problem, isNeeded }: BadCopy,
): Promise<Problem> {
  const { block } = problem;
  const slot = block === undefined ? FixedSlot.zeros : area.table.slotOf(block);
  try {
    const bytes =
      block === undefined ? new Uint8Array(BLOCK_SIZE) : await findBytes(volume, records, area, block, slot);
    if (bytes === undefined) return problem;
    // The slot stays what it is while this is held.
    const repaired = await record.resizing.runExclusive(async () => {
      if (record.isGone || !isNeeded()) return false;
      await area.writeData([slot], [bytes]);
      await area.file.device.flush();
      if (block === undefined) return area.copies.hasSoundZeros();
      await area.copies.read(block, slot, new Uint8Array(BLOCK_SIZE));
      return true;
    });
    return repaired ? { ...problem, repaired } : problem;
  } catch (error) {
    if (error instanceof DeviceError || error instanceof IntegrityError) return problem;
    throw error;
  }
}

/** What the copy of `block` in `slot` has to hold, if anybody has it. */
async function findBytes(
  volume: BlockDevice,
  records: readonly SnapshotRecord[],
  area: DiffArea,
  block: BlockNumber,
  slot: Slot,
): Promise<Uint8Array | undefined> {
  const bytes = new Uint8Array(BLOCK_SIZE);
  const isIt = () => area.checksum(block, slot, bytes) === area.table.checksumAt(slot);
  const inVolume = Math.min(BLOCK_SIZE, volume.size - offsetOfBlock(block));
  if (inVolume > 0) {
    await volume.read(offsetOfBlock(block), bytes.subarray(0, inVolume)).catch(unlessUnreadable);
    if (isIt()) return bytes;
  }
  for (const other of records) {
    const { area: elsewhere } = other;
    if (elsewhere === undefined || elsewhere === area || !elsewhere.table.has(block)) continue;
    // Of a deleted one the space of what is merged may have been given back.
    if (other.deleted !== undefined) continue;
    await other
      .whileThere(() => elsewhere.copies.read(block, elsewhere.table.slotOf(block), bytes))
      .catch(unlessUnreadable);
    if (isIt()) return bytes;
  }
  return undefined;
}

/** Who cannot be read has not got it. */
function unlessUnreadable(error: unknown): void {
  if (!(error instanceof DeviceError || error instanceof IntegrityError)) throw error;
}
