/**
 * Opens the diff area of a snapshot again, as a crash may have left it.
 *
 * Places of the table chain below the watermark were durable, data included. From there on every entry is tested
 * against its data: one that fails belongs to a group that was never committed, so its block of the volume was not
 * overwritten and nothing is lost by dropping it. One that passes is right, whether its group was committed or not.
 */
import { FormatError } from '../errors.js';
import { decodeApplicationInformationBlock } from '../format/application-information.js';
import { viewOf } from '../format/binary.js';
import { type BlockHeader, decodeHeader, setNextOffset } from '../format/block-header.js';
import { BlockType, ENTRIES_PER_TABLE_BLOCK } from '../format/constants.js';
import type { DiffAreaItem } from '../format/control-block.js';
import {
  EntryFlag,
  encodeEntry,
  entryBitmap,
  entryFlags,
  entryOriginalOffset,
  entryPosition,
  entryRelativeOffset,
  entryVolumeOffset,
  isEmptyEntry,
} from '../format/table-block.js';
import type { OpenedArea } from '../store/store.js';
import {
  BLOCK_SIZE,
  type BlockNumber,
  type ByteOffset,
  blocksIn,
  offsetOfSlot,
  type Slot,
} from '../units.js';
import { AreaSlots, FixedSlot } from './area-slots.js';
import { BlockTable } from './block-table.js';
import { CopyChecksum } from './copy-checksum.js';
import { DiffArea } from './diff-area.js';
import { type TableTail, TableWriter } from './table-writer.js';

export interface LoadedArea {
  readonly area: DiffArea;
  /** Entries of copies that were never committed. */
  readonly dropped: number;
  /** Writes to the device what opening found out, durably. Must be called before the volume may be written. */
  readonly repair: () => Promise<void>;
}

/** An entry at or after the watermark, as far as that is known yet. */
interface Unproven {
  readonly place: number;
  readonly tableSlot: Slot;
  readonly index: number;
  readonly block: BlockNumber;
  readonly slot: Slot;
  readonly checksum: number;
  /** Does it make sense at all? A torn group can leave anything behind the watermark. */
  readonly wellFormed: boolean;
}

const UNUSED_ENTRY = {
  originalOffset: 0,
  relativeOffset: 0,
  volumeOffset: 0,
  flags: EntryFlag.unused,
  bitmap: 0,
};

/** Writes nothing. @throws FormatError, UnsupportedError, DeviceError */
export async function loadDiffArea(
  opened: OpenedArea,
  item: DiffAreaItem,
  volumeSize: number,
): Promise<LoadedArea> {
  return new Loader(opened, item, volumeSize).load();
}

class Loader {
  readonly #opened: OpenedArea;
  readonly #item: DiffAreaItem;
  readonly #volumeSize: number;
  readonly #table: BlockTable;
  readonly #usedSlots: Uint8Array;
  readonly #slotCount: number;
  readonly #block = new Uint8Array(BLOCK_SIZE);
  readonly #view = viewOf(this.#block);
  #unproven: Unproven[] = [];
  #watermark = 0;

