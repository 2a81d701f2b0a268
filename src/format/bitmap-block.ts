/**
 * Bitmap blocks: one bit a block of the volume, set where the block was not in use when the snapshot was taken.
 *
 * The payloads of a chain form one stream of bits, least significant first: 130,048 blocks (1.98 GiB) each.
 */
import { assert } from '../errors.js';
import { BLOCK_SIZE, type BlockNumber } from '../units.js';
import type { ReadContext } from './binary.js';
import { type BlockHeader, decodeHeader, encodeHeader, headerOf, type NewBlock } from './block-header.js';
import { BITS_PER_BITMAP_BLOCK, BlockType, HEADER_SIZE, PAYLOAD_SIZE } from './constants.js';
import { sealBlock } from './extension.js';

/** How many bitmap blocks describe a volume of `blocks` blocks; one at least. */
export const bitmapBlocksFor = (blocks: number): number =>
  Math.max(1, Math.ceil(blocks / BITS_PER_BITMAP_BLOCK));

/** One block of the chain, sealed. @param bits up to 16,256 bytes; what is missing counts as zero */
export function encodeBitmapBlock(place: NewBlock, bits: Uint8Array): Uint8Array {
  assert(bits.byteLength <= PAYLOAD_SIZE, () => `${bits.byteLength} bytes do not fit one bitmap block`);
  const block = new Uint8Array(BLOCK_SIZE);
  encodeHeader(block, headerOf(BlockType.bitmap, place));
  block.set(bits, HEADER_SIZE);
  sealBlock(block);
  return block;
}

/** The bits of one block of the chain, as a window on `block`. @throws as `decodeHeader` */
export function decodeBitmapBlock(
  block: Uint8Array,
  context: ReadContext,
): { header: BlockHeader; bits: Uint8Array } {
  const header = decodeHeader(block, BlockType.bitmap, context);
  return { header, bits: block.subarray(HEADER_SIZE) };
}

/** Whether the bit of `block` is set; beyond the end of `bits` none is. */
export const bitAt = (bits: Uint8Array, block: BlockNumber): boolean => {
  const number = block as number;
  return (((bits[Math.floor(number / 8)] ?? 0) >>> (number % 8)) & 1) === 1;
};

/** Sets or clears the bit of `block`. */
export function setBit(bits: Uint8Array, block: BlockNumber, value: boolean): void {
  const number = block as number;
  const index = Math.floor(number / 8);
  assert(index < bits.byteLength, () => `bit ${number} is beyond a bitmap of ${bits.byteLength} bytes`);
  const mask = 1 << (number % 8);
  const byte = bits[index] ?? 0;
  bits[index] = value ? byte | mask : byte & ~mask;
}
