/**
 * Snapshots that are found at opening and should not be there, or of which that is not known: not persistent ones, those whose
 * owner has gone, and members of sets that were being taken in a crash.
 */
import type { Environment } from '../environment.js';
import { IntegrityError, NoSpaceError, OfflineError, SnapshotDeletedError } from '../errors.js';
import { SnapshotState } from '../format/control-block.js';
import { deleteSnapshot } from '../snapshot/delete.js';
import type { Emit } from '../snapshot/events.js';
import type { DeletionReason, SnapshotRecord } from '../snapshot/record.js';
import type { SetOutcome } from '../store/set-records.js';
import type { Engine } from './engine.js';
import { findSetOutcome, type SetResolver } from './set-outcome.js';

export interface LeftoverOptions {
  readonly environment: Environment;
  readonly writable: boolean;
  readonly onUndecidedSet: 'pending' | 'keep' | 'drop' | SetResolver;
}

export interface Leftovers {
  /** What is to go. */
  readonly expired: readonly { readonly record: SnapshotRecord; readonly reason: DeletionReason }[];
  /** Pending members of sets that were completed: nothing is pending about them. */
  readonly completed: readonly SnapshotRecord[];
  readonly warnings: readonly string[];
}

/** Changes nothing. */
export async function findLeftovers(
  records: readonly SnapshotRecord[],
  options: LeftoverOptions,
): Promise<Leftovers> {
  const expired: { record: SnapshotRecord; reason: DeletionReason }[] = [];
  const completed: SnapshotRecord[] = [];
  const warnings: string[] = [];
  for (const record of records) {
    // One that is being deleted is so whatever it was before.
    if (record.damage !== undefined || record.deleted !== undefined) continue;
    const { state } = record;
    if ((state & SnapshotState.volatile) !== 0) expired.push({ record, reason: 'not-persistent' });
    else if ((state & SnapshotState.autoRelease) !== 0) expired.push({ record, reason: 'released' });
    else if ((state & SnapshotState.setPending) !== 0 && !record.isLate) {
      const outcome = await outcomeFor(record, options);
      if (outcome === 'aborted') expired.push({ record, reason: 'set-aborted' });
      else if (outcome === 'committed') completed.push(record);
      else warnings.push(undecided(record));
    }
  }
  return { expired, completed, warnings };
}

/** In memory only, of a volume that is open for reading. */
export function passOverLeftovers({ completed, expired }: Leftovers): void {
  for (const record of completed) record.state &= ~SnapshotState.setPending;
  for (const { record, reason } of expired) record.expired = reason;
}

/**
 * Durably, once the volume is known to be in use: a crash from here on finds again what is left of them.
 * @throws DeviceError
 */
export async function settleLeftovers(engine: Engine, { completed, expired }: Leftovers): Promise<void> {
  const { store, chain, pools, emit } = engine;
  for (const record of completed) {
    await store.control.setState(record.id, { clear: SnapshotState.setPending });
    record.state &= ~SnapshotState.setPending;
  }
  try {
    for (const { record, reason } of expired) {
      // It may have gone with another, whose copies could not be kept.
      if (record.deleted !== undefined) continue;
      // What a revert needs goes when that is over. Of what older ones read through it is durable that it is to go.
      if (chain.keeping.isNeeded(record)) record.expired = reason;
      else await deleteSnapshot(engine, record, reason).catch(atNextOpening(record, reason, emit));
    }
  } finally {
    await pools.background.onIdle();
  }
}

/** Moves of it may have no room to be settled, or an older one be late, which is no reason not to open the volume. @throws what is no such reason */
const atNextOpening =
  (record: SnapshotRecord, reason: DeletionReason, emit: Emit) =>
  (error: unknown): void => {
    if (error instanceof SnapshotDeletedError) return;
    // An older one waits for its diff area: this one goes when that has arrived.
    const waits = error instanceof OfflineError;
    if (!waits && !(error instanceof NoSpaceError) && !(error instanceof IntegrityError)) throw error;
    record.expired = reason;
    if (!waits)
      emit('backgroundFailure', { id: record.id, what: 'deleting a snapshot that was not to stay', error });
  };

async function outcomeFor(
  record: SnapshotRecord,
  { environment, writable, onUndecidedSet }: LeftoverOptions,
): Promise<SetOutcome> {
  const information = record.area?.information;
  if (information?.coordinator === undefined) return 'unknown';
  const { setId, coordinator } = information;
  const question = { setId, snapshotId: record.id, coordinator, writable };
  if (typeof onUndecidedSet === 'function') return onUndecidedSet(question);
  const found = await findSetOutcome(question, environment);
  if (found !== 'unknown' || onUndecidedSet === 'pending') return found;
  return onUndecidedSet === 'keep' ? 'committed' : 'aborted';
}

function undecided(record: SnapshotRecord): string {
  const information = record.area?.information;
  const place = information?.coordinator;
  const where = place === undefined ? 'nobody knows where' : `in the store of ${place.volume}`;
  return `snapshot ${record.id} is pending: power failed while its set ${information?.setId} was being taken, and whether the set was completed is recorded ${where}, which cannot be asked now. Bring that volume back and open this one again; or decide with: volsnap check --repair --undecided keep, or drop`;
}
