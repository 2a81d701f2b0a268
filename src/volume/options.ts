/** What making a store for a volume takes. */
import type { Environment } from '../environment.js';
import type { Guid } from '../format/guid.js';
import type { Store } from '../store/store.js';
import type { ByteLength } from '../units.js';

export interface DroppedShadowCopy {
  readonly id: Guid;
  readonly createdAt: Date;
}

export interface InitializeVolumeOptions {
  readonly store: Store;
  /** Bytes that diff areas may take in all; default 0: no limit. */
  readonly maximumSize?: ByteLength;
  /**
   * For a volume with shadow copies of Windows, and a store inside it: they are taken over, so that they stay right whatever is written, and new
   * snapshots can be taken. Where there is no room for that, `keep` has the write fail; `drop` deletes them all, as Windows does.
   */
  readonly shadowCopies?: 'keep' | 'drop';
  /** Is told of each shadow copy that `drop` drops at once, oldest first, when it has gone; whether the store is made in the end or not. */
  readonly onShadowCopyDropped?: (copy: DroppedShadowCopy) => void;
  readonly environment?: Environment;
}
