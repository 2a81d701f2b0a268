/**
 * Waits for diff areas that were not there when the volume was opened; `snapshot/late-area.ts` says what happens meanwhile.
 *
 * It looks now and then. When all are there, what the stand-ins have and the real ones lack is copied over and made durable, first
 * while writes go on and then, of what has come since, with writes held; the record that copies are in memory is taken back; and the real
 * ones take their place. What stands in the way (no room, a device that fails, writes that do not end) is told and tried again at the next
 * look. When the time is over the snapshots are given up: the newest late one and all older ones, which read through it.
 *
 * One that is held is never given up. No copies are in memory then, so nothing is lost by waiting on: for as long again, which is told.
 *
 * Shared state: `#looking`, one look at a time; `#waiting` changes only in a look, or when none is under way.
 */
import type { DiffArea } from '../diff-area/diff-area.js';
import { loadDiffArea } from '../diff-area/load.js';
import { ClosedError, isOutOfSpace, NotFoundError, SnapshotDeletedError } from '../errors.js';
import type { Guid } from '../format/guid.js';
import { moveCopies } from '../snapshot/arrival.js';
import { deleteSnapshot } from '../snapshot/delete.js';
import { DEFAULT_HOLD_TIMEOUT_MS, whileHeld } from '../snapshot/hold.js';
import type { LateArea, LateOptions } from '../snapshot/late-area.js';
import { BLOCK_SIZE, type ByteLength } from '../units.js';
import type { Engine } from './engine.js';
import { closeLateFiles, type LateFile, openLateFiles } from './late-files.js';

/** Snapshots whose diff areas have not arrived. */
export interface LateFigures {
  /** They, and older ones, which read through them; the oldest first. None of them is shown. */
  readonly ids: readonly Guid[];
  /** Bytes of the volume whose copies are in memory. */
  readonly copiedBytes: ByteLength;
  /** Bytes of memory for copies, with the table that finds them. */
  readonly memoryLimit: ByteLength;
  /** Bytes that the limit of the store counts for the diff areas of what is hidden. */
  readonly allocatedBytes: ByteLength;
  /** Milliseconds until they are given up. */
  readonly leftMs: number;
}

/** One whose diff area is loaded. */
interface Loaded extends LateFile {
  readonly area: DiffArea;
}

export class LateAreas {
  readonly #engine: Engine;
  readonly #limits: Required<LateOptions>;
  /** Oldest first. */
  #waiting: readonly LateArea[];
  /** By the monotonic clock, in milliseconds. */
  #deadline: number;
  #cancel: () => void = () => undefined;
  #looking: Promise<void> = Promise.resolve();
  #isStopped = false;
  /** What stood in the way at the last look. */
  #obstacle: unknown;

  /** @param late oldest first, at least one */
  constructor(engine: Engine, late: readonly LateArea[], limits: Required<LateOptions>) {
    this.#engine = engine;
    this.#waiting = late;
    this.#limits = limits;
    this.#deadline = this.#now + limits.timeLimitMs;
    this.#lookLater();
  }

