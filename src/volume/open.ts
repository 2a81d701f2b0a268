/**
 * Opening a volume: which store it has, what a crash left in it, and whether the volume is still the one that the
 * snapshots belong to.
 */
import { allDone } from '../all-done.js';
import type { BlockDevice } from '../device/block-device.js';
import { loadDiffArea } from '../diff-area/load.js';
import type { Clock } from '../environment.js';
import {
  AlreadyInitializedError,
  DeviceError,
  FormatError,
  isOwnLimit,
  NotFoundError,
  NotInitializedError,
  UnsupportedError,
  VolumeChangedError,
} from '../errors.js';
import { leadsToCatalog } from '../format/catalog-offset.js';
import { START_BLOCK_OFFSET, START_BLOCK_SIZE } from '../format/constants.js';
import { type DiffAreaItem, SnapshotState } from '../format/control-block.js';
import { unknownReadOnlyBits } from '../format/extension.js';
import { millisecondsFromFiletime } from '../format/filetime.js';
import type { Guid } from '../format/guid.js';
import { decodeStartBlock, isStartBlock } from '../format/start-block.js';
import {
  canStandIn,
  checkCopies,
  holdBack,
  isWithoutCopies,
  type LateArea,
  type LateOptions,
  standIn,
  whyHeldInTheWay,
} from '../snapshot/late-area.js';
import { type DeletionReason, type Hold, SnapshotRecord } from '../snapshot/record.js';
import { isTarget } from '../snapshot/revert-state.js';
import { type CatalogEntry, isDeleting } from '../store/catalog.js';
import { DirectoryStore } from '../store/directory-store.js';
import { InVolumeStore } from '../store/in-volume-store.js';
import type { AttachedStore, Store } from '../store/store.js';

/** What opening found out. */
export interface Recovery {
  /** Was the volume closed properly the last time? */
  readonly clean: boolean;
  /** Copies that were under way when a process died; their blocks are still in the volume. */
  readonly droppedCopies: number;
  /** Files of snapshots that were half created or half deleted. */
  readonly removedFiles: readonly string[];
  /** Snapshots that went while the volume was opened, whatever for; and those that are to go, and nobody is shown, as soon as nothing needs them. */
  readonly droppedSnapshots: readonly { readonly id: Guid; readonly reason: DeletionReason }[];
  /** What a user should know, in words. */
  readonly warnings: readonly string[];
}

/** The store of a volume that volsnap did not write. */
export const FOREIGN = 'foreign';

/** By custom the folder of a volume's store is its path with this after it. */
export const STORE_SUFFIX = '.volsnap';

/** Finds the store of the volume on `device`. @throws NotInitializedError if there is none */
export async function findStore(device: BlockDevice): Promise<Store | typeof FOREIGN> {
  // Only what has a path has something beside it.
  const hasPath = 'path' in device;
  if (hasPath) {
    const directory = new DirectoryStore(device.name + STORE_SUFFIX);
    if (await directory.exists()) return directory;
  }
  const start = new Uint8Array(START_BLOCK_SIZE);
  if (device.size >= START_BLOCK_OFFSET + START_BLOCK_SIZE) await device.read(START_BLOCK_OFFSET, start);
  const found = isStartBlock(start) ? decodeStartBlock(start, { offset: START_BLOCK_OFFSET }) : undefined;
  // Windows leaves one that leads nowhere when it has deleted all shadow copies.
  if (found === undefined || (found.extension === undefined && !leadsToCatalog(found))) {
    throw new NotInitializedError(
      hasPath
        ? `${device.name} has no snapshot store (none in ${device.name}${STORE_SUFFIX}, none inside); make one with: volsnap init ${device.name}`
        : `${device.name} has no snapshot store inside; if it has one in a folder, name that with --store DIR, and make one with: volsnap init ${device.name} --store DIR`,
    );
  }
  return found.extension === undefined ? FOREIGN : new InVolumeStore();
}

