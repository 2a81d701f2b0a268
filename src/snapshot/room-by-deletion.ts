/**
 * Snapshots that go for what no copy waits for: a new snapshot, a lower limit, a diff area that has arrived. Only the oldest, whose room is free at once:
 * nobody waits for a merge here.
 */
import { AREA_SIZE_MIN } from '../diff-area/create.js';
import { NoSpaceError } from '../errors.js';
import type { AttachedStore } from '../store/store.js';
import type { ByteLength } from '../units.js';
import type { AreaEnds } from './area-ends.js';
import type { SnapshotChain } from './chain.js';
import type { Overflow } from './overflow.js';
import type { SnapshotRecord } from './record.js';

export interface RoomParts {
  readonly store: AttachedStore;
  readonly chain: SnapshotChain;
  readonly overflow: Overflow;
  readonly ends: AreaEnds;
  /** Bytes that diff areas could take. */
  available(): ByteLength;
}

export class RoomByDeletion {
  readonly #store: AttachedStore;
  readonly #chain: SnapshotChain;
  readonly #overflow: Overflow;
  readonly #ends: AreaEnds;
  readonly #available: () => ByteLength;

  constructor({ store, chain, overflow, ends, available }: RoomParts) {
    this.#store = store;
    this.#chain = chain;
    this.#overflow = overflow;
    this.#ends = ends;
    this.#available = available;
  }

  /**
   * Makes room for a new diff area of at least the smallest size: what the newest one does not use goes first, then the
   * oldest snapshots, if the policy lets them go. It does not wait, whatever the policy.
   * @param extra bytes that it needs besides
   * @throws NoSpaceError if nothing is left to give up
   */
  async forArea(extra: ByteLength = 0): Promise<void> {
    const { newestVisible: newest } = this.#chain;
    const wanted = AREA_SIZE_MIN + extra;
    if (this.#available() < wanted && newest?.area !== undefined) await this.#ends.trim(newest, newest.area);
    while (this.#available() < wanted) {
      const before = this.#store.allocated();
      const gone = await this.#giveForArea();
      if (gone === undefined) {
        throw new NoSpaceError(
          `a snapshot needs at least ${wanted} bytes, ${this.#available()} can be had; raise the limit with: volsnap resize-store`,
        );
      }
      if (this.#store.allocated() >= before) {
        throw new NoSpaceError(
          `deleting snapshot ${gone.id} gave no space back in ${this.#store.name}; close the volume and open it again`,
        );
      }
    }
  }

  /** The host had no room for a new diff area: now it is worth another try. @throws NoSpaceError if no snapshot may go */
  async forHost(): Promise<void> {
    if ((await this.#giveForArea()) === undefined)
      throw new NoSpaceError(`the file system of ${this.#store.name} has no room for a snapshot`);
  }

  /**
   * There is no room in the diff area of `record`, which has arrived, for what was copied in memory: the oldest goes, if it is
   * another one and the policy lets it. @returns whether it is worth another try
   */
  async forArrival(record: SnapshotRecord): Promise<boolean> {
    return this.#overflow.victim !== record && (await this.#giveForArea()) !== undefined;
  }

  /** Gives the oldest snapshot up for a new one. @returns `undefined` if none may go */
  async #giveForArea(): Promise<SnapshotRecord | undefined> {
    const victim = this.#overflow.rules.policy === 'delete-oldest' ? this.#overflow.victim : undefined;
    if (victim === undefined || !(await this.#overflow.give(victim, 'space'))) return undefined;
    await this.#chain.freed();
    return victim;
  }

  /**
   * Gets the space allocated down to `maximum` bytes (0: no limit): what the newest diff area does not use goes first, then
   * the oldest snapshots, up to one that is held. Other policies than `delete-oldest` keep them all; then nothing grows.
   */
  async shrinkTo(maximum: ByteLength): Promise<void> {
    const isOver = () => maximum !== 0 && this.#store.allocated() > maximum;
    const { newestVisible: newest } = this.#chain;
    if (isOver() && newest?.area !== undefined) await this.#ends.trim(newest, newest.area);
    while (isOver() && this.#overflow.rules.policy === 'delete-oldest') {
      const before = this.#store.allocated();
      const victim = this.#overflow.victim;
      if (victim === undefined || !(await this.#overflow.give(victim, 'limit-lowered'))) break;
      await this.#chain.freed();
      if (this.#store.allocated() >= before) break; // that one's space comes back at the next opening
    }
  }
}