  get #now(): number {
    return this.#engine.environment.clock.monotonic();
  }

  /** `undefined`: none is waited for any more. */
  get figures(): LateFigures | undefined {
    const waiting = this.#waiting.filter(({ record }) => !record.isGone);
    if (waiting.length === 0) return undefined;
    const hidden = this.#engine.chain.records.filter(({ isLate }) => isLate);
    const there = hidden.flatMap(({ area, hasStandIn }) => (hasStandIn ? [] : (area ?? [])));
    return {
      ids: hidden.filter(({ deleted }) => deleted === undefined).map(({ id }) => id),
      copiedBytes: waiting.reduce((sum, { standIn }) => sum + standIn.table.size, 0) * BLOCK_SIZE,
      memoryLimit: this.#limits.memoryLimit,
      allocatedBytes:
        waiting.reduce((sum, { space }) => sum + space.bytes, 0) +
        there.reduce((sum, { allocatedBytes }) => sum + allocatedBytes, 0),
      leftMs: Math.max(0, this.#deadline - this.#now),
    };
  }

  #lookLater(): void {
    const left = this.#deadline - this.#now;
    const { intervalMs } = this.#limits;
    this.#cancel = this.#engine.environment.clock.after(
      left > 0 ? Math.min(left, intervalMs) : intervalMs,
      () => {
        this.#looking = this.#look();
      },
    );
  }

  /** Never rejects. */
  async #look(): Promise<void> {
    this.#forgetDeleted();
    const isOver = this.#waiting.length === 0 || (await this.#arriveIfThere());
    if (!isOver && this.#now >= this.#deadline)
      await this.#giveUp(this.#obstacle ?? new NotFoundError('the diff area did not arrive in time'));
    if (this.#waiting.length > 0 && !this.#isStopped) this.#lookLater();
  }

  /** @returns whether none is waited for any more. Never rejects. */
  async #arriveIfThere(): Promise<boolean> {
    const { store, space } = this.#engine;
    try {
      for (;;) {
        const files = await openLateFiles(store, this.#waiting);
        if (files === undefined) return false;
        try {
          await this.#arrive(files);
          return true;
        } catch (error) {
          await closeLateFiles(store, files);
          const newest = this.#waiting.at(-1)?.record;
          // Each time one snapshot less: it ends.
          const isRoomMade =
            isOutOfSpace(error) && newest !== undefined && (await space.byDeletion.forArrival(newest));
          if (!isRoomMade) throw error;
          this.#forgetDeleted();
        }
      }
    } catch (error) {
      this.#obstruct(error);
      this.#forgetDeleted();
      return this.#waiting.length === 0;
    }
  }

  /** Told once, not at each look. */
  #obstruct(error: unknown): void {
    const isNew = String(error) !== String(this.#obstacle);
    this.#obstacle = error;
    if (isNew) this.#tell('taking up a diff area that has arrived', error);
  }

  /** @throws NoSpaceError, HoldTimeoutError, FormatError, DeviceError; then the files may be closed and opened again */
  async #arrive(files: readonly LateFile[]): Promise<void> {
    const { store, chain, copyOnWrite, environment, reverts, emit } = this.#engine;
    const loaded: Loaded[] = [];
    for (const file of files) {
      const { opened, item, record } = file;
      const { area, repair } = await loadDiffArea(opened, item, record.item.volumeSize, environment.clock);
      await repair();
      loaded.push({ ...file, area });
    }
    let copies = await this.#moveCopies(loaded);
    const takeOver = async () => {
      copies += await this.#moveCopies(loaded);
      // What the control file says of memory is taken back: they are on the device.
      for (const { memory } of loaded) await memory.forgetCopies();
      // From here to the end nothing is waited for.
      for (const { record, area } of loaded) if (!record.isGone) record.arrive(area);
      for (const record of chain.records) record.isLate = false;
      chain.retarget(copyOnWrite);
    };
    const target = loaded.find(({ standIn }) => copyOnWrite.target === standIn);
    // One that takes no copies any more gets none again. A new snapshot would be the target, and the hold is its own.
    if (target === undefined) await takeOver();
    else
      await reverts.taking.runExclusive(() =>
        whileHeld(this.#engine, DEFAULT_HOLD_TIMEOUT_MS, takeOver, target.area),
      );
    this.#waiting = [];
    const there = loaded.filter(({ record, area }) => record.area === area);
    const gone = loaded.filter((one) => !there.includes(one));
    await closeLateFiles(store, gone).catch((error: unknown) => this.#tell('removing its diff area', error));
    for (const { standIn } of there) await standIn.close();
    if (there.length > 0) emit('arrived', { ids: there.map(({ record }) => record.id), copies });
    this.#end();
  }

  /** @returns blocks copied */
  async #moveCopies(loaded: readonly Loaded[]): Promise<number> {
    const { control } = this.#engine.store;
    let copies = 0;
    for (const { record, standIn, area } of loaded)
      copies +=
        (await record.whileThere(() =>
          moveCopies(standIn, area, (change) => control.update(record.id, change)),
        )) ?? 0;
    return copies;
  }

  /** Some may have been deleted: by name, for lack of room, or because the memory is full. */
  #forgetDeleted(): void {
    if (this.#waiting.length === 0) return;
    const gone = this.#waiting.filter(({ record }) => record.isGone);
    this.#waiting = this.#waiting.filter(({ record }) => !record.isGone);
    for (const { space } of gone) space.free();
    if (this.#waiting.length === 0) this.#end();
  }

  /** Never rejects; what stands in the way of it is told. */
  async #giveUp(cause: unknown): Promise<void> {
    const { chain, copyOnWrite } = this.#engine;
    const newest = this.#waiting.at(-1)?.record;
    try {
      if (newest !== undefined) await chain.removeThrough(newest, copyOnWrite, 'late', cause);
    } catch (error) {
      this.#tell('giving up snapshots that wait for a diff area', error);
      this.#deadline = this.#now + this.#limits.timeLimitMs;
    }
    this.#forgetDeleted();
  }

  /** None is waited for any more: what had to wait for that goes on. */
  #end(): void {
    const { chain, merging, space } = this.#engine;
    for (const record of chain.records) record.isLate = false;
    space.relieved(chain.newestVisible);
    merging.wake();
    if (!this.#isStopped) void this.#deleteExpired();
  }

  /** Snapshots that were not to outlast the last opening, but could not be merged into a late one. Never rejects. */
  async #deleteExpired(): Promise<void> {
    const { chain, merging, life } = this.#engine;
    for (const record of chain.undeleted) {
      if (record.expired === undefined || !chain.keeping.mayGo(record)) continue;
      await life
        .run(() => deleteSnapshot(this.#engine, record, record.expired))
        .catch((error: unknown) => {
          // It is gone, or the next opening does it.
          const isSettled = error instanceof SnapshotDeletedError || error instanceof ClosedError;
          if (!isSettled) this.#tell('deleting a snapshot that was not to stay', error);
        });
    }
    merging.wake();
  }

  #tell(what: string, error: unknown): void {
    const { emit, store, chain } = this.#engine;
    emit('backgroundFailure', {
      id: this.#waiting.at(-1)?.record.id ?? chain.oldest?.id ?? store.name,
      what,
      error,
    });
  }

  /** Looks no more. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#cancel();
    await this.#looking;
  }

  /**
   * At a close, after `stop` and the last write: copies that are in memory only will be lost. If the diff areas are there now they take
   * them, else the snapshots go. Where neither can be, the next opening gives them up. Never rejects.
   */
  async giveUpCopies(): Promise<void> {
    this.#forgetDeleted();
    const isNeeded = this.#waiting.some(({ standIn }) => standIn.table.size > 0);
    if (!isNeeded || (await this.#arriveIfThere())) return;
    await this.#giveUp(this.#obstacle ?? new NotFoundError('the volume was closed before it arrived'));
  }
}
