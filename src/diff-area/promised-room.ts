/**
 * Slots of a diff area that are spoken for: for the table blocks that entries to come may need, for marks of a revert, and for
 * copies of writes that are acknowledged already (`RoomAhead`).
 *
 * Shared state: all of it changes between awaits only.
 */
import { ENTRIES_PER_TABLE_BLOCK } from '../format/constants.js';
import type { BlockNumber, ByteLength } from '../units.js';
import type { AreaSlots } from './area-slots.js';
import { RoomAhead } from './room-ahead.js';

export class PromisedRoom {
  readonly #slots: AreaSlots;
  /** Entries whose slots are reserved but which are not in the table chain yet: they may need further table blocks. */
  #entries = 0;
  /** Marks of a revert for which there must be room in the table; `undefined`: none is under way. */
  #marks: number | undefined;
  /** Room for copies of writes that are acknowledged, but whose copies are not under way. */
  readonly ahead: RoomAhead;

  constructor(slots: AreaSlots) {
    this.#slots = slots;
    this.ahead = new RoomAhead(
      (blocks) => this.#lacking(0, 0, blocks) === 0,
      () => this.#speak(),
    );
  }

  get entries(): number {
    return this.#entries;
  }

  get marks(): number {
    return this.#marks ?? 0;
  }

  /**
   * Bytes that the file lacks to take `slots` more slots for `entries` more entries; 0: none.
   * @param blocks of which they are copies: room that was set aside for them counts as theirs
   */
  lacking(slots: number, entries: number, blocks: readonly BlockNumber[] = []): ByteLength {
    return this.#lacking(slots, entries, this.ahead.open - this.ahead.openAmong(blocks));
  }

  #lacking(slots: number, entries: number, ahead: number): ByteLength {
    return this.#slots.lacking(slots, this.#tableSlots(entries + ahead) + ahead);
  }

  /** Slots that the table may take for what is promised, and for `entries` more with their marks. */
  #tableSlots(entries: number): number {
    const marks = this.#marks === undefined ? 0 : this.#marks + entries;
    // And one to go on with.
    return Math.ceil((this.#entries + entries + marks) / ENTRIES_PER_TABLE_BLOCK) + 1;
  }

  #speak(): void {
    const { open } = this.ahead;
    this.#slots.spokenFor = this.#tableSlots(open) + open;
  }

  /** Slots are taken for the copies of these blocks, or, by a number below 0, given back. */
  promise(entries: number, blocks: readonly BlockNumber[]): void {
    if (entries >= 0) this.ahead.use(blocks);
    else this.ahead.unuse(blocks);
    this.#entries += entries;
    // A block that is copied while a revert is under way is one to put back if that is cancelled.
    if (this.#marks !== undefined) this.#marks += entries;
    this.#speak();
  }

  /** Promised entries are in the table chain. */
  appended(entries: number): void {
    this.#entries -= entries;
    this.#speak();
  }

  /** Keeps room in the table for `count` marks, and for one with each copy from now on; `undefined`: for none any more. */
  keepForMarks(count: number | undefined): void {
    this.#marks = count;
    this.#speak();
  }

  /** No copies come any more: unless some are on their way, the table needs nothing. */
  forgetTable(): void {
    if (this.#entries === 0) this.#slots.spokenFor = 0;
  }
}
