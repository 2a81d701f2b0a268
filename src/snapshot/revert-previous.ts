/** Snapshots that nobody wants any longer than a revert takes: that of the state before, and any that expired meanwhile. */
import { HeldError, OfflineError, SnapshotDeletedError } from '../errors.js';
import { SnapshotState } from '../format/control-block.js';
import { deleteSnapshot } from './delete.js';
import type { Emit } from './events.js';
import type { Merging } from './merging.js';
import type { DeletionReason, SnapshotRecord } from './record.js';
import type { SettleContext } from './settle-moves.js';

interface DropContext extends SettleContext {
  readonly emit: Emit;
  readonly merging: Merging;
}

/** Deletes it, durably, if it was to go when the revert is over, which it is. What fails is done at the next opening. */
export async function dropUnwanted(context: DropContext, record: SnapshotRecord): Promise<void> {
  const { emit, merging } = context;
  const reason = reasonToGo(record);
  if (reason === undefined || record.deleted !== undefined) return;
  try {
    await deleteSnapshot(context, record, reason);
    merging.wake();
  } catch (error) {
    // Somebody else was faster: it is gone, or wanted after all.
    if (error instanceof SnapshotDeletedError || error instanceof HeldError) return;
    // An older one waits for its diff area: this one goes when that has arrived.
    if (error instanceof OfflineError) record.expired = reason;
    else
      emit('backgroundFailure', { id: record.id, what: 'deleting what is not wanted after a revert', error });
  }
}

const reasonToGo = ({ expired, state }: SnapshotRecord): DeletionReason | undefined =>
  expired ?? ((state & SnapshotState.dropAfterRevert) === 0 ? undefined : 'requested');
