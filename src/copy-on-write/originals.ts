/** Blocks of the volume as they are before they are overwritten. */
import { allDone } from '../all-done.js';
import type { BlockDevice } from '../device/block-device.js';
import { BLOCK_SIZE, type BlockNumber, type ByteOffset, offsetOfBlock } from '../units.js';

/**
 * Reads blocks, neighbours in one request; a short last block is filled up with zeros.
 * @param blocks ascending
 * @param buffer room for all of them
 * @returns parts of `buffer`, 16 KiB each. Settles when nothing is being read any more. @throws DeviceError
 */
export async function readBlocks(
  volume: BlockDevice,
  blocks: readonly BlockNumber[],
  buffer: Uint8Array,
): Promise<Uint8Array[]> {
  const reads: Promise<void>[] = [];
  for (let start = 0; start < blocks.length; ) {
    const first = blocks[start] ?? 0;
    let end = start + 1;
    while (end < blocks.length && blocks[end] === first + (end - start)) end++;
    const offset = offsetOfBlock(first);
    const length = Math.min((end - start) * BLOCK_SIZE, volume.size - offset);
    const from = start * BLOCK_SIZE;
    const read = readRun(volume, offset, buffer.subarray(from, from + length));
    if (read !== undefined) reads.push(read);
    buffer.fill(0, from + length, end * BLOCK_SIZE);
    start = end;
  }
  if (reads.length > 0) await allDone(reads);
  return blocks.map((_, i) => buffer.subarray(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE));
}

/** @returns `undefined` if it is done; a failure is always a rejection, so that reads under way are waited for */
function readRun(volume: BlockDevice, offset: ByteOffset, target: Uint8Array): Promise<void> | undefined {
  try {
    return volume.readNow?.(offset, target) === true ? undefined : volume.read(offset, target);
  } catch (error) {
    return Promise.reject(error);
  }
}

/** One block of them. */
const ZEROS = Buffer.alloc(BLOCK_SIZE);
export const isZeroBlock = (data: Uint8Array): boolean => ZEROS.equals(data);
