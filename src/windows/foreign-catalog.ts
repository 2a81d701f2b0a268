/**
 * The snapshots that the control blocks of a foreign store name, oldest first.
 *
 * Items are neither adjacent nor ordered: the two of a snapshot are matched by the GUID of their store, and age is the
 * time of creation.
 */
import { FormatError } from '../errors.js';
import { hex } from '../format/binary.js';
import { BlockType, SNAPSHOTS_MAX } from '../format/constants.js';
import { type DiffAreaItem, decodeControlBlock, type SnapshotItem } from '../format/control-block.js';
import type { Guid } from '../format/guid.js';
import type { ByteOffset } from '../units.js';
import type { MetadataReader } from './metadata-reader.js';
import type { Notes } from './notes.js';

export interface ForeignCatalogEntry {
  readonly snapshot: SnapshotItem;
  /** `undefined`: the catalog has none, so where the copies of the snapshot lie is not known. */
  readonly diffArea: DiffAreaItem | undefined;
}

/** @throws FormatError for a chain that is broken, an item of unknown type, or two items that contradict each other */
export async function readCatalog(
  reader: MetadataReader,
  firstControlBlock: ByteOffset,
  notes: Notes,
): Promise<ForeignCatalogEntry[]> {
  const snapshots = new Map<Guid, SnapshotItem>();
  const diffAreas = new Map<Guid, DiffAreaItem>();
  await reader.readChain(firstControlBlock, BlockType.control, (block, context) => {
    const { header, items } = decodeControlBlock(block, context);
    for (const item of items) {
      if (item.kind === 'snapshot') addOnce(snapshots, item, context.offset);
      else if (item.kind === 'diff-area') addOnce(diffAreas, item, context.offset);
    }
    return header;
  });
  const entries = [...snapshots.values()].map((snapshot) => ({
    snapshot,
    diffArea: diffAreas.get(snapshot.storeId),
  }));
  for (const storeId of diffAreas.keys())
    if (!snapshots.has(storeId))
      notes.add(`diff-area item of store ${storeId} belongs to no snapshot; ignored`);
  entries.sort((a, b) => compareAge(a.snapshot, b.snapshot));
  noteEqualTimes(entries, notes);
  return entries;
}

function addOnce<Item extends SnapshotItem | DiffAreaItem>(
  items: Map<Guid, Item>,
  item: Item,
  offset: ByteOffset,
): void {
  const place = `control block at offset ${hex(offset)}`;
  if (items.has(item.storeId))
    throw new FormatError(
      `${place}: second ${item.kind} item of store ${item.storeId}, must be the only one`,
    );
  if (items.size === SNAPSHOTS_MAX)
    throw new FormatError(
      `${place}: more than ${SNAPSHOTS_MAX} ${item.kind} items, must be at most that many`,
    );
  items.set(item.storeId, item);
}

function compareAge(a: SnapshotItem, b: SnapshotItem): number {
  if (a.createdAt !== b.createdAt) return a.createdAt < b.createdAt ? -1 : 1;
  return a.order - b.order;
}

function noteEqualTimes(entries: readonly ForeignCatalogEntry[], notes: Notes): void {
  entries.forEach(({ snapshot }, index) => {
    const older = entries[index - 1]?.snapshot;
    if (older?.createdAt === snapshot.createdAt)
      notes.add(
        `snapshots of stores ${older.storeId} and ${snapshot.storeId} have one creation time; their order numbers decide which is older`,
      );
  });
}
