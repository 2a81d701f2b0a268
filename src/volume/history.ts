/** The past of a volume: its snapshots, whoever wrote them, and the volume that they are snapshots of. */
import type { CopyFigures } from '../copy-on-write/copy-host.js';
import type { WriteBufferFigures } from '../copy-on-write/write-buffer-figures.js';
import type { BlockDevice } from '../device/block-device.js';
import type { ScrubStatus } from '../scrub/scrub.js';
import type { RevertStatus } from '../snapshot/revert-operation.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import type { SpaceFigures } from '../snapshot/space.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { ChangedExtent } from './changed-blocks.js';
import type { LateFigures } from './late-areas.js';

/** Deleted snapshots that older ones read through, and what has been merged of such since the volume was opened. */
export interface DeletionFigures {
  /** Deleted, and not merged yet. */
  readonly snapshots: number;
  /** Bytes that their diff areas take still. */
  readonly allocatedBytes: ByteLength;
  readonly mergedSnapshots: number;
  readonly mergedBlocks: number;
  readonly mergedBytes: ByteLength;
}

/** What a volume and its store hold at this moment. */
export interface VolumeFigures {
  readonly layout: 'directory' | 'in-volume' | 'windows';
  readonly storeName: string;
  readonly usedBytes: ByteLength;
  readonly allocatedBytes: ByteLength;
  /** 0: no limit. */
  readonly maximumBytes: ByteLength;
  /** The revert under way; `undefined`: there is none. */
  readonly revert?: RevertStatus | undefined;
  /** Room for copies: policy, rate, forecast; `undefined` for a volume of Windows. */
  readonly space: SpaceFigures | undefined;
  /** The scrub under way; `undefined`: there is none. */
  readonly scrub?: ScrubStatus | undefined;
  /** Snapshots whose diff areas are waited for; `undefined`: there are none. */
  readonly late?: LateFigures | undefined;
  /** Memory that translation tables take. */
  readonly tableMemoryBytes: ByteLength;
  /** What copy-on-write has done since the volume was opened. */
  readonly copies: Readonly<CopyFigures>;
  readonly deletion: DeletionFigures;
  /** Work that is queued or running, and writes that are held. */
  readonly queues: {
    readonly copy: number;
    readonly commit: number;
    readonly background: number;
    readonly held: number;
  };
  /** The buffer of the mode `writeback`; `undefined` in the mode `ordered`. */
  readonly writeBuffer: WriteBufferFigures | undefined;
  /** How long writes were held for the last snapshot, in milliseconds; in the mode `writeback`: kept in the buffer. */
  readonly lastHoldMs: number;
}

export interface ChangedOptions {
  readonly since: Snapshot;
  readonly until: Snapshot | undefined;
  /** Only blocks that have a copy, without what is left out as unused. */
  readonly copiedOnly?: boolean | undefined;
  /** Only what lies in this range; default: all. */
  readonly offset?: ByteOffset | undefined;
  readonly length?: ByteLength | undefined;
  /** Checked where finding out takes long. */
  readonly signal?: AbortSignal | undefined;
}

export interface History {
  /** The volume as its users see it. */
  readonly volume: BlockDevice;
  /** Oldest first. */
  readonly snapshots: readonly Snapshot[];
  readonly figures: VolumeFigures;
  /**
   * What may differ between two moments, ascending.
   * @throws InvalidArgumentError, SnapshotDeletedError, FormatError (damaged)
   */
  changed(options: ChangedOptions): AsyncIterable<ChangedExtent> | Iterable<ChangedExtent>;
  /** Finishes what is under way and closes everything but the device that the volume was opened on. */
  close(): Promise<void>;
}
