/**
 * Making a store of volsnap in a volume that Windows wrote, so that its shadow copies stay and new snapshots can be taken.
 *
 * The control blocks of the new store name both: the shadow copies with the places of their stores, which are not touched, and the *base*, a
 * snapshot of volsnap taken here, through which they are read from then on. The base is there before anybody writes through the store, and stays as
 * long as there are shadow copies, so nothing has to be kept in a store of Windows any more.
 *
 * Everything is made in the reserve, durably, while the volume has its old start block; one sector write, the new start block,
 * makes all of it count. A crash before it leaves the volume as Windows had it. With it the start block of Windows becomes a sector
 * of the volume like any other, which leads to no catalog: only through this store are the shadow copies right from now on. What the reserve is taken from must be
 * nobody's by then: where it lies in the midst of the volume, what shadow copies need of those blocks is copied into the newest one's store first.
 */
import { type BlockDevice, isResizable } from '../device/block-device.js';
import { type Environment, systemEnvironment } from '../environment.js';
import { FormatError, InvalidArgumentError, UnsupportedError } from '../errors.js';
import { clearCatalogOffset, leadsToCatalog } from '../format/catalog-offset.js';
import { START_BLOCK_OFFSET, START_BLOCK_SIZE } from '../format/constants.js';
import { type DiffAreaItem, type SnapshotItem, SnapshotState } from '../format/control-block.js';
import { IncompatibleFeature } from '../format/extension.js';
import { decodeStartBlock, isStartBlock } from '../format/start-block.js';
import { createSnapshot } from '../snapshot/set.js';
import type { CatalogEntry } from '../store/catalog.js';
import type { Extents } from '../store/extents.js';
import { HeldStart } from '../store/held-start.js';
import { InVolumeStore } from '../store/in-volume-store.js';
import { BLOCK_SIZE, type ByteLength } from '../units.js';
import { BlockRanges } from '../windows/block-ranges.js';
import { readCatalog } from '../windows/foreign-catalog.js';
import type { ForeignSnapshot } from '../windows/foreign-snapshot.js';
import { ForeignStore } from '../windows/foreign-store.js';
import { checkKeptHere, ForeignWriter } from '../windows/foreign-writer.js';
import { MetadataReader } from '../windows/metadata-reader.js';
import { Notes } from '../windows/notes.js';
import { readStoreMap } from '../windows/store-map.js';
import { openParts } from './assemble.js';
import { checkHasNoStore } from './open.js';
import type { InitializeVolumeOptions } from './options.js';
import { idOf } from './windows-snapshot.js';
import { storeWriterOf } from './writers.js';

interface TakingOverOptions {
  /**
   * What is to happen later where shadow copies cannot be kept. `keep`: the base is held, so neither it nor they go, and writes
   * that there is no room for fail. `drop`: they go, oldest first, before any newer snapshot.
   */
  readonly shadowCopies: 'keep' | 'drop';
  readonly environment: Environment;
  readonly maximumSize: ByteLength;
  readonly onDropped: NonNullable<InitializeVolumeOptions['onShadowCopyDropped']>;
}

/** What people see of the base. */
const BASE_LABEL = 'as volsnap found it';
/** Of a shadow copy: snapshots with higher numbers and later times have to be possible. */
const ORDER_MAX = Number.MAX_SAFE_INTEGER - 2 ** 32;
const CREATED_MAX = 2n ** 64n - 2n ** 48n;
/** Blocks of the reserve that are looked at together. */
const PART_BLOCKS = 256;

/**
 * Makes a store, and takes shadow copies over if that is wished and Windows has a store there.
 * @throws as `Volume.initialize`
 */
export async function initializeStore(device: BlockDevice, options: InitializeVolumeOptions): Promise<void> {
  const {
    store,
    shadowCopies,
    maximumSize = 0,
    environment = systemEnvironment,
    onShadowCopyDropped: onDropped = () => undefined,
  } = options;
  if ('path' in device) await checkHasNoStore(device);
  if (shadowCopies === undefined || !(await hasWindowsStore(device)))
    return store.initialize(device, { environment, maximumSize });
  if (!(store instanceof InVolumeStore))
    throw new InvalidArgumentError(
      'shadow copies of Windows can be taken over by a store inside their volume only',
    );
  await takeOver(device, store, { shadowCopies, environment, maximumSize, onDropped });
}

