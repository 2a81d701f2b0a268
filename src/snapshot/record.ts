/** What the engine knows of one snapshot. */
import { Mutex } from 'async-mutex';
import type { DiffArea } from '../diff-area/diff-area.js';
import { SnapshotDeletedError, type VolsnapError } from '../errors.js';
import { SnapshotFlag, type SnapshotItem } from '../format/control-block.js';
import type { Guid } from '../format/guid.js';
import { Readers } from './readers.js';

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
  /** The store lies inside the volume, whose user wrote there, and the policy is to give way. */
  | 'store-overwritten'
  /** The volume was changed while volsnap was not there. */
  | 'volume-changed'
  /** Its metadata is damaged. */
  | 'damaged'
  /** It was not to outlast the process that took it. */
  | 'not-persistent'
  /** Whoever took it has gone. */
  | 'released'
  /** The set that it belongs to was never completed. */
  | 'set-aborted'
  /** Its diff area, or that of a newer one, did not arrive in time, or not before the memory for its copies was full. */
  | 'late';

/** Nothing may delete the snapshot, until a date or until it is released. */
export interface Hold {
  /** By the clock of the `Environment`, in milliseconds since 1970; `undefined`: no date. */
  readonly until: number | undefined;
}

/** The diff area, or why there is none that can be used. */
export type AreaOrDamage = { readonly area: DiffArea } | { readonly damage: VolsnapError };

export class SnapshotRecord {
  #item: SnapshotItem;
  #content: AreaOrDamage;
  /** `SnapshotState`s, as in the control file. */
  state: number;
  /** Held by whatever changes the size of the diff area, and by its removal. */
  readonly resizing = new Mutex();
  /** Changed under the chain's mutex of deletions only. One that is past its date counts no more: see `isHeldAt`. */
  hold: Hold | undefined;
  /** Its creation has not returned yet, or failed with the snapshot left in doubt: nobody is shown it. */
  pending = false;
  /** Its diff area, or that of a newer one, has not arrived: nobody is shown it. */
  isLate = false;
  /** Its own has not arrived: `area` is in memory, of a fixed size. */
  hasStandIn = false;
  /** Why it is to go as soon as no revert needs it; nobody is shown it. */
  expired: DeletionReason | undefined;
  #deleted: DeletionReason | undefined;
  #isGone = false;
  readonly #readers = new Readers();
  readonly #writers = new Readers();

  constructor(item: SnapshotItem, content: AreaOrDamage, state = 0) {
    this.#item = item;
    this.state = state;
    this.#content = content;
  }

  /** What the control file says of it. */
  get item(): SnapshotItem {
    return this.#item;
  }

  /** May it be written itself? */
  get isWritable(): boolean {
    return (this.#item.flags & SnapshotFlag.writable) !== 0;
  }

  /** Its flags are others now, durably. */
  takeFlags(flags: number): void {
    this.#item = { ...this.#item, flags };
  }

  /** Is it there for users, unless it is being deleted? */
  get isShown(): boolean {
    return !this.pending && !this.isLate && this.expired === undefined;
  }

  get id(): Guid {
    return this.item.storeId;
  }

  get area(): DiffArea | undefined {
    return 'area' in this.#content ? this.#content.area : undefined;
  }

  /** Its diff area has arrived: `area` is the one on the device, and has the copies of the stand-in. */
  arrive(area: DiffArea): void {
    this.#content = { area };
    this.hasStandIn = false;
  }

  get damage(): VolsnapError | undefined {
    return 'damage' in this.#content ? this.#content.damage : undefined;
  }

  /** Why nobody may read it any more. Its diff area may be in use still, by older ones that read through it. */
  get deleted(): DeletionReason | undefined {
    return this.#deleted;
  }

  isHeldAt(now: number): boolean {
    return this.hold !== undefined && (this.hold.until === undefined || now < this.hold.until);
  }

  markDeleted(reason: DeletionReason): void {
    this.#deleted ??= reason;
  }

  /** Does nothing at all need its diff area any more? */
  get isGone(): boolean {
    return this.#isGone;
  }

  /** It is not in the control file any more. */
  markGone(reason: DeletionReason): void {
    this.markDeleted(reason);
    this.#isGone = true;
  }

  /** @throws SnapshotDeletedError */
  checkExists(): void {
    if (this.#deleted !== undefined)
      throw new SnapshotDeletedError(`snapshot ${this.id} is gone (${this.#deleted})`);
  }

  /** Runs `read`, during which the diff area stays where it is. @throws SnapshotDeletedError if it is gone, before or after */
  async whileReading<T>(read: () => Promise<T>): Promise<T> {
    this.checkExists();
    const result = await this.#readers.run(read);
    this.checkExists();
    return result;
  }

  /** Runs `write`, a write to the snapshot itself. */
  whileWriting(write: () => Promise<void>): Promise<void> {
    return this.#writers.run(write);
  }

  /** Resolves when every write to it that is under way now has ended. */
  async unwritten(): Promise<void> {
    await this.#writers.whenLeft();
  }

  /** Makes all entries durable that its diff area has, unless it is gone. A task of the commit pool. @throws DeviceError */
  async settle(): Promise<void> {
    await this.whileThere(() => this.resizing.runExclusive(async () => this.area?.settle()));
  }

  /**
   * Runs `action`, which waits for devices only, and during which the diff area stays where it is.
   * @returns `undefined` if it is gone already
   */
  async whileThere<T>(action: () => Promise<T>): Promise<T | undefined> {
    return this.#isGone ? undefined : this.#readers.run(action);
  }

  /** Resolves when everybody who reads now has ended. */
  async unread(): Promise<void> {
    await this.#readers.whenLeft();
  }
}
