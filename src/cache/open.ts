/**
 * Opens a cache image: from what is in the device to a `CacheStore`.
 *
 * What a crash left is put right here: regions that have a bit are dropped, and a commit makes that durable. An image that another program wrote
 * starts empty when it is opened for writing, as nothing shows that it is right.
 */
import type { BlockDevice } from '../device/block-device.js';
import type { Environment } from '../environment.js';
import { assert, NoSpaceError } from '../errors.js';
import { VCI_BLOCK_SIZE, VCI_BLOCKS_MAX, type VciExtension, type VciHeader } from '../format/vci.js';
import { CacheStore } from './cache-store.js';
import { Catalog } from './catalog.js';
import { Deferred } from './deferred.js';
import { ExtentTree } from './extent-tree.js';
import { ImageFile } from './image-file.js';
import { Intents, intentBlocksFor, REGION_BLOCKS } from './intents.js';
import { EXTENTS_MAX, type LoadedImage, loadImage } from './load.js';
import { Recency } from './recency.js';
import { TreeNodes } from './tree-nodes.js';

/** Memory for the tree and the order of use, unless told otherwise, bytes. */
export const DEFAULT_MEMORY = 48 * 1024 * 1024;
/** Bytes that an extent takes in the order of use; and a node in memory, with what the collector lets pile up for its objects. */
const BYTES_PER_EXTENT = 24;
const BYTES_PER_NODE = 5120;
const EXTENTS_MIN = 1024;
const NODES_MIN = 128;

export interface OpenedStore {
  readonly store: CacheStore;
  /** It was not closed cleanly. */
  readonly wasUnclean: boolean;
  /** Extents that were cut or dropped because their regions could not be relied on. */
  readonly droppedExtents: number;
  /** Another program made it. */
  readonly isForeign: boolean;
}

export const extentsMaxFor = (memory: number): number =>
  Math.min(EXTENTS_MAX, Math.max(EXTENTS_MIN, Math.floor(memory / 2 / BYTES_PER_EXTENT)));

/** @throws FormatError, LimitError, NoSpaceError, DeviceError */
export async function openStore(
  device: BlockDevice,
  writable: boolean,
  memory: number,
  environment: Environment,
): Promise<OpenedStore> {
  // After a process was killed the page cache may hold more than the device; nothing may be relied on that is not durable.
  if (writable) await device.flush();
  const loaded = await loadImage(device, extentsMaxFor(memory));
  const { header } = loaded;
  const isForeign = header.extension === undefined;
  const { extension, bits } = isForeign
    ? newExtension(loaded)
    : { extension: header.extension, bits: loaded.intents };
  const deferred = new Deferred();
  const nodesMax = Math.max(NODES_MIN, Math.floor(memory / 2 / BYTES_PER_NODE));
  const nodes = new TreeNodes(device, loaded.map, deferred, nodesMax, !isForeign);
  const intents = new Intents(device, extension.intents, bits);
  const tree = new ExtentTree(nodes, header.treeRoot);
  const { map, recency } = loaded;
  if (!header.unclean && !isForeign) recency.store();
  const catalog = new Catalog({ map, nodes, deferred, tree, recency, intents });
  const file = new ImageFile(device, { ...header, extension });
  const store = new CacheStore(file, catalog, environment);
  if (isForeign && writable) {
    await file.reach(extension.intents + extension.intentsSize);
    await device.write(extension.intents * VCI_BLOCK_SIZE, bits);
    await clearStore(store);
  }
  const droppedExtents = isForeign ? 0 : await dropIntended(store);
  if (writable && droppedExtents > 0) await store.commit();
  return { store, wasUnclean: header.unclean || droppedExtents > 0, droppedExtents, isForeign };
}

/** What an image of another program needs to be used. */
function newExtension({ header, map }: LoadedImage): { extension: VciExtension; bits: Uint8Array } {
  const intentsSize = intentBlocksFor(header.size);
  const intents = map.allocate(intentsSize, 'metadata');
  if (intents === undefined) throw new NoSpaceError('the cache image is full: create it anew');
  const unknown = { derivedModification: false, backingSize: 0, backingName: 0n };
  return {
    extension: { generation: 1, intents, intentsSize, ...unknown },
    bits: new Uint8Array(intentsSize * VCI_BLOCK_SIZE),
  };
}

/**
 * Takes out of the tree what lies in regions that have a bit: also of an image that was closed cleanly, as a bit may have become durable before the flag
 * that says that the image is in use again. @returns how many extents that concerned
 */
async function dropIntended(store: CacheStore): Promise<number> {
  const { catalog } = store;
  if (catalog.intents.isEmpty) return 0;
  let dropped = 0;
  for (const first of catalog.recency.firsts()) {
    const { extent } = await store.find(first);
    if (extent === undefined) continue;
    const end = extent.first + extent.count;
    let isHit = false;
    for (let from = extent.first; from < end; ) {
      const to = Math.min(end, from - (from % REGION_BLOCKS) + REGION_BLOCKS);
      if (catalog.intents.has(from)) {
        await store.drop(from, to);
        isHit = true;
      }
      from = to;
    }
    if (isHit) dropped++;
  }
  return dropped;
}

/** Nothing is cached any more, durably. Only right after opening, while nothing else happens. */
export async function clearStore(store: CacheStore): Promise<void> {
  const { map, nodes, deferred, intents, recency } = store.catalog;
  assert(deferred.size === 0, () => 'an image that is in use cannot be cleared at once');
  nodes.dropSpare();
  nodes.clear();
  map.forgetKinds();
  for (const { start, count } of map.usedRanges(fixedRanges(store.file.header)))
    deferred.add(start, count, 'metadata');
  if (nodes.fillSpare() === 0)
    throw new NoSpaceError(`${store.file.device.name} is so full that it cannot be emptied: create it anew`);
  intents.left(0, VCI_BLOCKS_MAX);
  const tree = ExtentTree.create(nodes);
  await store.replace(
    new Catalog({ map, nodes, deferred, tree, recency: new Recency(recency.limit), intents }),
  );
}

function fixedRanges({ blockMap, blockMapSize, extension }: VciHeader) {
  return [
    { start: 0, count: 2 },
    { start: blockMap, count: blockMapSize },
    ...(extension === undefined ? [] : [{ start: extension.intents, count: extension.intentsSize }]),
  ];
}
