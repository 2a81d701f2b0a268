/**
 * Taking a snapshot: prepare (writes go on) → hold and flush (`hold.ts`) → commit (one sector) → release → leave out what is
 * unused, if that is wished → tidy up in the background. `set.ts` drives it, of one volume or of several.
 *
 * Until the commit nothing names the new diff area, so a failure or a crash before it leaves nothing behind. While the
 * commit is under way writes stay held whatever the hold limit says: were they let through and
 * the power failed, older snapshots would miss the copies that went to a snapshot that does not exist.
 */
import type { CopyOnWrite } from '../copy-on-write/copy-on-write.js';
import type { Pools } from '../copy-on-write/pools.js';
import { createDiffArea } from '../diff-area/create.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import {
  assert,
  DeviceError,
  isOutOfSpace,
  isTooLong,
  LimitError,
  NoSpaceError,
  RevertInProgressError,
} from '../errors.js';
import type { FreeSpaceProvider } from '../filesystem/free-space.js';
import {
  type ApplicationInformation,
  encodeApplicationInformation,
} from '../format/application-information.js';
import { SNAPSHOTS_MAX } from '../format/constants.js';
import { SnapshotFlag, type SnapshotItem, SnapshotState } from '../format/control-block.js';
import { filetimeFromMilliseconds } from '../format/filetime.js';
import type { Guid } from '../format/guid.js';
import { randomU64 } from '../store/new-start.js';
import type { AreaFile, AttachedStore } from '../store/store.js';
import { type ByteLength, blocksIn, type Slot } from '../units.js';
import type { SnapshotChain } from './chain.js';
import { copyFirstBlock } from './first-block.js';
import { Hold, type HoldContext } from './hold.js';
import { describeSnapshot } from './information.js';
import type { SetMembership, SnapshotPurpose } from './purpose.js';
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

/** The parts of the engine that taking a snapshot works with. */
export interface CreateContext extends HoldContext {
  readonly store: AttachedStore;
  readonly copyOnWrite: CopyOnWrite;
  readonly chain: SnapshotChain;
  readonly space: Space;
  readonly pools: Pools;
}

/**
 * One snapshot that is being taken: `prepare` → `hold` → `publish` → `adopt` → `begin` → `release`; once it is released,
 * `skip`. If it is not to be after all, up to `publish`: `withdraw` → `release` → `discard`. One at a time on each volume.
 */
export class Creation {
  readonly #context: CreateContext;
  readonly #information: ApplicationInformation;
  readonly #purpose: SnapshotPurpose | undefined;
  readonly #provider: FreeSpaceProvider | undefined;
  /** `SnapshotState`s for as long as it lives. */
  readonly #state: number;
  readonly #flags: number;
  readonly #hold: Hold;
  #file: AreaFile | undefined;
  #area: DiffArea | undefined;
  #item: SnapshotItem | undefined;
  /** For the bitmaps of what is unused, if that is asked for. */
  #bitmapSlots: readonly Slot[] | undefined;
  /** For its copy of block 0. */
  #firstSlots: readonly Slot[] | undefined;
  #publishing: Promise<void> | undefined;
  /** From its order number until the list has it, or it is withdrawn, no other may be taken out of the chain. */
  #endOrder: (() => void) | undefined;
  #copying: Promise<void> | undefined;
  /** FILETIME of the moment. */
  #createdAt = 0n;

