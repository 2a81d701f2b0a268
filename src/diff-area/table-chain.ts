/**
 * Reads the table chain of a diff area, as a crash may have left it.
 *
 * Entries that a block's checksum covers are proven: they were durable, data included, when its header was last written.
 * The entries behind them are open: they have to be tested against their data. Below the watermark, the highest that any
 * header states, an open entry must pass; from there on it may belong to a group that was never committed.
 */
import { FormatError } from '../errors.js';
import { viewOf } from '../format/binary.js';
import { type BlockHeader, decodeHeader } from '../format/block-header.js';
import { BlockType, ENTRIES_PER_TABLE_BLOCK } from '../format/constants.js';
import { isRevertMark, readRevertMark } from '../format/revert-mark.js';
import {
  EntryFlag,
  entriesChecksum,
  entryBitmap,
  entryFlags,
  entryOriginalOffset,
  entryPosition,
  entryRelativeOffset,
  entryVolumeOffset,
  isEmptyEntry,
} from '../format/table-block.js';
import type { LocationList } from '../store/location-list.js';
import type { Run } from '../store/runs.js';
import type { AreaFile } from '../store/store.js';
import { BLOCK_SIZE, type BlockNumber, type ByteOffset, offsetOfSlot, type Slot } from '../units.js';
import { FixedSlot } from './area-slots.js';
import type { BlockTable } from './block-table.js';
import { CopyChecksum } from './copy-checksum.js';
import type { Moves } from './moves.js';
import type { Overlays } from './overlays.js';
import { PlainCopies } from './plain-copies.js';
import { RevertMarks } from './revert-marks.js';
import type { SlotMap } from './slot-map.js';
import { TableFiller } from './table-filler.js';
import { TableImages } from './table-images.js';
import type { TableTail } from './table-writer.js';

export type EntryKind = 'copy' | 'overlay' | 'move';

export interface OpenEntry {
  /** Position in the whole chain. */
  readonly place: number;
  /** The block that holds it, and its position there. */
  readonly tail: TableTail;
  readonly index: number;
  readonly block: BlockNumber;
  readonly kind: EntryKind;
  /** Of a move: the block that it moved to. */
  readonly slot: Slot;
  /** Of an overlay: its sectors. */
  readonly checksum: number;
  /** Is it covered by a checksum, and only waits for those before it? */
  readonly isProven: boolean;
  /** Does it make sense at all? A torn group can leave anything behind the watermark. */
  readonly wellFormed: boolean;
}

export interface TableChain {
  /** Blocks that are not full, or not covered whole by their checksum; the last block of the chain is always among them. */
  readonly openBlocks: readonly TableTail[];
  readonly openEntries: readonly OpenEntry[];
  /** Places of the chain that are durable for certain. */
  readonly watermark: number;
  /** Does the last block link to one that was never written? */
  readonly hasLooseEnd: boolean;
  /** Is there a mark that no checksum covers yet? */
  readonly hasOpenMarks: boolean;
}

/** What the entries of a chain say. */
export interface FoundEntries {
  readonly table: BlockTable;
  readonly overlays: Overlays;
  readonly moves: Moves;
}

interface ReadBlock {
  readonly slot: Slot;
  readonly header: BlockHeader;
  readonly image: Uint8Array;
}

export class TableChainReader {
  readonly #file: AreaFile;
  readonly #epoch: bigint;
  readonly #slots: SlotMap;
  readonly #blockCount: number;
  readonly #filler: TableFiller;
  readonly #plainCopies: PlainCopies;
  readonly #overlays: Overlays;
  readonly #moves: Moves;
  readonly #checksum: CopyChecksum;
  readonly #images: TableImages;
  readonly #openBlocks: TableTail[] = [];
  readonly #openEntries: OpenEntry[] = [];
  readonly marks = new RevertMarks();
  #hasOpenMarks = false;
  #watermark = 0;
  #recentRun: Run = { fileOffset: 0, volumeOffset: 0, length: 0 };

  /** @param found receives the proven entries, the table all of its own after `finish`; `slots` what they use */
  constructor(file: AreaFile, list: LocationList, slots: SlotMap, found: FoundEntries) {
    this.#file = file;
    this.#epoch = list.epoch;
    this.#slots = slots;
    this.#blockCount = found.table.blockCount;
    this.#images = new TableImages(file);
    this.#filler = new TableFiller(found.table);
    this.#plainCopies = new PlainCopies(file.runs, found.table.blockCount);
    this.#overlays = found.overlays;
    this.#moves = found.moves;
    this.#checksum = new CopyChecksum(file.runs, list.epoch);
  }

