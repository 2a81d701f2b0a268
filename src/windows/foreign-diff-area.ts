/**
 * What the diff-area item of a foreign snapshot leads to: its table, its bitmaps, and what is said about it.
 *
 * Damage is returned, not thrown: how far it reaches depends on what is damaged.
 */
import type { BlockDevice } from '../device/block-device.js';
import { VolsnapError } from '../errors.js';
import {
  type ApplicationInformation,
  decodeApplicationInformationBlock,
} from '../format/application-information.js';
import { viewOf } from '../format/binary.js';
import { decodeHeader } from '../format/block-header.js';
import { BlockType } from '../format/constants.js';
import type { DiffAreaItem } from '../format/control-block.js';
import { decodeLocationBlock } from '../format/location-block.js';
import { type ByteLength, blocksIn } from '../units.js';
import { type ForeignTable, ForeignTableBuilder } from './foreign-table.js';
import type { MetadataReader } from './metadata-reader.js';
import type { Notes } from './notes.js';
import { UnusedBlocks } from './unused-blocks.js';

export interface ForeignDiffArea {
  readonly information: ApplicationInformation | undefined;
  /** `undefined` exactly where `tableFault` says why. */
  readonly table: ForeignTable | undefined;
  readonly tableFault: VolsnapError | undefined;
  /** Of the newest snapshot only: those of others have no effect on reading. */
  readonly unused: UnusedBlocks | undefined;
  readonly bitmapFault: VolsnapError | undefined;
  /** Blocks of the diff area in use, but for those that hold data. */
  readonly otherBlocks: number;
  readonly allocatedBytes: ByteLength;
}

/** @throws DeviceError */
export async function readDiffArea(
  device: BlockDevice,
  reader: MetadataReader,
  item: DiffAreaItem,
  isNewest: boolean,
  notes: Notes,
): Promise<ForeignDiffArea> {
  const blockCount = blocksIn(device.size);
  const information = await readInformation(reader, item, notes);
  const locations = await readLocations(reader, item, notes);
  const table = await attempt(() => readTable(reader, item, blockCount, notes));
  const unused = isNewest ? await attempt(() => UnusedBlocks.read(reader, item, blockCount)) : undefined;
  const otherBlocks = (information === undefined ? 0 : 1) + locations.blocks + (table.value?.blocks ?? 0);
  const allocated = item.allocatedSize > 0 ? item.allocatedSize : locations.end;
  return {
    information,
    table: table.value?.content,
    tableFault: table.fault,
    unused: unused?.value,
    bitmapFault: unused?.fault,
    otherBlocks,
    // The file lies on the volume, so it cannot be larger.
    allocatedBytes: Math.min(allocated, device.size),
  };
}

async function readTable(
  reader: MetadataReader,
  item: DiffAreaItem,
  blockCount: number,
  notes: Notes,
): Promise<{ blocks: number; content: ForeignTable }> {
  const builder = new ForeignTableBuilder(blockCount, notes);
  const blocks = await reader.readChain(item.tableOffset, BlockType.table, (block, context) => {
    const header = decodeHeader(block, BlockType.table, context);
    builder.addBlock(viewOf(block), context);
    return header;
  });
  return { blocks, content: builder.finish() };
}

async function readInformation(
  reader: MetadataReader,
  item: DiffAreaItem,
  notes: Notes,
): Promise<ApplicationInformation | undefined> {
  const first: ApplicationInformation[] = [];
  const { fault } = await attempt(() =>
    reader.readChain(
      item.applicationInformationOffset,
      BlockType.applicationInformation,
      (block, context) => {
        const { header, information } = decodeApplicationInformationBlock(block, context);
        first.push(information);
        // All of it fits one block; a link to another is not followed.
        return { ...header, nextOffset: 0 };
      },
    ),
  );
  if (fault !== undefined) notes.add(`application information of store ${item.storeId}: ${fault.message}`);
  else if (first.length === 0) notes.add(`store ${item.storeId} has no application information`);
  return first[0];
}

/** How many location blocks there are, and where the last run of the file ends. */
async function readLocations(
  reader: MetadataReader,
  item: DiffAreaItem,
  notes: Notes,
): Promise<{ blocks: number; end: ByteLength }> {
  let end = 0;
  const { value, fault } = await attempt(() =>
    reader.readChain(item.locationOffset, BlockType.location, (block, context) => {
      const { header, locations } = decodeLocationBlock(block, context);
      for (const { fileOffset, length } of locations) end = Math.max(end, fileOffset + length);
      return header;
    }),
  );
  if (fault !== undefined) notes.add(`locations of store ${item.storeId}: ${fault.message}`);
  return { blocks: value ?? 0, end };
}

/** Runs `read`; what is wrong with the bytes is a result, what is wrong with the device is not. */
async function attempt<T>(read: () => Promise<T>): Promise<{ value?: T; fault?: VolsnapError }> {
  try {
    return { value: await read() };
  } catch (error) {
    if (error instanceof VolsnapError && (error.code === 'FORMAT' || error.code === 'UNSUPPORTED'))
      return { fault: error };
    throw error;
  }
}
