/** What the workload has to know of a store inside the volume: which writes are refused there, and as if they had never been. */
import type { VolsnapError } from '../../src/index.js';
import { ModelMismatch } from '../../src/testing/index.js';
import { BLOCK_SIZE } from '../../src/units.js';
import { NO_ERROR, type Permitted } from './calls.js';
import type { RunCounters } from './counters.js';
import type { Range } from './plan.js';
import { firstRun, type InsidePlan, NEEDED_BLOCKS } from './plan-inside.js';

const REJECTED: Permitted = ['READ_ONLY'];
/** All snapshots would have to go: one that is held, or that a revert needs, does not. */
const KEPT: Permitted = ['HELD', 'REVERT_IN_PROGRESS'];

const meets = (a: Range, b: Range): boolean =>
  Math.min(a.offset + a.length, b.offset + b.length) > Math.max(a.offset, b.offset);

export class ProtectedWork {
  readonly #inside: InsidePlan | undefined;
  readonly #counters: RunCounters;

  constructor(inside: InsidePlan | undefined, counters: RunCounters) {
    this.#inside = inside;
    this.#counters = counters;
  }

  /** Writes in flight for which all snapshots may go. */
  #giving = 0;

  /** May snapshots go now because the store gives way? */
  get isGivingWay(): boolean {
    return this.#giving > 0;
  }

  /** Calls that a crash cut off never end. */
  reset(): void {
    this.#giving = 0;
  }

  /** Runs a write of the range. */
  async whileWriting<T>(range: Range, call: () => Promise<T>): Promise<T> {
    const gives = this.permitted(range) === KEPT ? 1 : 0;
    this.#giving += gives;
    const result = await call();
    this.#giving -= gives;
    return result;
  }

  /** How a write of the range may be refused. */
  permitted(range: Range): Permitted {
    const inside = this.#inside;
    if (inside === undefined || !inside.runs.some((run) => meets(run, range))) return NO_ERROR;
    return this.#mustFail(range) ? REJECTED : KEPT;
  }

  /** The same of a write to a snapshot itself. */
  permittedOfSnapshot(range: Range, zeros: boolean): Permitted {
    return !zeros && this.#inside?.runs.some((run) => meets(run, range)) ? REJECTED : NO_ERROR;
  }

  /** Was the write refused? Then it did nothing. @throws ModelMismatch if it should have been */
  isRefused(range: Range, error: VolsnapError | undefined): boolean {
    const isRefused = error !== undefined && this.permitted(range).includes(error.code);
    if (error === undefined && this.#mustFail(range))
      throw new ModelMismatch(`${range.length} bytes at ${range.offset} were written over the store`);
    if (isRefused) this.#counters.writesOverStore++;
    return isRefused;
  }

  /** Of a store that gives way only what it begins with stays for ever. */
  #mustFail(range: Range): boolean {
    const inside = this.#inside;
    if (inside === undefined) return false;
    const { offset } = firstRun(inside);
    if (meets({ offset, length: NEEDED_BLOCKS * BLOCK_SIZE }, range)) return true;
    return inside.policy === 'reject' && inside.runs.some((run) => meets(run, range));
  }
}
