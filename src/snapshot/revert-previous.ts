/** The snapshot of the state before a revert, where nobody wants it any longer than the revert takes. */
import { HeldError, SnapshotDeletedError } from '../errors.js';
import { SnapshotState } from '../format/control-block.js';
import type { CreateContext } from './create.js';
import type { Merging } from './merging.js';
import type { SnapshotRecord } from './record.js';

interface DropContext extends Pick<CreateContext, 'chain' | 'copyOnWrite' | 'store' | 'emit'> {
  readonly merging: Merging;
}

/** Deletes it, durably, if it was taken to go when the revert is over, which it is. What fails is done at the next opening. */
export async function dropUnwanted(
  { chain, copyOnWrite, store, emit, merging }: DropContext,
  { id }: SnapshotRecord,
): Promise<void> {
  const entry = store.control.entries.find(({ snapshot }) => snapshot.storeId === id);
  const record = chain.find(id);
  if (entry === undefined || record === undefined || record.deleted !== undefined) return;
  if ((entry.diffArea.state & SnapshotState.dropAfterRevert) === 0) return;
  try {
    await chain.remove(record, copyOnWrite, 'requested');
    merging.wake();
  } catch (error) {
    // Somebody else was faster: it is gone, or wanted after all.
    if (error instanceof SnapshotDeletedError || error instanceof HeldError) return;
    emit('backgroundFailure', { id, what: 'deleting the snapshot of the state before a revert', error });
  }
}