/**
 * @throws AlreadyInitializedError, InvalidArgumentError (the reserve), UnsupportedError (what cannot be taken over), FormatError (damaged),
 *   NoSpaceError (no room in the newest shadow copy for what the reserve needs), DeviceError; then the volume is as it was
 */
async function takeOver(
  device: BlockDevice,
  store: InVolumeStore,
  options: TakingOverOptions,
): Promise<void> {
  const { shadowCopies, environment, maximumSize } = options;
  if (shadowCopies !== 'keep' && shadowCopies !== 'drop')
    throw new InvalidArgumentError(`shadowCopies must be keep or drop, got ${String(shadowCopies)}`);
  const reserve = store.blocksInside(device);
  await checkMayBeTaken(device, reserve, store.endOfVolume ?? device.size);
  if (reserve.total > 0) await emptyReserve(device, reserve, options);
  const catalog = await catalogOf(device);
  const held = new HeldStart(device);
  const size = device.size;
  try {
    const incompatible = catalog.length > 0 ? IncompatibleFeature.shadowCopies : 0;
    await store.initialize(held, { environment, maximumSize, overWindows: true, incompatible });
    if (catalog.length > 0) {
      await takeBase(held, store, catalog.at(-1)?.snapshot, options);
    }
    await nameAll(held, store, catalog, environment);
    await held.commit();
  } catch (error) {
    // Else the next attempt would take the reserve for a part of the volume.
    if (!held.isUnsure && isResizable(device) && device.size > size)
      await device.resize(size).catch(() => undefined);
    throw error;
  }
}

/** @throws UnsupportedError, FormatError, InvalidArgumentError */
async function checkMayBeTaken(device: BlockDevice, reserve: Extents, end: ByteLength): Promise<void> {
  const store = await ForeignStore.open(device);
  checkKeptHere(device, store.startBlock);
  const damaged = store.snapshots.findLast(({ reason }) => reason !== undefined);
  if (damaged !== undefined)
    throw new FormatError(
      `${damaged.reason}. Give the shadow copies that cannot be read up first, with: volsnap check --repair --shadow-copies keep`,
    );
  const { stores, controlBlocks, others } = await readStoreMap(device, store);
  if (others.length > 0)
    throw new UnsupportedError(
      `${device.name} holds stores of shadow copies that it does not have itself; they cannot be taken over`,
    );
  const taken = new BlockRanges([...controlBlocks, ...stores.flatMap(({ layout }) => layout.ranges)]);
  for (const { start, length } of reserve)
    if (taken.firstWithin(start, start + length) !== undefined)
      throw new InvalidArgumentError(
        `the run at ${start * BLOCK_SIZE} holds what belongs to the shadow copies of ${device.name}`,
      );
  const sizes = (await catalogOf(device)).map(({ snapshot }) => snapshot.volumeSize);
  const last = Math.min((taken.list.at(-1)?.end ?? 0) * BLOCK_SIZE, device.size);
  const least = Math.max(last, ...sizes);
  if (end < least)
    throw new InvalidArgumentError(
      `a protected size of ${end} cuts off what shadow copies of ${device.name} need; give at least ${least}`,
    );
}

/** What the shadow copies read from the blocks of the reserve gets copies, as before any other write. */
async function emptyReserve(
  device: BlockDevice,
  reserve: Extents,
  { shadowCopies, onDropped }: TakingOverOptions,
): Promise<void> {
  const listener = {
    removing: () => undefined,
    removed: (snapshot: ForeignSnapshot) => onDropped({ id: idOf(snapshot), createdAt: snapshot.createdAt }),
  };
  const writer = await ForeignWriter.open(device, { shadowCopies, onDamaged: 'refuse' }, listener);
  try {
    for (const { start, length } of reserve) {
      for (let done = 0; done < length; done += PART_BLOCKS) {
        const count = Math.min(PART_BLOCKS, length - done);
        await writer.copies.protect((start + done) * BLOCK_SIZE, count * BLOCK_SIZE);
      }
    }
  } finally {
    await writer.close();
  }
}

