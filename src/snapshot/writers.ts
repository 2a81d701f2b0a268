/**
 * Applications that take part in a snapshot set, so that it holds their data in a state that they can use at once:
 *
 *     prepare → freeze → (the snapshots are taken) → thaw → postSnapshot
 *          └──────┴────────► abort, if there will be no set
 *
 * Each phase is entered by all of them at once, and each has a time limit of its own for each. One that throws or does
 * not answer in time fails the set before its commit, and harms nothing after it.
 */
import { withinLimit } from '../copy-on-write/write-gate.js';
import type { Clock } from '../environment.js';
import { HoldTimeoutError, WriterFailedError } from '../errors.js';
import type { Guid } from '../format/guid.js';

export interface WriterCall {
  readonly setId: Guid;
  /** Aborted when the time limit is over: nobody waits for the answer any more. */
  readonly signal: AbortSignal;
}

type Callback = (call: WriterCall) => void | Promise<void>;
export type WriterPhase = 'prepare' | 'freeze' | 'thaw' | 'postSnapshot' | 'abort';

/** Time limits in milliseconds. */
export type WriterLimits = Partial<Record<WriterPhase, number>>;

/** An application, or whoever speaks for it. What it does not need may be left out. */
export interface SnapshotWriter {
  /** What messages call it. */
  readonly name: string;
  /** Long work: get ready to be frozen. Default limit 60 s. */
  readonly prepare?: Callback;
  /** Bring the data on the volumes into order and change it no more until `thaw` or `abort`. Default limit 10 s. */
  readonly freeze?: Callback;
  /** Writes go on. Default limit 10 s. */
  readonly thaw?: Callback;
  /** The set is there. Default limit 60 s. */
  readonly postSnapshot?: Callback;
  /** There will be no set: go on as if nothing had been. Called if `prepare` was, even if that failed. Default limit 10 s. */
  readonly abort?: Callback;
  readonly limits?: WriterLimits;
}

/** What went wrong in a writer once the set was there, or after it was given up. */
export interface WriterFailure {
  readonly writer: string;
  readonly phase: WriterPhase;
  readonly error: unknown;
}

const DEFAULT_LIMITS: Readonly<Record<WriterPhase, number>> = {
  prepare: 60_000,
  freeze: 10_000,
  thaw: 10_000,
  postSnapshot: 60_000,
  abort: 10_000,
};

export class Writers {
  readonly #writers: readonly SnapshotWriter[];
  readonly #clock: Clock;
  readonly #setId: Guid;
  #isPrepared = false;

  constructor(writers: readonly SnapshotWriter[], clock: Clock, setId: Guid) {
    this.#writers = writers;
    this.#clock = clock;
    this.#setId = setId;
  }

  /** @throws WriterFailedError; `abort` must follow */
  async prepare(): Promise<void> {
    this.#isPrepared = true;
    await this.#must('prepare', Infinity);
  }

  /** @param limitMs for all of them, besides each one's own limit @throws WriterFailedError; `abort` must follow */
  async freeze(limitMs: number): Promise<void> {
    await this.#must('freeze', limitMs);
  }

  /** Tells all that were prepared; never rejects. */
  async abort(): Promise<readonly WriterFailure[]> {
    return this.#isPrepared ? this.#all('abort', Infinity) : [];
  }

  /** Never rejects. */
  async thaw(): Promise<readonly WriterFailure[]> {
    return this.#all('thaw', Infinity);
  }

  /** Never rejects. */
  async postSnapshot(): Promise<readonly WriterFailure[]> {
    return this.#all('postSnapshot', Infinity);
  }

  async #must(phase: WriterPhase, limitMs: number): Promise<void> {
    const [first] = await this.#all(phase, limitMs);
    if (first === undefined) return;
    const { writer, error } = first;
    const text = error instanceof Error ? error.message : String(error);
    const failure = new WriterFailedError(
      `${writer} failed in ${phase}, so no snapshot was taken: ${text}. Mend it, or leave it out`,
      { cause: error },
    );
    failure.writer = writer;
    failure.phase = phase;
    throw failure;
  }

  async #all(phase: WriterPhase, limitMs: number): Promise<readonly WriterFailure[]> {
    const failures = await Promise.all(
      this.#writers.map(async (writer): Promise<WriterFailure | undefined> => {
        try {
          await this.#call(writer, phase, limitMs);
          return undefined;
        } catch (error) {
          return { writer: writer.name, phase, error };
        }
      }),
    );
    return failures.flatMap((failure) => failure ?? []);
  }

  async #call(writer: SnapshotWriter, phase: WriterPhase, limitMs: number): Promise<void> {
    const callback = writer[phase];
    if (callback === undefined) return;
    const own = writer.limits?.[phase] ?? DEFAULT_LIMITS[phase];
    const controller = new AbortController();
    const limit = Math.min(own, limitMs);
    const call = { setId: this.#setId, signal: controller.signal };
    const answered = Promise.resolve().then(() => callback.call(writer, call));
    try {
      await withinLimit(this.#clock, limit, answered, `${writer.name} did not answer`);
    } catch (error) {
      if (!(error instanceof HoldTimeoutError)) throw error;
      const late = new WriterFailedError(`no answer within ${Math.round(limit)} ms`, { cause: error });
      controller.abort(late);
      throw late;
    }
  }
}
