/**
 * Waits for diff areas that were not there when the volume was opened; `snapshot/late-area.ts` says what happens meanwhile.
 *
 * It looks now and then. When all are there, writes are held, what the stand-ins have and the real ones lack is copied over and made
 * durable, the record that copies are in memory is taken back, and the real ones take their place. When the time is over first,
 * or something fails, the snapshots are given up: the newest late one and all older ones, which read through it.
 *
 * Shared state: `#looking`, one look at a time; everything else changes only in a look, or when none is under way.
 */
import { type LoadedArea, loadDiffArea } from '../diff-area/load.js';
import { DeviceError, HeldError, HoldTimeoutError, NotFoundError } from '../errors.js';
import { SnapshotState } from '../format/control-block.js';
import { moveCopies } from '../snapshot/arrival.js';
import { DEFAULT_HOLD_TIMEOUT_MS, whileHeld } from '../snapshot/hold.js';
import type { LateArea, LateOptions } from '../snapshot/late-area.js';
import type { OpenedArea } from '../store/store.js';
import type { Engine } from './engine.js';

/** How far it has come. */
interface Waiting extends LateArea {
  opened?: OpenedArea;
  loaded?: LoadedArea;
}

export class LateAreas {
  readonly #engine: Engine;
  #waiting: Waiting[];
  readonly #intervalMs: number;
  /** By the monotonic clock, in milliseconds. */
  readonly #deadline: number;
  #cancel: () => void = () => undefined;
  #looking: Promise<void> = Promise.resolve();
  #isStopped = false;

  /** @param late oldest first, at least one */
  constructor(engine: Engine, late: readonly LateArea[], { timeLimitMs, intervalMs }: Required<LateOptions>) {
    this.#engine = engine;
    this.#waiting = late.map((one) => ({ ...one }));
    this.#intervalMs = intervalMs;
    this.#deadline = engine.environment.clock.monotonic() + timeLimitMs;
    this.#lookLater();
  }

  #lookLater(): void {
    const { clock } = this.#engine.environment;
    const left = this.#deadline - clock.monotonic();
    this.#cancel = clock.after(left > 0 ? Math.min(left, this.#intervalMs) : this.#intervalMs, () => {
      this.#looking = this.#look();
    });
  }

  /** Never rejects. */
  async #look(): Promise<void> {
    const { clock } = this.#engine.environment;
    try {
      if (await this.#isThere()) await this.#arrive();
      else if (clock.monotonic() >= this.#deadline)
        await this.#giveUp(new NotFoundError('the diff area did not arrive in time'));
    } catch (error) {
      // The volume is too busy: that may pass.
      if (!(error instanceof HoldTimeoutError) || clock.monotonic() >= this.#deadline)
        await this.#giveUp(error).catch((failure: unknown) => this.#tell(failure));
    }
    if (this.#waiting.length > 0 && !this.#isStopped) this.#lookLater();
  }

  /** Are all there that are waited for still? What a device cannot read now it may read later. */
  async #isThere(): Promise<boolean> {
    const { store, environment } = this.#engine;
    await this.#forgetDeleted();
    for (const waiting of this.#waiting) {
      if (waiting.loaded !== undefined) continue;
      const { item, record } = waiting;
      try {
        waiting.opened ??= await store.openArea(item);
        const { volumeSize } = record.item;
        waiting.loaded = await loadDiffArea(waiting.opened, item, volumeSize, environment.clock);
      } catch (error) {
        if (error instanceof NotFoundError || error instanceof DeviceError) return false;
        throw error;
      }
    }
    return true;
  }

  async #arrive(): Promise<void> {
    const { reverts, chain, copyOnWrite, store, emit, merging } = this.#engine;
    for (const { loaded } of this.#waiting) await loaded?.repair();
    let copies = 0;
    // No snapshot is taken meanwhile: it would become the target of copies, and be held itself.
    await reverts.taking.runExclusive(() =>
      whileHeld(this.#engine, DEFAULT_HOLD_TIMEOUT_MS, async () => {
        for (const { record, standIn, loaded } of this.#waiting) {
          if (record.isGone || loaded === undefined) continue;
          copies += await moveCopies(standIn, loaded.area, (change) =>
            store.control.update(record.id, change),
          );
          await store.control.setState(record.id, { clear: SnapshotState.copiesInMemory });
        }
        await this.#forgetDeleted();
        for (const { record, loaded } of this.#waiting) if (loaded !== undefined) record.arrive(loaded.area);
        for (const record of chain.records) record.isLate = false;
        chain.retarget(copyOnWrite);
      }),
    );
    const arrived = this.#waiting;
    this.#waiting = [];
    for (const { standIn } of arrived) await standIn.close();
    emit('arrived', { ids: arrived.map(({ record }) => record.id), copies });
    merging.wake();
  }

  /** Some may have been deleted, by number or for lack of room. */
  async #forgetDeleted(): Promise<void> {
    const gone = this.#waiting.filter(({ record }) => record.isGone);
    this.#waiting = this.#waiting.filter(({ record }) => !record.isGone);
    // The next opening removes the files: nothing names them any more.
    for (const { opened } of gone) await opened?.file.close();
  }

  /**
   * Held ones stay, and are waited for still, until the memory is full: then writes fail.
   * @throws DeviceError if the control file cannot be changed; then they are waited for, too
   */
  async #giveUp(cause: unknown): Promise<void> {
    const { chain, copyOnWrite } = this.#engine;
    const newest = this.#waiting.at(-1)?.record;
    try {
      if (newest !== undefined && !newest.isGone)
        await chain.removeThrough(newest, copyOnWrite, 'late', cause);
    } catch (error) {
      await this.#loadAgain();
      if (error instanceof HeldError) return;
      throw error;
    }
    await this.#forgetDeleted();
    for (const record of chain.records) record.isLate = false;
  }

  /** After a failure what is in an arrived one is in doubt. */
  async #loadAgain(): Promise<void> {
    for (const waiting of this.#waiting) {
      const { opened } = waiting;
      delete waiting.opened;
      delete waiting.loaded;
      await opened?.file.close();
    }
  }

  #tell(error: unknown): void {
    const { emit, store } = this.#engine;
    emit('backgroundFailure', {
      id: store.name,
      what: 'giving up snapshots that wait for a diff area',
      error,
    });
  }

  /** Looks no more. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#cancel();
    await this.#looking;
  }

  /** At a close: copies that are in memory only will be lost, and the snapshots that need them go. @throws DeviceError */
  async giveUpCopies(): Promise<void> {
    const needed = this.#waiting.filter(({ record, standIn }) => !record.isGone && standIn.table.size > 0);
    if (needed.length > 0) await this.#giveUp(new NotFoundError('the volume was closed before it arrived'));
    for (const { opened } of this.#waiting) await opened?.file.close();
  }
}
