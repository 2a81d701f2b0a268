/** What runs did, added up. */
export interface RunCounters {
  cycles: number;
  crashes: number;
  /** Times that what a crash left was drawn again, opened and compared, equal bytes counted once; none of them is one of `crashes`. */
  outcomes: number;
  operations: number;
  snapshotsTaken: number;
  /** Snapshots that left out what nothing uses. */
  snapshotsSkipping: number;
  /** Snapshots that were not to outlast the open volume. */
  snapshotsPassing: number;
  snapshotsVerified: number;
  snapshotsGivenUp: number;
  reverts: number;
  revertsCancelled: number;
  /** Snapshots given up for lack of room where an older one had to stay. */
  youngerGivenUp: number;
  /** Writes that failed for lack of room, where the policy or a hold wanted it so. */
  writesRefused: number;
  /** Deleted one by one, of any age; and those of them that older ones read through, merged to the end. */
  snapshotsDeleted: number;
  snapshotsMerged: number;
  blocksMerged: number;
  /** Openings without the diff areas; those after which they arrived, and the snapshots were there. */
  lateOpenings: number;
  lateArrivals: number;
  /** Those that were refused, because a held snapshot would have needed copies in memory. */
  lateRefused: number;
  /** Times that the volume was made longer. */
  growths: number;
  /** Writes over a store inside the volume that were refused. */
  writesOverStore: number;
  /** Times that `check` read the whole store and found nothing. */
  checks: number;
  /** Scrubs of a volume in use that came to their end, and found nothing. */
  scrubs: number;
  /** Device operations that were made to fail or to be late. */
  faults: number;
  /** Bits that were flipped, and runs in which that did damage, all of which was found. */
  bitsRotted: number;
  damageFound: number;
}

export const noCounters = (): RunCounters => ({
  cycles: 0,
  crashes: 0,
  outcomes: 0,
  operations: 0,
  snapshotsTaken: 0,
  snapshotsSkipping: 0,
  snapshotsPassing: 0,
  snapshotsVerified: 0,
  snapshotsGivenUp: 0,
  reverts: 0,
  revertsCancelled: 0,
  youngerGivenUp: 0,
  writesRefused: 0,
  snapshotsDeleted: 0,
  snapshotsMerged: 0,
  blocksMerged: 0,
  lateOpenings: 0,
  lateArrivals: 0,
  lateRefused: 0,
  growths: 0,
  writesOverStore: 0,
  checks: 0,
  scrubs: 0,
  faults: 0,
  bitsRotted: 0,
  damageFound: 0,
});

export function addCounters(sum: RunCounters, part: RunCounters): void {
  for (const key of Object.keys(sum) as (keyof RunCounters)[]) sum[key] += part[key];
}
