/**
 * Units of the numbers that this package passes around.
 *
 * A flavoured number accepts a plain `number` (so arithmetic stays readable) but refuses a number of another
 * flavour: passing a block number where a byte offset is wanted does not compile.
 */

type Flavour<Unit extends string> = number & { readonly unit?: Unit };

/** Bytes from the start of a device, a volume or a file. A safe integer, never negative. */
export type ByteOffset = Flavour<'byte offset'>;
/** A count of bytes. */
export type ByteLength = number;
/** Number of a 16 KiB block of the protected volume: `floor(byte offset / 16384)`. */
export type BlockNumber = Flavour<'block number'>;
/** Number of a 16 KiB block of a diff-area file: `file offset / 16384`. */
export type Slot = Flavour<'slot'>;

/** The unit of copy-on-write and of every metadata block, in bytes. */
export const BLOCK_SIZE = 16_384;
/** The unit that a device writes whole or not at all, in bytes. */
export const SECTOR_SIZE = 512;

/** The block that holds the byte at `offset`. */
export const blockOf = (offset: ByteOffset): BlockNumber => Math.floor(offset / BLOCK_SIZE);
/** Byte offset at which `block` begins. */
export const offsetOfBlock = (block: BlockNumber): ByteOffset => (block as number) * BLOCK_SIZE;
/** How many blocks are needed to hold `length` bytes. */
export const blocksIn = (length: ByteLength): number => Math.ceil(length / BLOCK_SIZE);
/** Byte offset of `slot` in its diff-area file. */
export const offsetOfSlot = (slot: Slot): ByteOffset => (slot as number) * BLOCK_SIZE;
/** `value` rounded up to a multiple of `unit`. */
export const roundUp = (value: number, unit: number): number => Math.ceil(value / unit) * unit;
