/** The snapshot of the state before a revert, where nobody wants it any longer than the revert takes. */
import { HeldError, SnapshotDeletedError } from '../errors.js';
import { SnapshotState } from '../format/control-block.js';
import type { AttachedStore } from '../store/store.js';
import { deleteSnapshot } from './delete.js';
import type { Emit } from './events.js';
import type { Merging } from './merging.js';
import type { SnapshotRecord } from './record.js';
import type { SettleContext } from './settle-moves.js';

interface DropContext extends SettleContext {
  readonly store: AttachedStore;
  readonly emit: Emit;
  readonly merging: Merging;
}

/** Deletes it, durably, if it was taken to go when the revert is over, which it is. What fails is done at the next opening. */
export async function dropUnwanted(context: DropContext, { id }: SnapshotRecord): Promise<void> {
  const { chain, store, emit, merging } = context;
  const entry = store.control.entries.find(({ snapshot }) => snapshot.storeId === id);
  const record = chain.find(id);
  if (entry === undefined || record === undefined || record.deleted !== undefined) return;
  if ((entry.diffArea.state & SnapshotState.dropAfterRevert) === 0) return;
  try {
    await deleteSnapshot(context, record);
    merging.wake();
  } catch (error) {
    // Somebody else was faster: it is gone, or wanted after all.
    if (error instanceof SnapshotDeletedError || error instanceof HeldError) return;
    emit('backgroundFailure', { id, what: 'deleting the snapshot of the state before a revert', error });
  }
}