/**
 * Two stores of one volume would miss each other's copies. One in a folder that only its user knows cannot be found.
 * @returns whether Windows has a store there, which is no obstacle to one of ours
 * @throws AlreadyInitializedError, naming the store, if the volume has one that `findStore` finds
 */
export async function checkHasNoStore(device: BlockDevice): Promise<boolean> {
  const found = await findStore(device).catch((error: unknown) => {
    if (error instanceof NotInitializedError) return undefined;
    throw error;
  });
  if (found === undefined || found === FOREIGN) return found === FOREIGN;
  const place = found.layout === 'in-volume' ? 'inside it' : `in ${device.name}${STORE_SUFFIX}`;
  throw new AlreadyInitializedError(`${device.name} has a snapshot store already, ${place}`);
}

export interface LoadOptions {
  readonly clock: Clock;
  readonly writable: boolean;
  readonly onVolumeChanged: 'refuse' | 'keep' | 'invalidate';
  readonly onDamaged: 'refuse' | 'drop';
  /** `undefined`: a diff area that is not there is damage. */
  readonly late?: Required<LateOptions> | undefined;
}

export interface LoadedStore {
  /** Oldest first. */
  readonly records: readonly SnapshotRecord[];
  readonly recovery: Recovery;
  /** In words, how the volume was changed while volsnap was not there. */
  readonly change: string | undefined;
  /** Snapshots that have to go before the volume may be written, oldest first. */
  readonly drop: readonly { readonly id: Guid; readonly reason: DeletionReason }[];
  /** Diff areas that are not there yet, oldest first. */
  readonly late: readonly LateArea[];
  /** Shadow copies of Windows that go before those, oldest first, because they are read through them. */
  readonly dropBefore: LoadedStore['drop'];
  /** What `putRight` has to write. */
  readonly repairs: readonly (() => Promise<void>)[];
}

/** Reads all snapshots of a store; writes nothing. */
export async function loadStore(store: AttachedStore, options: LoadOptions): Promise<LoadedStore> {
  const { writable } = options;
  const { control } = store;
  const { extension } = control.start;
  if (writable && unknownReadOnlyBits(extension) !== 0) {
    throw new UnsupportedError(
      `${store.name} was written by a newer volsnap and can only be read; open it read-only`,
    );
  }
  const warnings: string[] = [];
  const change = await volumeChange(store);
  if (change !== undefined) {
    if (writable && options.onVolumeChanged === 'refuse')
      throw new VolumeChangedError(
        `${change} Its snapshots may be wrong where it was. Say what to do with them: keep or invalidate`,
      );
    const cut = control.entries.find(({ snapshot }) => snapshot.volumeSize > store.volume.size);
    if (writable && options.onVolumeChanged === 'keep' && cut !== undefined)
      throw new VolumeChangedError(
        `${change} Snapshot ${cut.snapshot.storeId} is of what was cut off, too, so it cannot be kept: invalidate, or make the volume as long as it was`,
      );
    warnings.push(change);
  }
  const revertTarget = revertTargetOf(control.entries);
  const loaded = await loadSnapshots(store, options, revertTarget);
  const records = loaded.map(({ record }) => record);
  const droppedCopies = loaded.reduce((sum, { dropped }) => sum + dropped, 0);
  const damaged = await spreadDamage(records).catch(closing(records));
  const newestDamaged = damaged.at(-1);
  if (newestDamaged !== undefined) {
    const text = damaged.map((record) => `${record.id}: ${record.damage?.message}`).join('; ');
    if (writable && options.onDamaged === 'refuse' && !isWithoutCopies(newestDamaged)) {
      await closeAreas(records);
      throw new FormatError(
        `snapshots that cannot be read: ${text}. Open it read-only to save the others, or remove them with: volsnap check --repair`,
      );
    }
    warnings.push(`cannot be read: ${text}`);
  }
  const late = loaded.flatMap(({ late }) => late ?? []);
  if (late.length > 0) {
    const held = whyHeldInTheWay(records, options.clock.now());
    if (held !== undefined) {
      await closeAreas(records);
      throw held;
    }
    warnings.push(holdBack(records));
  }
  const dropsAll = change !== undefined && options.onVolumeChanged === 'invalidate';
  const isTargetDamaged = damaged.some(({ id }) => id === revertTarget?.snapshot.storeId);
  if (writable && revertTarget !== undefined && (dropsAll || isTargetDamaged)) {
    await closeAreas(records);
    const why = dropsAll ? change : newestDamaged?.damage?.message;
    throw new FormatError(
      `${why} The volume is being put back to snapshot ${revertTarget.snapshot.storeId}; without its snapshots it would stay between two states, so none can be given up. Keep them, or save what can be read (open it read-only)`,
    );
  }
  const isLost = newestDamaged !== undefined && isWithoutCopies(newestDamaged);
  const reason: DeletionReason = dropsAll ? 'volume-changed' : isLost ? 'late' : 'damaged';
  const gone = (ids: readonly Guid[]) => (writable ? ids.map((id) => ({ id, reason })) : []);
  const drop = gone((dropsAll ? records : damaged).map(({ id }) => id));
  // All through one go, or none: the oldest is always among them.
  const readThrough = drop.length === 0 ? [] : control.shadowCopies;
  return {
    records,
    change,
    recovery: {
      clean: extension.clean !== undefined,
      droppedCopies,
      removedFiles: [],
      droppedSnapshots: [],
      warnings,
    },
    late,
    drop,
    dropBefore: gone(readThrough.map(({ snapshot }) => snapshot.storeId)),
    repairs: loaded.map(({ repair }) => repair),
  };
}

