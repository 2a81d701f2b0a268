/**
 * Taking a snapshot: prepare (writes go on) → hold and flush → commit (one sector) → release → tidy up in the background.
 * A write buffer is emptied before, and takes what is newer in the meantime: then hardly any write is held.
 *
 * Until the commit nothing names the new diff area, so a failure or a crash before it leaves nothing behind. While the
 * commit is under way writes stay held whatever the hold limit says: were they let through and
 * the power failed, older snapshots would miss the copies that went to a snapshot that does not exist.
 */
import type { CopyOnWrite } from '../copy-on-write/copy-on-write.js';
import type { WriteGate } from '../copy-on-write/write-gate.js';
import type { BlockDevice } from '../device/block-device.js';
import { createDiffArea } from '../diff-area/create.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import {
  DeviceError,
  InvalidArgumentError,
  isOutOfSpace,
  LimitError,
  NoSpaceError,
  RevertInProgressError,
} from '../errors.js';
import {
  type ApplicationInformation,
  encodeApplicationInformation,
} from '../format/application-information.js';
import { SNAPSHOTS_MAX } from '../format/constants.js';
import { SnapshotFlag, type SnapshotItem } from '../format/control-block.js';
import { filetimeFromMilliseconds } from '../format/filetime.js';
import { guidFrom } from '../format/guid.js';
import { randomU64 } from '../store/new-start.js';
import type { AreaFile, AttachedStore } from '../store/store.js';
import { BLOCK_SIZE, type ByteLength, blocksIn, type Slot } from '../units.js';
import type { SnapshotChain } from './chain.js';
import { type HoldContext, whileHeld } from './hold-writes.js';
import { describeSnapshot } from './information.js';
import { SnapshotRecord } from './record.js';
import type { Space } from './space.js';
import { bitmapBytesFor, providerOf, reserveBitmaps, skipUnused, type UnusedSpace } from './unused-space.js';

export interface CreateSnapshotOptions {
  /** A name for people; any text. */
  readonly label?: string;
  /** Bytes that come back with the snapshot; with the label and the VSS fields at most 16,256. */
  readonly applicationInfo?: Uint8Array;
  /** May it be written itself? Default: no; `Snapshot.setWritable` changes it. */
  readonly writable?: boolean;
  /** How long writes may be held; default 10,000 ms, at most 600,000. */
  readonly holdTimeoutMs?: number;
  /**
   * Skip what nothing uses: it is not copied, and reads as zeros in the snapshot. Where the file system (NTFS, ext2/3/4) is
   * not sure, nothing is skipped. Default: the snapshot has everything, as it was.
   */
  readonly unusedSpace?: UnusedSpace;
}

export const DEFAULT_HOLD_TIMEOUT_MS = 10_000;
/** Nobody should wait for longer. */
const HOLD_TIMEOUT_MAX_MS = 600_000;

/** The parts of the engine that taking a snapshot works with. */
export interface CreateContext extends HoldContext {
  readonly store: AttachedStore;
  readonly copyOnWrite: CopyOnWrite;
  readonly chain: SnapshotChain;
  readonly space: Space;
}

/** What else a snapshot is taken for. Both steps are done with writes held; what they throw, the creation throws. */
export interface SnapshotPurpose {
  /** `SnapshotState`s. */
  readonly state: number;
  /** Before the snapshot exists. */
  prepare(area: DiffArea): Promise<void>;
  /** Once it does; it stays even if this fails. */
  begin(record: SnapshotRecord): Promise<void>;
}

/**
 * One at a time.
 * @throws HoldTimeoutError, LimitError, NoSpaceError, RevertInProgressError, DeviceError; then there is no new snapshot
 */
