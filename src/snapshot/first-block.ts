/** A snapshot's own copy of block 0, where the store hides what the volume holds there. */
import type { BlockDevice } from '../device/block-device.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { LimitError } from '../errors.js';
import { BLOCK_SIZE, type Slot } from '../units.js';

/**
 * Who reads the raw device sees the start block in block 0, in place of what the volume holds there. So each
 * snapshot has its own copy of that block from the beginning.
 * @param slots one that was reserved for it
 * @throws LimitError if there is none; DeviceError
 */
export async function copyFirstBlock(
  device: BlockDevice,
  area: DiffArea,
  slots: readonly Slot[] | undefined,
): Promise<void> {
  const data = new Uint8Array(BLOCK_SIZE);
  await device.read(0, data.subarray(0, Math.min(BLOCK_SIZE, device.size)));
  const slot = slots?.[0];
  if (slots === undefined || slot === undefined)
    throw new LimitError('a new diff area has no room for one block');
  const copies = { blocks: [0], slots, checksums: [area.checksum(0, slot, data)] };
  await area.writeData(slots, [data]);
  area.append([copies]);
  await area.writeEntries();
  await area.flush();
  area.publish(copies);
}