/** The snapshot that a revert under way goes to. @throws FormatError if what the items say of it makes no sense */
function revertTargetOf(entries: readonly CatalogEntry[]): CatalogEntry | undefined {
  const [target, another] = entries.filter(({ snapshot }) => isTarget(snapshot.flags));
  if (target === undefined) return undefined;
  const newest = entries.at(-1);
  const isTaken = ((newest?.diffArea.state ?? 0) & SnapshotState.beforeRevert) !== 0;
  if (another !== undefined || newest === target || !isTaken) {
    throw new FormatError(
      `control blocks: a revert to ${target.snapshot.storeId} is under way, but ${another === undefined ? 'the newest snapshot was not taken for it' : `one to ${another.snapshot.storeId} too`}`,
    );
  }
  return target;
}

interface LoadedSnapshot {
  readonly record: SnapshotRecord;
  readonly dropped: number;
  /** Its diff area is not there yet. */
  readonly late?: LateArea;
  /** See `LoadedArea`. */
  readonly repair: () => Promise<void>;
}

async function loadSnapshots(
  store: AttachedStore,
  options: LoadOptions,
  revertTarget: CatalogEntry | undefined,
): Promise<LoadedSnapshot[]> {
  const loaded: LoadedSnapshot[] = [];
  const late = options.writable ? options.late : undefined;
  try {
    for (const entry of store.control.entries) {
      const mayWait = canStandIn(store, entry, revertTarget);
      loaded.push(await loadSnapshot(store, entry, { ...options, late: mayWait ? late : undefined }));
    }
  } catch (error) {
    return closing(loaded.map(({ record }) => record))(error);
  }
  return loaded;
}

/**
 * Puts right what a crash left, durably; returns the names of files that nothing needs any more. The first write says
 * that the volume is in use: a crash from here on is known as one.
 */
export async function putRight(store: AttachedStore, { repairs }: LoadedStore): Promise<string[]> {
  const { size } = store.volume;
  // A process that was killed while it made the volume longer leaves that in a cache: the record must not outlive it.
  if (size !== store.control.start.extension.protectedSize) await store.volume.flush();
  await store.control.markOpen(size);
  for (const repair of repairs) await repair();
  return store.removeOrphans();
}

