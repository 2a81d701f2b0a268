/** Finds out which file system a volume has, and asks the provider for it. */
import { extFreeSpace } from './ext-free-space.js';
import type { FreeSpaceProvider } from './free-space.js';
import { ntfsFreeSpace } from './ntfs-free-space.js';
import { identify, SIGNATURE_BYTES } from './signature.js';

export interface AutoFreeSpaceOptions {
  /** The caller knows that the file system is frozen or not mounted, whether it says so itself or not. Default: no. */
  readonly frozen?: boolean;
}

export function autoFreeSpace(options: AutoFreeSpaceOptions = {}): FreeSpaceProvider {
  return {
    name: 'auto',
    async unusedBlocks(source, size, signal) {
      const head = new Uint8Array(Math.min(size, SIGNATURE_BYTES));
      await source.read(0, head);
      const kind = identify(head)?.name;
      if (kind === undefined) return { unsure: 'no file system was recognized' };
      const provider = providerFor(kind, options);
      if (provider === undefined) return { unsure: `of ${kind} it is not known what is free` };
      return provider.unusedBlocks(source, size, signal);
    },
  };
}

/** @param kind as `identify` names it */
function providerFor(kind: string, options: AutoFreeSpaceOptions): FreeSpaceProvider | undefined {
  switch (kind) {
    case 'NTFS':
      return ntfsFreeSpace(options);
    case 'ext2/3/4':
      return extFreeSpace(options);
    default:
      return undefined;
  }
}
