/** Puts an open volume together: finds its store, loads it, and gives up what the options say. */
import { checkWhole } from '../arguments.js';
import type { Apart } from '../copy-on-write/copy-host.js';
import type { BlockDevice } from '../device/block-device.js';
import { Lifetime } from '../device/lifetime.js';
import { type Environment, systemEnvironment } from '../environment.js';
import { InvalidArgumentError, ReadOnlyError, UnsupportedError } from '../errors.js';
import type { Guid } from '../format/guid.js';
import type { Emit, VolumeEvents } from '../snapshot/events.js';
import type { SpaceWarning } from '../snapshot/forecast.js';
import { DEFAULT_GROWTH, type Growth } from '../snapshot/growth.js';
import { type LateOptions, lateLimitsOf } from '../snapshot/late-area.js';
import type { ProtectedWritePolicy } from '../snapshot/protected-blocks.js';
import type { DeletionReason } from '../snapshot/record.js';
import type { AttachedStore, Store } from '../store/store.js';
import type { ByteLength } from '../units.js';
import { Engine } from './engine.js';
import type { History } from './history.js';
import { LateAreas } from './late-areas.js';
import { findLeftovers, type Leftovers, passOverLeftovers, settleLeftovers } from './leftovers.js';
import {
  closeAreas,
  FOREIGN,
  findStore,
  type LoadedStore,
  loadStore,
  putRight,
  type Recovery,
} from './open.js';
import { announceStore, type SetResolver } from './set-outcome.js';
import { StoredHistory } from './stored-history.js';
import { TakenOver } from './taken-over.js';
import { WindowsEngine } from './windows-engine.js';
import { WindowsHistory } from './windows-history.js';

export type WriteMode = 'ordered' | 'writeback';

export interface VolumeOptions {
  /** Where the snapshots are; by default what is found: `NAME.volsnap` beside the device, or a store inside it. */
  readonly store?: Store;
  /** Default: as the device is. Nothing at all is written to a volume that is open for reading only. */
  readonly readOnly?: boolean;
  /** What to do if the volume was written while volsnap was not there; default `refuse`. */
  readonly onVolumeChanged?: 'refuse' | 'keep' | 'invalidate';
  /**
   * Must be given to open a volume with shadow copies of Windows for writing. They are kept right either way. A write that there is no
   * room for in their store, or that would overwrite the store: `keep` refuses it; `drop` deletes all shadow copies, as Windows does.
   * A store of volsnap that has taken them over (`InitializeVolumeOptions.shadowCopies`) does not ask: there the hold of its oldest snapshot says it.
   */
  readonly shadowCopies?: 'keep' | 'drop';
  /**
   * What to do about a member of a snapshot set of which it cannot be told whether the set was completed before a crash.
   * Default `pending`: it is kept, in the state `pending`, and looked at again at the next opening. A function is asked
   * before; see `setOutcomeIn`.
   */
  readonly onUndecidedSet?: 'pending' | 'keep' | 'drop' | SetResolver;
  /** What to do about snapshots whose metadata is damaged; default `refuse`. */
  readonly onDamaged?: 'refuse' | 'drop';
  /**
   * Diff areas may arrive later than the volume. Without it the volume does not open for writing while one is missing. With it the snapshots that
   * need one are not shown, copies for them are made in memory, and when it has not arrived in time they are given up (`deleted`, reason `late`).
   */
  readonly lateAreas?: LateOptions;
  /**
   * What a write does that touches a store inside the volume (`InVolumeOptions.runs`); default `reject`: it fails with a `ReadOnlyError`.
   * `drop`: all snapshots go, and what it touches is left to the volume. What the store cannot do without is never written.
   */
  readonly onProtectedWrite?: ProtectedWritePolicy;
  /** Bytes of copies in flight; default 64 MiB. */
  readonly memoryLimit?: ByteLength;
  /**
   * When a write is acknowledged; default `ordered`: once it is in the volume, so that a killed process loses none.
   * `writeback`: as soon as it is in a bounded buffer, like the volatile cache of a disk. Then a killed process, too, loses
   * what was not flushed; who needs it flushes. Snapshots are as safe either way.
   */
  readonly writeMode?: WriteMode;
  /** Bytes that the buffer of `writeback` may hold; default 64 MiB. */
  readonly writeBackLimit?: ByteLength;
  readonly growth?: Growth;
  /** When to tell that room runs low (the event `spaceLow`). */
  readonly spaceWarning?: SpaceWarning;
  readonly environment?: Environment;
  /** @internal How copies are made beside the main thread; a simulation has its own way. */
  readonly apart?: Apart;
}

