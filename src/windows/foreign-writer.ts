/**
 * A volume that Windows wrote, open for writing: its shadow copies stay right, and the oldest can be deleted.
 *
 * Everything is read and decided before anything is written; opening writes nothing, unless damaged shadow copies are to be dropped.
 *
 * Left out: new shadow copies, whose diff areas would need room that only the file system can give. A store of volsnap has room of its own,
 * and can take the shadow copies over (`volume/taking-over.ts`).
 */
import type { BlockDevice } from '../device/block-device.js';
import { FormatError, UnsupportedError } from '../errors.js';
import { hex } from '../format/binary.js';
import type { StartBlock } from '../format/start-block.js';
import { offsetOfBlock } from '../units.js';
import { BlockRanges } from './block-ranges.js';
import { CopyTarget } from './copy-target.js';
import { ForeignCopies } from './foreign-copies.js';
import { ForeignRemovals, type RemovalListener } from './foreign-removals.js';
import type { ForeignSnapshot } from './foreign-snapshot.js';
import { ForeignStore } from './foreign-store.js';
import { FreeSlots } from './free-slots.js';
import { freeItems, readItemPlaces } from './item-places.js';
import { MetadataReader } from './metadata-reader.js';
import { NeededBlocks } from './needed-blocks.js';
import { Notes } from './notes.js';
import { readStoreMap, type StoreMap } from './store-map.js';
import { TableWriter } from './table-writer.js';

/** Why a shadow copy goes. */
export type RemovalReason = 'requested' | 'space' | 'damaged';

export interface ForeignWriterOptions {
  /**
   * When there is no room for a copy, or a store would be overwritten: `keep` refuses the write, `drop` gives all shadow copies
   * up, as Windows does.
   */
  readonly shadowCopies: 'keep' | 'drop';
  /** What to do about shadow copies that cannot be read. */
  readonly onDamaged: 'refuse' | 'drop';
}

export class ForeignWriter {
  /** As it was when the volume was opened. */
  readonly store: ForeignStore;
  /** Shadow copies that went when the volume was opened, because they could not be read; oldest first. */
  readonly dropped: readonly ForeignSnapshot[];
  readonly copies: ForeignCopies;
  readonly #device: BlockDevice;
  readonly #removals: ForeignRemovals<RemovalReason>;

  private constructor(
    device: BlockDevice,
    { store, dropped }: { readonly store: ForeignStore; readonly dropped: readonly ForeignSnapshot[] },
    map: StoreMap,
    { shadowCopies }: ForeignWriterOptions,
    listener: RemovalListener<RemovalReason>,
  ) {
    this.store = store;
    this.dropped = dropped;
    this.#device = device;
    this.#removals = new ForeignRemovals({
      map,
      listener,
      free: ({ items }) => freeItems(device, items),
      emptied: async () => {
        this.copies.end();
        // What is under way still writes into the store.
        await this.copies.idle();
      },
    });
    const giveUp = async (refusal: Error) => {
      if (shadowCopies === 'keep') throw refusal;
      await this.removeOldest(Infinity, 'space', refusal);
    };
    this.copies = new ForeignCopies(device, targetOf(device, map), this.#removals.guard, { giveUp });
  }

  /**
   * @throws FormatError for a store that is damaged, in what reading does not need too; UnsupportedError for one that copies cannot be
   *   added to, or that lies on another volume; DeviceError
   */
  static async open(
    device: BlockDevice,
    options: ForeignWriterOptions,
    listener: RemovalListener<RemovalReason>,
  ): Promise<ForeignWriter> {
    let store = await ForeignStore.open(device);
    const dropped = await removeUnreadable(device, store, options);
    if (dropped.length > 0) store = await ForeignStore.open(device);
    const writer = new ForeignWriter(
      device,
      { store, dropped },
      await readStoreMap(device, store),
      options,
      listener,
    );
    // After a kill the cache of the system may hold more than the device: no entry counts before it is durable.
    await device.flush();
    return writer;
  }

  /** See `ForeignRemovals`. */
  async removeOldest(count: number, reason: RemovalReason, cause?: unknown): Promise<void> {
    await this.#removals.removeOldest(count, reason, cause);
  }

  /** Removes the shadow copy. @throws UnsupportedError if it is not the oldest */
  async remove(snapshot: ForeignSnapshot): Promise<void> {
    await this.#removals.remove(snapshot, 'requested');
  }

  async close(): Promise<void> {
    await this.copies.idle();
    await this.#device.flush();
  }
}

/** Takes out shadow copies that cannot be read, and all older ones. @returns those that are gone, oldest first */
async function removeUnreadable(
  device: BlockDevice,
  { snapshots, startBlock }: ForeignStore,
  { onDamaged }: ForeignWriterOptions,
): Promise<readonly ForeignSnapshot[]> {
  const newest = snapshots.findLastIndex(({ reason }) => reason !== undefined);
  if (newest < 0) return [];
  checkKeptHere(device, startBlock);
  if (onDamaged === 'refuse')
    throw new FormatError(
      `${snapshots[newest]?.reason}. Open the volume read-only to save the shadow copies that can be read, or give the others up`,
    );
  const reader = new MetadataReader(device, new Notes());
  const { pairs } = await readItemPlaces(reader, startBlock.firstControlBlock);
  const gone = snapshots.slice(0, newest + 1);
  for (const { storeId } of gone) await freeItems(device, pairs.get(storeId) ?? {});
  return gone;
}

/** @throws UnsupportedError if copies are kept on another volume */
export function checkKeptHere({ name }: BlockDevice, { volumeId, storageVolumeId }: StartBlock): void {
  if (volumeId !== storageVolumeId)
    throw new UnsupportedError(
      `the shadow copies of ${name} are kept on another volume (${storageVolumeId}); it can only be opened read-only`,
    );
}

/** The newest shadow copy as the place where copies go. @throws UnsupportedError, FormatError */
function targetOf(device: BlockDevice, { stores, others, controlBlocks }: StoreMap): CopyTarget | undefined {
  const newest = stores.at(-1);
  const table = newest?.snapshot.table;
  if (newest === undefined || table === undefined) return undefined;
  const doubtful = table.doubtfulMove();
  if (doubtful !== undefined)
    throw new UnsupportedError(
      `the newest shadow copy of ${device.name} has moves about the block at ${hex(offsetOfBlock(doubtful))} that cannot be told apart; the volume can only be opened read-only`,
    );
  const older = stores.slice(0, -1);
  const taken = new BlockRanges([
    ...controlBlocks,
    ...others,
    ...older.flatMap(({ layout }) => layout.ranges),
  ]);
  const { runs, tableEnd, endOfUse } = newest.layout;
  if (tableEnd === undefined)
    throw new UnsupportedError(
      `the newest shadow copy of ${device.name} has no table that copies could be entered in; the volume can only be opened read-only`,
    );
  return new CopyTarget({
    name: device.name,
    table,
    writer: new TableWriter(tableEnd),
    slots: new FreeSlots(runs, endOfUse, taken),
    needs: new NeededBlocks(
      { table, unused: newest.unused },
      older.toReversed().flatMap(({ snapshot, unused }) => {
        const { table: own } = snapshot;
        return own === undefined ? [] : [{ table: own, unused }];
      }),
    ),
  });
}
