/**
 * Moves extents towards the beginning of an image, so that its file can be shorter.
 *
 * An extent that lies behind the border, where everything would end if nothing were free before it, is copied to free blocks before it, and takes their
 * place in the tree; then a commit, and the file is cut. Nodes move when they are written again: to a place before the end that the image had, if there
 * is one. So the file never becomes longer.
 */
import type { BlockDevice } from '../device/block-device.js';
import { VCI_BLOCK_SIZE } from '../format/vci.js';
import { NODE_BLOCKS } from '../format/vci-node.js';
import type { ByteLength } from '../units.js';
import type { CacheStore } from './cache-store.js';
import type { Catalog } from './catalog.js';

/** Blocks: 64 MiB. */
const DISCARDED_AT_ONCE = 131_072;
/** Rounds after which it is good enough. */
const ROUNDS_MAX = 4;

/** @returns bytes that the file is shorter by */
export async function compact(store: CacheStore, signal?: AbortSignal): Promise<ByteLength> {
  const { device } = store.file;
  const before = device.size;
  const { nodes } = store.catalog;
  const end = await endOf(store);
  nodes.border = end;
  try {
    await moveDown(store, signal);
    // Where there was no room for a second tree before the end, it lies behind it. Where the first one was there is room now.
    if ((await endOf(store)) > end) {
      await store.rewriteTree();
      await endOf(store);
    }
  } finally {
    nodes.border = Number.POSITIVE_INFINITY;
  }
  await store.file.shorten(() => store.catalog.map.usedEnd);
  await discardFree(store);
  return Math.max(0, before - device.size);
}

/** Makes everything durable. @returns the block where everything ends then */
async function endOf(store: CacheStore): Promise<number> {
  await store.commit();
  const { nodes, map } = store.catalog;
  nodes.dropSpare();
  return map.usedEnd;
}

async function moveDown(store: CacheStore, signal: AbortSignal | undefined): Promise<void> {
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const usedEnd = await endOf(store);
    const { map } = store.catalog;
    const border = map.blocks - map.free;
    if (usedEnd - border < Math.max(NODE_BLOCKS, border / 16)) break;
    let moved = 0;
    for (const first of store.catalog.recency.firsts()) {
      signal?.throwIfAborted();
      const { extent } = await store.find(first);
      if (extent?.first === first && extent.address + extent.count > border && (await store.move(extent)))
        moved++;
    }
    await store.rewriteTree();
    if (moved === 0) break;
  }
}

/** Holes of the file where it holds nothing. */
async function discardFree({ file: { device }, catalog }: CacheStore): Promise<void> {
  if (device.discard === undefined) return;
  const end = Math.floor(device.size / VCI_BLOCK_SIZE);
  const ranges = [...catalog.map.freeRanges()].filter(({ start }) => start < end);
  for (const { start, count } of ranges)
    for (let at = start; at < Math.min(start + count, end); at += DISCARDED_AT_ONCE)
      await discardBlocks(device, catalog, at, Math.min(DISCARDED_AT_ONCE, start + count - at, end - at));
}

/** Nobody gets these blocks meanwhile; so many are left that nobody misses them. */
async function discardBlocks(
  device: BlockDevice,
  { map, reserve }: Catalog,
  start: number,
  count: number,
): Promise<void> {
  if (map.free - count < reserve || !map.allocateAt(start, count, 'data')) return;
  try {
    await device.discard?.(start * VCI_BLOCK_SIZE, count * VCI_BLOCK_SIZE);
  } finally {
    map.release(start, count, 'data');
  }
}
