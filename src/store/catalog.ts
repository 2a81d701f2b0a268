/** What a control file says of snapshots: two items of each. */
import { FormatError } from '../errors.js';
import { type DiffAreaItem, type SnapshotItem, SnapshotState } from '../format/control-block.js';

/** What the control file says of one snapshot. */
export interface CatalogEntry {
  readonly snapshot: SnapshotItem;
  readonly diffArea: DiffAreaItem;
}

/** Is a snapshot being deleted? */
export const isDeleting = (entry: CatalogEntry | undefined): boolean =>
  entry !== undefined && (entry.diffArea.state & SnapshotState.deleting) !== 0;

/** Does it say where a shadow copy of Windows lies? Its order number, and those of others, are Windows' own. */
export const isShadowCopy = ({ diffArea }: CatalogEntry): boolean =>
  (diffArea.state & SnapshotState.shadowCopy) !== 0;

/** Oldest first, as volsnap means it. */
export const byOrder = (a: CatalogEntry, b: CatalogEntry): number => a.snapshot.order - b.snapshot.order;

/** Oldest first, as Windows means it. */
export const byCreation = ({ snapshot: a }: CatalogEntry, { snapshot: b }: CatalogEntry): number =>
  a.createdAt === b.createdAt ? a.order - b.order : a.createdAt < b.createdAt ? -1 : 1;

/**
 * Each item says which order number comes before its own, so one that is missing was lost. Only one that is being
 * deleted may be passed over: it goes once its successor says so.
 * @param entries oldest first
 * @throws FormatError
 */
export function checkOrders(entries: readonly CatalogEntry[]): void {
  for (const [index, { snapshot, diffArea }] of entries.entries()) {
    const elder = diffArea.elderOrder === 0 ? snapshot.order - 1 : diffArea.elderOrder;
    let before = index - 1;
    while (orderOf(entries[before], elder) !== elder && isDeleting(entries[before])) before--;
    const found = orderOf(entries[before], elder);
    if (found !== elder || elder >= snapshot.order) {
      throw new FormatError(
        `control blocks: the snapshot of order ${snapshot.order} comes after ${elder}, but follows ${found}`,
      );
    }
  }
}

/** Order number of a snapshot; of none `absent`: nothing is known of those before the oldest. */
const orderOf = (entry: CatalogEntry | undefined, absent: number): number => entry?.snapshot.order ?? absent;
