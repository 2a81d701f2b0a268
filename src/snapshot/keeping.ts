/**
 * Which snapshots must stay: those that are held, and those that a revert needs.
 *
 * Shared state: from which one on a revert needs them; changed between awaits only, and looked at under the mutex of deletions.
 */
import type { Clock } from '../environment.js';
import { HeldError, RevertInProgressError } from '../errors.js';
import type { SnapshotRecord } from './record.js';

export class Keeping {
  readonly #clock: Clock;
  readonly #records: readonly SnapshotRecord[];
  /** The oldest that a revert needs: it, and all newer ones. */
  from: SnapshotRecord | undefined;

  /** @param records oldest first; the list that changes */
  constructor(clock: Clock, records: readonly SnapshotRecord[]) {
    this.#clock = clock;
    this.#records = records;
  }

  isHeld(record: SnapshotRecord): boolean {
    return record.isHeldAt(this.#clock.now());
  }

  /** May it be given up? */
  mayGo(record: SnapshotRecord): boolean {
    return !this.isHeld(record) && !this.isNeeded(record);
  }

  /** Does a revert need it? */
  isNeeded(record: SnapshotRecord): boolean {
    return this.from !== undefined && this.#records.indexOf(record) >= this.#records.indexOf(this.from);
  }

  /** May all of these be deleted? @throws HeldError, RevertInProgressError */
  check(records: readonly SnapshotRecord[]): void {
    for (const record of records) {
      if (this.isNeeded(record)) {
        throw new RevertInProgressError(
          `the volume is being put back to snapshot ${this.from?.id}, which needs it and all newer ones; wait for that, or cancel it: nothing was deleted`,
        );
      }
      if (!this.isHeld(record)) continue;
      const until = record.hold?.until;
      throw new HeldError(
        `snapshot ${record.id} is held${until === undefined ? '' : ` until ${new Date(until).toISOString()}`}; release it first with: volsnap release VOLUME ${record.id}`,
      );
    }
  }
}
