/** The copies of a stand-in go to the diff area that has arrived. */
import type { RecordChange } from '../diff-area/area-slots.js';
import { FixedSlot } from '../diff-area/area-slots.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import type { Copies } from '../diff-area/table-writer.js';
import { BLOCK_SIZE, type BlockNumber, type Slot } from '../units.js';

/** Blocks that are written together: 1 MiB. */
const PART_BLOCKS = 64;

/**
 * Copies, durably, what `to` needs of `from` and lacks: it may have a block already, from before. Nothing else is written to `to`.
 * @param record for the growth of `to`
 * @returns blocks copied
 * @throws NoSpaceError, IntegrityError, DeviceError; then `to` must not be used as it is in memory, but can be loaded again
 */
export async function moveCopies(from: DiffArea, to: DiffArea, record: RecordChange): Promise<number> {
  const blocks = [...from.table.blocks()].filter((block) => to.needs(block));
  if (blocks.length === 0) return 0;
  const slots = blocks.map((block) => from.table.slotOf(block));
  const isStored = (slot: Slot | undefined) => slot !== FixedSlot.zeros;
  const lacking = to.growthNeeded(slots.filter(isStored).length, blocks.length);
  if (lacking > 0) await to.grow(lacking, record);
  const groups: Copies[] = [];
  for (let first = 0; first < blocks.length; first += PART_BLOCKS) {
    const end = first + PART_BLOCKS;
    const copies = await movePart(from, to, blocks.slice(first, end), slots.slice(first, end), record);
    to.append([copies]);
    groups.push(copies);
  }
  await to.writeEntries();
  await to.flush();
  for (const group of groups) to.publish(group);
  return blocks.length;
}

async function movePart(
  from: DiffArea,
  to: DiffArea,
  blocks: readonly BlockNumber[],
  sources: readonly Slot[],
  record: RecordChange,
): Promise<Copies> {
  const data: Uint8Array[] = [];
  for (const [i, block] of blocks.entries()) {
    const bytes = new Uint8Array(BLOCK_SIZE);
    await from.copies.read(block, sources[i] ?? FixedSlot.zeros, bytes);
    data.push(bytes);
  }
  const stored = data.filter((_, i) => sources[i] !== FixedSlot.zeros);
  let reserved = to.reserve(stored.length, blocks.length);
  while (reserved === undefined) {
    await to.grow(to.growthNeeded(stored.length, blocks.length), record);
    reserved = to.reserve(stored.length, blocks.length);
  }
  await to.writeData(reserved, stored);
  let next = 0;
  const slots = sources.map((source) =>
    source === FixedSlot.zeros ? FixedSlot.zeros : (reserved[next++] ?? FixedSlot.zeros),
  );
  const checksums = blocks.map((block, i) => to.checksum(block, slots[i] ?? 0, data[i] ?? new Uint8Array(0)));
  return { blocks, slots, checksums };
}
