/**
 * The table chain of a diff area that takes no copies any more, gone through from its end to its beginning.
 *
 * Slots are handed out lowest first, so the last entries have, more or less, the last slots: what was read here and is needed
 * no more can be cut off, and the file becomes shorter. The table stays one that any reader understands, at any
 * moment: first all headers say that nothing from the cut on is known durable, which makes those entries ones that may go; then
 * they go; then the space of their copies. Moves go after the copies that spent them.
 */
import { assert, FormatError } from '../errors.js';
import { viewOf } from '../format/binary.js';
import { decodeHeader, setNextOffset } from '../format/block-header.js';
import { BlockType, ENTRIES_PER_TABLE_BLOCK } from '../format/constants.js';
import { setWatermark } from '../format/extension.js';
import {
  EntryFlag,
  entriesChecksum,
  entryFlags,
  entryOriginalOffset,
  entryPosition,
  entryRelativeOffset,
  isEmptyEntry,
} from '../format/table-block.js';
import type { AreaFile } from '../store/store.js';
import {
  BLOCK_SIZE,
  type BlockNumber,
  type ByteOffset,
  offsetOfSlot,
  SECTOR_SIZE,
  type Slot,
} from '../units.js';
import { FixedSlot } from './area-slots.js';
import { SlotMap } from './slot-map.js';

interface TableBlock {
  readonly slot: Slot;
  watermark: number;
  /** The highest slot that this block and those before it take and name. */
  readonly highest: Slot;
}

/** Entries of one table block. */
export interface EntryRange {
  /** Place of the first one in the chain. */
  readonly from: number;
  readonly blocks: readonly BlockNumber[];
  readonly slots: readonly Slot[];
}

export class TableBackwards {
  readonly #file: AreaFile;
  readonly #blocks: TableBlock[];
  #places: number;
  /** The block read last. */
  #recent: { readonly index: number; readonly image: Uint8Array } | undefined;

  private constructor(file: AreaFile, blocks: TableBlock[], places: number) {
    this.#file = file;
    this.#blocks = blocks;
    this.#places = places;
  }

  /** Reads all of it once. @throws FormatError, DeviceError */
  static async open(file: AreaFile, epoch: bigint): Promise<TableBackwards> {
    const blocks: TableBlock[] = [];
    const map = new SlotMap(file.runs);
    const image = new Uint8Array(BLOCK_SIZE);
    let highest: Slot = FixedSlot.count - 1;
    let places = 0;
    for (let slot: Slot = FixedSlot.table, isLast = false; !isLast; ) {
      if (map.isUsed(slot)) throw new FormatError(`table chain: it comes back to slot ${slot}`);
      map.use(slot);
      const offset = file.runs.locate(offsetOfSlot(slot));
      await file.device.read(offset, image);
      const { extension, nextOffset } = decodeHeader(image, BlockType.table, { offset });
      if (extension?.epoch !== epoch)
        throw new FormatError(`table block at ${offset} belongs to another store`);
      isLast = nextOffset === 0;
      const used = isLast ? usedIn(image) : ENTRIES_PER_TABLE_BLOCK;
      for (const named of slotsIn(image, used)) highest = Math.max(highest, named);
      highest = Math.max(highest, slot);
      blocks.push({ slot, watermark: extension.watermark ?? 0, highest });
      places += used;
      if (!isLast) slot = map.at(nextOffset, 'next table block');
    }
    return new TableBackwards(file, blocks, places);
  }

  /** Places that are left. */
  get places(): number {
    return this.#places;
  }

  /** The last `count` entries before place `end`, or as many as lie in the same block; those of no copy are left out. */
  async before(end: number, count: number): Promise<EntryRange> {
    const index = Math.floor((end - 1) / ENTRIES_PER_TABLE_BLOCK);
    const first = index * ENTRIES_PER_TABLE_BLOCK;
    const from = Math.max(first, end - count);
    const view = viewOf(await this.#read(index));
    const blocks: BlockNumber[] = [];
    const slots: Slot[] = [];
    for (let place = from; place < end; place++) {
      const at = entryPosition(place - first);
      if (entryFlags(view, at) !== 0 || isEmptyEntry(view, at)) continue;
      blocks.push(entryOriginalOffset(view, at) / BLOCK_SIZE);
      slots.push(entryRelativeOffset(view, at) / BLOCK_SIZE);
    }
    return { from, blocks, slots };
  }

  async #read(index: number): Promise<Uint8Array> {
    if (this.#recent?.index !== index) this.#recent = { index, image: await this.#load(index) };
    return this.#recent.image;
  }

  async #load(index: number): Promise<Uint8Array> {
    const image = new Uint8Array(BLOCK_SIZE);
    await this.#file.device.read(this.#offsetOf(index), image);
    return image;
  }

