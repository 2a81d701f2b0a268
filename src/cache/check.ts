/** Looks for damage in a cache image, without changing it. */
import type { BlockDevice } from '../device/block-device.js';
import { FormatError } from '../errors.js';
import { EXTENTS_MAX, loadImage } from './load.js';

export interface CacheProblem {
  /** `damaged`: it cannot be opened; what is in the backing is as it was, so create it anew. `unclean`: it was not closed; opening puts that right. */
  readonly code: 'damaged' | 'unclean';
  readonly message: string;
}

/**
 * Reads the header, all nodes of the tree, the order of use, and the block map, and compares them with each other.
 * @returns what is wrong; nothing else is `unclean`, which is no damage
 */
export async function checkCacheImage(device: BlockDevice): Promise<CacheProblem[]> {
  try {
    const { header } = await loadImage(device, EXTENTS_MAX);
    if (!header.unclean) return [];
    const message = `${device.name} was not closed cleanly, or is in use; what its last commit names is sound`;
    return [{ code: 'unclean', message }];
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return [{ code: 'damaged', message: error.message }];
  }
}
