/** What making a store for a volume takes. */
import type { Environment } from '../environment.js';
import type { Store } from '../store/store.js';
import type { ByteLength } from '../units.js';

export interface InitializeVolumeOptions {
  readonly store: Store;
  /** Bytes that diff areas may take in all; default 0: no limit. */
  readonly maximumSize?: ByteLength;
  readonly environment?: Environment;
}
