/**
 * Bitmaps of unused blocks on the device: chains of bitmap blocks in slots of the diff-area file.
 *
 * A snapshot has its own bitmap, what was free at its moment, and the previous one: what older snapshots do not need (they
 * skip it, or have a copy). It skips the blocks that are in both. They are written once, made durable, and only then named in
 * the control file; so a crash leaves both or none.
 */
import { assert, FormatError } from '../errors.js';
import { bitmapBlocksFor, decodeBitmapBlock, encodeBitmapBlock } from '../format/bitmap-block.js';
import { PAYLOAD_SIZE } from '../format/constants.js';
import type { DiffAreaItem } from '../format/control-block.js';
import { requireExtension } from '../format/extension.js';
import type { AreaFile, OpenedArea } from '../store/store.js';
import { BLOCK_SIZE, type ByteOffset, offsetOfSlot, type Slot } from '../units.js';
import type { SlotMap } from './slot-map.js';
import { bothOf, UnusedBlocks } from './unused-blocks.js';

export interface AreaBitmaps {
  /** First slots of the chains. */
  readonly own: Slot;
  readonly previous: Slot | undefined;
  /** The highest slot of both chains. */
  readonly highest: Slot;
  readonly unused: UnusedBlocks;
}

/** Where the control file finds the bitmaps; 0: there is none. */
export type BitmapOffsets = Pick<DiffAreaItem, 'bitmapOffset' | 'previousBitmapOffset'>;

export function offsetsOf(bitmaps: AreaBitmaps | undefined, { runs }: AreaFile): BitmapOffsets {
  const at = (slot: Slot | undefined) => (slot === undefined ? 0 : runs.locate(offsetOfSlot(slot)));
  return { bitmapOffset: at(bitmaps?.own), previousBitmapOffset: at(bitmaps?.previous) };
}

/** Slots for one bitmap. */
export const bitmapSlotsFor = bitmapBlocksFor;

export interface NewBitmaps {
  /** Enough for both. */
  readonly slots: readonly Slot[];
  readonly blockCount: number;
  /** What was free at the moment of the snapshot. */
  readonly own: Uint8Array;
  /** What older snapshots do not need; `undefined`: there is none. */
  readonly previous: Uint8Array | undefined;
}

/** Writes bitmaps that nothing names yet; durable when it returns. */
export async function writeBitmaps(
  file: AreaFile,
  epoch: bigint,
  { slots, blockCount, own, previous }: NewBitmaps,
): Promise<AreaBitmaps> {
  const count = bitmapSlotsFor(blockCount);
  const chains = [slots.slice(0, count), slots.slice(count, 2 * count)] as const;
  const [[ownSlot], [previousSlot]] = chains;
  assert(ownSlot !== undefined, () => `no slots for bitmaps of ${blockCount} blocks`);
  await writeBitmap(file, epoch, chains[0], bothOf(own, undefined, blockCount));
  if (previous !== undefined) await writeBitmap(file, epoch, chains[1], previous);
  await file.device.flush();
  return {
    own: ownSlot,
    previous: previous === undefined ? undefined : previousSlot,
    highest: Math.max(...chains[0], ...(previous === undefined ? [] : chains[1])),
    unused: UnusedBlocks.of(bothOf(own, previous, blockCount)),
  };
}

/** Writes a bitmap into `slots`, as many as it needs; not flushed. */
async function writeBitmap(
  { device, runs }: AreaFile,
  epoch: bigint,
  slots: readonly Slot[],
  bits: Uint8Array,
): Promise<void> {
  for (const [index, slot] of slots.entries()) {
    const next = slots[index + 1];
    const volumeOffset = runs.locate(offsetOfSlot(slot));
    const block = encodeBitmapBlock(
      {
        fileOffset: offsetOfSlot(slot),
        volumeOffset,
        nextOffset: next === undefined ? 0 : runs.locate(offsetOfSlot(next)),
        epoch,
      },
      bits.subarray(index * PAYLOAD_SIZE, (index + 1) * PAYLOAD_SIZE),
    );
    await device.write(volumeOffset, block);
  }
}

/**
 * Reads the bitmaps that an item names, marking their slots as used.
 * @returns `undefined` if it names none
 * @throws FormatError, DeviceError
 */
export async function readBitmaps(
  opened: OpenedArea,
  item: DiffAreaItem,
  slots: SlotMap,
  blockCount: number,
): Promise<AreaBitmaps | undefined> {
  const { bitmapOffset, previousBitmapOffset, storeId } = item;
  if (bitmapOffset === 0) {
    if (previousBitmapOffset === 0) return undefined;
    throw new FormatError(`diff area ${storeId} has a previous bitmap, but none of its own`);
  }
  const own = await readBitmap(opened, bitmapOffset, slots, blockCount);
  const previous =
    previousBitmapOffset === 0
      ? undefined
      : await readBitmap(opened, previousBitmapOffset, slots, blockCount);
  return {
    own: own.first,
    previous: previous?.first,
    highest: Math.max(own.highest, previous?.highest ?? 0),
    unused: UnusedBlocks.of(bothOf(own.bits, previous?.bits, blockCount)),
  };
}

async function readBitmap(
  { file, list }: OpenedArea,
  first: ByteOffset,
  slots: SlotMap,
  blockCount: number,
): Promise<{ first: Slot; highest: Slot; bits: Uint8Array }> {
  const count = bitmapSlotsFor(blockCount);
  const bits = new Uint8Array(count * PAYLOAD_SIZE);
  const block = new Uint8Array(BLOCK_SIZE);
  let offset = first;
  let highest: Slot = 0;
  for (let index = 0; index < count; index++) {
    const slot = slots.at(offset, 'bitmap block');
    if (slots.isUsed(slot))
      throw new FormatError(`bitmap block at ${offset} is in use for something else, or twice`);
    slots.use(slot);
    highest = Math.max(highest, slot);
    await file.device.read(offset, block);
    const decoded = decodeBitmapBlock(block, { offset });
    requireExtension(decoded.header, list.epoch, { offset });
    bits.set(decoded.bits, index * PAYLOAD_SIZE);
    offset = decoded.header.nextOffset;
    if ((offset === 0) !== (index === count - 1))
      throw new FormatError(`bitmap chain from ${first}: ${index + 1} blocks, ${count} are needed`);
  }
  return { first: slots.at(first, 'bitmap block'), highest, bits };
}
