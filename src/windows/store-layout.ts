/**
 * Where the stores of a volume that Windows wrote lie: what must not be written from above, and what of the newest one's file is
 * free. Everything is read once more for it, block by block; a volume that is opened for reading has no need of it.
 *
 * What reading snapshots does not depend on counts here: location lists have to be right, because copies are put where
 * they say.
 */
import { FormatError } from '../errors.js';
import { hex, viewOf } from '../format/binary.js';
import { decodeBitmapBlock } from '../format/bitmap-block.js';
import { decodeHeader } from '../format/block-header.js';
import { BlockType, ENTRIES_PER_TABLE_BLOCK } from '../format/constants.js';
import type { DiffAreaItem } from '../format/control-block.js';
import { decodeLocationBlock, type Location } from '../format/location-block.js';
import {
  EntryFlag,
  entryFlags,
  entryPosition,
  entryVolumeOffset,
  isEmptyEntry,
} from '../format/table-block.js';
import { BLOCK_SIZE, type BlockNumber, type ByteOffset } from '../units.js';
import { type BlockRange, BlockRanges } from './block-ranges.js';
import type { MetadataReader } from './metadata-reader.js';

/** A run of a diff-area file, in whole blocks: of the file from `fileOffset` on, of the volume from `firstBlock` on. */
export interface FileRun {
  readonly fileOffset: ByteOffset;
  readonly firstBlock: BlockNumber;
  readonly blocks: number;
}

/** The last block of a table chain. */
export interface TableEnd {
  readonly offset: ByteOffset;
  readonly bytes: Uint8Array;
}

export interface FileLayout {
  readonly runs: readonly FileRun[];
  /** All that belongs to the store: its runs, and what it uses outside of them. */
  readonly ranges: readonly BlockRange[];
  /** File offset behind the last block of the runs that is in use. */
  readonly endOfUse: ByteOffset;
  /** `undefined`: there is no table. */
  readonly tableEnd: TableEnd | undefined;
}

/** @throws FormatError, DeviceError */
export async function readFileLayout(
  reader: MetadataReader,
  item: DiffAreaItem,
  blockCount: number,
): Promise<FileLayout> {
  const used: BlockRange[] = [];
  const use = (offset: ByteOffset) => {
    const block = offset / BLOCK_SIZE;
    if (Number.isInteger(block) && block < blockCount) used.push({ start: block, end: block + 1 });
  };
  const locations: Location[] = [];
  await reader.readChain(item.locationOffset, BlockType.location, (block, context) => {
    use(context.offset);
    const decoded = decodeLocationBlock(block, context);
    locations.push(...decoded.locations);
    return decoded.header;
  });
  let tableEnd: TableEnd | undefined;
  await reader.readChain(item.tableOffset, BlockType.table, (block, context) => {
    use(context.offset);
    const header = decodeHeader(block, BlockType.table, context);
    const view = viewOf(block);
    for (let index = 0; index < ENTRIES_PER_TABLE_BLOCK; index++) {
      const at = entryPosition(index);
      const isMove = (entryFlags(view, at) & EntryFlag.move) !== 0;
      if (!isMove && !isEmptyEntry(view, at)) use(entryVolumeOffset(view, at));
    }
    if (header.nextOffset === 0) tableEnd = { offset: context.offset, bytes: block.slice() };
    return header;
  });
  for (const first of [item.bitmapOffset, item.previousBitmapOffset]) {
    await reader.readChain(first, BlockType.bitmap, (block, context) => {
      use(context.offset);
      return decodeBitmapBlock(block, context).header;
    });
  }
  if (item.applicationInformationOffset !== 0) use(item.applicationInformationOffset);
  const runs = runsOf(item, locations, blockCount);
  const all = new BlockRanges(used);
  return { runs, ranges: [...runs.map(rangeOf), ...all.list], endOfUse: endOfUse(runs, all), tableEnd };
}

/** Of a run that begins or ends within a block only whole blocks count: Windows puts nothing into the rest. */
function runsOf(item: DiffAreaItem, locations: readonly Location[], blockCount: number): FileRun[] {
  const runs: FileRun[] = [];
  for (const { volumeOffset, fileOffset, length } of locations) {
    const skip = (BLOCK_SIZE - (volumeOffset % BLOCK_SIZE)) % BLOCK_SIZE;
    const blocks = Math.floor((length - skip) / BLOCK_SIZE);
    if (blocks <= 0 || (fileOffset + skip) % BLOCK_SIZE !== 0) continue;
    const firstBlock = (volumeOffset + skip) / BLOCK_SIZE;
    if (firstBlock + blocks > blockCount)
      throw new FormatError(
        `location list of store ${item.storeId}: the run at ${hex(volumeOffset)} of ${length} bytes does not lie within the volume`,
      );
    runs.push({ fileOffset: fileOffset + skip, firstBlock, blocks });
  }
  return runs.sort((a, b) => a.fileOffset - b.fileOffset);
}

export const rangeOf = ({ firstBlock, blocks }: FileRun): BlockRange => ({
  start: firstBlock,
  end: firstBlock + blocks,
});

function endOfUse(runs: readonly FileRun[], used: BlockRanges): ByteOffset {
  let end = 0;
  for (const { fileOffset, firstBlock, blocks } of runs) {
    const last = used.lastWithin(firstBlock, firstBlock + blocks);
    if (last !== undefined) end = Math.max(end, fileOffset + (last + 1 - firstBlock) * BLOCK_SIZE);
  }
  return end;
}