/** Oldest first. @throws UnsupportedError for items that a store of volsnap would not read again */
async function catalogOf(device: BlockDevice): Promise<readonly CatalogEntry[]> {
  const { startBlock } = await ForeignStore.open(device);
  const notes = new Notes();
  const found = await readCatalog(new MetadataReader(device, notes), startBlock.firstControlBlock, notes);
  return found.map(({ snapshot, diffArea }) => {
    if (diffArea === undefined || !isPlain(snapshot, diffArea))
      throw new UnsupportedError(
        `the items of shadow copy ${snapshot.storeId} are such as Windows does not write; it cannot be taken over`,
      );
    return { snapshot, diffArea };
  });
}

/** Whole numbers, and offsets of whole blocks. */
function isPlain(snapshot: SnapshotItem, diffArea: DiffAreaItem): boolean {
  const offsets = [
    diffArea.tableOffset,
    diffArea.applicationInformationOffset,
    diffArea.locationOffset,
    diffArea.bitmapOffset,
    diffArea.previousBitmapOffset,
  ];
  const numbers = [snapshot.volumeSize, snapshot.order, snapshot.flags, diffArea.allocatedSize, ...offsets];
  return (
    numbers.every(Number.isSafeInteger) &&
    offsets.every((offset) => offset % BLOCK_SIZE === 0) &&
    // Younger ones come after it.
    snapshot.order <= ORDER_MAX &&
    snapshot.createdAt <= CREATED_MAX
  );
}

/** Takes the base, younger than all shadow copies. */
async function takeBase(
  device: BlockDevice,
  store: InVolumeStore,
  newest: SnapshotItem | undefined,
  { shadowCopies, environment }: TakingOverOptions,
): Promise<void> {
  const parts = await openParts(device, { store, environment, readOnly: false }, () => undefined);
  try {
    const { engine } = storeWriterOf(parts);
    const base = await engine.reverts.taking.runExclusive(() =>
      createSnapshot(
        engine,
        { label: BASE_LABEL },
        {
          state: SnapshotState.base,
          after: newest,
          prepare: async () => undefined,
          begin: async () => undefined,
        },
      ),
    );
    if (shadowCopies === 'keep') await engine.chain.setHold(base, { until: undefined });
  } finally {
    await parts.life.close(() => parts.history.close());
  }
}

/** The control blocks name the shadow copies from now on, and what users of the volume see does not. */
async function nameAll(
  device: BlockDevice,
  store: InVolumeStore,
  catalog: readonly CatalogEntry[],
  environment: Environment,
): Promise<void> {
  const attached = await store.attach(device, { environment, writable: true });
  try {
    for (const { snapshot, diffArea } of catalog)
      await attached.control.publish({
        snapshot,
        diffArea: { ...diffArea, state: SnapshotState.shadowCopy },
      });
    const sector = new Uint8Array(START_BLOCK_SIZE);
    await attached.volume.read(START_BLOCK_OFFSET, sector);
    clearCatalogOffset(sector);
    // The base has a copy of it as it was.
    await attached.volume.write(START_BLOCK_OFFSET, sector);
  } finally {
    await attached.close();
  }
}

/** Has it a catalog of shadow copies, be there any in it or not? @throws FormatError, DeviceError */
async function hasWindowsStore(device: BlockDevice): Promise<boolean> {
  const bytes = new Uint8Array(START_BLOCK_SIZE);
  if (device.size < START_BLOCK_OFFSET + START_BLOCK_SIZE) return false;
  await device.read(START_BLOCK_OFFSET, bytes);
  if (!isStartBlock(bytes)) return false;
  const start = decodeStartBlock(bytes, { offset: START_BLOCK_OFFSET });
  return start.extension === undefined && leadsToCatalog(start);
}
