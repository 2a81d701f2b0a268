/**
 * Leaving out what nothing uses: which blocks a new snapshot skips.
 *
 * The file system is asked after the commit, in the new snapshot itself, which stays as it is while writes go on. Until the answer
 * is durable and named in the control file every block is copied, so a crash at any point leaves a snapshot that has all blocks, or
 * one that skips some. Nobody sees the snapshot before that (`SnapshotRecord.pending`): what it skips reads as zeros
 * from the first time that anybody can read it.
 *
 * A block is skipped if it was free at the moment and no older snapshot needs it: the next older one skips it too, or has a
 * copy. So only the newest has to be asked before a write, and every older one finds what it needs without looking at the volume.
 * What one has whose diff area has not arrived is not known, so the next one skips nothing of it (`late-area.ts`).
 */
import type { CopyOnWrite } from '../copy-on-write/copy-on-write.js';
import type { Pools } from '../copy-on-write/pools.js';
import type { BlockDevice } from '../device/block-device.js';
import { bitmapSlotsFor } from '../diff-area/bitmap-chain.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { bitsOf, foundIn } from '../diff-area/unused-blocks.js';
import type { Clock, Environment } from '../environment.js';
import { DeviceError, InvalidArgumentError, NoSpaceError } from '../errors.js';
import { autoFreeSpace } from '../filesystem/auto.js';
import type { FreeSpaceProvider } from '../filesystem/free-space.js';
import type { AttachedStore } from '../store/store.js';
import { BLOCK_SIZE, type ByteLength, blocksIn, type Slot } from '../units.js';
import type { SnapshotChain } from './chain.js';
import type { Emit } from './events.js';
import { readSnapshot } from './reader.js';
import type { SnapshotRecord } from './record.js';

/**
 * Who tells what is unused. `'auto'`: NTFS or ext2/3/4, whichever is found, if it is not mounted or says itself that it is frozen;
 * `'frozen'`: the same, and the caller knows that it is one of the two.
 */
export type UnusedSpace = FreeSpaceProvider | 'auto' | 'frozen';

/** How long a provider may take. */
const PROVIDER_LIMIT_MS = 60_000;
/** How often the control file is asked to name no bitmaps, when it could not be told whether it does. */
const SETTLE_ATTEMPTS = 4;

/** The parts of the engine that this works with. */
export interface UnusedContext {
  readonly environment: Environment;
  readonly device: BlockDevice;
  readonly store: AttachedStore;
  readonly chain: SnapshotChain;
  readonly copyOnWrite: CopyOnWrite;
  readonly pools: Pools;
  readonly emit: Emit;
}

/** @throws InvalidArgumentError */
export function providerOf(unusedSpace: UnusedSpace | undefined): FreeSpaceProvider | undefined {
  if (unusedSpace === undefined) return undefined;
  if (unusedSpace === 'auto' || unusedSpace === 'frozen')
    return autoFreeSpace({ frozen: unusedSpace === 'frozen' });
  if (typeof unusedSpace.unusedBlocks !== 'function')
    throw new InvalidArgumentError(
      `unusedSpace must be 'auto', 'frozen' or a provider, got ${String(unusedSpace)}`,
    );
  return unusedSpace;
}

/** Bytes that a new diff area needs for bitmaps of so large a volume. */
export const bitmapBytesFor = (volumeSize: ByteLength): ByteLength =>
  2 * bitmapSlotsFor(blocksIn(volumeSize)) * BLOCK_SIZE;

/** Sets slots aside for the bitmaps, in an area that was made longer by `bitmapBytesFor`. */
export function reserveBitmaps(area: DiffArea): readonly Slot[] | undefined {
  return area.reserve(2 * bitmapSlotsFor(area.table.blockCount), 0);
}

/**
 * Finds out what a snapshot, just committed, can skip, and lets it skip that.
 * @param slots from `reserveBitmaps`
 * @throws DeviceError if it cannot be told whether the control file names the bitmaps; the snapshot is whole either way
 */
export async function skipUnused(
  context: UnusedContext,
  record: SnapshotRecord,
  area: DiffArea,
  slots: readonly Slot[] | undefined,
  provider: FreeSpaceProvider,
): Promise<void> {
  const { chain, store, copyOnWrite } = context;
  if (slots === undefined) {
    // It was made longer by as much; but where that had to be in many pieces, the list of these took some.
    const why = 'there is no room for its bitmaps';
    return tellUnknown(context, record, why, new NoSpaceError(`snapshot ${record.id}: ${why}`));
  }
  const free = await askProvider(context, record, provider);
  if (free === undefined) {
    area.cancel(slots, 0);
    return;
  }
  let named = false;
  try {
    await record.resizing.runExclusive(async () => {
      if (record.deleted !== undefined) return;
      await area.skip(slots, free, olderDoWithout(chain, record, area), async (bitmaps) => {
        named = true;
        await store.control.update(record.id, bitmaps);
      });
    });
  } catch (error) {
    if (named) await unname(store, record, error);
    area.cancel(slots, 0);
    tellUnknown(context, record, 'its bitmaps could not be written', error);
    return;
  }
  // A copy that was under way is published all the same; from then on nothing changes any more.
  await copyOnWrite.drained(area);
  await commitUnderWay(context, record, area);
}

