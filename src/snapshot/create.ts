/**
 * Taking a snapshot: prepare (writes go on) → hold and flush → commit (one sector) → release → leave out what is unused, if
 * that is wished → tidy up in the background.
 * A write buffer is emptied before, and takes what is newer in the meantime: then hardly any write is held.
 *
 * Until the commit nothing names the new diff area, so a failure or a crash before it leaves nothing behind. While the
 * commit is under way writes stay held whatever the hold limit says: were they let through and
 * the power failed, older snapshots would miss the copies that went to a snapshot that does not exist.
 */
import type { CopyOnWrite } from '../copy-on-write/copy-on-write.js';
import type { WriteBuffer } from '../copy-on-write/write-buffer.js';
import { type WriteGate, withinLimit } from '../copy-on-write/write-gate.js';
import type { BlockDevice } from '../device/block-device.js';
import { createDiffArea } from '../diff-area/create.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import type { Environment } from '../environment.js';
import { assert, DeviceError, HoldTimeoutError, InvalidArgumentError, LimitError } from '../errors.js';
import type { FreeSpaceProvider } from '../filesystem/free-space.js';
import {
  type ApplicationInformation,
  encodeApplicationInformation,
  type SetCoordinator,
} from '../format/application-information.js';
import { SNAPSHOTS_MAX } from '../format/constants.js';
import { SnapshotFlag, type SnapshotItem, SnapshotState } from '../format/control-block.js';
import { filetimeFromMilliseconds } from '../format/filetime.js';
import type { Guid } from '../format/guid.js';
import { randomU64 } from '../store/new-start.js';
import type { AreaFile, AttachedStore } from '../store/store.js';
import { BLOCK_SIZE, blocksIn, type Slot } from '../units.js';
import type { SnapshotChain } from './chain.js';
import type { Emit } from './events.js';
import { describeSnapshot } from './information.js';
import { SnapshotRecord } from './record.js';
import type { Space } from './space.js';
import { bitmapBytesFor, providerOf, reserveBitmaps, skipUnused, type UnusedSpace } from './unused-space.js';

export interface CreateSnapshotOptions {
  /** A name for people; any text. */
  readonly label?: string;
  /** Bytes that come back with the snapshot; with the label and the VSS fields at most 16,256. */
  readonly applicationInfo?: Uint8Array;
  /** How long writes may be held; default 10,000 ms, at most 600,000. */
  readonly holdTimeoutMs?: number;
  /** Default: true. Else it is gone after the volume was closed, and after a crash. */
  readonly persistent?: boolean;
  /** It goes when whoever took it goes: the open volume or, over the control channel, the connection. Default: false. */
  readonly autoRelease?: boolean;
  /** It is not listed among the exports, nor by `list`; whoever knows its id can use it. Default: false. */
  readonly hidden?: boolean;
  /**
   * Skip what nothing uses: it is not copied, and reads as zeros in the snapshot. Where the file system (NTFS, ext2/3/4) is
   * not sure, nothing is skipped. Default: the snapshot has everything, as it was.
   */
  readonly unusedSpace?: UnusedSpace;
}

const DEFAULT_HOLD_TIMEOUT_MS = 10_000;
/** Nobody should wait for longer. */
const HOLD_TIMEOUT_MAX_MS = 600_000;

/** The parts of the engine that taking a snapshot works with. */
export interface CreateContext {
  readonly environment: Environment;
  readonly device: BlockDevice;
  readonly store: AttachedStore;
  readonly gate: WriteGate;
  /** In the mode `writeback`. */
  readonly writes: WriteBuffer | undefined;
  readonly copyOnWrite: CopyOnWrite;
  readonly chain: SnapshotChain;
  readonly space: Space;
  readonly emit: Emit;
  readonly figures: { holdMs: number };
}

/** What a snapshot shares with the others of its set. */
export interface SetMembership {
  readonly setId: Guid;
  /** Where the commit record of the set is; `undefined`: there is only one member. */
  readonly coordinator: SetCoordinator | undefined;
  readonly hasWriters: boolean;
}

/** @throws InvalidArgumentError */
export function holdLimitOf({ holdTimeoutMs = DEFAULT_HOLD_TIMEOUT_MS }: CreateSnapshotOptions): number {
  if (!(holdTimeoutMs > 0 && holdTimeoutMs <= HOLD_TIMEOUT_MAX_MS)) {
    throw new InvalidArgumentError(
      `holdTimeoutMs must be above 0 and at most ${HOLD_TIMEOUT_MAX_MS}, got ${holdTimeoutMs}`,
    );
  }
  return holdTimeoutMs;
}

/**
 * One snapshot that is being taken: `prepare` → `hold` → `publish` → `adopt` → `release`. If it is not to be after all:
 * `withdraw` → `release` → `discard`. Once it is released, `skip`. One at a time on each volume; `snapshot/set.ts` says in which order for several.
 */
