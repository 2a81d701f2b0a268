/** Snapshots, as they are told. */
import type { RevertStatus, Snapshot } from '../index.js';
import { formatAge } from './age.js';
import { shortId } from './ids.js';
import { oneLine } from './text.js';

/** What `list --json` and `create --json` say of a snapshot. */
export const snapshotRecord = (snapshot: Snapshot, revert?: RevertStatus) => ({
  id: snapshot.id,
  storeId: snapshot.storeId,
  setId: snapshot.setId,
  order: snapshot.order,
  label: snapshot.label ?? null,
  createdAt: isoOf(snapshot.createdAt),
  volumeSize: snapshot.size,
  usedBytes: snapshot.usedBytes,
  unusedBytes: snapshot.unusedBytes,
  allocatedBytes: snapshot.allocatedBytes,
  state: snapshot.state,
  persistent: snapshot.persistent,
  hidden: snapshot.hidden,
  offline: snapshot.offline,
  writable: snapshot.writable,
  held: snapshot.held,
  heldUntil: snapshot.heldUntil === undefined ? null : isoOf(snapshot.heldUntil),
  ...(snapshot.problem === undefined ? {} : { problem: snapshot.problem }),
  ...(roleIn(snapshot, revert) === undefined ? {} : { role: roleIn(snapshot, revert) }),
});

/** What the snapshot is in a revert that is under way. */
function roleIn(
  { id }: Snapshot,
  revert: RevertStatus | undefined,
): 'revert-target' | 'before-revert' | undefined {
  if (revert?.targetId === id) return 'revert-target';
  return revert?.previousId === id ? 'before-revert' : undefined;
}

/** The same in words, to follow the state. */
export function rolePhrase(snapshot: Snapshot, revert: RevertStatus | undefined): string {
  const role = roleIn(snapshot, revert);
  return role === undefined ? '' : `, ${role.replace('-', ' ')}`;
}

/** `1a2b3c4d “before the upgrade”, 3 minutes ago`. */
export function snapshotPhrase(snapshot: Snapshot, all: readonly Snapshot[]): string {
  const label = snapshot.label === undefined ? '' : ` “${oneLine(snapshot.label)}”`;
  return `${shortId(snapshot, all)}${label}, ${formatAge(snapshot.createdAt)}`;
}

/** A volume that others wrote may hold a time that is none. */
const isoOf = (moment: Date): string | null => (Number.isNaN(moment.getTime()) ? null : moment.toISOString());