export async function createSnapshot(
  context: CreateContext,
  options: CreateSnapshotOptions,
  purpose?: SnapshotPurpose,
): Promise<SnapshotRecord> {
  const { chain, environment, gate } = context;
  const { holdTimeoutMs = DEFAULT_HOLD_TIMEOUT_MS } = options;
  const provider = providerOf(options.unusedSpace);
  if (!(holdTimeoutMs > 0 && holdTimeoutMs <= HOLD_TIMEOUT_MAX_MS)) {
    throw new InvalidArgumentError(
      `holdTimeoutMs must be above 0 and at most ${HOLD_TIMEOUT_MAX_MS}, got ${holdTimeoutMs}`,
    );
  }
  const failure = context.writes?.failure ?? gate.failure;
  if (failure !== undefined) throw failure;
  if (purpose === undefined && chain.keeping.from !== undefined) {
    throw new RevertInProgressError(
      `no snapshot can be taken while the volume is put back to ${chain.keeping.from.id}; wait for that, or cancel it`,
    );
  }
  if (chain.visible.length >= SNAPSHOTS_MAX)
    throw new LimitError(`a volume has at most ${SNAPSHOTS_MAX} snapshots; delete one first`);
  const id = guidFrom(environment.random);
  const information = describeSnapshot({
    snapshotId: id,
    setId: guidFrom(environment.random),
    label: options.label,
    applicationInfo: options.applicationInfo,
  });
  // Before anything is given up for it.
  encodeApplicationInformation(information);
  const { writes } = context;
  // Little is left to be written then when the moment comes.
  if (writes !== undefined) writes.level = 'low';
  let taken: Taken;
  try {
    taken = await take(context, information, {
      holdTimeoutMs,
      flags: flagsOf(options),
      hasBitmaps: provider !== undefined,
      purpose,
    });
  } finally {
    if (writes !== undefined) writes.level = 'usual';
  }
  const { record, area, bitmapSlots } = taken;
  if (provider !== undefined) await skipUnused(context, record, area, bitmapSlots, provider);
  record.pending = false;
  return record;
}

interface Taken {
  readonly record: SnapshotRecord;
  readonly area: DiffArea;
  /** For the bitmaps of what is unused, if that is asked for. */
  readonly bitmapSlots: readonly Slot[] | undefined;
}

interface TakeOptions {
  readonly holdTimeoutMs: number;
  /** `SnapshotFlag`s. */
  readonly flags: number;
  readonly hasBitmaps: boolean;
  readonly purpose: SnapshotPurpose | undefined;
}

const flagsOf = ({ writable = false }: CreateSnapshotOptions): number =>
  SnapshotFlag.visible | SnapshotFlag.noDiffAreaFill | (writable ? SnapshotFlag.writable : 0);

async function take(
  context: CreateContext,
  information: ApplicationInformation,
  options: TakeOptions,
): Promise<Taken> {
  await context.space.byDeletion.forArea(bytesOfBitmaps(context, options));
  // Most of what is dirty goes to the device before anybody has to wait for it. If that fails, it is told below.
  const flushed = flushAhead(context);
  flushed.catch(() => undefined);
  for (;;) {
    try {
      return await layOut(context, information, options, flushed);
    } catch (error) {
      // A host that is full is like a limit that is reached.
      if (!(error instanceof NoHostSpace)) throw error;
      if (await context.space.byDeletion.forHost()) continue;
      throw new NoSpaceError(`the file system of ${context.store.name} has no room for a snapshot`, {
        cause: error.cause,
      });
    }
  }
}

/** The host had no room for the new diff area. */
class NoHostSpace extends Error {}

async function layOut(
  context: CreateContext,
  information: ApplicationInformation,
  options: TakeOptions,
  flushed: Promise<void>,
): Promise<Taken> {
  const { store, space, environment } = context;
  const { holdTimeoutMs, flags, hasBitmaps, purpose } = options;
  const id = information.snapshotId;
  const file = await store.createArea(id).catch(ofHost);
  let isThere = false;
  try {
    const area = await createDiffArea(file, {
      storeId: id,
      epoch: randomU64(environment),
      information,
      blockCount: blocksIn(context.device.size),
      length: space.firstLength(bytesOfBitmaps(context, options)),
    }).catch(ofHost);
    const bitmapSlots = hasBitmaps ? reserveBitmaps(area) : undefined;
    await flushed;
    const onCommitted = () => {
      isThere = true;
    };
    const committing = { limitMs: holdTimeoutMs, flags, isPending: hasBitmaps, purpose, onCommitted };
    return { record: await holdAndCommit(context, area, committing), area, bitmapSlots };
  } catch (error) {
    // With the gate shut the snapshot may exist after all; then it is whole, because nothing was written since.
    if (!isThere && context.gate.failure === undefined) await discard(context, file);
    throw error;
  }
}

const bytesOfBitmaps = ({ device }: CreateContext, { hasBitmaps }: TakeOptions): ByteLength =>
  hasBitmaps ? bitmapBytesFor(device.size) : 0;

/** @throws NoHostSpace in place of what it is the cause of */
function ofHost(error: unknown): never {
  // One of ours without a cause is about a limit.
  const isOurs = error instanceof NoSpaceError && error.cause === undefined;
  if (isOutOfSpace(error) && !isOurs) throw new NoHostSpace('', { cause: error });
  throw error;
}

