/** Finds out which file system a volume has, and asks the provider for it. */

import { extFreeSpace } from './ext-free-space.js';
import type { FreeSpaceProvider } from './free-space.js';
import { ntfsFreeSpace } from './ntfs-free-space.js';
import { identify, SIGNATURE_BYTES } from './signature.js';

const PROVIDERS: Readonly<Record<string, FreeSpaceProvider>> = {
  NTFS: ntfsFreeSpace(),
  'ext2/3/4': extFreeSpace,
};

export const autoFreeSpace: FreeSpaceProvider = {
  name: 'auto',
  async unusedBlocks(source, size, signal) {
    const head = new Uint8Array(Math.min(size, SIGNATURE_BYTES));
    await source.read(0, head);
    const kind = identify(head)?.name;
    if (kind === undefined) return { unsure: 'no file system was recognized' };
    const provider = PROVIDERS[kind];
    if (provider === undefined) return { unsure: `of ${kind} it is not known what is free` };
    return provider.unusedBlocks(source, size, signal);
  },
};
