/** All stores of a volume that Windows wrote: whose they are, where they lie, and what they leave out. */
import type { BlockDevice } from '../device/block-device.js';
import { FormatError, VolsnapError } from '../errors.js';
import { hex } from '../format/binary.js';
import type { DiffAreaItem } from '../format/control-block.js';
import { BLOCK_SIZE, type ByteOffset, blockOf, blocksIn, offsetOfBlock } from '../units.js';
import { type BlockRange, BlockRanges } from './block-ranges.js';
import type { ForeignSnapshot } from './foreign-snapshot.js';
import type { ForeignStore } from './foreign-store.js';
import { type ControlPlaces, type ItemPair, readItemPlaces } from './item-places.js';
import { MetadataReader } from './metadata-reader.js';
import { Notes } from './notes.js';
import { type FileLayout, rangeOf, readFileLayout } from './store-layout.js';
import { UnusedBlocks } from './unused-blocks.js';

export interface StoreOfSnapshot {
  readonly snapshot: ForeignSnapshot;
  readonly items: ItemPair;
  readonly layout: FileLayout;
  /** See `ReadThrough`. */
  readonly unused: UnusedBlocks | undefined;
}

export interface StoreMap {
  /** Oldest first. */
  readonly stores: readonly StoreOfSnapshot[];
  readonly controlBlocks: readonly BlockRange[];
  /** Stores of shadow copies that another volume has, as far as can be told: they belong to none of this one. */
  readonly others: readonly BlockRange[];
}

/** @throws as `readFileLayout`; FormatError for runs of two stores that overlap */
export async function readStoreMap(device: BlockDevice, store: ForeignStore): Promise<StoreMap> {
  const reader = new MetadataReader(device, new Notes());
  const { controlBlocks, pairs } = await readItemPlaces(reader, store.startBlock.firstControlBlock);
  return mapStores(device, store.snapshots, { controlBlocks, pairs });
}

/** @throws as `readStoreMap` */
export async function mapStores(
  device: BlockDevice,
  snapshots: readonly ForeignSnapshot[],
  { controlBlocks, pairs }: ControlPlaces,
): Promise<StoreMap> {
  const reader = new MetadataReader(device, new Notes());
  const blockCount = blocksIn(device.size);
  const others: BlockRange[] = [];
  const runs: BlockRange[] = [];
  const layouts = new Map<string, FileLayout>();
  for (const [storeId, { diffAreaItem }] of pairs) {
    if (diffAreaItem === undefined) continue;
    const layout = await readFileLayout(reader, diffAreaItem, blockCount);
    runs.push(...layout.runs.map(rangeOf));
    layouts.set(storeId, layout);
    if (!snapshots.some((snapshot) => snapshot.storeId === storeId)) others.push(...layout.ranges);
  }
  const overlap = BlockRanges.overlapOf(runs);
  if (overlap !== undefined)
    throw new FormatError(
      `location lists: the block at ${hex(offsetOfBlock(overlap))} of ${device.name} belongs to two files of shadow copies, or twice to one`,
    );
  const stores: StoreOfSnapshot[] = [];
  for (const snapshot of snapshots) {
    const items = pairs.get(snapshot.storeId);
    const layout = layouts.get(snapshot.storeId);
    if (items?.diffAreaItem === undefined || layout === undefined) continue;
    const isNewest = snapshot === snapshots.at(-1);
    const unused = isNewest ? snapshot.unused : await ownUnused(reader, items.diffAreaItem, blockCount);
    stores.push({ snapshot, items, layout, unused });
  }
  return { stores, controlBlocks: controlBlocks.map(rangeAt), others };
}

const rangeAt = (offset: ByteOffset): BlockRange => ({
  start: blockOf(offset),
  end: blocksIn(offset + BLOCK_SIZE),
});

/** What is not known to be unused is kept, so a bitmap that cannot be read only costs room. */
async function ownUnused(
  reader: MetadataReader,
  item: DiffAreaItem,
  blockCount: number,
): Promise<UnusedBlocks | undefined> {
  try {
    return await UnusedBlocks.read(reader, { ...item, previousBitmapOffset: 0 }, blockCount);
  } catch (error) {
    if (error instanceof VolsnapError && error.code === 'FORMAT') return undefined;
    throw error;
  }
}
