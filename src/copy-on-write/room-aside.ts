/** Room for copies that a write needs, set aside before it is acknowledged. */
import type { DiffArea } from '../diff-area/diff-area.js';
import { type BlockNumber, type ByteLength, type ByteOffset, blockOf } from '../units.js';

/** In one diff area, for copies of some blocks. */
export interface RoomAside {
  readonly area: DiffArea;
  readonly blocks: readonly BlockNumber[];
}

/**
 * Sets room aside in each of the diff areas: the one that takes copies now, and that of the snapshot that is being taken, if
 * the write is newer than its moment.
 * @returns `undefined`, setting nothing aside, if one of them has too little
 */
export function setAside(
  areas: readonly (DiffArea | undefined)[],
  offset: ByteOffset,
  length: ByteLength,
): readonly RoomAside[] | undefined {
  const aside: RoomAside[] = [];
  for (const area of areas) {
    if (area === undefined) continue;
    const blocks: BlockNumber[] = [];
    const end = endOf(area, offset, length);
    for (let block: number = blockOf(offset); block < end; block++) if (area.needs(block)) blocks.push(block);
    if (!area.ahead.add(blocks)) {
      releaseAside(aside);
      return undefined;
    }
    if (blocks.length > 0) aside.push({ area, blocks });
  }
  return aside;
}

/** The block behind the last one of a range. Blocks past the end of the snapshot, in a volume that has grown since, are not its own. */
export const endOf = ({ table }: DiffArea, offset: ByteOffset, length: ByteLength): BlockNumber =>
  Math.min(blockOf(offset + length - 1) + 1, table.blockCount);

/** The write is over. */
export function releaseAside(aside: readonly RoomAside[]): void {
  for (const { area, blocks } of aside) area.ahead.remove(blocks);
}
