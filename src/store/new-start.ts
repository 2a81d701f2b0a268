/** The start block of a store that is being made. */
import type { BlockDevice } from '../device/block-device.js';
import type { Environment } from '../environment.js';
import { AlreadyInitializedError } from '../errors.js';
import { leadsToCatalog } from '../format/catalog-offset.js';
import { START_BLOCK_OFFSET } from '../format/constants.js';
import { DEFAULT_SPACE_RULES, decodeStartBlock, type StartExtension } from '../format/start-block.js';
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

/**
 * May the store be made where this start block lies?
 * @param overWindows also if it leads to shadow copies
 * @throws AlreadyInitializedError, FormatError
 */
export function checkGivesWay({ name }: BlockDevice, start: Uint8Array, overWindows: boolean): void {
  const found = decodeStartBlock(start, { offset: START_BLOCK_OFFSET });
  if (found.extension !== undefined)
    throw new AlreadyInitializedError(`${name} has a snapshot store inside already`);
  if (overWindows || !leadsToCatalog(found)) return;
  throw new AlreadyInitializedError(
    `${name} has shadow copies that Windows made. They can be taken over, if it is said what is to happen where there is no room to keep them right: the write fails (shadowCopies, --shadow-copies: keep), or all of them are dropped (drop)`,
  );
}

/** A random 64-bit number: the epoch of a store or of a diff-area file. */
export function randomU64({ random }: Environment): bigint {
  return new DataView(random.fill(new Uint8Array(8)).buffer).getBigUint64(0, true);
}
