/**
 * The slots of a diff-area file, used and free, and the length of the file.
 *
 * The file changes its length by writing a whole new location list beside the one in force; one sector write of the
 * control file then puts that in force (`RecordChange`). A slot is handed out only after that, so a crash never leaves
 * a copy outside the file. Some free slots are spoken for (by table blocks to come): nothing but `takeSpokenFor` uses them.
 *
 * Shared state: free slots change between awaits only; the length is changed by one caller at a time.
 */
import { NoSpaceError } from '../errors.js';
import { type Extent, Extents } from '../store/extents.js';
import { locationBlocksFor, writeLocationList } from '../store/location-list.js';
import { type Piece, Runs } from '../store/runs.js';
import type { AreaFile } from '../store/store.js';
import { BLOCK_SIZE, type ByteLength, type ByteOffset, offsetOfSlot, type Slot } from '../units.js';

/** Slots with a fixed use at the start of every diff-area file of ours. */
export const FixedSlot = {
  information: 0,
  table: 1,
  location: 2,
  otherLocation: 3,
  zeros: 4,
  count: 5,
} as const;

/** Changes the diff-area item of the control file, durably. */
export type RecordChange = (change: {
  readonly locationOffset: ByteOffset;
  readonly allocatedSize: ByteLength;
}) => Promise<void>;

export class AreaSlots {
  readonly #file: AreaFile;
  readonly #epoch: bigint;
  readonly #free: Extents;
  /** Slots of the location list in force, in chain order. */
  #listSlots: readonly Slot[];
  /** Set while it is not known whether `#listSlots` or a newer list is in force; `undo` takes the newer one back. */
  #doubt: { readonly undo: () => Promise<void> } | undefined;
  /** How many of the free slots are spoken for. */
  spokenFor = 1;

  constructor(file: AreaFile, epoch: bigint, free: Iterable<Extent>, listSlots: readonly Slot[]) {
    this.#file = file;
    this.#epoch = epoch;
    this.#free = new Extents(free);
    this.#listSlots = listSlots;
  }

  get freeBytes(): ByteLength {
    return this.#free.total * BLOCK_SIZE;
  }

  get length(): ByteLength {
    return this.#file.runs.size;
  }

  /** Slot of the first block of the location list in force. */
  get listSlot(): Slot {
    return this.#listSlots[0] ?? FixedSlot.location;
  }

