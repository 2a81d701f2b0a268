/**
 * Scrubbing: everything that a store holds is read again while the volume is in use, and every checksum tested, so that rot
 * is found while there may still be another copy of what it took.
 *
 * Copies are read by tasks of the background pool, behind everything else there, a few at a time and at a pace. A scrub is no
 * call on the volume that a close would wait for: the close ends it.
 *
 * Shared state: the scrubs under way; changes between awaits only.
 */
import { checkWhole } from '../arguments.js';
import type { BlockDevice } from '../device/block-device.js';
import { ClosedError, OfflineError } from '../errors.js';
import type { Emit } from '../snapshot/events.js';
import type { Problem } from '../snapshot/problem.js';
import type { ByteLength } from '../units.js';
import { scrubCopies } from './copies.js';
import { Pace } from './pace.js';
import { repairCopy } from './repair.js';
import { checkStored, type StoredParts } from './stored.js';

export interface ScrubOptions {
  /** Bytes that it reads in a second, at most; default 0: no limit. */
  readonly bytesPerSecond?: ByteLength | undefined;
  /** Put right what can be put right safely: copies whose bytes are found elsewhere, the control file. */
  readonly repair?: boolean | undefined;
  /** Ends it. */
  readonly signal?: AbortSignal | undefined;
  /** Copies tested and copies in all, in bytes. */
  readonly onProgress?: ((done: ByteLength, total: ByteLength) => void) | undefined;
}

export interface ScrubReport {
  /** What is wrong, with what was put right. */
  readonly problems: readonly Problem[];
  /** Read of copies and of what finds them. */
  readonly readBytes: ByteLength;
}

/** A scrub under way. */
export interface ScrubStatus {
  /** Copies tested so far, and copies in all, in bytes. */
  readonly doneBytes: ByteLength;
  readonly totalBytes: ByteLength;
  readonly problems: number;
  /** 0: no limit. */
  readonly bytesPerSecond: ByteLength;
}

export interface ScrubContext extends StoredParts {
  /** The volume below everything that changes it. */
  readonly device: BlockDevice;
}

/** Behind merges, which give space back. */
const PRIORITY = -2;

interface Running {
  status: ScrubStatus;
  /** Settles when it is over, and never rejects. */
  ended: Promise<unknown> | undefined;
}

export class Scrubs {
  readonly context: ScrubContext;
  readonly #emit: Emit;
  readonly #stopped = new AbortController();
  readonly #running = new Set<Running>();

  constructor(context: ScrubContext, emit: Emit) {
    this.context = context;
    this.#emit = emit;
  }

  /** Of the one that began first of those under way. */
  get status(): ScrubStatus | undefined {
    const [first] = this.#running;
    return first?.status;
  }

  /**
   * Tests every checksum of the store, and tells of it by events.
   * @throws InvalidArgumentError, OfflineError while diff areas are late, ClosedError if the volume is closed before it ends, DeviceError, the signal's reason
   */
  async run(options: ScrubOptions = {}): Promise<ScrubReport> {
    const { bytesPerSecond = 0, signal } = options;
    checkWhole('bytes a second', bytesPerSecond);
    signal?.throwIfAborted();
    this.#stopped.signal.throwIfAborted();
    if (this.context.chain.isLate)
      throw new OfflineError('diff areas of the store have not arrived, so it cannot be scrubbed yet');
    const status = { doneBytes: 0, totalBytes: 0, problems: 0, bytesPerSecond };
    const running: Running = { status, ended: undefined };
    this.#running.add(running);
    const work = this.#run(running, options).finally(() => this.#running.delete(running));
    running.ended = work.catch(() => undefined);
    try {
      const report = await work;
      this.#tellEnd(running, 'finished');
      return report;
    } catch (error) {
      this.#tellEnd(running, 'stopped');
      throw error;
    }
  }

  async #run(running: Running, options: ScrubOptions): Promise<ScrubReport> {
    const { repair = false, onProgress } = options;
    const { clock, chain, device, pools } = this.context;
    const pace = new Pace(clock, running.status.bytesPerSecond);
    const { signal: stopped } = this.#stopped;
    // Only where it must be: Node keeps a signal made of several, and all that listens to it, until it is aborted.
    const signal = options.signal === undefined ? stopped : AbortSignal.any([stopped, options.signal]);
    const onProblem = (problem: Problem) => {
      const { status } = running;
      running.status = { ...status, problems: status.problems + 1 };
      this.#emit('problemFound', { problem });
    };
    const copies = await scrubCopies([...chain.records], {
      pace,
      signal,
      onProblem,
      onProgress: (done, total) => {
        this.#tellProgress(running, done, total);
        onProgress?.(done, total);
      },
      step: async (action) => {
        const result = await pools.background.add(async () => ({ value: await action() }), {
          priority: PRIORITY,
        });
        return result.value;
      },
      repair: repair ? (bad) => repairCopy(device, chain.records, bad) : undefined,
    });
    const stored = await checkStored(this.context, { pace, signal, repair, onProblem, badCopies: copies });
    return { problems: [...copies, ...stored], readBytes: pace.bytes };
  }

  /** An event for each percent. */
  #tellProgress(running: Running, doneBytes: ByteLength, totalBytes: ByteLength): void {
    const before = percentOf(running.status);
    running.status = { ...running.status, doneBytes, totalBytes };
    if (percentOf(running.status) !== before) this.#emit('scrubProgress', { doneBytes, totalBytes });
  }

  #tellEnd({ status: { problems, doneBytes } }: Running, outcome: 'finished' | 'stopped'): void {
    this.#emit('scrubbed', { outcome, problems, doneBytes });
  }

  /** Ends all of them; none begins any more. */
  async stop(): Promise<void> {
    this.#stopped.abort(new ClosedError('the volume was closed before the scrub had ended'));
    await Promise.all([...this.#running].map(({ ended }) => ended));
  }
}

const percentOf = ({ doneBytes, totalBytes }: ScrubStatus): number =>
  Math.floor((doneBytes / Math.max(1, totalBytes)) * 100);
