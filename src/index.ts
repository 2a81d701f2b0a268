/** What `import … from 'volsnap'` gives. */
export type { CacheFigures } from './cache/cache-store.js';
export {
  CachedDevice,
  type CachedDeviceOptions,
  FILL_SIZE_MAX,
  FILL_SIZE_MIN,
} from './cache/cached-device.js';
export type { CachedDeviceFigures } from './cache/cached-reads.js';
export type { CacheProblem } from './cache/check.js';
export { CACHE_SIZE_MAX, CACHE_SIZE_MIN, type CreateCacheOptions } from './cache/create.js';
export { type CachedRun, CacheImage, type CacheImageOptions } from './cache/image.js';
export { type CheckOptions, checkVolume } from './check/check.js';
export { checkServedVolume, type ServedCheckOptions } from './check/served.js';
export { type AllocationExtent, allocationOf } from './device/allocation.js';
export type { BlockDevice, ResizableDevice } from './device/block-device.js';
export { FileDevice, type FileDeviceOptions } from './device/file-device.js';
export type { Folder } from './device/folder.js';
export { HostFolder, type HostFolderOptions } from './device/host-folder.js';
export { MemoryDevice } from './device/memory-device.js';
export { MemoryFolder } from './device/memory-folder.js';
export { SliceDevice } from './device/slice-device.js';
export { type Clock, type Environment, type Random, systemEnvironment } from './environment.js';
export * from './errors.js';
export { type ExportQcow2Options, exportQcow2, type Qcow2Figures } from './export/qcow2.js';
export { type ExportRawOptions, exportRaw } from './export/raw.js';
export { type ExportVssOptions, exportVss } from './export/vss.js';
export { type AutoFreeSpaceOptions, autoFreeSpace } from './filesystem/auto.js';
export { type ExtFreeSpaceOptions, extFreeSpace } from './filesystem/ext-free-space.js';
export type { FileSystemSource, FreeSpace, FreeSpaceProvider } from './filesystem/free-space.js';
export { type NtfsFreeSpaceOptions, ntfsFreeSpace } from './filesystem/ntfs-free-space.js';
export { decodeQcow2Header, isQcow2, type Qcow2Header } from './format/qcow2.js';
export { SPACE_POLICIES, type SpacePolicy, type SpaceRules } from './format/start-block.js';
export type { BlockStatus } from './nbd/client/block-status.js';
export { NbdDevice, type NbdDeviceOptions } from './nbd/client/nbd-device.js';
export { looksLikeUri, type NbdUri, parseNbdUri } from './nbd/client/uri.js';
export { DeviceExport, FixedCatalog } from './nbd/server/device-export.js';
export type { ExportCatalog, NbdExport, StatusContext, StatusContexts } from './nbd/server/export.js';
export { DEFAULT_LIMITS, type NbdLimits } from './nbd/server/limits.js';
export { type NbdAddress, NbdServer, type NbdServerOptions } from './nbd/server/server.js';
export type { NbdTls } from './nbd/server/tls.js';
export type { ScrubOptions, ScrubReport, ScrubStatus } from './scrub/scrub.js';
export { connectToOwner } from './serve/connect.js';
export type { ServingState } from './serve/control-protocol.js';
export { RemoteVolume } from './serve/remote-volume.js';
export { VolumeServer, type VolumeServerOptions } from './serve/volume-server.js';
export type { CreateSnapshotOptions } from './snapshot/create.js';
export type { FullReason, VolumeEvents } from './snapshot/events.js';
export type { SpaceForecast, SpaceWarning } from './snapshot/forecast.js';
export type { Growth } from './snapshot/growth.js';
export type { LateOptions } from './snapshot/late-area.js';
export type { SettledOptions } from './snapshot/merging.js';
export type { SpacePolicyOptions } from './snapshot/overflow.js';
export { explainProblem, type Problem } from './snapshot/problem.js';
export type { ProtectedWritePolicy } from './snapshot/protected-blocks.js';
export type { DeletionReason } from './snapshot/record.js';
export type {
  RevertOperation,
  RevertOptions,
  RevertOutcome,
  RevertStatus,
} from './snapshot/revert-operation.js';
export type {
  ByteSource,
  DeleteSnapshotOptions,
  HoldOptions,
  Snapshot,
  SnapshotChange,
} from './snapshot/snapshot.js';
export type { SpaceFigures } from './snapshot/space.js';
export type { UnusedSpace } from './snapshot/unused-space.js';
export type {
  SnapshotWriter,
  WriterCall,
  WriterFailure,
  WriterLimits,
  WriterPhase,
} from './snapshot/writers.js';
export { DirectoryStore } from './store/directory-store.js';
export { checkReserve, type InVolumeOptions, InVolumeStore } from './store/in-volume-store.js';
export type { SetOutcome } from './store/set-records.js';
export type { Store } from './store/store.js';
export { BLOCK_SIZE, type ByteLength, type ByteOffset, SECTOR_SIZE } from './units.js';
export type { VolumeAccess } from './volume/access.js';
export type { WriteMode } from './volume/assemble.js';
export type { ChangedExtent } from './volume/changed-blocks.js';
export type { CopyRangeOptions } from './volume/copy-range.js';
export type { DeletionFigures, VolumeFigures } from './volume/history.js';
export type { LateFigures } from './volume/late-areas.js';
export { checkHasNoStore, findStore, type Recovery } from './volume/open.js';
export type { DroppedShadowCopy } from './volume/options.js';
export {
  findSetOutcome,
  type OutcomeOptions,
  type SetResolver,
  setOutcomeIn,
  type UndecidedSet,
} from './volume/set-outcome.js';
export {
  type CreateSnapshotSetOptions,
  createSnapshotSet,
  type SnapshotSet,
} from './volume/snapshot-set.js';
export {
  type ChangedBlocksOptions,
  type InitializeVolumeOptions,
  Volume,
  type VolumeOptions,
} from './volume/volume.js';
