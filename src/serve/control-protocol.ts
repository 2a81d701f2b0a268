/** What is said over the control channel: methods, what they take and what they give. */
import { resolve } from 'node:path';
import type { SpacePolicy } from '../format/start-block.js';
import type { SpacePolicyOptions } from '../snapshot/overflow.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import type { ChangedExtent } from '../volume/changed-blocks.js';
import type { VolumeFigures } from '../volume/history.js';
import type { Recovery } from '../volume/open.js';
import type { Volume } from '../volume/volume.js';

/** Events that clients hear of. */
export const EVENTS = [
  'created',
  'deleted',
  'merged',
  'arrived',
  'held',
  'released',
  'backgroundFailure',
  'overflow',
  'revertProgress',
  'reverted',
  'writesResumed',
  'spaceLow',
  'spaceEnough',
  'spacePolicy',
  'unusedSpaceUnknown',
  'scrubProgress',
  'problemFound',
  'scrubbed',
  'protectedWrite',
] as const;

export const Method = {
  /** First of all. Takes `Greeting`, gives `VolumeState`. */
  hello: 'hello',
  /** Gives `VolumeState`. */
  state: 'state',
  /** Takes `ReadParams`, gives bytes. */
  read: 'read',
  /** Takes `ReadParams`; gives `{ next }`, and extents as bytes: what is known to be zero. */
  zeros: 'zeros',
  /** Takes `WriteParams` and bytes. */
  write: 'write',
  /** Takes `CopyRangeParams`. */
  copyRange: 'copyRange',
  /** Takes `{ snapshot }`, a store id, or nothing: the volume. */
  flush: 'flush',
  /** Takes `{ snapshot, writable }`, gives `VolumeState`. */
  setWritable: 'setWritable',
  /** Takes `CreateParams`, and application information as bytes; gives `Created`. */
  create: 'create',
  /** Takes `CreateSetParams`, and application information as bytes; gives `CreatedSet`. */
  createSet: 'createSet',
  /** Takes `ChangeSnapshotParams`; gives `VolumeState`. */
  changeSnapshot: 'changeSnapshot',
  /** Takes `{ ids }`, the oldest ones in their order; gives `VolumeState`. */
  deleteOldest: 'deleteOldest',
  /** Takes `{ id }`, the store id of a snapshot; gives `VolumeState`. */
  delete: 'delete',
  /** Waits until deleted snapshots are merged; gives `VolumeState`. */
  settled: 'settled',
  /** Takes `ChangedParams`; gives `{ next }`, and extents as bytes. */
  changed: 'changed',
  /** Takes `{ maximumSize }`, gives `VolumeState`. */
  resize: 'resize',
  /** Takes `RevertParams`; gives `VolumeState` when the revert has begun. */
  revert: 'revert',
  /** Gives `{ outcome }` when the revert under way is over; at once, and without one, if none is. */
  reverted: 'reverted',
  /** Gives `VolumeState` when the volume reads as before the revert. */
  cancelRevert: 'cancelRevert',
  /** Takes `PolicyParams`, gives `VolumeState`. */
  policy: 'policy',
  /** Takes `HoldParams`, gives `VolumeState`. */
  hold: 'hold',
  /** Takes `{ snapshot }`, its store id; gives `VolumeState`. */
  release: 'release',
  /** Takes `{ size }`, gives `VolumeState`. */
  grow: 'grow',
  /** Takes `CheckParams`, gives problems. */
  check: 'check',
  /** Takes `ScrubParams`, gives a `ScrubReport`. */
  scrub: 'scrub',
} as const;

export interface Greeting {
  /** Of the volume that is meant, where it can be told. */
  readonly identity?: string | undefined;
}

export interface ReadParams {
  /** Store id of a snapshot; none: the volume. */
  readonly snapshot?: string | undefined;
  readonly offset: number;
  readonly length: number;
}

export interface ChangeSnapshotParams {
  readonly storeId: string;
  readonly hidden?: boolean | undefined;
  readonly offline?: boolean | undefined;
}

export interface WriteParams {
  /** Store id of a snapshot; none: the volume. */
  readonly snapshot?: string | undefined;
  readonly offset: number;
}

export interface CopyRangeParams {
  readonly from: number;
  readonly to: number;
  readonly length: number;
}

export interface SnapshotParams {
  /** Store id. */
  readonly snapshot?: string | undefined;
}

export interface RevertParams {
  /** Store id. */
  readonly snapshot: string;
  readonly label?: string | undefined;
  readonly keepPrevious?: boolean | undefined;
  readonly holdTimeoutMs?: number | undefined;
}

export interface ChangedParams {
  /** Store ids; without `since`: everything but what is known to be zero. */
  readonly since?: string | undefined;
  readonly until?: string | undefined;
  readonly compare: boolean;
  readonly copiedOnly?: boolean | undefined;
  readonly offset: number;
  readonly length?: number | undefined;
}