const DEFAULT_MEMORY_LIMIT = 64 * 1024 * 1024;
const DEFAULT_WRITE_BACK_LIMIT = 64 * 1024 * 1024;

/** What a volume is made of; an engine only if it may be written. */
export interface VolumeParts {
  readonly device: BlockDevice;
  /** Calls under way; closing waits for them. */
  readonly life: Lifetime;
  readonly history: History;
  readonly writer: { readonly engine: Engine; readonly history: StoredHistory } | undefined;
  /** Instead of `writer`, of a volume with shadow copies of Windows that is open for writing. */
  readonly windows?: WindowsEngine;
  readonly recovery: Recovery;
}

/** @throws as `Volume.open` */
export async function openParts(
  device: BlockDevice,
  options: VolumeOptions,
  emit: Emit,
): Promise<VolumeParts> {
  const writable = device.writable && options.readOnly !== true;
  if (options.readOnly === false && !device.writable) {
    throw new ReadOnlyError(`${device.name} is open for reading only`);
  }
  const store = options.store ?? (await findStore(device));
  return store === FOREIGN
    ? openWindowsVolume(device, writable, options, emit)
    : openStore(device, store, writable, options, emit);
}

async function openStore(
  device: BlockDevice,
  place: Store,
  writable: boolean,
  options: VolumeOptions,
  emit: Emit,
): Promise<VolumeParts> {
  const { environment = systemEnvironment, onVolumeChanged = 'refuse', onDamaged = 'refuse' } = options;
  const store = await place.attach(device, { environment, writable });
  let loaded: LoadedStore | undefined;
  try {
    const late = lateLimitsOf(options.lateAreas);
    const { clock } = environment;
    loaded = await loadStore(store, { clock, writable, onVolumeChanged, onDamaged, late });
    if (loaded.drop.length === 0) return await assemble(device, store, loaded, writable, options, emit);
    // Before anything says that the volume is in use: a crash in between must find the same reason again.
    for (const { id } of [...loaded.dropBefore, ...loaded.drop]) await store.control.remove(id);
  } catch (error) {
    await closeAreas(loaded?.records ?? []);
    await store.close();
    throw error;
  }
  await closeAreas(loaded.records);
  await store.close();
  // From the beginning: of the space of what is damaged nothing is known but by its absence. Whether the volume was
  // changed is settled; in-volume the removal itself has changed it since.
  const parts = await openStore(device, place, writable, { ...options, onVolumeChanged: 'keep' }, emit);
  const droppedSnapshots = [...loaded.dropBefore, ...loaded.drop, ...parts.recovery.droppedSnapshots];
  return { ...parts, recovery: { ...loaded.recovery, droppedSnapshots } };
}

async function assemble(
  device: BlockDevice,
  store: AttachedStore,
  loaded: LoadedStore,
  writable: boolean,
  options: VolumeOptions,
  emit: Emit,
): Promise<VolumeParts> {
  const {
    environment = systemEnvironment,
    memoryLimit = DEFAULT_MEMORY_LIMIT,
    growth = DEFAULT_GROWTH,
    spaceWarning = {},
    onProtectedWrite = 'reject',
  } = options;
  checkWhole('memory limit', memoryLimit);
  const writeBackLimit = writable ? writeBackLimitOf(options) : undefined;
  const life = new Lifetime(device.name);
  const deletions = new DeletionsWhileOpening(emit);
  const { onDamaged = 'refuse' } = options;
  const elderOptions = { writable, onDamaged, emit: deletions.emit };
  const elders = await TakenOver.open(device, store, loaded.records, elderOptions);
  const engine = new Engine(store.volume, store, loaded.records, {
    environment,
    memoryLimit,
    writeBackLimit,
    growth,
    spaceWarning,
    onProtectedWrite,
    apart: options.apart,
    emit: deletions.emit,
    life,
    elders,
  });
  elders?.readThrough(engine);
  const leftovers = await findLeftovers(loaded.records, {
    environment,
    writable,
    onUndecidedSet: options.onUndecidedSet ?? 'pending',
  });
  const warnings = [...loaded.recovery.warnings, ...(elders?.notes ?? []), ...leftovers.warnings];
  engine.reverts.restore();
  const history = new StoredHistory(engine, writable, elders);
  if (!writable) {
    passOverLeftovers(leftovers);
    return { device, life, history, writer: undefined, recovery: { ...loaded.recovery, warnings } };
  }
  const removedFiles = await putRight(store, loaded);
  await settleLeftovers(engine, leftovers);
  await engine.reverts.goOn();
  engine.merging.wake();
  const limits = lateLimitsOf(options.lateAreas);
  if (limits !== undefined && loaded.late.length > 0)
    engine.late = new LateAreas(engine, loaded.late, limits);
  history.onClose = announceStore(environment, device, store);
  const droppedSnapshots = [...(elders?.dropped ?? []), ...deletions.with(leftovers)];
  return {
    device,
    life,
    history,
    writer: { engine, history },
    recovery: { ...loaded.recovery, warnings, removedFiles, droppedSnapshots },
  };
}

