/**
 * Moves extents towards the beginning of an image, so that its file can be shorter.
 *
 * An extent that lies behind the border, where everything would end if nothing were free before it, is copied to free blocks before it, and takes their
 * place in the tree; then a commit, and the file is cut. Nodes move by themselves: whatever is written again goes to the first place that fits.
 */
import { VCI_BLOCK_SIZE } from '../format/vci.js';
import type { ByteLength } from '../units.js';
import type { CacheStore } from './cache-store.js';

/** Rounds after which it is good enough. */
const ROUNDS_MAX = 4;

/** @returns bytes that the file is shorter by */
export async function compact(store: CacheStore, signal?: AbortSignal): Promise<ByteLength> {
  const { device } = store.file;
  const before = device.size;
  for (let round = 0; round < ROUNDS_MAX; round++) {
    await store.commit();
    const { map } = store.catalog;
    const border = map.blocks - map.free;
    if (map.usedEnd <= border + border / 16) break;
    let moved = 0;
    for (const first of [...store.catalog.recency]) {
      signal?.throwIfAborted();
      const { extent } = await store.find(first);
      if (extent?.first === first && extent.address + extent.count > border && (await store.move(extent)))
        moved++;
    }
    await store.rewriteTree();
    if (moved === 0) break;
  }
  await store.commit();
  store.catalog.nodes.dropSpare();
  await store.file.shorten(() => store.catalog.map.usedEnd);
  await discardFree(store);
  return Math.max(0, before - device.size);
}

/** Holes of the file where it holds nothing. */
async function discardFree({ file: { device }, catalog }: CacheStore): Promise<void> {
  if (device.discard === undefined) return;
  const end = Math.floor(device.size / VCI_BLOCK_SIZE);
  const ranges = [...catalog.map.freeRanges()].filter(({ start }) => start < end);
  for (const { start, count } of ranges) {
    const length = Math.min(count, end - start);
    // Not free any more: others took a part of it while this waited. Else nobody gets it meanwhile.
    if (length <= 0 || !catalog.map.allocateAt(start, length, 'data')) continue;
    try {
      await device.discard(start * VCI_BLOCK_SIZE, length * VCI_BLOCK_SIZE);
    } finally {
      catalog.map.release(start, length, 'data');
    }
  }
}