/**
 * A copy of what is skipped whose commit has failed may be found at the next opening, and is not read here: it must be committed
 * before anybody reads the snapshot.
 */
async function commitUnderWay(
  { pools, store }: UnusedContext,
  record: SnapshotRecord,
  area: DiffArea,
): Promise<void> {
  const isDoubtful = () => [...area.uncommitted.blocks].some((block) => area.unused?.has(block));
  const errors: unknown[] = [];
  while (isDoubtful() && !record.isGone) {
    try {
      await pools.commit.add(() => record.settle());
    } catch (error) {
      errors.push(error);
      if (errors.length === SETTLE_ATTEMPTS) throw undecided(store, record, errors);
    }
  }
}

/** Bits of the blocks that no older snapshot needs; `undefined`: there is none. */
function olderDoWithout(
  chain: SnapshotChain,
  record: SnapshotRecord,
  { table }: DiffArea,
): Uint8Array | undefined {
  const older = chain.records[chain.indexOf(record) - 1];
  if (older === undefined) return undefined;
  // Where nothing is known of it, it needs everything. What the volume has grown by since is none of its own.
  if (older.area === undefined) return new Uint8Array(Math.ceil(table.blockCount / 8));
  const own = Math.min(table.blockCount, older.area.table.blockCount);
  // A copy in memory proves nothing: the one that is late may not take it, because it has the content elsewhere.
  const found = older.hasStandIn ? [] : foundIn(older.area);
  const bits = bitsOf(found, table.blockCount, own);
  // It has a copy of what these held, but content of other blocks lies there now.
  for (const block of older.area.moves.targets())
    bits[block >>> 3] = (bits[block >>> 3] ?? 0) & ~(1 << (block & 7));
  return bits;
}

/** @returns `undefined` if all is in use, or may be */
async function askProvider(
  context: UnusedContext,
  record: SnapshotRecord,
  provider: FreeSpaceProvider,
): Promise<Uint8Array | undefined> {
  const { chain, device, environment } = context;
  const { volumeSize } = record.item;
  const source = {
    read: async (offset: number, target: Uint8Array) =>
      record.whileReading(() => readSnapshot(() => chain.areasFrom(record), device, offset, target)),
  };
  try {
    const answer = await withinTime(environment.clock, (signal) =>
      provider.unusedBlocks(source, volumeSize, signal),
    );
    if ('unused' in answer) return answer.unused;
    tellUnknown(context, record, answer.unsure);
  } catch (error) {
    if (record.deleted === undefined)
      tellUnknown(
        context,
        record,
        `${provider.name} failed: ${error instanceof Error ? error.message : error}`,
        error,
      );
  }
  return undefined;
}

async function withinTime<T>(clock: Clock, action: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  let cancel: (() => void) | undefined;
  const limit = new Promise<never>((_, reject) => {
    cancel = clock.after(PROVIDER_LIMIT_MS, () => {
      const error = new Error(`no answer within ${PROVIDER_LIMIT_MS / 1000} seconds`);
      controller.abort(error);
      reject(error);
    });
  });
  try {
    return await Promise.race([action(controller.signal), limit]);
  } finally {
    cancel?.();
  }
}

/** The control file may name the bitmaps or not: it must not, because they are not in force here. */
async function unname(store: AttachedStore, record: SnapshotRecord, cause: unknown): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await store.control.update(record.id, { bitmapOffset: 0, previousBitmapOffset: 0 });
      return;
    } catch (error) {
      if (attempt < SETTLE_ATTEMPTS) continue;
      throw undecided(store, record, [cause, error]);
    }
  }
}

const undecided = (store: AttachedStore, { id }: SnapshotRecord, errors: readonly unknown[]): DeviceError =>
  new DeviceError(
    `the store failed while it was recorded what snapshot ${id} skips; the snapshot is there after the volume is opened again (${store.name})`,
    { cause: new AggregateError(errors) },
  );

function tellUnknown({ emit }: UnusedContext, record: SnapshotRecord, reason: string, error?: unknown): void {
  emit('unusedSpaceUnknown', { id: record.id, reason, error });
}
