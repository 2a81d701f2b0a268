/** What can be asked of an open volume, be it open in this process or in the one that serves it. */
import type { SpacePolicy } from '../format/start-block.js';
import type { ScrubOptions, ScrubReport } from '../scrub/scrub.js';
import type { CreateSnapshotOptions } from '../snapshot/create.js';
import type { VolumeEvents } from '../snapshot/events.js';
import type { SettledOptions } from '../snapshot/merging.js';
import type { SpacePolicyOptions } from '../snapshot/overflow.js';
import type { RevertOperation, RevertOptions } from '../snapshot/revert-operation.js';
import type { ByteSource, Snapshot } from '../snapshot/snapshot.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { ChangedBlocksOptions, ChangedExtent } from './changed-blocks.js';
import type { CopyRangeOptions } from './copy-range.js';
import type { VolumeFigures } from './history.js';
import type { Recovery } from './open.js';

/** See `Volume`, which says what each of these does and throws. */
export interface VolumeAccess extends ByteSource {
  readonly name: string;
  readonly writable: boolean;
  readonly recovery: Recovery;
  /** Oldest first. */
  readonly snapshots: readonly Snapshot[];
  readonly figures: VolumeFigures;
  read(offset: ByteOffset, target: ByteLength | Uint8Array): Promise<Uint8Array>;
  write(offset: ByteOffset, source: Uint8Array): Promise<void>;
  copyRange(from: ByteOffset, to: ByteOffset, length: ByteLength, options?: CopyRangeOptions): Promise<void>;
  flush(): Promise<void>;
  createSnapshot(options?: CreateSnapshotOptions): Promise<Snapshot>;
  deleteOldest(count?: number): Promise<void>;
  revert(snapshot: Snapshot, options?: RevertOptions): RevertOperation;
  readonly reverting: RevertOperation | undefined;
  scrub(options?: ScrubOptions): Promise<ScrubReport>;
  settled(options?: SettledOptions): Promise<void>;
  changedBlocks(options: ChangedBlocksOptions): AsyncIterable<ChangedExtent>;
  setMaximumSize(maximumSize: ByteLength): Promise<void>;
  setSpacePolicy(policy: SpacePolicy, options?: SpacePolicyOptions): Promise<void>;
  grow(size: ByteLength): Promise<void>;
  on<Name extends keyof VolumeEvents>(name: Name, listener: (...event: VolumeEvents[Name]) => void): unknown;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}
