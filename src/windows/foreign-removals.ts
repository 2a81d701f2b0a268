/**
 * How shadow copies of Windows go, and what of the volume must not be written because of those that are left.
 *
 * They go oldest first, each durably before the next: an older one reads through the newer, so none may outlive the copies that it needs.
 *
 * Shared state: which are left; it changes between awaits, and only under the mutex.
 */
import { Mutex } from 'async-mutex';
import { UnsupportedError } from '../errors.js';
import { BlockRanges } from './block-ranges.js';
import type { ForeignSnapshot } from './foreign-snapshot.js';
import { StoreGuard } from './store-guard.js';
import type { StoreMap, StoreOfSnapshot } from './store-map.js';

/** Is told of each shadow copy that goes. */
export interface RemovalListener<Reason> {
  removing(snapshot: ForeignSnapshot, reason: Reason, cause: unknown): void;
  /** Durably; from here on it may read wrong. */
  removed(snapshot: ForeignSnapshot, reason: Reason, cause: unknown): void;
}

export interface RemovalParts<Reason> {
  readonly map: StoreMap;
  readonly listener: RemovalListener<Reason>;
  /** Takes it out of the catalog, durably. */
  free(store: StoreOfSnapshot): Promise<void>;
  /** There are none any more; until it resolves the place of the last one is not to be written. */
  emptied?(): Promise<void>;
}

export class ForeignRemovals<Reason> {
  readonly guard: StoreGuard;
  readonly #parts: RemovalParts<Reason>;
  readonly #removing = new Mutex();
  /** Oldest first. */
  #left: readonly StoreOfSnapshot[];

  constructor(parts: RemovalParts<Reason>) {
    this.#parts = parts;
    this.#left = parts.map.stores;
    this.guard = new StoreGuard(this.#ownRanges(), new BlockRanges(parts.map.others));
  }

  /** How many there are still. */
  get left(): number {
    return this.#left.length;
  }

  /** Removes the `count` oldest, one after the other; fewer if there are not so many. @throws DeviceError; then the rest is there still */
  async removeOldest(count: number, reason: Reason, cause?: unknown): Promise<void> {
    await this.#removing.runExclusive(() => this.#remove(count, reason, cause));
  }

  /** @throws UnsupportedError if it is not the oldest; DeviceError */
  async remove(snapshot: ForeignSnapshot, reason: Reason): Promise<void> {
    await this.#removing.runExclusive(async () => {
      const index = this.#left.findIndex((each) => each.snapshot === snapshot);
      if (index > 0)
        throw new UnsupportedError(
          `shadow copy ${snapshot.snapshotId ?? snapshot.storeId} is not the oldest; of the shadow copies of Windows only that can be deleted, because older ones read through the newer`,
        );
      if (index === 0) await this.#remove(1, reason, undefined);
    });
  }

  async #remove(count: number, reason: Reason, cause: unknown): Promise<void> {
    const { listener, free, emptied } = this.#parts;
    for (let left = count; left > 0; left--) {
      const [oldest, ...others] = this.#left;
      if (oldest === undefined) return;
      listener.removing(oldest.snapshot, reason, cause);
      await free(oldest);
      this.#left = others;
      listener.removed(oldest.snapshot, reason, cause);
      if (others.length === 0) await emptied?.();
      this.guard.own = this.#ownRanges();
    }
  }

  /** Where the shadow copies that are left lie, and what leads to them. */
  #ownRanges(): BlockRanges | undefined {
    if (this.#left.length === 0) return undefined;
    return new BlockRanges([
      ...this.#parts.map.controlBlocks,
      ...this.#left.flatMap(({ layout }) => layout.ranges),
    ]);
  }
}
