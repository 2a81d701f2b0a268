/**
 * Room for copies: growth of the newest diff area, and what goes when there is no room.
 *
 * Growth is ahead of need, in the background, in steps of 50 MiB at first and up to 1000 MiB when writers had to wait.
 * Copies that find no slot grow the file themselves: they must not wait for the background pool.
 *
 * Policy `delete-oldest`: the oldest snapshots go until there is room; writes never fail because of a snapshot.
 * `#roomFor` is the place where other policies come in.
 *
 * Shared state: `#growing` lets one growth or one decision about room happen at a time.
 */
import { Mutex } from 'async-mutex';
import { checkWhole } from '../arguments.js';
import type { CopyOnWriteHost, FailedAttempt } from '../copy-on-write/copy-host.js';
import type { CopyOnWrite } from '../copy-on-write/copy-on-write.js';
import type { Pools } from '../copy-on-write/pools.js';
import { AREA_SIZE_MIN } from '../diff-area/create.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { isOutOfSpace, NoSpaceError } from '../errors.js';
import type { AttachedStore } from '../store/store.js';
import { BLOCK_SIZE, type ByteLength, roundUp } from '../units.js';
import type { SnapshotChain } from './chain.js';
import type { Emit } from './events.js';
import { memoryIsFull } from './late-area.js';
import type { SnapshotRecord } from './record.js';

export interface Growth {
  /** First size of a diff area, and step of growth at the beginning; bytes. */
  readonly initial: ByteLength;
  /** Largest step, in bytes. */
  readonly maximum: ByteLength;
}

const MEBIBYTE = 1024 * 1024;
/** By how much a diff area grows for writes to its own snapshot. */
const OVERLAY_STEP = MEBIBYTE;
export const DEFAULT_GROWTH: Growth = { initial: 50 * MEBIBYTE, maximum: 1000 * MEBIBYTE };

export class Space implements CopyOnWriteHost {
  readonly #store: AttachedStore;
  readonly #chain: SnapshotChain;
  readonly #pools: Pools;
  readonly #emit: Emit;
  readonly #growth: Growth;
  readonly #growing = new Mutex();
  #copyOnWrite: CopyOnWrite | undefined;
  #step: ByteLength;
  #growingAhead = false;

  constructor(store: AttachedStore, chain: SnapshotChain, pools: Pools, emit: Emit, growth: Growth) {
    this.#store = store;
    this.#chain = chain;
    this.#pools = pools;
    this.#emit = emit;
    checkWhole('growth.initial', growth.initial);
    checkWhole('growth.maximum', growth.maximum);
    const initial = Math.max(BLOCK_SIZE, roundUp(growth.initial, BLOCK_SIZE));
    this.#growth = { initial, maximum: Math.max(initial, roundUp(growth.maximum, BLOCK_SIZE)) };
    this.#step = initial;
  }

  /** Space and copy-on-write need each other; this closes the circle. */
  serve(copyOnWrite: CopyOnWrite): void {
    this.#copyOnWrite = copyOnWrite;
  }

