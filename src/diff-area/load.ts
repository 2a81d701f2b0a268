/**
 * Opens the diff area of a snapshot again, as a crash may have left it.
 *
 * An entry that is not proven by its block's checksum is tested against its data. One that passes is right, whether its
 * group was committed or not. One that fails behind the watermark belongs to a group that was never committed, so its block
 * of the volume was not overwritten and nothing is lost by dropping it; one that fails below is damage. An entry of an overlay
 * or a move counts if it is below the watermark, and only then.
 */
import { type Clock, turnOf } from '../environment.js';
import { FormatError } from '../errors.js';
import {
  type ApplicationInformation,
  decodeApplicationInformationBlock,
} from '../format/application-information.js';
import { setNextOffset } from '../format/block-header.js';
import type { DiffAreaItem } from '../format/control-block.js';
import { EntryFlag, encodeEntry, entryPosition } from '../format/table-block.js';
import type { OpenedArea } from '../store/store.js';
import { BLOCK_SIZE, type ByteLength, blocksIn, offsetOfSlot } from '../units.js';
import { AreaSlots, FixedSlot } from './area-slots.js';
import { readBitmaps } from './bitmap-chain.js';
import { BlockTable } from './block-table.js';
import { CopyChecksum } from './copy-checksum.js';
import { DiffArea } from './diff-area.js';
import { Moves } from './moves.js';
import { Overlays } from './overlays.js';
import { SlotMap } from './slot-map.js';
import { type OpenEntry, type TableChain, TableChainReader } from './table-chain.js';
import { TableWriter } from './table-writer.js';

export interface LoadedArea {
  readonly area: DiffArea;
  /** Entries of copies that were never committed. */
  readonly dropped: number;
  /** Writes to the device what opening found out, durably. Must be called before the volume may be written. */
  readonly repair: () => Promise<void>;
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
  volumeSize: ByteLength,
  clock: Clock,
): Promise<LoadedArea> {
  const { file, list } = opened;
  const { storeId } = item;
  const slots = new SlotMap(list.runs);
  if (slots.count < FixedSlot.count)
    throw new FormatError(`diff area ${storeId} has only ${slots.count} blocks`);
  for (let slot = 0; slot < FixedSlot.count; slot++) slots.use(slot);
  const listSlots = list.blocks.map((offset) => slots.at(offset, 'location block'));
  for (const slot of listSlots) slots.use(slot);
  const bitmaps = await readBitmaps(opened, item, slots, blocksIn(volumeSize));
  const information = await readInformation(opened, item);
  const table = new BlockTable(blocksIn(volumeSize));
  const overlays = new Overlays(file, table.blockCount);
  const moves = new Moves();
  const reader = new TableChainReader(file, list, slots, { table, overlays, moves });
  const chain = await reader.read(item.tableOffset);
  const { failed, proven } = await prove(opened, chain, reader);
  await reader.finish(() => turnOf(clock));
  const writer = new TableWriter(file, list.epoch, chain.openBlocks, chain.watermark);
  const areaSlots = new AreaSlots(file, list.epoch, slots.free(), listSlots);
  const area = new DiffArea({
    storeId,
    epoch: list.epoch,
    file,
    information,
    table,
    moves,
    overlays,
    writer,
    slots: areaSlots,
    marks: reader.marks,
    bitmaps,
  });
  const repair = async () => {
    clean(chain, failed);
    await rewrite(opened, proven);
    // Always: what is not covered by a checksum yet was only read, perhaps from a cache that the device never got.
    if (chain.openEntries.length > 0 || chain.hasOpenMarks || chain.hasLooseEnd) writer.touchBlocks();
    await area.writeEntries();
    await area.flush();
    await area.writeWatermark();
  };
  return { area, dropped: failed.filter(({ kind }) => kind === 'copy').length, repair };
}

async function readInformation(
  { file, list }: OpenedArea,
  item: DiffAreaItem,
): Promise<ApplicationInformation> {
  const offset = item.applicationInformationOffset;
  if (offset !== file.runs.locate(offsetOfSlot(FixedSlot.information))) {
    throw new FormatError(
      `diff area ${item.storeId}: application information at ${offset}, which is not its place`,
    );
  }
  const block = new Uint8Array(BLOCK_SIZE);
  await file.device.read(offset, block);
  const { header, information } = decodeApplicationInformationBlock(block, { offset });
  if (header.extension?.epoch !== list.epoch) {
    throw new FormatError(`application information at ${offset} belongs to another store`);
  }
  if (information.snapshotId !== item.storeId) {
    throw new FormatError(
      `the diff area of snapshot ${information.snapshotId} lies where that of ${item.storeId} belongs`,
    );
  }
  return information;
}

/** Tests open entries against their data; those that fail were never committed. @throws FormatError for damage */
async function prove(
  { file, list }: OpenedArea,
  chain: TableChain,
  reader: TableChainReader,
): Promise<{ failed: OpenEntry[]; proven: OpenEntry[] }> {
  const checksum = new CopyChecksum(file.runs, list.epoch);
  const [failed, proven]: [OpenEntry[], OpenEntry[]] = [[], []];
  const data = new Uint8Array(BLOCK_SIZE);
  for (const entry of chain.openEntries) {
    if (entry.isProven) {
      reader.accept(entry);
      continue;
    }
    if (entry.kind !== 'copy') {
      if (entry.wellFormed && entry.place < chain.watermark) {
        reader.accept(entry);
        continue;
      }
    } else if (entry.wellFormed) {
      if (entry.slot === FixedSlot.zeros) data.fill(0);
      else await file.device.read(file.runs.locate(offsetOfSlot(entry.slot)), data);
      if (checksum.of(entry.block, entry.slot, data) === entry.checksum) {
        reader.accept(entry);
        proven.push(entry);
        continue;
      }
    }
    if (entry.place < chain.watermark) {
      throw new FormatError(`table entry ${entry.place} is durable but fails its checksum`);
    }
    failed.push(entry);
  }
  return { failed, proven };
}

/**
 * Writes copies again that are known only by having been read. After a flush that failed the page cache can hold what
 * the device does not, and no later flush would write it.
 */
async function rewrite({ file }: OpenedArea, proven: readonly OpenEntry[]): Promise<void> {
  for (const slot of new Set(proven.map((entry) => entry.slot))) {
    const offset = file.runs.locate(offsetOfSlot(slot));
    const data = new Uint8Array(BLOCK_SIZE);
    await file.device.read(offset, data);
    await file.device.write(offset, data);
  }
}

/** Marks the places of failed entries as unused, and cuts off a link to a block that was never written. */
function clean({ openBlocks, hasLooseEnd }: TableChain, failed: readonly OpenEntry[]): void {
  for (const { tail, index } of failed) encodeEntry(tail.image, entryPosition(index), UNUSED_ENTRY);
  const last = openBlocks.at(-1);
  if (hasLooseEnd && last !== undefined) setNextOffset(last.image, 0);
}
