/**
 * What leads from the start block of Windows to its catalog of shadow copies: one number, the offset of the first control block.
 *
 * A store of volsnap that has taken shadow copies over keeps what is overwritten for them where only its own start block leads. So the start
 * block of Windows, which users of the volume go on to see, must not lead to the catalog any more: whoever read a copy of the volume would find the
 * shadow copies listed as sound, with wrong content. With 0 there it says that there are none, as Windows leaves it when it has deleted them.
 */
import type { ByteLength, ByteOffset } from '../units.js';
import { START_BLOCK_OFFSET, START_BLOCK_SIZE } from './constants.js';
import { isStartBlock, START, START_MAGIC, type StartBlock } from './start-block.js';

const FIRST = START.at.firstControlBlock;
const SIZE: ByteLength = 8;

/** Is a part of the number among these bytes of a volume? */
export const meetsCatalogOffset = (offset: ByteOffset, length: ByteLength): boolean =>
  offset < START_BLOCK_OFFSET + FIRST + SIZE && offset + length > START_BLOCK_OFFSET + FIRST;

/** May there be shadow copies? What a volume keeps on another one is not looked for there. */
export const leadsToCatalog = ({ firstControlBlock, volumeId, storageVolumeId }: StartBlock): boolean =>
  firstControlBlock !== 0 || volumeId !== storageVolumeId;

/** Makes the start block of Windows in this sector lead nowhere. Whatever else the sector holds is left as it is. */
export function clearCatalogOffset(sector: Uint8Array): void {
  if (!isStartBlock(sector)) return;
  const view = new DataView(sector.buffer, sector.byteOffset, START_BLOCK_SIZE);
  if (view.getUint32(START.at.magic, true) === START_MAGIC) return;
  view.setBigUint64(FIRST, 0n, true);
}