  /**
   * Size with which a new diff area begins: a share of what is there, so that a small reserve serves many.
   * @param extra bytes that are spoken for already
   */
  firstLength(extra: ByteLength = 0): ByteLength {
    const share = wholeBlocks(Math.min(this.#growth.initial, (this.#store.available() - extra) / 8));
    return Math.max(AREA_SIZE_MIN, share) + extra;
  }

  growAhead(area: DiffArea): void {
    if (this.#growingAhead || area.freeBytes >= this.#step / 2) return;
    // Ahead of need only a share is taken: what is left serves the next snapshot.
    const length = wholeBlocks(Math.min(this.#step, this.#store.available() / 4));
    const record = this.#chain.ownerOf(area);
    if (length === 0 || record === undefined || record.isLate) return;
    this.#growingAhead = true;
    void this.#pools.background.add(async () => {
      try {
        await this.#growing.runExclusive(() => this.#grow(record, area, length));
      } catch (error) {
        this.#emit('backgroundFailure', {
          id: record.id,
          what: 'growing its diff area ahead of need',
          error,
        });
      } finally {
        this.#growingAhead = false;
      }
    });
  }

  async makeRoom(area: DiffArea, slots: number, entries: number): Promise<boolean> {
    return this.#growing.runExclusive(async () => {
      for (;;) {
        const needed = area.growthNeeded(slots, entries);
        if (needed === 0) return true;
        this.#step = Math.min(this.#growth.maximum, this.#step * 2);
        if (!(await this.#roomFor(area, needed))) return false;
      }
    });
  }

  /**
   * The same for what is written to a snapshot itself. Older snapshots go if need be, this one never does for its own sake.
   * @throws NoSpaceError if there is no room without giving it up; SnapshotDeletedError, DeviceError
   */
  async makeRoomForOverlay(record: SnapshotRecord, area: DiffArea, slots: number): Promise<void> {
    await this.#growing.runExclusive(async () => {
      for (;;) {
        const needed = area.growthNeeded(slots, 1);
        if (needed === 0) return;
        record.checkExists();
        const available = wholeBlocks(this.#store.available());
        if (available >= needed) {
          // Less than ahead of copies: what such a snapshot does not use comes back only with its end.
          const length = Math.max(needed, Math.min(this.#step, OVERLAY_STEP));
          try {
            await this.#grow(record, area, Math.min(available, length));
            continue;
          } catch (error) {
            if (!isOutOfSpace(error)) throw error;
          }
        }
        this.#emit('overflow', { id: record.id, neededBytes: needed, availableBytes: available });
        const victim = this.#chain.oldest;
        if (victim === undefined || victim === record) {
          throw new NoSpaceError(
            `writing to snapshot ${record.id} needs ${needed} bytes, ${available} can be had; raise the limit with: volsnap resize-store`,
          );
        }
        await this.#chain.removeThrough(victim, this.#copying, 'space');
      }
    });
  }

  async #roomFor(area: DiffArea, needed: ByteLength): Promise<boolean> {
    const record = this.#chain.ownerOf(area);
    if (record === undefined) return false;
    if (record.isLate) {
      await this.#chain.removeThrough(record, this.#copying, 'late', memoryIsFull(record));
      return false;
    }
    const available = wholeBlocks(this.#store.available());
    if (available >= needed) {
      try {
        await this.#grow(record, area, Math.min(available, Math.max(needed, this.#step)));
        return true;
      } catch (error) {
        if (!(error instanceof NoSpaceError)) throw error;
      }
    }
    this.#emit('overflow', { id: record.id, neededBytes: needed, availableBytes: available });
    return this.#dropOldest(area);
  }

  /** @returns false if that was the snapshot of `area` itself */
  async #dropOldest(area: DiffArea, cause?: unknown): Promise<boolean> {
    const victim = this.#chain.oldest;
    if (victim !== undefined && victim === this.#chain.keptFrom) {
      throw new NoSpaceError(
        `the diff areas are full, and the revert to ${victim.id} needs all snapshots that are left; give them more room (volsnap resize-store), or cancel the revert`,
        { cause },
      );
    }
    if (victim !== undefined) await this.#chain.removeThrough(victim, this.#copying, 'space', cause);
    return this.#chain.ownerOf(area) !== undefined;
  }

  get #copying(): CopyOnWrite {
    if (this.#copyOnWrite === undefined) throw new Error('serve() was not called');
    return this.#copyOnWrite;
  }

  async #grow(record: SnapshotRecord, area: DiffArea, length: ByteLength): Promise<void> {
    const grown = await this.#whileThere(record, () =>
      area.grow(length, (change) => this.#store.control.update(record.id, change)),
    );
    if (!grown) return;
    this.#emit('grown', { id: record.id, bytes: length, allocatedBytes: area.allocatedBytes });
  }

  get removals(): number {
    return this.#chain.removals;
  }

  async copyFailed(
    area: DiffArea,
    error: unknown,
    { failures, removals }: FailedAttempt,
  ): Promise<'retry' | 'gone'> {
    return this.#growing.runExclusive(async () => {
      const newest = this.#chain.ownerOf(area);
      if (newest === undefined) return 'gone';
      if (isOutOfSpace(error)) {
        // What went since the attempt began has made room already.
        if (this.removals !== removals) return 'retry';
        return (await this.#dropOldest(area, error)) ? 'retry' : 'gone';
      }
      if (failures === 1) return 'retry';
      // Given up, they would leave the volume between two states.
      if (this.#chain.keptFrom !== undefined) throw error;
      // Older snapshots read the missing block through this one, so all are wrong without it.
      await this.#chain.removeThrough(newest, this.#copying, 'copy-failed', error);
      return 'gone';
    });
  }