async function loadSnapshot(
  store: AttachedStore,
  entry: CatalogEntry,
  options: LoadOptions,
): Promise<LoadedSnapshot> {
  const loaded = await loadContent(store, entry, options);
  loaded.record.hold = holdOf(entry.diffArea);
  // Older ones read through it until it is merged.
  if (isDeleting(entry)) loaded.record.markDeleted('requested');
  return loaded;
}

const holdOf = ({ state, heldUntil }: DiffAreaItem): Hold | undefined =>
  (state & SnapshotState.held) === 0
    ? undefined
    : { until: heldUntil === 0n ? undefined : millisecondsFromFiletime(heldUntil) };

async function loadContent(
  store: AttachedStore,
  entry: CatalogEntry,
  { writable, clock, late }: LoadOptions,
): Promise<LoadedSnapshot> {
  const { snapshot, diffArea } = entry;
  try {
    checkCopies(diffArea);
    const opened = await store.openArea(diffArea);
    try {
      const { area, dropped, repair } = await loadDiffArea(opened, diffArea, snapshot.volumeSize, clock);
      return { record: new SnapshotRecord(snapshot, { area }, diffArea.state), dropped, repair };
    } catch (error) {
      await opened.file.close();
      throw error;
    }
  } catch (error) {
    if (late !== undefined && error instanceof NotFoundError) return await standIn(store, entry, late);
    // What cannot be read today may be read tomorrow: a device error is damage only to those who change nothing.
    const isDamage =
      error instanceof FormatError ||
      error instanceof UnsupportedError ||
      error instanceof NotFoundError ||
      (error instanceof DeviceError && !writable && !isOwnLimit(error));
    if (!isDamage) throw error;
    return {
      record: new SnapshotRecord(snapshot, { damage: error }, diffArea.state),
      dropped: 0,
      repair: async () => undefined,
    };
  }
}

/** A snapshot reads through all newer ones, so those older than a damaged one are as good as damaged. */
async function spreadDamage(records: SnapshotRecord[]): Promise<SnapshotRecord[]> {
  const newest = records.findLastIndex((record) => record.damage !== undefined);
  for (const [index, record] of records.slice(0, Math.max(0, newest)).entries()) {
    if (record.damage !== undefined) continue;
    await record.area?.close();
    const damage = new FormatError(`it reads through snapshot ${records[newest]?.id}, which is damaged`);
    records[index] = new SnapshotRecord(record.item, { damage }, record.state);
    records[index].hold = record.hold;
    if (record.deleted !== undefined) records[index].markDeleted(record.deleted);
  }
  return records.slice(0, newest + 1);
}

/** Handles an error after which diff areas would stay open. */
const closing =
  (records: readonly SnapshotRecord[]) =>
  async (error: unknown): Promise<never> => {
    await closeAreas(records);
    throw error;
  };

/** Closes all of them, whatever happens; then throws the first error. */
export async function closeAreas(records: readonly SnapshotRecord[]): Promise<void> {
  await allDone(records.map(({ area }) => area?.close()));
}

/** In words, how the volume differs from what a clean close recorded; `undefined` if it does not, or nobody knows. */
async function volumeChange(store: AttachedStore): Promise<string | undefined> {
  const { volume, control } = store;
  const { clean, protectedSize, growingTo } = control.start.extension;
  // Cut off while it was being made longer.
  const isGrown = clean === undefined && volume.size === growingTo;
  if (volume.size !== protectedSize && !isGrown)
    return `${volume.name} has ${volume.size} bytes, its snapshots were taken of ${protectedSize}.`;
  if (clean === undefined) return undefined;
  const modifiedAt = await volume.modifiedAt?.();
  if (clean.modifiedAt === 0n || modifiedAt === undefined || modifiedAt === clean.modifiedAt)
    return undefined;
  return `${volume.name} was changed at ${timeOf(modifiedAt)} while volsnap was not there (it was closed at ${timeOf(clean.modifiedAt)}).`;
}

const timeOf = (nanoseconds: bigint): string => new Date(Number(nanoseconds / 1_000_000n)).toISOString();
