/** What follows from the order of snapshots by age. */
import type { SnapshotRecord } from './record.js';

export interface ToMerge {
  readonly deleted: SnapshotRecord;
  /** `undefined`: none is older. */
  readonly elder: SnapshotRecord | undefined;
}

/** The oldest that is being deleted, and the one before it, which is not. One whose diff area is late, or its elder's, waits. */
export function nextToMergeOf(records: readonly SnapshotRecord[]): ToMerge | undefined {
  const index = records.findIndex(
    ({ deleted, isLate }, i) => deleted !== undefined && !isLate && records[i - 1]?.isLate !== true,
  );
  const deleted = records[index];
  return deleted && { deleted, elder: records[index - 1] };
}

/** The next older one that is not being deleted. */
export const elderOf = (
  records: readonly SnapshotRecord[],
  record: SnapshotRecord,
): SnapshotRecord | undefined =>
  records.slice(0, records.indexOf(record)).findLast(({ deleted }) => deleted === undefined);