  constructor(opened: OpenedArea, item: DiffAreaItem, volumeSize: number) {
    this.#opened = opened;
    this.#item = item;
    this.#volumeSize = volumeSize;
    this.#table = new BlockTable(blocksIn(volumeSize));
    this.#slotCount = opened.list.runs.size / BLOCK_SIZE;
    if (this.#slotCount < FixedSlot.count)
      throw new FormatError(`diff area ${item.storeId} has only ${this.#slotCount} blocks`);
    this.#usedSlots = new Uint8Array(Math.ceil(this.#slotCount / 8));
  }

  async load(): Promise<LoadedArea> {
    const { file, list } = this.#opened;
    for (let slot = 0; slot < FixedSlot.count; slot++) this.#markUsed(slot);
    const locationSlots = list.blocks.map((offset) => this.#slotAt(offset, 'location block'));
    for (const slot of locationSlots) this.#markUsed(slot);
    const information = await this.#readInformation();
    const { tail, chainEndsAt } = await this.#readTable();
    const writer = new TableWriter(file, list.epoch, tail, this.#watermark);
    const failed = await this.#prove();
    const area = new DiffArea({
      storeId: this.#item.storeId,
      epoch: list.epoch,
      file,
      information,
      table: this.#table,
      writer,
      slots: new AreaSlots(file, list.epoch, this.#freeExtents(), locationSlots),
    });
    const repair = async () => {
      await this.#clean(failed, tail, chainEndsAt);
      // The page cache may hold more than the device after a process was killed: only now is what was read durable.
      await area.flush();
      await area.writeWatermark();
    };
    return { area, dropped: failed.length, repair };
  }

  async #readInformation() {
    const { file, list } = this.#opened;
    const offset = this.#item.applicationInformationOffset;
    if (offset !== file.runs.locate(offsetOfSlot(FixedSlot.information))) {
      throw new FormatError(
        `diff area ${this.#item.storeId}: application information at ${offset}, which is not its place`,
      );
    }
    await file.device.read(offset, this.#block);
    const { header, information } = decodeApplicationInformationBlock(this.#block, { offset });
    if (header.extension?.epoch !== list.epoch)
      throw new FormatError(`application information at ${offset} belongs to another store`);
    return information;
  }

  /** Walks the chain; puts proven entries into the table and leaves the others in `#unproven`. */
  async #readTable(): Promise<{ tail: TableTail; chainEndsAt: ByteOffset }> {
    const { file } = this.#opened;
    let slot = this.#slotAt(this.#item.tableOffset, 'first table block');
    if (slot !== FixedSlot.table)
      throw new FormatError(`diff area ${this.#item.storeId}: table in slot ${slot}`);
    const first = file.runs.locate(offsetOfSlot(slot));
    await file.device.read(first, this.#block);
    let header = decodeHeader(this.#block, BlockType.table, { offset: first });
    if (header.extension?.epoch !== this.#opened.list.epoch)
      throw new FormatError(`table block at ${first} belongs to another store`);
    for (let before = 0; ; before += ENTRIES_PER_TABLE_BLOCK) {
      this.#watermark = Math.max(this.#watermark, header.extension?.watermark ?? 0);
      this.#acceptProven();
      const image = this.#block.slice();
      const used = this.#readEntries(slot, before);
      const next = await this.#nextBlock(header, before + ENTRIES_PER_TABLE_BLOCK);
      if (next === undefined) {
        return { tail: { slot, image, used, before }, chainEndsAt: header.nextOffset };
      }
      ({ slot, header } = next);
      this.#markUsed(slot);
    }
  }

  /**
   * Reads the block that follows into `#block`, if it is one of this chain. A link can be durable before the block that
   * it points to: then the chain ends here, unless places there are known durable.
   */
  async #nextBlock(
    header: BlockHeader,
    places: number,
  ): Promise<{ slot: Slot; header: BlockHeader } | undefined> {
    const offset = header.nextOffset;
    const known = this.#watermark > places;
    if (offset === 0) {
      if (known)
        throw new FormatError(`table chain ends after ${places} places, ${this.#watermark} are durable`);
      return undefined;
    }
    const slot = this.#slotAt(offset, 'next table block');
    if (this.#isUsed(slot))
      throw new FormatError(
        `table chain: the block at ${offset} is in use for something else, or a second time`,
      );
    await this.#opened.file.device.read(offset, this.#block);
    try {
      const next = decodeHeader(this.#block, BlockType.table, { offset });
      if (next.extension?.epoch === this.#opened.list.epoch) return { slot, header: next };
    } catch (error) {
      if (known || !(error instanceof FormatError)) throw error;
    }
    if (known)
      throw new FormatError(
        `table block at ${offset} is not one of this diff area, but ${this.#watermark} places are durable`,
      );
    return undefined;
  }

  /** Takes entries that a header read since has shown to be durable. */
  #acceptProven(): void {
    this.#unproven = this.#unproven.filter((entry) => {
      if (entry.place >= this.#watermark) return true;
      this.#accept(entry);
      return false;
    });
  }

  /** Takes the entries of the table block in `#block`; returns how many places of it are used. */
  #readEntries(tableSlot: Slot, before: number): number {
    let used = ENTRIES_PER_TABLE_BLOCK;
    while (used > 0 && isEmptyEntry(this.#view, entryPosition(used - 1))) used--;
    if (before + used < Math.min(this.#watermark, before + ENTRIES_PER_TABLE_BLOCK)) {
      throw new FormatError(
        `table of diff area ${this.#item.storeId}: place ${before + used} is durable but empty`,
      );
    }
    for (let index = 0; index < used; index++) {
      const at = entryPosition(index);
      const flags = entryFlags(this.#view, at);
      if ((flags & EntryFlag.unused) !== 0) continue;
      const block = entryOriginalOffset(this.#view, at) / BLOCK_SIZE;
      const slot = entryRelativeOffset(this.#view, at) / BLOCK_SIZE;
      const checksum = entryBitmap(this.#view, at);
      const wellFormed = flags === 0 && this.#isWellFormed(block, slot, entryVolumeOffset(this.#view, at));
      const place = before + index;
      if (wellFormed && place < this.#watermark) {
        this.#markUsed(slot);
        this.#table.set(block, slot, checksum);
        continue;
      }
      const entry = { place, tableSlot, index, block, slot, checksum, wellFormed };
      if (place < this.#watermark) this.#accept(entry);
      else this.#unproven.push(entry);
    }
    return used;
  }

  #isWellFormed(block: BlockNumber, slot: Slot, volumeOffset: ByteOffset): boolean {
    return (
      Number.isInteger(block) &&
      block * BLOCK_SIZE < this.#volumeSize &&
      Number.isInteger(slot) &&
      slot >= FixedSlot.zeros &&
      slot < this.#slotCount &&
      volumeOffset !== 0 &&
      volumeOffset === this.#opened.file.runs.locate(offsetOfSlot(slot))
    );
  }

  /** Takes an entry that is known durable. */
  #accept(entry: Unproven): void {
    if (!entry.wellFormed) {
      throw new FormatError(
        `table of diff area ${this.#item.storeId}: place ${entry.place} is durable but not a valid entry`,
      );
    }
    this.#markUsed(entry.slot);
    this.#table.set(entry.block, entry.slot, entry.checksum);
  }

  /** Tests the entries after the watermark against their data; returns those that fail. */
  async #prove(): Promise<Unproven[]> {
    const { file, list } = this.#opened;
    const checksum = new CopyChecksum(file.runs, list.epoch);
    const failed: Unproven[] = [];
    const data = new Uint8Array(BLOCK_SIZE);
    this.#acceptProven();
    for (const entry of this.#unproven) {
      if (entry.wellFormed) {
        await file.device.read(file.runs.locate(offsetOfSlot(entry.slot)), data);
        if (checksum.of(entry.block, entry.slot, data) === entry.checksum) {
          this.#accept(entry);
          continue;
        }
      }
      failed.push(entry);
    }
    return failed;
  }

  /**
   * Marks the places of failed entries as unused and cuts off a link to a block that was never written. They are not
   * emptied: an empty place below the watermark is damage.
   */
  async #clean(failed: readonly Unproven[], tail: TableTail, chainEndsAt: ByteOffset): Promise<void> {
    const { device, runs } = this.#opened.file;
    for (const { tableSlot, index } of failed) {
      const image = tableSlot === tail.slot ? tail.image : this.#block;
      const offset = runs.locate(offsetOfSlot(tableSlot));
      if (image === this.#block) await device.read(offset, image);
      encodeEntry(image, entryPosition(index), UNUSED_ENTRY);
      await device.write(offset, image);
    }
    if (chainEndsAt === 0) return;
    setNextOffset(tail.image, 0);
    await device.write(runs.locate(offsetOfSlot(tail.slot)), tail.image);
  }

  #slotAt(volumeOffset: ByteOffset, what: string): Slot {
    for (const run of this.#opened.list.runs.list) {
      const inside = volumeOffset - run.volumeOffset;
      if (inside >= 0 && inside < run.length && inside % BLOCK_SIZE === 0)
        return (run.fileOffset + inside) / BLOCK_SIZE;
    }
    throw new FormatError(
      `diff area ${this.#item.storeId}: the ${what} at ${volumeOffset} lies outside the file`,
    );
  }

  #markUsed(slot: Slot): void {
    const byte = slot >>> 3;
    this.#usedSlots[byte] = (this.#usedSlots[byte] ?? 0) | (1 << (slot & 7));
  }

  #isUsed(slot: Slot): boolean {
    return (((this.#usedSlots[slot >>> 3] ?? 0) >>> (slot & 7)) & 1) === 1;
  }

  *#freeExtents() {
    for (let slot = 0; slot < this.#slotCount; ) {
      const start = slot;
      while (slot < this.#slotCount && !this.#isUsed(slot)) slot++;
      if (slot > start) yield { start, length: slot - start };
      while (slot < this.#slotCount && this.#isUsed(slot)) slot++;
    }
  }
}