  /** @throws FormatError, UnsupportedError, DeviceError */
  async read(first: ByteOffset): Promise<TableChain> {
    const firstSlot = this.#slots.at(first, 'first table block');
    if (firstSlot !== FixedSlot.table)
      throw new FormatError(`table in slot ${firstSlot}, which is not its place`);
    let block = this.#decode(firstSlot, await this.#images.read(firstSlot));
    if (block === undefined) throw new FormatError(`table block at ${first} belongs to another store`);
    for (let before = 0; ; before += ENTRIES_PER_TABLE_BLOCK) {
      const { tail, isOpen } = this.#takeEntries(block, before);
      const places = before + ENTRIES_PER_TABLE_BLOCK;
      const slot = this.#nextSlot(block.header, places);
      let next: ReadBlock | undefined;
      if (slot !== undefined)
        next = this.#decodeNext(slot, this.#images.readNow(slot) ?? (await this.#images.read(slot)), places);
      if (isOpen || next === undefined)
        this.#openBlocks.push(next === undefined ? tail : this.#filledUp(tail));
      else this.#images.release(tail.image);
      if (next === undefined) break;
      block = next;
    }
    return {
      openBlocks: this.#openBlocks,
      openEntries: this.#openEntries,
      watermark: this.#watermark,
      hasLooseEnd: block.header.nextOffset !== 0,
      hasOpenMarks: this.#hasOpenMarks,
    };
  }

