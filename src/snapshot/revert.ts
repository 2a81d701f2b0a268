/**
 * Putting the volume back to a snapshot T.
 *
 *     begin    T and all newer snapshots can no longer go. With writes held: a snapshot U of the volume as it is, then one
 *              sector write that flags T as the target. From here on users see T, and what they write on top (`PutBack`).
 *     work     in the background, run after run: through the gate and the filter, which keeps in U what is overwritten
 *     cancel   with writes held: a mark in the table of U. From here on users see U again, and what was copied to U is put back.
 *     finish   one sector write takes the flag away
 *
 * What is on the devices says it all: T flagged, a revert is under way; U is the newest snapshot, because none is taken
 * meanwhile; blocks marked done in U's table are not put back again; a mark there says that it was cancelled.
 *
 * Shared state: the revert under way. It begins and is cancelled under `taking`, as snapshots are taken; one worker
 * finishes it, and is stopped before anything else changes it.
 */
import { Mutex } from 'async-mutex';
import type { Lifetime } from '../device/lifetime.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { ClosedError, NotFoundError, RevertInProgressError, SnapshotDeletedError } from '../errors.js';
import { SnapshotFlag, SnapshotState } from '../format/control-block.js';
import type { Guid } from '../format/guid.js';
import { CANCELLED } from '../format/revert-mark.js';
import type { CreateContext } from './create.js';
import { DoneMarks } from './done-marks.js';
import { withoutDoubt } from './doubt.js';
import { flushOverlays } from './flush-overlays.js';
import { DEFAULT_HOLD_TIMEOUT_MS, whileHeld } from './hold.js';
import type { LiveDevice } from './live-device.js';
import type { Merging } from './merging.js';
import { PendingBlocks } from './pending-blocks.js';
import { PutBack } from './put-back.js';
import type { SnapshotRecord } from './record.js';
import { Outcome, type RevertOperation, type RevertOptions, type RevertStatus } from './revert-operation.js';
import { dropUnwanted } from './revert-previous.js';
import {
  checkTarget,
  type FoundRevert,
  findRevert,
  marksFor,
  pendingBetween,
  type RevertUnderWay,
  statusOf,
} from './revert-state.js';
import { createSnapshot } from './set.js';

export interface RevertContext extends CreateContext {
  readonly live: LiveDevice;
  readonly merging: Merging;
  readonly life: Lifetime;
}

/** Blocks that are put back in one go: 4 MiB. */
const RUN_BLOCKS = 256;

export class Reverts {
  readonly #context: RevertContext;
  #underWay: RevertUnderWay | undefined;
  /** Held while a snapshot is taken, and while a revert begins or is cancelled. */
  readonly taking = new Mutex();

  constructor(context: RevertContext) {
    this.#context = context;
  }

  get status(): RevertStatus | undefined {
    return this.#underWay && statusOf(this.#underWay);
  }

  /** The one under way, for those who have not begun it. */
  get current(): RevertOperation | undefined {
    const underWay = this.#underWay;
    if (underWay === undefined) return undefined;
    return {
      begun: Promise.resolve(),
      completed: underWay.completed.promise,
      cancel: () => this.#cancel(underWay),
    };
  }

  /** Finds a revert that was under way, without going on with it: until `resume` nothing is written. */
  restore(): void {
    const { chain, store, live, device: volume } = this.#context;
    const found = findRevert(chain, store.control.entries);
    if (found === undefined) return;
    const { target, area, pending, total } = found;
    chain.keeping.from = target;
    if (area === undefined) {
      // The volume is open for reading only, and nothing of it can be read.
      const nothing = { overlays: undefined, marks: undefined };
      live.putBack = new PutBack({ volume, chain, source: target, pending, total, ...nothing });
      return;
    }
    area.keepRoomForMarks(marksFor(pending, area));
    this.#set({ ...found, area });
  }