  /** Bytes that the file lacks to take `count` slots while `spokenFor` are spoken for; a longer location list included. */
  lacking(count: number, spokenFor: number): ByteLength {
    const missing = count + spokenFor - this.#free.total;
    if (missing <= 0) return 0;
    return (missing + locationBlocksFor(this.#file.runs.list.length + missing) - 1) * BLOCK_SIZE;
  }

  /** Takes free slots, lowest first; `undefined` if that would leave fewer than are spoken for. */
  take(count: number): Slot[] | undefined {
    // Of a diff area that was cut to what it uses, more may be spoken for than is free.
    if (count === 0) return [];
    return count > this.#free.total - this.spokenFor ? undefined : this.takeSpokenFor(count);
  }

  /** The same, down to the last free slot: for what they are spoken for. */
  takeSpokenFor(count: number): Slot[] | undefined {
    const extents = this.#free.take(count);
    if (extents === undefined) return undefined;
    const slots: Slot[] = [];
    for (const { start, length } of extents) for (let i = 0; i < length; i++) slots.push(start + i);
    return slots;
  }

  putBack(slots: readonly Slot[]): void {
    for (const slot of slots) this.#free.add(slot, 1);
  }

  /**
   * Makes the file longer by `length` bytes.
   * @throws NoSpaceError, DeviceError; then nothing was added (and what was taken is free again when the next change succeeds, or with `remove`)
   */
  async grow(length: ByteLength, record: RecordChange): Promise<void> {
    await this.#settle(record);
    const pieces = await this.#file.take(length);
    const grown = new Runs(this.#file.runs.list);
    grown.append(pieces);
    const first = this.length / BLOCK_SIZE;
    const added = length / BLOCK_SIZE;
    // Further blocks of a longer list come out of what is new, then out of free slots.
    const forList = locationBlocksFor(grown.list.length) - 1;
    const fromNew = Math.min(forList, added);
    const fromFree = this.take(forList - fromNew);
    if (fromFree === undefined) {
      await this.#file.giveBack(pieces);
      throw new NoSpaceError(
        `${length} bytes more do not hold the location list of ${grown.list.length} runs`,
      );
    }
    const replaced = await this.#replaceList(
      grown,
      [...slotsOf({ start: first, length: fromNew }), ...fromFree],
      record,
      () => this.#undo(fromFree, pieces),
    );
    this.#file.runs.append(pieces);
    this.#free.add(first + fromNew, added - fromNew);
    this.putBack(replaced);
  }

  /**
   * Nothing from `slot` on is in use any more, apart from the location list.
   * @throws DeviceError while it is in doubt which list is in force; then nothing is freed, as some of it may come back
   */
  async freeFrom(slot: Slot, record: RecordChange): Promise<void> {
    await this.#settle(record);
    const list = new Set(this.#listSlots);
    for (let at = slot; at < this.length / BLOCK_SIZE; at++)
      if (!list.has(at) && !this.#free.has(at)) this.#free.add(at, 1);
  }

  /** Gives the free end of the file back, as far as it is not spoken for. */
  async trim(record: RecordChange): Promise<void> {
    await this.#settle(record);
    const last = [...this.#free].at(-1);
    if (last === undefined || last.start + last.length !== this.length / BLOCK_SIZE) return;
    const cut = Math.min(
      last.length,
      this.#free.total - this.spokenFor - (locationBlocksFor(this.#file.runs.list.length) - 1),
    );
    if (cut <= 0) return;
    const end = last.start + last.length - cut;
    this.#free.remove(end, cut);
    const shorter = new Runs(this.#file.runs.list);
    shorter.truncate(end * BLOCK_SIZE);
    const forList = this.take(locationBlocksFor(shorter.list.length) - 1) ?? [];
    const replaced = await this.#replaceList(shorter, forList, record, async () => {
      this.#free.add(end, cut);
      await this.#undo(forList, []);
    });
    this.putBack(replaced);
    await this.#file.giveBack(this.#file.runs.truncate(shorter.size));
  }

  /** Removes the file, which the control file does not name any more: so what a change in doubt took is free as well. @throws DeviceError */
  async remove(): Promise<void> {
    // The file goes even if it cannot be cut first.
    if (this.#doubt !== undefined) await this.#doubt.undo().catch(() => undefined);
    this.#doubt = undefined;
    await this.#file.remove();
  }

  async #undo(slots: readonly Slot[], pieces: readonly Piece[]): Promise<void> {
    this.putBack(slots);
    if (pieces.length > 0) await this.#file.giveBack(pieces);
  }

  /** After a failed attempt either list may be in force; one that succeeds to record the old one makes it that. */
  async #settle(record: RecordChange): Promise<void> {
    if (this.#doubt === undefined) return;
    await record({
      locationOffset: this.#file.runs.locate(offsetOfSlot(this.listSlot)),
      allocatedSize: this.length,
    });
    const { undo } = this.#doubt;
    this.#doubt = undefined;
    await undo();
  }

  /**
   * Writes `runs` as a new list beside the one in force, then puts it in force.
   * @param further slots for the list besides its first block, which has two places of its own
   * @param undo called if the list in force is the old one for certain
   * @returns slots of the list before, which are free once the file's runs are those of the new one
   */
  async #replaceList(
    runs: Runs,
    further: readonly Slot[],
    record: RecordChange,
    undo: () => Promise<void>,
  ): Promise<readonly Slot[]> {
    const inForce = this.#listSlots;
    const first = inForce[0] === FixedSlot.location ? FixedSlot.otherLocation : FixedSlot.location;
    const slots = [first, ...further];
    try {
      await writeLocationList(this.#file.device, this.#epoch, runs, slots.map(offsetOfSlot));
      await this.#file.device.flush();
    } catch (error) {
      await undo();
      throw error;
    }
    try {
      await record({ locationOffset: runs.locate(offsetOfSlot(first)), allocatedSize: runs.size });
    } catch (error) {
      // Until that is settled neither list is written again, nor what only one of them names used.
      this.#doubt = { undo };
      await this.#settle(record).catch(() => undefined); // the error to tell is the first
      throw error;
    }
    this.#listSlots = slots;
    return inForce.slice(1);
  }
}

const slotsOf = ({ start, length }: Extent): Slot[] => Array.from({ length }, (_, i) => start + i);