export class Creation {
  readonly #context: CreateContext;
  readonly #information: ApplicationInformation;
  /** `SnapshotState`s for as long as it lives. */
  readonly #state: number;
  readonly #flags: number;
  #file: AreaFile | undefined;
  #area: DiffArea | undefined;
  #item: SnapshotItem | undefined;
  readonly #provider: FreeSpaceProvider | undefined;
  /** For the bitmaps of what is unused, if that is asked for. */
  #bitmapSlots: readonly Slot[] | undefined;
  #publishing: Promise<void> | undefined;
  /** From its order number until the list has it, or it is withdrawn, no other may be taken out of the chain. */
  #endOrder: (() => void) | undefined;
  #copying: Promise<void> | undefined;
  #hasBegun = false;
  #isHeld = false;
  #heldSince = 0;
  /** FILETIME of the moment. */
  #createdAt = 0n;

  /** @throws LimitError, InvalidArgumentError; or why nothing can be written any more */
  constructor(context: CreateContext, id: Guid, options: CreateSnapshotOptions, set: SetMembership) {
    const { persistent = true, autoRelease = false, hidden = false } = options;
    this.#provider = providerOf(options.unusedSpace);
    const failure = context.writes?.failure ?? context.gate.failure;
    if (failure !== undefined) throw failure;
    if (context.chain.count >= SNAPSHOTS_MAX)
      throw new LimitError(`a volume has at most ${SNAPSHOTS_MAX} snapshots; delete one first`);
    this.#context = context;
    this.#information = describeSnapshot({
      snapshotId: id,
      label: options.label,
      applicationInfo: options.applicationInfo,
      ...{ persistent, autoRelease, hidden },
      ...set,
    });
    // Before anything is given up for it.
    encodeApplicationInformation(this.#information);
    this.#state = (persistent ? 0 : SnapshotState.volatile) | (autoRelease ? SnapshotState.autoRelease : 0);
    this.#flags = SnapshotFlag.noDiffAreaFill | (hidden ? 0 : SnapshotFlag.visible);
  }

  get #ready(): DiffArea {
    const area = this.#area;
    assert(area !== undefined, () => 'a snapshot that was not prepared');
    return area;
  }

  /** Lays out the diff area, durably; writes go on. @throws NoSpaceError, LimitError, DeviceError */
  async prepare(): Promise<void> {
    const { store, space, environment, device, writes } = this.#context;
    const { snapshotId: id } = this.#information;
    // Little is left to be written then when the moment comes.
    if (writes !== undefined) writes.level = 'low';
    const bitmapBytes = this.#provider === undefined ? 0 : bitmapBytesFor(device.size);
    await space.makeRoomForArea(bitmapBytes);
    // Most of what is dirty goes to the device before anybody has to wait for it. If that fails, it is told below.
    const flushed = flushAhead(this.#context);
    flushed.catch(() => undefined);
    this.#file = await store.createArea(id);
    this.#area = await createDiffArea(this.#file, {
      storeId: id,
      epoch: randomU64(environment),
      information: this.#information,
      blockCount: blocksIn(device.size),
      length: space.firstLength(bitmapBytes),
    });
    if (this.#provider !== undefined) this.#bitmapSlots = reserveBitmaps(this.#area);
    await flushed;
  }

  /**
   * The moment of the snapshot is this call itself, up to its first wait: of several volumes that are held in one turn it
   * is the same. What is newer is held or, by a write buffer, kept. @throws HoldTimeoutError, DeviceError
   */
  async hold(limitMs: number): Promise<void> {
    const { gate, writes, device, environment, emit } = this.#context;
    const area = this.#ready;
    const { clock } = environment;
    this.#heldSince = clock.monotonic();
    this.#createdAt = filetimeFromMilliseconds(clock.now());
    const deadline = this.#heldSince + limitMs;
    const limited = (what: string, work: Promise<void>) =>
      withinLimit(clock, deadline - clock.monotonic(), work, what);
    writes?.plug();
    this.#hasBegun = true;
    try {
      if (writes !== undefined) await limited('buffered writes were not written', writes.drained());
      await gate.hold(deadline - clock.monotonic());
      this.#isHeld = true;
      await limited('the volume was not flushed', device.flush());
      if (this.#context.store.hidesStartBlock) {
        this.#copying = copyFirstBlock(device, area);
        await limited('block 0 was not copied', this.#copying);
      }
    } catch (error) {
      if (error instanceof HoldTimeoutError) emit('holdTimedOut', { limitMs });
      throw error;
    }
  }

  /**
   * Makes the snapshot exist, with these `SnapshotState`s besides its own; durable when it returns.
   * @throws LimitError, DeviceError; then it may exist or not, and `withdraw` must follow
   */
  async publish(state: number): Promise<void> {
    this.#publishing = this.#publishNext(state);
    await this.#publishing;
  }

  async #publishNext(state: number): Promise<void> {
    const { chain, device, store } = this.#context;
    const area = this.#ready;
    this.#endOrder = await chain.ordered();
    const { newest } = chain;
    this.#item = {
      kind: 'snapshot',
      volumeSize: device.size,
      storeId: area.storeId,
      order: (newest?.item.order ?? 0) + 1,
      flags: this.#flags,
      createdAt: laterThan(newest?.item.createdAt ?? 0n, this.#createdAt),
    };
    await store.control.publish({
      snapshot: this.#item,
      diffArea: { ...area.item, state: this.#state | state },
    });
  }

  /** It exists: copies go to it from now on. */
  adopt(state: number): SnapshotRecord {
    const { chain, copyOnWrite, space } = this.#context;
    const area = this.#ready;
    const item = this.#item;
    assert(item !== undefined, () => `snapshot ${area.storeId} was not published`);
    const { newestVisible } = chain;
    const record = new SnapshotRecord(item, { area }, this.#state | state);
    record.pending = this.#provider !== undefined;
    copyOnWrite.setTarget(area);
    chain.add(record);
    if (newestVisible?.area !== undefined) space.retire(newestVisible, newestVisible.area);
    return record;
  }

  /** Lets writes go on. */
  release(): void {
    const { gate, writes, figures, environment } = this.#context;
    if (writes !== undefined) writes.level = 'usual';
    this.#endOrder?.();
    this.#endOrder = undefined;
    if (!this.#hasBegun) return;
    this.#hasBegun = false;
    figures.holdMs = environment.clock.monotonic() - this.#heldSince;
    const wasHeld = this.#isHeld;
    this.#isHeld = false;
    if (wasHeld) gate.release();
    writes?.unplug();
  }

  /**
   * It must not exist. Resolves to false if that cannot be told: then nothing may be written any more.
   * @param cause why `publish` failed, or what else did
   */
  async withdraw(cause: unknown): Promise<boolean> {
    if (this.#publishing === undefined) return true;
    await this.#publishing.catch(() => undefined);
    const { store } = this.#context;
    for (let attempt = 1; ; attempt++) {
      try {
        await store.control.withdraw(this.#ready.storeId);
        return true;
      } catch (error) {
        if (attempt < 3) continue;
        this.shut(new AggregateError([cause, error]));
        return false;
      }
    }
  }

  /** Whether the snapshot, or the set that it belongs to, exists cannot be told. */
  shut(cause: unknown): void {
    const { gate, store } = this.#context;
    gate.shut(
      new DeviceError(
        `a snapshot was being taken when the store failed, and whether it exists cannot be told; writes are refused to keep it and the others right. Close the volume, mend the store (${store.name}), and open again`,
        { cause },
      ),
    );
  }

  /** Removes what was prepared. */
  async discard(): Promise<void> {
    const { emit, store, gate } = this.#context;
    // The diff area must be at rest before it is discarded.
    await this.#copying?.catch(() => undefined);
    // With the gate shut the snapshot may exist after all; then it is whole, because nothing was written since.
    if (this.#file === undefined || gate.failure !== undefined) return;
    try {
      await this.#file.remove();
    } catch (error) {
      emit('backgroundFailure', {
        id: store.name,
        what: 'removing the diff area of a snapshot that was not taken',
        error,
      });
    }
  }

  /** Leaves out what nothing uses, if that is wished; writes go on. @throws DeviceError, as `skipUnused` */
  async skip(record: SnapshotRecord): Promise<void> {
    if (this.#provider !== undefined)
      await skipUnused(this.#context, record, this.#ready, this.#bitmapSlots, this.#provider);
  }

  /** Clears `SnapshotState`s that it was published with. A failure is told, and harms nobody. */
  async clear(record: SnapshotRecord, state: number): Promise<boolean> {
    const { emit, store } = this.#context;
    try {
      await store.control.setState(record.id, { clear: state });
      record.state &= ~state;
      return true;
    } catch (error) {
      emit('backgroundFailure', { id: record.id, what: 'recording that its set is complete', error });
      return false;
    }
  }
}

async function flushAhead({ device, store }: CreateContext): Promise<void> {
  await device.flush();
  await store.control.flush();
}

/**
 * Who reads the raw device sees the start block in block 0, in place of what the volume holds there. So each
 * snapshot has its own copy of that block from the beginning.
 */
async function copyFirstBlock(device: BlockDevice, area: DiffArea): Promise<void> {
  const data = new Uint8Array(BLOCK_SIZE);
  await device.read(0, data.subarray(0, Math.min(BLOCK_SIZE, device.size)));
  const slots = area.reserve(1, 1);
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

/** Two snapshots of one moment confuse readers of the format, so time always goes on by a tick of 100 ns at least. */
const laterThan = (previous: bigint, now: bigint): bigint => (now > previous ? now : previous + 1n);
