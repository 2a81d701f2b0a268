/**
 * Merges deleted snapshots into their elder neighbours, one after the other, the oldest first: then the elder is never one
 * that is being deleted itself.
 *
 * Each group is a task of the background pool, behind everything else there. What cannot go on, for lack of room or because a
 * device fails, is tried again when there is a reason to: space that became free, another deletion, the next opening.
 *
 * Shared state: changes between awaits only. One task at a time is in the pool.
 */
import { ClosedError, isOutOfSpace, NoSpaceError } from '../errors.js';
import type { ByteLength } from '../units.js';
import type { Emit } from './events.js';
import { Merge, type MergeContext } from './merge.js';
import type { SnapshotRecord } from './record.js';

type OnMergeProgress = (done: ByteLength, total: ByteLength) => void;

export interface SettledOptions {
  /** Ends the waiting, not the merge. */
  readonly signal?: AbortSignal | undefined;
  /** Called with bytes of copies gone through, and in all, of the deleted snapshot that is being merged. */
  readonly onProgress?: OnMergeProgress | undefined;
}

interface Waiter {
  /** `undefined`: for all that are being deleted. */
  readonly record: SnapshotRecord | undefined;
  readonly onProgress: OnMergeProgress | undefined;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** Behind growth, and space that is given back. */
const PRIORITY = -1;
/** Failures in a row after which one waits for a reason to try again. */
const FAILURES_MAX = 2;

export class Merging {
  readonly #context: MergeContext;
  readonly #emit: Emit;
  readonly #waiters = new Set<Waiter>();
  #merge: Merge | undefined;
  #isQueued = false;
  #isStopped = false;
  #failures = 0;
  /** What has been merged since the volume was opened. */
  readonly figures = { mergedSnapshots: 0, mergedBlocks: 0, mergedBytes: 0 };

  constructor(context: MergeContext, emit: Emit) {
    this.#context = context;
    this.#emit = emit;
  }

  /** There may be something to merge, or room to go on with it. */
  wake(): void {
    this.#failures = 0;
    this.#queue();
  }

  /** Is one under way that neither lacks room nor has failed? */
  get isAtWork(): boolean {
    return this.#isQueued && !this.#isStopped && this.#context.chain.nextToMerge !== undefined;
  }

  #queue(): void {
    if (this.#isQueued || this.#isStopped) return;
    this.#isQueued = true;
    void this.#context.pools.background.add(() => this.#run(), { priority: PRIORITY });
  }

  /** Task of the background pool. Never rejects. */
  async #run(): Promise<void> {
    const next = this.#context.chain.nextToMerge;
    try {
      if (next !== undefined && !this.#isStopped) await this.#step(next.deleted, next.elder);
      this.#failures = 0;
      this.#isQueued = false;
      this.#tell();
      if (next !== undefined) this.#queue();
    } catch (error) {
      if (isOutOfSpace(error)) await this.#giveBackEnds();
      this.#isQueued = false;
      this.#failed(next?.deleted, error);
    }
  }

  /** Those of all deleted snapshots: no copies come to them any more, also where their turn has not come. Never rejects. */
  async #giveBackEnds(): Promise<void> {
    const { chain, copyOnWrite, space } = this.#context;
    for (const record of [...chain.records]) {
      const { area } = record;
      if (record.deleted === undefined || area === undefined) continue;
      await copyOnWrite.drained(area);
      try {
        await space.ends.giveBack(record, area);
      } catch (error) {
        this.#emit('backgroundFailure', {
          id: record.id,
          what: 'giving back the unused end of its diff area',
          error,
        });
      }
    }
  }

  async #step(deleted: SnapshotRecord, elder: SnapshotRecord | undefined): Promise<void> {
    const { chain, copyOnWrite } = this.#context;
    if (elder === undefined) return chain.removeUnneeded(copyOnWrite);
    if (this.#merge?.isOf(deleted, elder) !== true)
      this.#merge = await Merge.begin(this.#context, deleted, elder);
    const merge = this.#merge;
    if (merge === undefined || !(await merge.step())) return;
    this.#merge = undefined;
    if (chain.records.includes(deleted)) return;
    this.figures.mergedSnapshots++;
    this.figures.mergedBlocks += merge.blocks;
    this.figures.mergedBytes += merge.bytes;
    this.#emit('merged', { id: deleted.id, into: elder.id, blocks: merge.blocks, bytes: merge.bytes });
  }

  #failed(deleted: SnapshotRecord | undefined, error: unknown): void {
    this.#failures++;
    if (this.#failures < FAILURES_MAX) {
      this.#queue();
      return;
    }
    for (const waiter of this.#waiters) this.#end(waiter, asLackOfSpace(error));
    // Who lacks room waits for it no more.
    this.#context.space.relieved();
    if (deleted !== undefined)
      this.#emit('backgroundFailure', { id: deleted.id, what: 'merging a deleted snapshot', error });
  }

  /** Tells those who wait how far it is. */
  #tell(): void {
    const { nextToMerge } = this.#context.chain;
    for (const waiter of this.#waiters) {
      const { record } = waiter;
      if (record === undefined ? nextToMerge === undefined : record.isGone) this.#end(waiter);
      else if (record === nextToMerge?.deleted && this.#merge !== undefined) {
        const { done, total } = this.#merge.progress;
        waiter.onProgress?.(done, total);
      }
    }
  }

  #end(waiter: Waiter, error?: unknown): void {
    this.#waiters.delete(waiter);
    if (error === undefined) waiter.resolve();
    else waiter.reject(error);
  }

  /**
   * Resolves when a deleted snapshot, or without one each, is merged and its space free.
   * @throws NoSpaceError, DeviceError, IntegrityError if that cannot go on for now (it is tried again when space became free,
   *   and at the next opening); ClosedError if the volume is closed before; the signal's reason
   */
  async done(record: SnapshotRecord | undefined, { signal, onProgress }: SettledOptions = {}): Promise<void> {
    signal?.throwIfAborted();
    if (this.#isStopped) throw closed();
    const { chain } = this.#context;
    if (record === undefined ? chain.nextToMerge !== undefined : !record.isGone) {
      let onAbort: (() => void) | undefined;
      try {
        await new Promise<void>((resolve, reject) => {
          const waiter: Waiter = { record, onProgress, resolve, reject };
          this.#waiters.add(waiter);
          onAbort = () => this.#end(waiter, signal?.reason);
          signal?.addEventListener('abort', onAbort, { once: true });
          this.wake();
        });
      } finally {
        if (onAbort !== undefined) signal?.removeEventListener('abort', onAbort);
      }
    }
    await chain.freed();
  }

  /** No further group is begun; the next opening goes on. */
  stop(): void {
    this.#isStopped = true;
    for (const waiter of this.#waiters) this.#end(waiter, closed());
  }
}

/** That a host is full is told in the same way as that a limit is reached: the merge goes on when there is room. */
function asLackOfSpace(error: unknown): unknown {
  if (!isOutOfSpace(error) || error instanceof NoSpaceError) return error;
  const why = error instanceof Error ? error.message : String(error);
  return new NoSpaceError(`a deleted snapshot is not merged yet: ${why}`, { cause: error });
}

const closed = (): ClosedError =>
  new ClosedError(
    'the volume was closed before a deleted snapshot was merged; the next opening goes on with it',
  );