  /**
   * Makes room for a new diff area of at least the smallest size: what the newest one does not use goes first, then the
   * oldest snapshots.
   * @param extra bytes that it needs besides
   * @throws NoSpaceError if nothing is left to give up
   */
  async makeRoomForArea(extra: ByteLength = 0): Promise<void> {
    const { newestVisible: newest } = this.#chain;
    const wanted = AREA_SIZE_MIN + extra;
    if (this.#store.available() < wanted && newest?.area !== undefined) await this.#trim(newest, newest.area);
    while (this.#store.available() < wanted) {
      const victim = this.#chain.oldest;
      if (victim === undefined || victim === this.#chain.keptFrom) {
        throw new NoSpaceError(
          `a snapshot needs at least ${wanted} bytes, ${this.#store.available()} can be had; raise the limit with: volsnap resize-store`,
        );
      }
      const before = this.#store.available();
      await this.#chain.removeThrough(victim, this.#copying, 'space');
      await this.#chain.freed();
      if (this.#store.available() <= before) {
        throw new NoSpaceError(
          `deleting snapshot ${victim.id} gave no space back in ${this.#store.name}; close the volume and open it again`,
        );
      }
    }
  }

  /**
   * Gets the space allocated down to `maximum` bytes (0: no limit): what the newest diff area does not use goes first, then
   * the oldest snapshots.
   */
  async shrinkTo(maximum: ByteLength): Promise<void> {
    const isOver = () => maximum !== 0 && this.#store.allocated() > maximum;
    const { newestVisible: newest } = this.#chain;
    if (isOver() && newest?.area !== undefined) await this.#trim(newest, newest.area);
    while (isOver() && this.#chain.oldest !== undefined && this.#chain.oldest !== this.#chain.keptFrom) {
      const before = this.#store.allocated();
      await this.#chain.removeThrough(this.#chain.oldest, this.#copying, 'limit-lowered');
      await this.#chain.freed();
      if (this.#store.allocated() >= before) return; // that one's space comes back at the next opening
    }
  }

  /** Does something to a diff area that must not be removed meanwhile; resolves to false if it is gone already. */
  async #whileThere(record: SnapshotRecord, action: () => Promise<void>): Promise<boolean> {
    return record.resizing.runExclusive(async () => {
      // A stand-in has its size for good, and nothing of it is in the control file.
      if (record.isGone || record.isLate) return false;
      await action();
      return true;
    });
  }

  async #trim(record: SnapshotRecord, area: DiffArea): Promise<void> {
    await this.#whileThere(record, () =>
      area.trim((change) => this.#store.control.update(record.id, change)),
    );
  }

  /**
   * Room in `area` for what is merged into it. Nothing is given up for that.
   * @param ahead bytes that will be needed in all
   * @returns `false` if there is no room, or `record` is gone
   */
  async roomToMerge(
    record: SnapshotRecord,
    area: DiffArea,
    { slots, entries, ahead }: { slots: number; entries: number; ahead: ByteLength },
  ): Promise<boolean> {
    return this.#growing.runExclusive(async () => {
      const needed = area.growthNeeded(slots, entries);
      const available = wholeBlocks(this.#store.available());
      if (record.isGone || needed > available) return false;
      if (needed === 0) return true;
      try {
        await this.#grow(
          record,
          area,
          Math.min(available, Math.max(needed, Math.min(ahead, this.#growth.maximum))),
        );
        return true;
      } catch (error) {
        if (error instanceof NoSpaceError) return false;
        throw error;
      }
    });
  }

  /** Bytes that diff areas could still take. */
  get available(): ByteLength {
    return this.#store.available();
  }

  /** Gives back the unused end of a diff area that no copies come to. */
  async giveBackEnd(record: SnapshotRecord, area: DiffArea): Promise<void> {
    await this.#whileThere(record, () =>
      area.trimAll((change) => this.#store.control.update(record.id, change)),
    );
  }

  /**
   * No copies come to this one any more: what it has is recorded as durable, and its unused space goes back. Runs in the
   * background.
   */
  retire(record: SnapshotRecord, area: DiffArea): void {
    void this.#pools.background.add(async () => {
      try {
        await this.retireNow(record, area);
      } catch (error) {
        this.#emit('backgroundFailure', {
          id: record.id,
          what: 'giving back the unused end of its diff area',
          error,
        });
      }
    });
  }

  /** Task of the background pool. Where copies come again, or which is on its way out, it is left alone. */
  async retireNow(record: SnapshotRecord, area: DiffArea): Promise<void> {
    // The table is the commit pool's; it waits for nothing but devices.
    const isRetired = await this.#pools.commit.add(
      async () => (await record.whileThere(() => this.#writeMark(record, area))) === true,
    );
    if (isRetired === true) await this.giveBackEnd(record, area);
  }

  async #writeMark(record: SnapshotRecord, area: DiffArea): Promise<boolean> {
    if (record.deleted !== undefined || this.#copying.takesCopies(area)) return false;
    if (record.isLate || record.area !== area) return false;
    // The mark vouches for all there is.
    await area.writeEntries();
    await area.flush();
    await area.writeWatermark();
    return true;
  }
}

const wholeBlocks = (length: number): ByteLength =>
  Number.isFinite(length) ? Math.floor(length / BLOCK_SIZE) * BLOCK_SIZE : length;
