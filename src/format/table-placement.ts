/**
 * Where in a table block further entries go. Entries are appended behind the last one, and those that count only together
 * are put into one sector of 512 bytes, which a device writes whole or not at all. Places left out stay zero; readers skip them.
 */
import { SECTOR_SIZE } from '../units.js';
import { ENTRIES_PER_TABLE_BLOCK } from './constants.js';
import { entryPosition, isEmptyEntry } from './table-block.js';

/** Entries in a sector; the first sector of a block, which has the header too, holds fewer. */
export const ENTRIES_PER_SECTOR = 16;

/** Byte offset, in the block, of the sector that holds entry `index`. No entry crosses a sector. */
export const sectorOfEntry = (index: number): number =>
  Math.floor(entryPosition(index) / SECTOR_SIZE) * SECTOR_SIZE;

/** Index of the place behind the last entry of the block; 508 if its last place is taken. */
export function endOfEntries(view: DataView): number {
  let end = ENTRIES_PER_TABLE_BLOCK;
  while (end > 0 && isEmptyEntry(view, entryPosition(end - 1))) end--;
  return end;
}

/** The first index from `end` on at which `count` entries lie in one sector; `undefined`: none in this block. */
export function placeInOneSector(end: number, count: number): number | undefined {
  for (let index = end; index + count <= ENTRIES_PER_TABLE_BLOCK; index++)
    if (sectorOfEntry(index) === sectorOfEntry(index + count - 1)) return index;
  return undefined;
}

/** Entries that fit a block from `end` on for certain, if no more than two belong together: a sector may lose one place. */
export function roomFrom(end: number): number {
  const places = ENTRIES_PER_TABLE_BLOCK - end;
  return Math.max(0, places - Math.ceil(places / ENTRIES_PER_SECTOR));
}
