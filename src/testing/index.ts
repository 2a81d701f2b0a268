/**
 * Deterministic simulation: run volsnap, or anything else on its device interface, against a world that is a function
 * of one seed, crash it, and check what comes back.
 */
export { CachedContent } from './cached-content.js';
export type { CrashModel } from './crash-model.js';
export type { Change, SectorChoice } from './durable-bytes.js';
export {
  type DiskOperation,
  type Fault,
  type FaultableOperation,
  type FaultEffect,
  FaultPlan,
  type FaultRule,
  type FolderOperation,
} from './faults.js';
export { describeOperation, type OperationLabel, type OperationRequest } from './operation.js';
export { DeadlockError, type Outcome, Scheduler, type SchedulerOptions } from './scheduler.js';
export { explainSector, readStamp, type Stamp, stampSectors } from './sector-data.js';
export type { WriteRecord } from './sector-history.js';
export { SeededRandom } from './seeded-random.js';
export { type ShrinkOptions, shrink } from './shrink.js';
export { SimulatedClock } from './simulated-clock.js';
export { SimulatedDevice } from './simulated-device.js';
export {
  type NameChange,
  type SavedDirectory,
  SimulatedDirectory,
  type SimulatedDirectoryOptions,
} from './simulated-directory.js';
export { type SavedDisk, SimulatedDisk, type SimulatedDiskOptions, sectorsOf } from './simulated-disk.js';
export { SimulatedFolder } from './simulated-folder.js';
export { type SavedWorld, SimulatedWorld } from './simulated-world.js';
export type { Moment, SnapshotModel } from './snapshot-model.js';
export { type CallResult, ModelMismatch, type PendingCall, Ticks, VolumeModel } from './volume-model.js';