/** Notes which snapshots go while a volume is opened, whatever for: nobody can listen to its events yet. */
class DeletionsWhileOpening {
  /** Of those told while it opens; `undefined`: it is open. */
  #reasons: Map<Guid, DeletionReason> | undefined = new Map();
  readonly emit: Emit;

  constructor(emit: Emit) {
    this.emit = (name, ...event) => {
      if (name === 'deleted') this.#note(event as VolumeEvents['deleted']);
      emit(name, ...event);
    };
  }

  #note([{ id, reason }]: VolumeEvents['deleted']): void {
    this.#reasons?.set(id, reason);
  }

  /** It is open: those that went, and those that are to go and nobody is shown. */
  with({ expired }: Leftovers): Recovery['droppedSnapshots'] {
    const reasons = new Map([
      ...expired.map(({ record, reason }) => [record.id, reason] as const),
      ...(this.#reasons ?? []),
    ]);
    this.#reasons = undefined;
    return [...reasons].map(([id, reason]) => ({ id, reason }));
  }
}

/** @throws InvalidArgumentError */
function writeBackLimitOf({ writeMode = 'ordered', writeBackLimit }: VolumeOptions): ByteLength | undefined {
  if (writeBackLimit !== undefined) checkWhole('write-back limit', writeBackLimit);
  switch (writeMode) {
    case 'ordered':
      return undefined;
    case 'writeback':
      return writeBackLimit ?? DEFAULT_WRITE_BACK_LIMIT;
    default:
      throw new InvalidArgumentError(`writeMode must be ordered or writeback, got ${String(writeMode)}`);
  }
}

async function openWindowsVolume(
  device: BlockDevice,
  writable: boolean,
  options: VolumeOptions,
  emit: Emit,
): Promise<VolumeParts> {
  const life = new Lifetime(device.name);
  const recovery = { clean: true, droppedCopies: 0, removedFiles: [], droppedSnapshots: [] };
  if (!writable) {
    const history = await WindowsHistory.open(device);
    return { device, life, history, writer: undefined, recovery: { ...recovery, warnings: history.notes } };
  }
  const { shadowCopies, onDamaged = 'refuse', environment = systemEnvironment } = options;
  if (shadowCopies === undefined) {
    throw new UnsupportedError(
      `${device.name} has shadow copies that Windows made. Open it read-only; or for writing, which keeps them right, and say what is to happen where there is no room for that: the write fails (shadowCopies, --shadow-copies: keep), or all of them are dropped (drop)`,
    );
  }
  if (shadowCopies !== 'keep' && shadowCopies !== 'drop')
    throw new InvalidArgumentError(`shadowCopies must be keep or drop, got ${String(shadowCopies)}`);
  const { history, writer } = await WindowsHistory.openForWriting(device, { shadowCopies, onDamaged }, emit);
  return {
    device,
    life,
    history,
    writer: undefined,
    windows: new WindowsEngine(device, life, writer, environment.clock),
    recovery: {
      ...recovery,
      droppedSnapshots: writer.dropped.map(({ storeId, snapshotId }) => ({
        id: snapshotId ?? storeId,
        reason: 'damaged' as const,
      })),
      warnings: history.notes,
    },
  };
}
