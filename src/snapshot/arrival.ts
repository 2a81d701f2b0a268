/** The copies of a stand-in go to the diff area that has arrived. */

import type { RecordChange } from '../diff-area/area-slots.js';
import { FixedSlot } from '../diff-area/area-slots.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import type { Copies } from '../diff-area/table-writer.js';
import { BLOCK_SIZE, type BlockNumber } from '../units.js';

/** Blocks that are looked for, and written, together. */
const PART_BLOCKS = 64;

/**
 * Copies, durably, what `to` needs of `from`: it may have a block already, from before. Nothing is copied to either meanwhile.
 * @returns blocks copied @throws NoSpaceError, IntegrityError, DeviceError; what is in `to` then must not be used
 */
export async function moveCopies(from: DiffArea, to: DiffArea, record: RecordChange): Promise<number> {
  const groups: Copies[] = [];
  for (let first = 0; first < from.table.end; first += PART_BLOCKS) {
    const blocks = neededBlocks(from, to, first);
    if (blocks.length === 0) continue;
    const copies = await movePart(from, to, blocks, record);
    to.append([copies]);
    groups.push(copies);
  }
  await to.writeEntries();
  await to.flush();
  for (const group of groups) to.publish(group);
  return groups.reduce((sum, { blocks }) => sum + blocks.length, 0);
}

function neededBlocks(from: DiffArea, to: DiffArea, first: BlockNumber): BlockNumber[] {
  const blocks: BlockNumber[] = [];
  for (let block = first; block < Math.min(first + PART_BLOCKS, from.table.end); block++)
    if (from.table.has(block) && to.needs(block)) blocks.push(block);
  return blocks;
}

async function movePart(
  from: DiffArea,
  to: DiffArea,
  blocks: readonly BlockNumber[],
  record: RecordChange,
): Promise<Copies> {
  const sources = blocks.map((block) => from.table.slotOf(block));
  const data: Uint8Array[] = [];
  for (const [i, block] of blocks.entries()) {
    const bytes = new Uint8Array(BLOCK_SIZE);
    await from.readCopies(block, sources[i] ?? FixedSlot.zeros, bytes);
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