  #offsetOf(index: number): ByteOffset {
    const block = this.#blocks[index];
    assert(block !== undefined, () => `table block ${index} of ${this.#blocks.length}`);
    return this.#file.runs.locate(offsetOfSlot(block.slot));
  }

  /**
   * Cuts the chain off before place `end`, durably. After a failure it may be called again.
   * @returns the highest slot that is in use still
   */
  async cut(end: number): Promise<Slot> {
    // A copy that spent a move must be gone before the move may go: without it, it would pass for a copy of the block itself.
    let spent = await this.#lastSpentMove(end);
    while (spent !== undefined) {
      await this.#cutOff(spent);
      spent = await this.#lastSpentMove(end);
    }
    return this.#cutOff(end);
  }

  /** The place after the last move at `from` or behind it that a copy further on has spent. */
  async #lastSpentMove(from: number): Promise<number | undefined> {
    const copied = new Set<BlockNumber>();
    for (let place = this.#places - 1; place >= from; place--) {
      const index = Math.floor(place / ENTRIES_PER_TABLE_BLOCK);
      const view = viewOf(await this.#read(index));
      const at = entryPosition(place - index * ENTRIES_PER_TABLE_BLOCK);
      const flags = entryFlags(view, at);
      if (flags === 0) copied.add(entryOriginalOffset(view, at) / BLOCK_SIZE);
      else if (flags === EntryFlag.move && copied.has(entryRelativeOffset(view, at) / BLOCK_SIZE))
        return place + 1;
    }
    return undefined;
  }

  async #cutOff(end: number): Promise<Slot> {
    const { device } = this.#file;
    const index = Math.max(0, Math.ceil(end / ENTRIES_PER_TABLE_BLOCK) - 1);
    const image = await this.#read(index);
    // What the blocks before say must come true first, else the chain would end too early by their word.
    let isAnyWritten = false;
    for (let before = index - 1; (this.#blocks[before]?.watermark ?? 0) > end; before--) {
      await this.#writeHeader(before, await this.#load(before), end);
      isAnyWritten = true;
    }
    if (isAnyWritten) await device.flush();
    setNextOffset(image, 0);
    await this.#writeHeader(index, image, end);
    await device.flush();
    const used = end - index * ENTRIES_PER_TABLE_BLOCK;
    image.fill(0, entryPosition(used));
    await this.#writeFrom(index, image, entryPosition(used));
    await device.flush();
    this.#blocks.length = index + 1;
    this.#places = end;
    let highest: Slot = Math.max(
      this.#blocks[index - 1]?.highest ?? FixedSlot.count - 1,
      this.#blocks[index]?.slot ?? 0,
    );
    for (const named of slotsIn(image, used)) highest = Math.max(highest, named);
    return highest;
  }

  /** Says that places from `durable` on are not known durable. */
  async #writeHeader(index: number, image: Uint8Array, durable: number): Promise<void> {
    const covered = Math.min(ENTRIES_PER_TABLE_BLOCK, durable - index * ENTRIES_PER_TABLE_BLOCK);
    setWatermark(image, durable, entriesChecksum(image, 0, covered));
    await this.#file.device.write(this.#offsetOf(index), image.slice(0, SECTOR_SIZE));
    const block = this.#blocks[index];
    if (block !== undefined) block.watermark = durable;
  }

  async #writeFrom(index: number, image: Uint8Array, from: number): Promise<void> {
    const start = Math.floor(from / SECTOR_SIZE) * SECTOR_SIZE;
    if (start < BLOCK_SIZE) await this.#file.device.write(this.#offsetOf(index) + start, image.slice(start));
  }
}

/** Places up to the last one that holds anything. */
function usedIn(image: Uint8Array): number {
  const view = viewOf(image);
  let used = ENTRIES_PER_TABLE_BLOCK;
  while (used > 0 && isEmptyEntry(view, entryPosition(used - 1))) used--;
  return used;
}

function* slotsIn(image: Uint8Array, used: number): Generator<Slot> {
  const view = viewOf(image);
  for (let index = 0; index < used; index++) {
    const at = entryPosition(index);
    // The second field of a move is a block of the volume.
    if ((entryFlags(view, at) & (EntryFlag.unused | EntryFlag.move)) === 0)
      yield entryRelativeOffset(view, at) / BLOCK_SIZE;
  }
}