export interface PolicyParams extends SpacePolicyOptions {
  readonly policy: SpacePolicy;
}

export interface HoldParams {
  /** Store id. */
  readonly snapshot: string;
  /** Milliseconds since 1970; none: until it is released. */
  readonly until?: number | undefined;
}

export interface ScrubParams {
  readonly bytesPerSecond?: number | undefined;
  readonly repair?: boolean | undefined;
}

export interface CheckParams extends ScrubParams {
  readonly scrub: boolean;
}

/** What the server of the volume does besides. */
export interface ServingState {
  readonly pid: number;
  readonly uris: readonly string[];
  /** Milliseconds since it began to serve. */
  readonly forMs: number;
  readonly connections: number;
  readonly inFlight: number;
  readonly reads: number;
  readonly readBytes: number;
  readonly writes: number;
  readonly writtenBytes: number;
  readonly flushes: number;
  readonly failures: number;
}

export interface SnapshotState {
  readonly id: string;
  readonly storeId: string;
  readonly setId: string;
  readonly label?: string | undefined;
  /** Base64. */
  readonly applicationInfo?: string | undefined;
  /** Milliseconds since 1970; `null`: none that makes sense. */
  readonly createdAt: number | null;
  readonly order: number;
  readonly size: number;
  readonly usedBytes: number;
  readonly unusedBytes: number;
  readonly allocatedBytes: number;
  readonly state: Snapshot['state'];
  readonly inSet: boolean;
  readonly persistent: boolean;
  readonly autoRelease: boolean;
  readonly hidden: boolean;
  readonly offline: boolean;
  readonly problem?: string | undefined;
  readonly held: boolean;
  /** Milliseconds since 1970; none: no date. */
  readonly heldUntil?: number | undefined;
  readonly writable: boolean;
  readonly movedBytes: number;
}

export interface VolumeState {
  readonly volumeId?: string | undefined;
  readonly size: number;
  readonly writable: boolean;
  readonly recovery: Recovery;
  readonly figures: VolumeFigures;
  readonly snapshots: readonly SnapshotState[];
  readonly serving: ServingState;
}

export interface Created {
  readonly storeId: string;
  readonly state: VolumeState;
}

export interface CreatedSet {
  readonly setId: string;
  /** Of each member, the first being that of the volume whose channel this is. */
  readonly members: readonly { readonly volumeId: string; readonly storeId: string }[];
  readonly state: VolumeState;
}

export const snapshotState = (snapshot: Snapshot): SnapshotState => ({
  id: snapshot.id,
  storeId: snapshot.storeId,
  setId: snapshot.setId,
  label: snapshot.label,
  applicationInfo: snapshot.applicationInfo && Buffer.from(snapshot.applicationInfo).toString('base64'),
  createdAt: snapshot.createdAt.getTime(),
  order: snapshot.order,
  size: snapshot.size,
  usedBytes: snapshot.usedBytes,
  unusedBytes: snapshot.unusedBytes,
  allocatedBytes: snapshot.allocatedBytes,
  state: snapshot.state,
  inSet: snapshot.inSet,
  persistent: snapshot.persistent,
  autoRelease: snapshot.autoRelease,
  hidden: snapshot.hidden,
  offline: snapshot.offline,
  problem: snapshot.problem,
  held: snapshot.held,
  heldUntil: snapshot.heldUntil?.getTime(),
  writable: snapshot.writable,
  movedBytes: snapshot.movedBytes,
});

export const volumeState = (volume: Volume, serving: ServingState): VolumeState => ({
  volumeId: volume.id,
  size: volume.size,
  writable: volume.writable,
  recovery: volume.recovery,
  figures: withPlace(volume.figures),
  snapshots: volume.snapshots.map(snapshotState),
  serving,
});

/** A path is told so that it leads to the same place from anywhere. */
const withPlace = (figures: VolumeFigures): VolumeFigures =>
  figures.layout === 'directory' ? { ...figures, storeName: resolve(figures.storeName) } : figures;

/** Extents of one answer. */
export const EXTENTS_MAX = 16_384;
const EXTENT_SIZE = 16;

export function encodeExtents(extents: readonly ChangedExtent[]): Buffer {
  const bytes = Buffer.allocUnsafe(extents.length * EXTENT_SIZE);
  for (const [i, { offset, length }] of extents.entries()) {
    bytes.writeDoubleBE(offset, i * EXTENT_SIZE);
    bytes.writeDoubleBE(length, i * EXTENT_SIZE + 8);
  }
  return bytes;
}

export function* decodeExtents(bytes: Uint8Array): Generator<ChangedExtent> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at + EXTENT_SIZE <= bytes.byteLength; at += EXTENT_SIZE) {
    yield { offset: view.getFloat64(at), length: view.getFloat64(at + 8) };
  }
}