async function flushAhead({ device, store }: CreateContext): Promise<void> {
  await device.flush();
  await store.control.flush();
}

async function discard({ emit, store }: CreateContext, file: AreaFile): Promise<void> {
  try {
    await file.remove();
  } catch (error) {
    emit('backgroundFailure', {
      id: store.name,
      what: 'removing the diff area of a snapshot that was not taken',
      error,
    });
  }
}

interface CommitOptions {
  readonly limitMs: number;
  readonly flags: number;
  /** See `SnapshotRecord.pending`. */
  readonly isPending: boolean;
  readonly purpose: SnapshotPurpose | undefined;
  /** The snapshot exists, whatever comes then. */
  onCommitted(): void;
}

async function holdAndCommit(
  context: CreateContext,
  area: DiffArea,
  { limitMs, flags, isPending, purpose, onCommitted }: CommitOptions,
): Promise<SnapshotRecord> {
  const { device, store } = context;
  // Before room is set aside in it for anything else.
  const slots = store.hidesStartBlock ? area.reserve(1, 1) : undefined;
  let copying: Promise<void> | undefined;
  try {
    return await whileHeld(context, limitMs, area, async (limited) => {
      if (store.hidesStartBlock) {
        copying = copyFirstBlock(device, area, slots);
        await limited('block 0 was not copied', copying);
      }
      await purpose?.prepare(area);
      const kind = { flags, isPending, state: purpose?.state ?? 0 };
      const record = await context.chain.whileOrdered(() => commit(context, area, kind));
      onCommitted();
      await purpose?.begin(record);
      return record;
    });
  } finally {
    // The diff area must be at rest before it is discarded.
    await copying?.catch(() => undefined);
  }
}

/**
 * Who reads the raw device sees the start block in block 0, in place of what the volume holds there. So each
 * snapshot has its own copy of that block from the beginning.
 */
async function copyFirstBlock(
  device: BlockDevice,
  area: DiffArea,
  slots: readonly Slot[] | undefined,
): Promise<void> {
  const data = new Uint8Array(BLOCK_SIZE);
  await device.read(0, data.subarray(0, Math.min(BLOCK_SIZE, device.size)));
  const slot = slots?.[0];
  if (slots === undefined || slot === undefined)
    throw new LimitError('a new diff area has no room for one block');
  const copies = { blocks: [0], slots, checksums: [area.checksum(0, slot, data)] };
  await area.writeData(slots, [data]);
  area.append([copies]);
  await area.writeEntries();
  await area.flush();
  area.publish(copies);
}

interface CommitKind {
  readonly flags: number;
  readonly isPending: boolean;
  readonly state: number;
}

async function commit(
  { chain, device, store, copyOnWrite, gate, space, environment }: CreateContext,
  area: DiffArea,
  { flags, isPending, state }: CommitKind,
): Promise<SnapshotRecord> {
  const { newest, newestVisible } = chain;
  const item: SnapshotItem = {
    kind: 'snapshot',
    volumeSize: device.size,
    storeId: area.storeId,
    order: (newest?.item.order ?? 0) + 1,
    flags,
    createdAt: laterThan(newest?.item.createdAt ?? 0n, filetimeFromMilliseconds(environment.clock.now())),
  };
  try {
    await store.control.publish({ snapshot: item, diffArea: { ...area.item, state } });
  } catch (error) {
    await withdraw(store, gate, area, error);
    throw error;
  }
  const record = new SnapshotRecord(item, { area });
  record.pending = isPending;
  copyOnWrite.setTarget(area);
  chain.add(record);
  if (newestVisible?.area !== undefined) space.ends.retire(newestVisible, newestVisible.area);
  return record;
}

/** The commit failed, so the device may have it or not. It must not; else nothing may be written any more. */
async function withdraw(
  store: AttachedStore,
  gate: WriteGate,
  area: DiffArea,
  cause: unknown,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await store.control.remove(area.storeId);
      return;
    } catch (error) {
      if (attempt < 3) continue;
      gate.shut(
        new DeviceError(
          `a snapshot was being taken when the store failed, and whether it exists cannot be told; writes are refused to keep it and the others right. Close the volume, mend the store (${store.name}), and open again`,
          { cause: new AggregateError([cause, error]) },
        ),
      );
      return;
    }
  }
}

/** Two snapshots of one moment confuse readers of the format, so time always goes on by a tick of 100 ns at least. */
const laterThan = (previous: bigint, now: bigint): bigint => (now > previous ? now : previous + 1n);
