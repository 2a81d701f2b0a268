/** Where in the control blocks of a foreign store the items lie, for whoever takes them out. */
import type { BlockDevice } from '../device/block-device.js';
import { BlockType } from '../format/constants.js';
import {
  type DiffAreaItem,
  decodeControlBlock,
  encodeItem,
  FREE_ITEM,
  itemPosition,
  sectorOfItem,
} from '../format/control-block.js';
import type { Guid } from '../format/guid.js';
import { type ByteOffset, SECTOR_SIZE } from '../units.js';
import type { MetadataReader } from './metadata-reader.js';

export interface ItemPlace {
  /** Device offset of the control block. */
  readonly blockOffset: ByteOffset;
  readonly index: number;
}

/** Where the two items of a store lie; one may be missing. */
export interface ItemPair {
  readonly snapshot?: ItemPlace;
  readonly diffArea?: ItemPlace;
  /** What the second says. */
  readonly diffAreaItem?: DiffAreaItem;
}

export interface ControlPlaces {
  readonly controlBlocks: readonly ByteOffset[];
  readonly pairs: ReadonlyMap<Guid, ItemPair>;
}

/** @throws FormatError, DeviceError */
export async function readItemPlaces(reader: MetadataReader, first: ByteOffset): Promise<ControlPlaces> {
  const controlBlocks: ByteOffset[] = [];
  const pairs = new Map<Guid, ItemPair>();
  await reader.readChain(first, BlockType.control, (block, context) => {
    controlBlocks.push(context.offset);
    const { header, items } = decodeControlBlock(block, context);
    items.forEach((item, index) => {
      const place = { blockOffset: context.offset, index };
      if (item.kind === 'snapshot') pairs.set(item.storeId, { ...pairs.get(item.storeId), snapshot: place });
      if (item.kind === 'diff-area')
        pairs.set(item.storeId, { ...pairs.get(item.storeId), diffArea: place, diffAreaItem: item });
    });
    return header;
  });
  return { controlBlocks, pairs };
}

/**
 * Takes the items out, durably. The shadow copy is gone with its snapshot item, so that goes first, or both at once if they lie in one
 * sector. What a crash between the two leaves is a diff-area item that belongs to nothing: readers, libvshadow too, pass over it.
 */
export async function freeItems(device: BlockDevice, { snapshot, diffArea }: ItemPair): Promise<void> {
  if (snapshot !== undefined && diffArea !== undefined && sectorOf(snapshot) === sectorOf(diffArea)) {
    await freeInSector(device, [snapshot, diffArea]);
    return;
  }
  if (snapshot !== undefined) await freeInSector(device, [snapshot]);
  if (diffArea !== undefined) await freeInSector(device, [diffArea]);
}

const sectorOf = ({ blockOffset, index }: ItemPlace): ByteOffset => blockOffset + sectorOfItem(index);

/** All places lie in one sector, which a device writes whole or not at all. */
async function freeInSector(
  device: BlockDevice,
  places: readonly [ItemPlace, ...ItemPlace[]],
): Promise<void> {
  const offset = sectorOf(places[0]);
  const sector = new Uint8Array(SECTOR_SIZE);
  await device.read(offset, sector);
  for (const { blockOffset, index } of places)
    encodeItem(sector, blockOffset + itemPosition(index) - offset, FREE_ITEM);
  await device.write(offset, sector);
  await device.flush();
}
