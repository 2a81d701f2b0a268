/**
 * Space of snapshots that are gone: it is free when nobody reads them, or reads through them, any more.
 *
 * Shared state: who is waited for; changes between awaits only.
 */
import type { Pools } from '../copy-on-write/pools.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import type { Emit } from './events.js';
import type { SnapshotRecord } from './record.js';

export class Freeing {
  readonly #pools: Pools;
  readonly #emit: Emit;
  readonly #onFreed: () => void;
  readonly #underWay = new Set<Promise<void>>();
  /** Gone, but their readers may not have ended. */
  readonly #unfreed = new Set<SnapshotRecord>();

  /** @param onFreed called when the space of one is free, or could not be given back */
  constructor(pools: Pools, emit: Emit, onFreed: () => void) {
    this.#pools = pools;
    this.#emit = emit;
    this.#onFreed = onFreed;
  }

  get unfreed(): readonly SnapshotRecord[] {
    return [...this.#unfreed];
  }

  /** Resolves when the space of all that was removed before is free. */
  async done(): Promise<void> {
    await Promise.all(this.#underWay);
  }

  /** In the background, after `before`. */
  later(
    record: SnapshotRecord,
    area: DiffArea,
    readers: readonly SnapshotRecord[],
    before: () => Promise<void>,
  ): void {
    this.#unfreed.add(record);
    const freeing = this.#pools.background
      .add(async () => {
        await before();
        await this.now(record, area, readers);
      })
      .then(() => {
        this.#underWay.delete(freeing);
      });
    this.#underWay.add(freeing);
  }

  /** Gives the space back. A failure leaves it to be found unused at the next opening. */
  async now(record: SnapshotRecord, area: DiffArea, readers: readonly SnapshotRecord[]): Promise<void> {
    this.#unfreed.add(record);
    await Promise.all(readers.map((reader) => reader.unread()));
    this.#unfreed.delete(record);
    try {
      await record.resizing.runExclusive(() => area.remove());
    } catch (error) {
      this.#emit('backgroundFailure', {
        id: record.id,
        what: 'giving the space of a deleted snapshot back',
        error,
      });
    }
    this.#onFreed();
  }
}