  /** `undefined` if the block is one of another file, or of an earlier one in the same place. @throws FormatError */
  #decode(slot: Slot, image: Uint8Array): ReadBlock | undefined {
    const offset = this.#file.runs.locate(offsetOfSlot(slot));
    const header = decodeHeader(image, BlockType.table, { offset });
    return header.extension?.epoch === this.#epoch ? { slot, header, image } : undefined;
  }

  /** Where the block that follows should be; `undefined` at the end of the chain. @throws FormatError */
  #nextSlot({ nextOffset: offset }: BlockHeader, places: number): Slot | undefined {
    if (offset === 0) {
      if (this.#watermark > places)
        throw new FormatError(`table chain ends after ${places} places, ${this.#watermark} are durable`);
      return undefined;
    }
    const slot = this.#slots.at(offset, 'next table block');
    if (this.#slots.isUsed(slot)) {
      throw new FormatError(
        `table chain: the block at ${offset} is in use for something else, or a second time`,
      );
    }
    return slot;
  }

  /**
   * The block that follows, if it is one of this chain. A link can be durable before the block that it points to: then
   * the chain ends here, unless places there are known durable. @throws FormatError
   */
  #decodeNext(slot: Slot, image: Uint8Array, places: number): ReadBlock | undefined {
    const mustGoOn = this.#watermark > places;
    let next: ReadBlock | undefined;
    try {
      next = this.#decode(slot, image);
    } catch (error) {
      if (mustGoOn || !(error instanceof FormatError)) throw error;
    }
    if (next === undefined && mustGoOn) {
      const offset = this.#file.runs.locate(offsetOfSlot(slot));
      throw new FormatError(
        `table block at ${offset} is not one of this diff area, but ${this.#watermark} places are durable`,
      );
    }
    if (next !== undefined) this.#slots.use(slot);
    return next;
  }

  #takeEntries({ slot, header, image }: ReadBlock, before: number): { tail: TableTail; isOpen: boolean } {
    const { watermark = 0, entriesChecksum: stored = 0 } = header.extension ?? {};
    this.#watermark = Math.max(this.#watermark, watermark);
    const covered = Math.min(ENTRIES_PER_TABLE_BLOCK, Math.max(0, watermark - before));
    if (entriesChecksum(image, 0, covered) !== stored) {
      throw new FormatError(`table block at ${header.volumeOffset}: its entries fail their checksum`);
    }
    const view = viewOf(image);
    let used = ENTRIES_PER_TABLE_BLOCK;
    while (used > covered && isEmptyEntry(view, entryPosition(used - 1))) used--;
    const tail = { slot, image, used, before };
    const taken = this.#takePlainCopies(view, covered);
    for (let index = taken; index < covered; index++)
      this.#takeProven(view, tail, index, header.volumeOffset);
    for (let index = covered; index < used; index++) this.#takeOpen(view, tail, index);
    return { tail, isOpen: covered < ENTRIES_PER_TABLE_BLOCK };
  }

  /** A block that has a successor was full: what is empty at its end was lost, and counts as entries that fail. */
  #filledUp(tail: TableTail): TableTail {
    const view = viewOf(tail.image);
    for (let index = tail.used; index < ENTRIES_PER_TABLE_BLOCK; index++) this.#takeOpen(view, tail, index);
    return { ...tail, used: ENTRIES_PER_TABLE_BLOCK };
  }

  /**
   * Takes those at the start of a block at once, of which there are millions: as long as nothing is known that could change what they
   * mean. @returns how many
   */
  #takePlainCopies(view: DataView, covered: number): number {
    if (this.#openEntries.length > 0 || !this.#moves.isEmpty || this.marks.cancelledAt !== undefined)
      return 0;
    const count = this.#plainCopies.read(view, covered);
    const { columns } = this.#plainCopies;
    this.#slots.useAll(columns.slots, count);
    this.#filler.addAll(columns, count);
    return count;
  }

  /** Nothing is allocated for one, unless it has to wait for open ones before it. */
  #takeProven(view: DataView, tail: TableTail, index: number, blockOffset: ByteOffset): void {
    if (this.#openEntries.length > 0) {
      this.#takeOpen(view, tail, index, true);
      return;
    }
    const at = entryPosition(index);
    const flags = entryFlags(view, at);
    if ((flags & EntryFlag.unused) !== 0) {
      if (isRevertMark(view, at) && !this.#takeMark(tail, index))
        throw new FormatError(`table block at ${blockOffset}: mark ${index} is durable but not valid`);
      return;
    }
    const block = entryOriginalOffset(view, at) / BLOCK_SIZE;
    const slot = entryRelativeOffset(view, at) / BLOCK_SIZE;
    const kind = kindOf(flags);
    if (kind === undefined || !this.#isWellFormed(kind, block, slot, entryVolumeOffset(view, at))) {
      throw new FormatError(`table block at ${blockOffset}: entry ${index} is durable but not valid`);
    }
    this.#accept(kind, block, slot, entryBitmap(view, at), tail.before + index);
  }

  /** Takes a mark of a revert, which has no data that would have to prove it. @returns whether it is sound */
  #takeMark({ image, before }: TableTail, index: number): boolean {
    const mark = readRevertMark(image, entryPosition(index), this.#epoch);
    if (mark === undefined || mark.first + mark.count > this.#blockCount) return false;
    this.marks.add(mark, before + index);
    return true;
  }

  #takeOpen(view: DataView, tail: TableTail, index: number, isProven = false): void {
    const at = entryPosition(index);
    const flags = entryFlags(view, at);
    if ((flags & EntryFlag.unused) !== 0) {
      if (!isRevertMark(view, at)) return;
      if (this.#takeMark(tail, index)) {
        this.#hasOpenMarks = true;
        return;
      }
    }
    const block = entryOriginalOffset(view, at) / BLOCK_SIZE;
    const slot = entryRelativeOffset(view, at) / BLOCK_SIZE;
    const kind = kindOf(flags) ?? 'copy';
    const wellFormed =
      kindOf(flags) !== undefined && this.#isWellFormed(kind, block, slot, entryVolumeOffset(view, at));
    const [place, checksum] = [tail.before + index, entryBitmap(view, at)];
    if (isProven && !wellFormed) throw new FormatError(`table entry ${place} is durable but not valid`);
    this.#openEntries.push({ place, tail, index, kind, block, slot, checksum, isProven, wellFormed });
  }

  #isWellFormed(kind: EntryKind, block: BlockNumber, slot: Slot, volumeOffset: ByteOffset): boolean {
    if (!Number.isInteger(block) || block >= this.#blockCount || !Number.isInteger(slot)) return false;
    if (kind === 'move') {
      const target: number = slot;
      return target < this.#blockCount && target !== block && volumeOffset === 0;
    }
    return (
      slot >= (kind === 'copy' ? FixedSlot.zeros : FixedSlot.count) &&
      slot < this.#slots.count &&
      volumeOffset === this.#locate(offsetOfSlot(slot))
    );
  }

  /** As `Runs.locate`. Neighbours in a table mostly lie in the same run, which is then not searched for. */
  #locate(fileOffset: ByteOffset): ByteOffset {
    const inside = fileOffset - this.#recentRun.fileOffset;
    if (inside >= 0 && inside < this.#recentRun.length) return this.#recentRun.volumeOffset + inside;
    this.#recentRun = this.#file.runs.runAt(fileOffset);
    return this.#file.runs.locate(fileOffset);
  }

  /** Takes an open entry that has been proven. They are taken in their order: what a copy is of depends on moves before it. */
  accept({ kind, block, slot, checksum, place }: OpenEntry): void {
    this.#accept(kind, block, slot, checksum, place);
  }

  #accept(kind: EntryKind, block: BlockNumber, slot: Slot, checksum: number, place: number): void {
    if (kind === 'move') {
      this.#moves.add({ from: block, to: slot as number });
      return;
    }
    this.#slots.use(slot);
    if (kind === 'overlay') this.#overlays.load(block, slot, checksum);
    else this.#acceptCopy(block, slot, checksum, place);
  }

  #acceptCopy(block: BlockNumber, slot: Slot, checksum: number, place: number): void {
    this.marks.copied(block, place);
    const owner = this.#moves.ownerOfCopy(block);
    const own = owner === block ? checksum : this.#checksum.rebased(checksum, block, owner);
    this.#filler.add(owner, slot, own);
  }

  /** Nothing more will be accepted: from here on the table has all. @param turn as of `TableFiller.finish` */
  finish(turn: () => Promise<void>): Promise<void> {
    return this.#filler.finish(turn);
  }
}

/** `undefined`: none of ours. */
function kindOf(flags: number): EntryKind | undefined {
  if (flags === 0) return 'copy';
  if (flags === EntryFlag.overlay) return 'overlay';
  return flags === EntryFlag.move ? 'move' : undefined;
}