  #set({ target, previous, area, phase, pending, total }: FoundRevert & { area: DiffArea }): void {
    const { device: volume, pools, live, chain } = this.#context;
    const marks = new DoneMarks(volume, area, pools);
    const source =
      phase === 'reverting'
        ? { source: target, overlays: target.area?.overlays }
        : { source: previous, overlays: undefined };
    const putBack = new PutBack({ volume, chain, ...source, pending, total, marks });
    live.putBack = putBack;
    if (this.#underWay !== undefined) {
      Object.assign(this.#underWay, { putBack, phase });
      return;
    }
    this.#underWay = {
      target,
      previous,
      area,
      putBack,
      phase,
      worker: undefined,
      isStopping: false,
      isEndInDoubt: false,
      problem: undefined,
      completed: new Outcome(),
      listeners: new Set(),
    };
  }

  /** Begins a revert; one to the same snapshot that is under way is the one that is meant. */
  start(targetId: Guid, options: RevertOptions): RevertOperation {
    const { signal } = options;
    const { chain } = this.#context;
    const begun = this.#context.life.run(() => {
      signal?.throwIfAborted();
      const target = chain.find(targetId);
      if (target === undefined)
        throw new SnapshotDeletedError(`snapshot ${targetId} is not one of this volume, or gone`);
      return this.taking.runExclusive(() => this.#begin(target, options));
    });
    const cancel = () => begun.then((underWay) => this.#cancel(underWay));
    const onAbort = () => void cancel().catch(() => undefined);
    signal?.addEventListener('abort', onAbort, { once: true });
    const completed = begun
      .then(({ completed: outcome }) => outcome.promise)
      .finally(() => signal?.removeEventListener('abort', onAbort));
    // Who is not interested need not say so.
    completed.catch(() => undefined);
    return { begun: begun.then(() => undefined), completed, cancel };
  }

  async #begin(target: SnapshotRecord, options: RevertOptions): Promise<RevertUnderWay> {
    const { chain, device } = this.#context;
    const { onProgress } = options;
    chain.indexOf(target);
    if (this.#underWay !== undefined) {
      if (this.#underWay.target !== target || this.#underWay.phase === 'cancelling') {
        throw new RevertInProgressError(
          `the volume is being put back to ${this.#underWay.putBack.source.id} already; wait for that, or cancel it`,
        );
      }
      this.resume();
    } else {
      checkTarget(target, device.size);
      await chain.keep(target);
      try {
        // From here on nobody writes to it: what was written to it is part of what the volume goes back to.
        await target.unwritten();
        await flushOverlays(this.#context.pools, target);
        await this.#takePrevious(target, options);
      } catch (error) {
        if (this.#underWay === undefined) chain.keeping.from = undefined;
        throw error;
      }
      this.#work();
    }
    const underWay = this.#checked();
    if (onProgress !== undefined) underWay.listeners.add(onProgress);
    return underWay;
  }

  async #takePrevious(target: SnapshotRecord, options: RevertOptions): Promise<void> {
    const { keepPrevious = true, holdTimeoutMs } = options;
    const { chain } = this.#context;
    const latest = chain.latest.flatMap(({ area }) => area ?? []);
    const pending = pendingBetween(chain, target, undefined);
    const name = target.area?.information.label;
    const label = options.label ?? `before the revert to ${name === undefined ? target.id : `“${name}”`}`;
    await createSnapshot(
      this.#context,
      { label, ...(holdTimeoutMs === undefined ? {} : { holdTimeoutMs }) },
      {
        state: SnapshotState.beforeRevert | (keepPrevious ? 0 : SnapshotState.dropAfterRevert),
        prepare: async (area) => {
          // What was copied since it was looked at first.
          for (const newer of latest) pending.addArea(newer);
          const marks = marksFor(pending, area);
          // First: what is acknowledged meanwhile must not take that room.
          area.keepRoomForMarks(marks);
          const growth = area.growthNeeded(0, 0);
          // Nothing in the control file names it yet.
          if (growth > 0) await area.grow(growth, async () => undefined);
        },
        begin: async (previous) => {
          const { area } = previous;
          if (area === undefined) throw new NotFoundError(`snapshot ${previous.id} has no diff area`);
          try {
            await this.#flag(target, true);
          } catch (error) {
            area.keepRoomForMarks(undefined);
            await withoutDoubt(this.#context, () => this.#flag(target, false), error);
            if (this.#context.gate.failure === undefined) await dropUnwanted(this.#context, previous);
            throw error;
          }
          this.#set({ target, previous, area, phase: 'reverting', pending, total: pending.count });
        },
      },
    );
  }

  async #flag(record: SnapshotRecord, isOn: boolean): Promise<void> {
    const { revertTarget } = SnapshotFlag;
    const change = isOn ? { set: revertTarget } : { clear: revertTarget };
    record.takeFlags(await this.#context.store.control.setFlags(record.id, change));
  }

  /** @throws NotFoundError if no revert is under way */
  #checked(meant = this.#underWay): RevertUnderWay {
    if (this.#underWay === undefined || this.#underWay !== meant)
      throw new NotFoundError('no revert is under way');
    return this.#underWay;
  }

  /** As `RevertOperation.cancel`, of the one under way if it is the one that is meant. */
  async #cancel(meant: RevertUnderWay): Promise<void> {
    const { life, gate } = this.#context;
    await life.run(() =>
      this.taking.runExclusive(async () => {
        const underWay = this.#checked(meant);
        if (underWay.phase === 'cancelling') return;
        await this.#halt();
        this.#checked(meant); // It may have been finished.
        try {
          await whileHeld(this.#context, DEFAULT_HOLD_TIMEOUT_MS, () => this.#turnBack(underWay));
        } finally {
          if (gate.failure === undefined) this.#work();
        }
      }),
    );
  }

  /** With writes held and no worker. */
  async #turnBack(underWay: RevertUnderWay): Promise<void> {
    const { target, previous, area } = underWay;
    // An end that failed may be durable all the same: then the next opening would find no revert, and so none that was cancelled.
    if (underWay.isEndInDoubt) await this.#flag(target, true);
    underWay.isEndInDoubt = false;
    const pending = new PendingBlocks();
    await this.#context.pools.commit.add(async () => {
      if (!area.uncommitted.isEmpty) await area.settle();
      pending.addArea(area);
      area.appendMarks([CANCELLED]);
      // The watermark covers the mark before anything follows it: so what follows is known by its place.
      const write = async () => {
        await area.writeEntries();
        await area.flush();
        await area.writeWatermark();
        await area.flush();
      };
      try {
        await write();
      } catch (error) {
        // It may be there, or get there with the next entries.
        await withoutDoubt(this.#context, write, error);
        if (this.#context.gate.failure !== undefined) throw error;
      }
    });
    area.keepRoomForMarks(marksFor(pending, area));
    this.#set({ target, previous, area, phase: 'cancelling', pending, total: pending.count });
  }

  /** After opening for writing: goes on with the revert that was found, or ends what one left that a crash cut off at its end. */
  async goOn(): Promise<void> {
    if (this.#underWay !== undefined) return this.resume();
    for (const record of [...this.#context.chain.records]) await dropUnwanted(this.#context, record);
  }

  /** Goes on with a revert that rests. */
  resume(): void {
    const underWay = this.#underWay;
    if (underWay !== undefined && underWay.worker === undefined && !underWay.isStopping) this.#work();
  }

  #work(): void {
    const underWay = this.#checked();
    underWay.isStopping = false;
    underWay.problem = undefined;
    if (underWay.completed.isSettled) underWay.completed = new Outcome();
    underWay.worker = this.#putAllBack(underWay);
  }

  /** Never rejects. */
  async #putAllBack(underWay: RevertUnderWay): Promise<void> {
    for (let failures = 0; !underWay.isStopping; ) {
      try {
        if (underWay.putBack.pending.count === 0) return await this.#finish(underWay);
        const count = await this.#context.pools.background.add(() => this.#putSomeBack(underWay.putBack));
        if (count === 0) await underWay.putBack.settled();
        failures = 0;
        this.#tell(underWay);
      } catch (error) {
        // One failure may be a passing one.
        if (++failures > 1) return this.#rest(underWay, error);
      }
    }
  }

  /** Task of the background pool. */
  async #putSomeBack(putBack: PutBack): Promise<number> {
    const { gate, copyOnWrite } = this.#context;
    const entered = gate.enter();
    const shift = typeof entered === 'number' ? entered : await entered;
    try {
      return await putBack.putBackSome(RUN_BLOCKS, (offset, length) => copyOnWrite.protect(offset, length));
    } finally {
      gate.leave(shift);
    }
  }

  #tell({ target, listeners }: RevertUnderWay): void {
    const { doneBytes = 0, totalBytes = 0 } = this.status ?? {};
    this.#context.emit('revertProgress', { id: target.id, doneBytes, totalBytes });
    for (const listener of listeners) listener(doneBytes, totalBytes);
  }

  async #finish(underWay: RevertUnderWay): Promise<void> {
    const { target, previous, area, phase, completed } = underWay;
    const { chain, live, emit } = this.#context;
    underWay.isEndInDoubt = true;
    await this.#flag(target, false);
    live.putBack = undefined;
    area.keepRoomForMarks(undefined);
    chain.keeping.from = undefined;
    // Before the revert counts as over: closing the volume waits for that.
    for (const record of [...chain.records]) await dropUnwanted(this.#context, record);
    this.#underWay = undefined;
    const outcome = phase === 'reverting' ? 'reverted' : 'cancelled';
    emit('reverted', { id: target.id, previousId: previous.id, outcome });
    completed.resolve(outcome);
  }

  #rest(underWay: RevertUnderWay, error: unknown): void {
    underWay.problem = error;
    underWay.worker = undefined;
    this.#context.emit('backgroundFailure', {
      id: underWay.target.id,
      what: 'putting the volume back',
      error,
    });
    underWay.completed.reject(error);
  }

  /** Ends the worker; what it has begun is done. */
  async #halt(): Promise<void> {
    if (this.#underWay === undefined) return;
    this.#underWay.isStopping = true;
    await this.#underWay.worker;
    if (this.#underWay !== undefined) this.#underWay.worker = undefined;
  }

  /** Before the volume is closed. */
  async stop(): Promise<void> {
    await this.#halt();
    this.#underWay?.completed.reject(
      new ClosedError(
        'the volume was closed while it was put back to a snapshot; that goes on when it is opened again',
      ),
    );
  }
}
