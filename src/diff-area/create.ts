/** Lays out a new diff area; it exists once its item is in the control file. */

import { NoSpaceError } from '../errors.js';
import {
  type ApplicationInformation,
  encodeApplicationInformationBlock,
} from '../format/application-information.js';
import type { Guid } from '../format/guid.js';
import { locationBlocksFor, writeLocationList } from '../store/location-list.js';
import type { AreaFile } from '../store/store.js';
import { BLOCK_SIZE, type ByteLength, offsetOfSlot } from '../units.js';
import { AreaSlots, FixedSlot } from './area-slots.js';
import { BlockTable } from './block-table.js';
import { DiffArea } from './diff-area.js';
import { Moves } from './moves.js';
import { Overlays } from './overlays.js';
import { RevertMarks } from './revert-marks.js';
import { newTableBlock, TableWriter } from './table-writer.js';

/** Slots for a copy, for a table block to find it, and some to go on with. */
const FREE_SLOTS_MIN = 4;
/** The smallest diff area: fixed slots, room for a copy, and for a table block to find it. */
export const AREA_SIZE_MIN = (FixedSlot.count + FREE_SLOTS_MIN) * BLOCK_SIZE;

export interface NewDiffArea {
  readonly storeId: Guid;
  readonly epoch: bigint;
  readonly information: ApplicationInformation;
  /** Blocks of the protected volume. */
  readonly blockCount: number;
  /** First size of the file, a multiple of 16 KiB and at least `AREA_SIZE_MIN`. */
  readonly length: ByteLength;
}

/** Writes all metadata of an empty diff area into `file`, durably. @throws NoSpaceError, LimitError, DeviceError */
export async function createDiffArea(file: AreaFile, wanted: NewDiffArea): Promise<DiffArea> {
  const { storeId, epoch, information, blockCount, length } = wanted;
  file.runs.append(await file.take(length));
  // In a fragmented reserve even the first list can be longer than a block.
  const further = locationBlocksFor(file.runs.list.length) - 1;
  const firstFree = FixedSlot.count + further;
  const slotCount = length / BLOCK_SIZE;
  if (firstFree + FREE_SLOTS_MIN > slotCount) {
    throw new NoSpaceError(`${length} bytes in ${file.runs.list.length} pieces hold no diff area`);
  }
  const listSlots = [FixedSlot.location, ...Array.from({ length: further }, (_, i) => FixedSlot.count + i)];
  const { device, runs } = file;
  const place = (slot: number) => ({
    fileOffset: offsetOfSlot(slot),
    volumeOffset: runs.locate(offsetOfSlot(slot)),
    nextOffset: 0,
    epoch,
  });
  const image = newTableBlock(file, FixedSlot.table, epoch);
  await device.write(
    runs.locate(offsetOfSlot(FixedSlot.information)),
    encodeApplicationInformationBlock(place(FixedSlot.information), information),
  );
  await device.write(runs.locate(offsetOfSlot(FixedSlot.table)), image);
  await writeLocationList(device, epoch, runs, listSlots.map(offsetOfSlot));
  // The place of the other list too: giving space back writes there, and must not need any of a host that is full.
  for (const slot of [FixedSlot.otherLocation, FixedSlot.zeros])
    await device.write(runs.locate(offsetOfSlot(slot)), new Uint8Array(BLOCK_SIZE));
  await file.establish();
  return new DiffArea({
    storeId,
    epoch,
    file,
    information,
    table: new BlockTable(blockCount),
    moves: new Moves(),
    overlays: new Overlays(file, blockCount),
    writer: new TableWriter(file, epoch, [{ slot: FixedSlot.table, image, used: 0, before: 0 }], 0),
    slots: new AreaSlots(file, epoch, [{ start: firstFree, length: slotCount - firstFree }], listSlots),
    marks: new RevertMarks(),
  });
}
