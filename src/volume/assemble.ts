/** Puts an open volume together: finds its store, loads it, and gives up what the options say. */
import { checkWhole } from '../arguments.js';
import type { Apart } from '../copy-on-write/copy-host.js';
import type { BlockDevice } from '../device/block-device.js';
import { Lifetime } from '../device/lifetime.js';
import { type Environment, systemEnvironment } from '../environment.js';
import { InvalidArgumentError, ReadOnlyError, UnsupportedError } from '../errors.js';
import type { Emit } from '../snapshot/events.js';
import type { SpaceWarning } from '../snapshot/forecast.js';
import { DEFAULT_GROWTH, type Growth } from '../snapshot/growth.js';
import type { AttachedStore, Store } from '../store/store.js';
import type { ByteLength } from '../units.js';
import { Engine } from './engine.js';
import type { History } from './history.js';
import {
  closeAreas,
  FOREIGN,
  findStore,
  type LoadedStore,
  loadStore,
  putRight,
  type Recovery,
} from './open.js';
import { StoredHistory } from './stored-history.js';
import { WindowsHistory } from './windows-history.js';

export type WriteMode = 'ordered' | 'writeback';

export interface VolumeOptions {
  /** Where the snapshots are; by default what is found: `NAME.volsnap` beside the device, or a store inside it. */
  readonly store?: Store;
  /** Default: as the device is. Nothing at all is written to a volume that is open for reading only. */
  readonly readOnly?: boolean;
  /** What to do if the volume was written while volsnap was not there; default `refuse`. */
  readonly onVolumeChanged?: 'refuse' | 'keep' | 'invalidate';
  /** What to do about snapshots whose metadata is damaged; default `refuse`. */
  readonly onDamaged?: 'refuse' | 'drop';
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
    ? openWindowsVolume(device, writable)
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
    loaded = await loadStore(store, { clock: environment.clock, writable, onVolumeChanged, onDamaged });
    if (loaded.drop.length === 0) return await assemble(device, store, loaded, writable, options, emit);
    // Before anything says that the volume is in use: a crash in between must find the same reason again.
    for (const { id } of loaded.drop) await store.control.remove(id);
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
  return { ...parts, recovery: { ...loaded.recovery, droppedSnapshots: loaded.drop } };
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
  } = options;
  checkWhole('memory limit', memoryLimit);
  const writeBackLimit = writable ? writeBackLimitOf(options) : undefined;
  const life = new Lifetime(device.name);
  const engine = new Engine(store.volume, store, loaded.records, {
    environment,
    memoryLimit,
    writeBackLimit,
    growth,
    spaceWarning,
    apart: options.apart,
    emit,
    life,
  });
  engine.reverts.restore();
  const history = new StoredHistory(engine, writable);
  if (!writable) return { device, life, history, writer: undefined, recovery: loaded.recovery };
  const removedFiles = await putRight(store, loaded);
  await engine.reverts.goOn();
  engine.merging.wake();
  return {
    device,
    life,
    history,
    writer: { engine, history },
    recovery: { ...loaded.recovery, removedFiles },
  };
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

async function openWindowsVolume(device: BlockDevice, writable: boolean): Promise<VolumeParts> {
  if (writable) {
    throw new UnsupportedError(
      `${device.name} has shadow copies that Windows made; for now such a volume can only be opened read-only, because writing to it would spoil them`,
    );
  }
  const history = await WindowsHistory.open(device);
  const recovery = {
    clean: true,
    droppedCopies: 0,
    removedFiles: [],
    droppedSnapshots: [],
    warnings: history.notes,
  };
  return { device, life: new Lifetime(device.name), history, writer: undefined, recovery };
}
