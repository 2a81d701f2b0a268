/** What must hold between the parts of a store, besides each part being well-formed. */
import { FixedSlot } from '../diff-area/area-slots.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { pagesOf } from '../diff-area/paged-blocks.js';
import { BLOCKS_PER_PAGE, emptyPresence, setBits } from '../diff-area/presence.js';
import { foundIn } from '../diff-area/unused-blocks.js';

import { type Clock, turnOf } from '../environment.js';

import { SnapshotState } from '../format/control-block.js';

import type { Guid } from '../format/guid.js';
import type { Problem } from '../snapshot/problem.js';
import type { SnapshotRecord } from '../snapshot/record.js';
import type { CatalogEntry } from '../store/catalog.js';
import { BLOCK_SIZE, type BlockNumber, type Slot } from '../units.js';

/** Items in order of age: times and order numbers grow, allocated sizes are those of the files. */
export function checkCatalog(
  entries: readonly CatalogEntry[],
  records: readonly SnapshotRecord[],
): Problem[] {
  const problems: Problem[] = [];
  for (const [index, { snapshot, diffArea }] of entries.entries()) {
    const found = (message: string) =>
      problems.push({ code: 'catalog', snapshot: snapshot.storeId, message });
    const before = entries[index - 1]?.snapshot;
    if (before !== undefined && before.order >= snapshot.order)
      found(`order number ${snapshot.order} is that of ${before.storeId} too`);
    if (before !== undefined && before.createdAt >= snapshot.createdAt)
      found(`is not younger than ${before.storeId}, which comes before it`);
    const area = records[index]?.area;
    const isPending = (diffArea.state & SnapshotState.setPending) !== 0;
    if (isPending && area !== undefined && area.information.coordinator === undefined)
      found('is a pending member of a set, but does not say where the record of the set is');
    if (area !== undefined && area.allocatedBytes !== diffArea.allocatedSize) {
      found(
        `its diff area has ${area.allocatedBytes} bytes, the control file says ${diffArea.allocatedSize}`,
      );
    }
  }
  return problems;
}

/**
 * A block that a snapshot skips is one that the next older one does not look for there: it skips it too, or has a copy. Of one that is
 * being deleted the elder may have that by now.
 */
export function checkSkips(records: readonly SnapshotRecord[]): Problem[] {
  const problems: Problem[] = [];
  for (const [index, { area, id }] of records.entries()) {
    const first = records.slice(0, index).findLastIndex(({ deleted }) => deleted === undefined);
    const [older, ...between] = first === -1 ? [] : records.slice(first, index);
    if (area?.unused === undefined || older?.area === undefined) continue;
    const block = firstLacking(
      area,
      older.area,
      between.flatMap((deleted) => deleted.area ?? []),
    );
    if (block !== undefined) {
      problems.push({
        code: 'space',
        snapshot: id,
        message: `skips block ${block} as unused, which ${older.id} needs`,
      });
    }
  }
  return problems;
}

function firstLacking(
  { unused }: DiffArea,
  older: DiffArea,
  between: readonly DiffArea[],
): BlockNumber | undefined {
  if (unused === undefined) return undefined;
  for (const page of pagesOf([unused], 0, Math.ceil(older.table.blockCount / BLOCKS_PER_PAGE))) {
    const [skipped, found] = [emptyPresence(), emptyPresence()];
    unused.addPresence(page, skipped);
    for (const blocks of foundIn(older)) blocks.addPresence(page, found);
    // What has moved there is asked for here.
    older.moves.takePresence(page, found);
    for (const blocks of between.flatMap(foundIn)) blocks.addPresence(page, found);
    for (let i = 0; i < skipped.length; i++) skipped[i] = (skipped[i] ?? 0) & ~(found[i] ?? 0);
    for (const block of setBits(skipped, page * BLOCKS_PER_PAGE))
      if (block < older.table.blockCount) return block;
  }
  return undefined;
}

/** Blocks looked at before others, of the process that serves the volume, have their turn. */
const TURN_BLOCKS = 65_536;

/** `blocks`, with a turn for other work now and then. */
export async function* takingTurns(
  blocks: Iterable<BlockNumber>,
  clock: Clock,
): AsyncGenerator<readonly BlockNumber[]> {
  let some: BlockNumber[] = [];
  for (const block of blocks) {
    some.push(block);
    if (some.length < TURN_BLOCKS) continue;
    yield some;
    some = [];
    await turnOf(clock);
  }
  yield some;
}

/** Every copy has a slot of its own, besides copies of zeros; and so has every block that was written in the snapshot itself. */
export async function checkTable(snapshot: Guid, area: DiffArea, clock: Clock): Promise<Problem[]> {
  const problems: Problem[] = [];
  const seen = new Uint8Array(Math.ceil(area.allocatedBytes / BLOCK_SIZE / 8));
  const use = (slot: Slot, message: string) => {
    const bit = 1 << (slot & 7);
    const byte = seen[slot >>> 3] ?? 0;
    if ((byte & bit) !== 0) problems.push({ code: 'space', snapshot, message });
    seen[slot >>> 3] = byte | bit;
  };
  for await (const blocks of takingTurns(area.table.blocks(), clock)) {
    for (const block of blocks) {
      const slot = area.table.slotOf(block);
      if (slot !== FixedSlot.zeros) use(slot, `slot ${slot} holds the copies of two blocks, one is ${block}`);
    }
  }
  for (const { from, to } of area.moves.all()) {
    if (area.table.has(to)) continue;
    const message = `block ${from} is said to have moved to ${to}, which has no copy of its own`;
    problems.push({ code: 'space', snapshot, message });
  }
  for await (const blocks of takingTurns(area.overlays.blocks(), clock)) {
    for (const block of blocks) {
      const slot = area.overlays.slotOf(block);
      use(slot, `slot ${slot} holds what was written to block ${block} of the snapshot, and something else`);
    }
  }
  return problems;
}
