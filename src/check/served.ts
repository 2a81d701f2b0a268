/** Looks for damage in the snapshots of a volume while it is in use. */
import { UnsupportedError } from '../errors.js';
import type { ByteLength } from '../units.js';
import type { Volume } from '../volume/volume.js';
import type { Problem } from './check.js';

export interface ServedCheckOptions {
  readonly scrub?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: ByteLength, total: ByteLength) => void;
}

export async function checkServedVolume(_volume: Volume, _options: ServedCheckOptions): Promise<Problem[]> {
  throw new UnsupportedError('not yet');
}
