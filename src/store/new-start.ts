/** The start block of a store that is being made. */
import type { Environment } from '../environment.js';
import { DEFAULT_SPACE_RULES, type StartExtension } from '../format/start-block.js';
import type { ByteLength } from '../units.js';
import type { OwnStartBlock } from './control-file.js';

export interface NewStart {
  readonly volumeId: string;
  readonly maximumSize: ByteLength;
  readonly protectedSize: ByteLength;
  readonly layout: StartExtension['layout'];
  /** `IncompatibleFeature`s; default: none. */
  readonly incompatible?: number;
}

export function newStart(
  environment: Environment,
  wanted: NewStart,
): Omit<OwnStartBlock, 'firstControlBlock'> {
  const { volumeId, maximumSize, protectedSize, layout, incompatible = 0 } = wanted;
  return {
    version: 1,
    maximumSize,
    volumeId,
    storageVolumeId: volumeId,
    extension: {
      incompatible,
      readOnlyCompatible: 0,
      compatible: 0,
      protectedSize,
      layout,
      storeId: randomU64(environment),
      clean: undefined,
      spaceRules: DEFAULT_SPACE_RULES,
    },
  };
}

/** A random 64-bit number: the epoch of a store or of a diff-area file. */
export function randomU64({ random }: Environment): bigint {
  return new DataView(random.fill(new Uint8Array(8)).buffer).getBigUint64(0, true);
}
