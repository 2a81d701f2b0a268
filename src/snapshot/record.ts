/** What the engine knows of one snapshot. */
import { Mutex } from 'async-mutex';
import type { DiffArea } from '../diff-area/diff-area.js';
import { SnapshotDeletedError, type VolsnapError } from '../errors.js';
import type { SnapshotItem } from '../format/control-block.js';
import type { Guid } from '../format/guid.js';

/** Why a snapshot is gone. */
export type DeletionReason =
  /** It was asked for. */
  | 'requested'
  /** The diff areas had no room left, and it was the oldest. */
  | 'space'
  /** The limit of the store was lowered below what was in use. */
  | 'limit-lowered'
  /** A copy that it needs could not be kept. */
  | 'copy-failed'
  /** The volume was changed while volsnap was not there. */
  | 'volume-changed'
  /** Its metadata is damaged. */
  | 'damaged';

/** Nothing may delete the snapshot, until a date or until it is released. */
export interface Hold {
  /** By the clock of the `Environment`, in milliseconds since 1970; `undefined`: no date. */
  readonly until: number | undefined;
}

/** The diff area, or why there is none that can be used. */
export type AreaOrDamage = { readonly area: DiffArea } | { readonly damage: VolsnapError };

export class SnapshotRecord {
  readonly item: SnapshotItem;
  readonly content: AreaOrDamage;
  /** Held by whatever changes the size of the diff area, and by its removal. */
  readonly resizing = new Mutex();
  /** Changed under the chain's mutex of deletions only. One that is past its date counts no more: see `isHeldAt`. */
  hold: Hold | undefined;
  #deleted: DeletionReason | undefined;
  #readers = 0;
  #onUnread: (() => void) | undefined;

  constructor(item: SnapshotItem, content: AreaOrDamage) {
    this.item = item;
    this.content = content;
  }

  get id(): Guid {
    return this.item.storeId;
  }

  get area(): DiffArea | undefined {
    return 'area' in this.content ? this.content.area : undefined;
  }

  get damage(): VolsnapError | undefined {
    return 'damage' in this.content ? this.content.damage : undefined;
  }

  get deleted(): DeletionReason | undefined {
    return this.#deleted;
  }

  isHeldAt(now: number): boolean {
    return this.hold !== undefined && (this.hold.until === undefined || now < this.hold.until);
  }

  markDeleted(reason: DeletionReason): void {
    this.#deleted = reason;
  }

  /** @throws SnapshotDeletedError */
  checkExists(): void {
    if (this.#deleted !== undefined)
      throw new SnapshotDeletedError(`snapshot ${this.id} is gone (${this.#deleted})`);
  }

  /** Runs `read`, during which the diff area stays where it is. @throws SnapshotDeletedError if it is gone, before or after */
  async whileReading<T>(read: () => Promise<T>): Promise<T> {
    this.checkExists();
    this.#readers++;
    try {
      const result = await read();
      this.checkExists();
      return result;
    } finally {
      this.#readers--;
      if (this.#readers === 0) this.#onUnread?.();
    }
  }

  /** Resolves when nobody reads any more; new readers are refused once the record is marked deleted. */
  async unread(): Promise<void> {
    if (this.#readers === 0) return;
    await new Promise<void>((resolve) => {
      this.#onUnread = resolve;
    });
  }
}
