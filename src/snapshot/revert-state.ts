/** What the devices say of a revert that is under way: the flag of its target, and the table chain of the newest snapshot. */
import type { DiffArea } from '../diff-area/diff-area.js';
import { OfflineError, UnsupportedError } from '../errors.js';
import { SnapshotFlag } from '../format/control-block.js';
import type { CatalogEntry } from '../store/catalog.js';
import { BLOCK_SIZE, type ByteLength } from '../units.js';
import type { SnapshotChain } from './chain.js';
import { PendingBlocks } from './pending-blocks.js';
import type { PutBack } from './put-back.js';
import type { SnapshotRecord } from './record.js';
import type { Outcome, RevertOptions, RevertStatus } from './revert-operation.js';

export interface FoundRevert {
  readonly target: SnapshotRecord;
  /** The snapshot of the volume as it was before. */
  readonly previous: SnapshotRecord;
  /** Its diff area; `undefined`: the snapshots are damaged, and what is to be put back is not known. */
  readonly area: DiffArea | undefined;
  readonly phase: RevertStatus['phase'];
  readonly pending: PendingBlocks;
  /** Blocks that there were to put back in this phase. */
  readonly total: number;
}

/** The same while it is open for writing. */
export interface RevertUnderWay {
  readonly target: SnapshotRecord;
  readonly previous: SnapshotRecord;
  readonly area: DiffArea;
  putBack: PutBack;
  phase: RevertStatus['phase'];
  worker: Promise<void> | undefined;
  isStopping: boolean;
  /** Was its end begun, so that the control file may say already that it is over? */
  isEndInDoubt: boolean;
  problem: unknown;
  completed: Outcome;
  readonly listeners: Set<NonNullable<RevertOptions['onProgress']>>;
}

/** @throws OfflineError, UnsupportedError if the volume, of so many bytes, cannot be put back to it */
export function checkTarget({ id, item }: SnapshotRecord, volumeSize: ByteLength): void {
  if ((item.flags & SnapshotFlag.offline) !== 0)
    throw new OfflineError(`snapshot ${id} is offline; take it online first`);
  if (item.volumeSize !== volumeSize) {
    throw new UnsupportedError(
      `snapshot ${id} is of ${item.volumeSize} bytes and the volume has ${volumeSize} now; export it instead`,
    );
  }
}

export const isTarget = (flags: number): boolean => (flags & SnapshotFlag.revertTarget) !== 0;

export function statusOf({ target, previous, phase, putBack, problem }: RevertUnderWay): RevertStatus {
  const { total, pending } = putBack;
  return {
    targetId: target.id,
    previousId: previous.id,
    phase,
    doneBytes: (total - pending.count) * BLOCK_SIZE,
    totalBytes: total * BLOCK_SIZE,
    problem: problem === undefined ? undefined : problem instanceof Error ? problem.message : String(problem),
  };
}

export function findRevert(chain: SnapshotChain, entries: readonly CatalogEntry[]): FoundRevert | undefined {
  const flagged = entries.find(({ snapshot }) => isTarget(snapshot.flags));
  const target = flagged && chain.find(flagged.snapshot.storeId);
  const previous = chain.newest;
  if (target === undefined || previous === undefined) return undefined;
  const { area } = previous;
  if (area === undefined || target.damage !== undefined) {
    const pending = new PendingBlocks();
    pending.addAll(target.item.volumeSize);
    return { target, previous, area: undefined, phase: 'reverting', pending, total: pending.count };
  }
  const { cancelledAt, copiedLater, done } = area.marks;
  const phase = cancelledAt === undefined ? 'reverting' : 'cancelling';
  const pending = phase === 'reverting' ? pendingBetween(chain, target, area) : pendingOf([area]);
  for (const block of copiedLater) pending.delete(block, 1);
  const total = pending.count;
  for (const { first, count } of done) pending.delete(first, count);
  return { target, previous, area, phase, pending, total };
}

/**
 * What lies between a snapshot and a newer one, with that diff area, or now: what has a copy in the older one, or between, or
 * moved then; and what was written to the older one itself.
 */
export function pendingBetween(
  chain: SnapshotChain,
  older: SnapshotRecord,
  newer: DiffArea | undefined,
): PendingBlocks {
  const pending = pendingOf(chain.areasFrom(older).filter((area) => area !== newer));
  if (older.area !== undefined) pending.add(older.area.overlays, older.area.table.blockCount);
  return pending;
}

export function pendingOf(areas: readonly DiffArea[]): PendingBlocks {
  const pending = new PendingBlocks();
  for (const area of areas) pending.addArea(area);
  return pending;
}

/** Marks that may have to be written: for each pending block, for the cancelling, and for each block to put back then. */
export const marksFor = (pending: PendingBlocks, { table }: DiffArea): number =>
  pending.count + table.size + 1;
