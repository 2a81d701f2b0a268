/**
 * The shadow copies of a volume that Windows wrote, found and read on the volume itself.
 *
 * The catalog must be sound, or there is nothing to list. Damage to one snapshot makes it, and every older one that is
 * read through it, unreadable, with a reason; newer ones stay as they are. What has no effect on reading (locations,
 * application information) is only noted. Nothing is allocated by a size that the volume states.
 *
 * Left out: diff areas on another volume, and volumes above 64 TiB, which Windows does not snapshot.
 */
import type { BlockDevice } from '../device/block-device.js';
import { FormatError, UnsupportedError } from '../errors.js';
import { hex } from '../format/binary.js';
import { START_BLOCK_OFFSET, START_BLOCK_SIZE } from '../format/constants.js';
import { decodeStartBlock, type StartBlock } from '../format/start-block.js';
import { BLOCK_SIZE } from '../units.js';
import type { ReadSource } from './device-reads.js';
import { type ForeignCatalogEntry, readCatalog } from './foreign-catalog.js';
import { readDiffArea } from './foreign-diff-area.js';
import { ForeignSnapshot, type TableFault } from './foreign-snapshot.js';
import { MetadataReader } from './metadata-reader.js';
import { Notes } from './notes.js';

/** Block numbers are kept in 32 bits. */
const BLOCKS_MAX = 2 ** 32;

export class ForeignStore {
  readonly startBlock: StartBlock;
  /** Oldest first. */
  readonly snapshots: readonly ForeignSnapshot[];
  /** What was odd but did no harm. */
  readonly notes: readonly string[];

  private constructor(
    startBlock: StartBlock,
    snapshots: readonly ForeignSnapshot[],
    notes: readonly string[],
  ) {
    this.startBlock = startBlock;
    this.snapshots = snapshots;
    this.notes = notes;
  }

  /**
   * Reads what the volume on `device` says of its shadow copies. The device stays the caller's, and must stay open and
   * unchanged while snapshots are read.
   * @throws FormatError when there is no start block, or the catalog is damaged; UnsupportedError for a store of ours,
   *   or a device above 64 TiB; DeviceError
   */
  static async open(device: BlockDevice): Promise<ForeignStore> {
    if (device.size > BLOCKS_MAX * BLOCK_SIZE)
      throw new UnsupportedError(`${device.name} has ${device.size} bytes; at most 64 TiB can be read`);
    const startBlock = await readStartBlock(device);
    const notes = new Notes();
    const reader = new MetadataReader(device, notes);
    const catalog = await readCatalog(reader, startBlock.firstControlBlock, notes);
    return new ForeignStore(startBlock, await openSnapshots(reader, catalog, { device, notes }), notes.list);
  }
}

/** Shadow copies that a store of volsnap has taken over. */
export interface TakenOver {
  /** The volume as Windows had it. It stays the caller's. */
  readonly device: BlockDevice;
  /** What the store says of them, oldest first. */
  readonly catalog: readonly ForeignCatalogEntry[];
  /** What they are read through: the oldest snapshot of volsnap. */
  readonly below: ReadSource;
  /** Why that cannot be read, if so: then none of them can. */
  readonly fault: TableFault | undefined;
}

/** @returns the shadow copies, oldest first @throws DeviceError */
export async function openTakenOver(takenOver: TakenOver, notes: Notes): Promise<ForeignSnapshot[]> {
  const reader = new MetadataReader(takenOver.device, notes);
  return openSnapshots(reader, takenOver.catalog, { ...takenOver, notes });
}

interface SnapshotsContext {
  readonly device: BlockDevice;
  readonly notes: Notes;
  /** Of those that were taken over. */
  readonly below?: ReadSource;
  readonly fault?: TableFault | undefined;
}

async function openSnapshots(
  reader: MetadataReader,
  catalog: readonly ForeignCatalogEntry[],
  context: SnapshotsContext,
): Promise<ForeignSnapshot[]> {
  const snapshots: ForeignSnapshot[] = [];
  // Newest first: each is made with the newer one through which it is read.
  for (const entry of catalog.toReversed())
    snapshots.unshift(await openSnapshot(reader, entry, snapshots[0], context));
  return snapshots;
}

async function readStartBlock(device: BlockDevice): Promise<StartBlock> {
  if (device.size < START_BLOCK_OFFSET + START_BLOCK_SIZE)
    throw new FormatError(
      `${device.name} has ${device.size} bytes, too few for a start block at ${hex(START_BLOCK_OFFSET)}`,
    );
  const bytes = new Uint8Array(START_BLOCK_SIZE);
  await device.read(START_BLOCK_OFFSET, bytes);
  const startBlock = decodeStartBlock(bytes, { offset: START_BLOCK_OFFSET });
  if (startBlock.extension !== undefined)
    throw new UnsupportedError(`the store on ${device.name} was written by volsnap; open it as a volume`);
  return startBlock;
}

async function openSnapshot(
  reader: MetadataReader,
  { snapshot: item, diffArea }: ForeignCatalogEntry,
  newer: ForeignSnapshot | undefined,
  { device, notes, below, fault }: SnapshotsContext,
): Promise<ForeignSnapshot> {
  const size = Math.min(item.volumeSize, device.size);
  if (size < item.volumeSize)
    notes.add(
      `snapshot of store ${item.storeId} claims ${item.volumeSize} bytes; only the ${device.size} of the device are read`,
    );
  const isNewest = newer === undefined && below === undefined;
  const content = diffArea && (await readDiffArea(device, reader, diffArea, isNewest, notes));
  const ownFault =
    content === undefined
      ? new FormatError(`the catalog has no diff-area item of store ${item.storeId}`)
      : content.tableFault;
  const tableFault: TableFault | undefined =
    ownFault === undefined ? (newer?.tableFault ?? fault) : { storeId: item.storeId, error: ownFault };
  const snapshot = new ForeignSnapshot(device, { item, size, content, tableFault }, newer, below);
  if (snapshot.reason !== undefined)
    notes.add(`snapshot of store ${item.storeId} cannot be read: ${snapshot.reason}`);
  return snapshot;
}