  /** @throws LimitError, InvalidArgumentError, RevertInProgressError; or why nothing can be written any more */
  constructor(
    context: CreateContext,
    id: Guid,
    options: CreateSnapshotOptions,
    set: SetMembership,
    purpose?: SnapshotPurpose,
  ) {
    const { persistent = true, autoRelease = false, hidden = false, writable = false } = options;
    const { chain, gate, writes } = context;
    this.#provider = providerOf(options.unusedSpace);
    const failure = writes?.failure ?? gate.failure;
    if (failure !== undefined) throw failure;
    if (purpose === undefined && chain.keeping.from !== undefined) {
      throw new RevertInProgressError(
        `no snapshot can be taken while the volume is put back to ${chain.keeping.from.id}; wait for that, or cancel it`,
      );
    }
    if (chain.undeleted.length >= SNAPSHOTS_MAX)
      throw new LimitError(`a volume has at most ${SNAPSHOTS_MAX} snapshots; delete one first`);
    this.#context = context;
    this.#hold = new Hold(context);
    this.#purpose = purpose;
    this.#information = describeSnapshot({
      snapshotId: id,
      label: options.label,
      applicationInfo: options.applicationInfo,
      ...{ persistent, autoRelease, hidden },
      ...set,
    });
    // Before anything is given up for it.
    encodeApplicationInformation(this.#information);
    const { volatile, autoRelease: released } = SnapshotState;
    this.#state = (purpose?.state ?? 0) | (persistent ? 0 : volatile) | (autoRelease ? released : 0);
    this.#flags =
      SnapshotFlag.noDiffAreaFill |
      (hidden ? 0 : SnapshotFlag.visible) |
      (writable ? SnapshotFlag.writable : 0);
  }

  get #ready(): DiffArea {
    const area = this.#area;
    assert(area !== undefined, () => 'a snapshot that was not prepared');
    return area;
  }

  /**
   * Lays out the diff area, durably; writes go on, slowly.
   * @param limitMs how long what is buffered may take to be written, in milliseconds
   * @throws NoSpaceError, LimitError, DeviceError, HoldTimeoutError
   */
  async prepare(limitMs: number): Promise<void> {
    const { store, space, device } = this.#context;
    const bitmapBytes = this.#provider === undefined ? 0 : bitmapBytesFor(device.size);
    await space.byDeletion.forArea(bitmapBytes);
    this.slow(true);
    // If that fails, it is told below.
    const flushed = this.#flushAhead(limitMs);
    flushed.catch(() => undefined);
    // A host that is full is like a limit that is reached.
    while (!(await this.#layOut(bitmapBytes))) {
      this.slow(false);
      await space.byDeletion.forHost();
      this.slow(true);
    }
    // Before room is set aside in it for anything else.
    if (store.hidesStartBlock) this.#firstSlots = this.#ready.reserve(1, 1);
    if (this.#provider !== undefined) this.#bitmapSlots = reserveBitmaps(this.#ready);
    await flushed;
  }

  /** Is a write buffer to take little, so that little is left to be written when the moment comes? */
  slow(isSlow: boolean): void {
    const { writes } = this.#context;
    if (writes !== undefined) writes.level = isSlow ? 'low' : 'usual';
  }

  /** Most of what is dirty goes to the device before anybody has to wait for it. */
  async #flushAhead(limitMs: number): Promise<void> {
    const { device, store } = this.#context;
    await device.flush();
    // That took long: what was written meanwhile is dirty again, and commits of copies waited for it.
    await Promise.all([this.#hold.settleBefore(limitMs), store.control.flush()]);
  }

  /** The same, when it took long until all members of the set were prepared. @throws HoldTimeoutError, DeviceError */
  async settleAgain(limitMs: number): Promise<void> {
    this.slow(true);
    await this.#hold.settleBefore(limitMs);
  }

  /** @returns false, leaving nothing behind, if the host has no room @throws NoSpaceError (by the limit), LimitError, DeviceError */
  async #layOut(bitmapBytes: ByteLength): Promise<boolean> {
    const { store, space, environment, device } = this.#context;
    const { snapshotId: id } = this.#information;
    try {
      this.#file = await store.createArea(id);
      this.#area = await createDiffArea(this.#file, {
        storeId: id,
        epoch: randomU64(environment),
        information: this.#information,
        blockCount: blocksIn(device.size),
        length: space.firstLength(bitmapBytes),
      });
      return true;
    } catch (error) {
      // One of ours without a cause is about a limit. A file that may not be so long is no shorter when others go.
      if (!isOutOfSpace(error) || (error instanceof NoSpaceError && error.cause === undefined)) throw error;
      if (isTooLong(error)) throw error;
      await this.discard();
      this.#file = undefined;
      return false;
    }
  }

  /**
   * As `Hold.begin`, whose moment is the snapshot's.
   * @param meanwhile what may go on while the volume is flushed
   * @throws HoldTimeoutError, DeviceError; what its purpose or `meanwhile` throws
   */
  async hold(limitMs: number, meanwhile?: () => Promise<void>): Promise<void> {
    const { device, environment, store } = this.#context;
    const area = this.#ready;
    this.#createdAt = filetimeFromMilliseconds(environment.clock.now());
    await this.#hold.begin(limitMs, area, meanwhile);
    if (store.hidesStartBlock) {
      this.#copying = copyFirstBlock(device, area, this.#firstSlots);
      await this.#hold.within('block 0 was not copied', this.#copying);
    }
    await this.#purpose?.prepare(area);
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
    const newest = chain.newest?.item ?? this.#purpose?.after;
    this.#item = {
      kind: 'snapshot',
      volumeSize: device.size,
      storeId: area.storeId,
      order: (newest?.order ?? 0) + 1,
      flags: this.#flags,
      createdAt: laterThan(newest?.createdAt ?? 0n, this.#createdAt),
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
    this.#leaveOrder();
    if (newestVisible?.area !== undefined) space.ends.retire(newestVisible, newestVisible.area);
    return record;
  }

  /** Does what it was taken for, with writes still held. It stays even if that fails. */
  async begin(record: SnapshotRecord): Promise<void> {
    await this.#purpose?.begin(record);
  }

  /** Lets writes go on. */
  release(): void {
    this.slow(false);
    this.#leaveOrder();
    this.#hold.end();
  }

  #leaveOrder(): void {
    this.#endOrder?.();
    this.#endOrder = undefined;
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

/** Two snapshots of one moment confuse readers of the format, so time always goes on by a tick of 100 ns at least. */
const laterThan = (previous: bigint, now: bigint): bigint => (now > previous ? now : previous + 1n);
