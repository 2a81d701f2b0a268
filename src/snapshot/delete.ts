/**
 * Deleting one snapshot, whatever its age.
 *
 * Where older ones read through it, moves have to be settled before (`settle-moves.ts`): of the snapshot itself, and of its elder. It
 * gets no new ones from then on, and the elder has none until the deleted one is merged, because copies that are made within the
 * volume become moves only while nothing is being merged into the newest (`CopyOnWrite.commitMoves`).
 */
import type { DeletionReason, SnapshotRecord } from './record.js';
import { type SettleContext, settleMoves } from './settle-moves.js';

/**
 * Durable when it resolves; see `SnapshotChain.remove`.
 * @throws SnapshotDeletedError, HeldError, RevertInProgressError; NoSpaceError, IntegrityError, DeviceError: it exists still
 */
export async function deleteSnapshot(
  context: SettleContext,
  record: SnapshotRecord,
  reason: DeletionReason = 'requested',
): Promise<void> {
  const { chain, copyOnWrite, pools } = context;
  chain.indexOf(record);
  chain.keeping.check([record]);
  record.area?.moves.bar();
  // Moves that were being recorded are there after this.
  await pools.commit.add(async () => undefined);
  do {
    for (const owing of chain.toSettle(record)) await settleMoves(context, owing);
  } while (!(await chain.remove(() => record, copyOnWrite, reason)));
}
