/**
 * Numbers and names of the on-disk format that more than one module needs.
 *
 * Everything on disk is little-endian. Sizes and offsets are in bytes.
 */
import { BLOCK_SIZE, SECTOR_SIZE } from '../units.js';

/** Opens every metadata block, and is part of the names of the control file and the diff-area files. */
export const FORMAT_SIGNATURE = '3808876b-c176-4e48-b7ae-04046e6cc752';
/** The version that this package writes everywhere; the start block of Windows 8 and later carries 2. */
export const FORMAT_VERSION = 1;

/** Where the start block lies: the last sector of the 8 KiB boot area. */
export const START_BLOCK_OFFSET = 0x1e00;
export const START_BLOCK_SIZE = SECTOR_SIZE;

/** The header of a metadata block; its payload follows at once. */
export const HEADER_SIZE = 128;
/** What a metadata block holds besides its header. */
export const PAYLOAD_SIZE = BLOCK_SIZE - HEADER_SIZE;

export const ITEM_SIZE = 128;
export const ITEMS_PER_BLOCK = PAYLOAD_SIZE / ITEM_SIZE;

export const ENTRY_SIZE = 32;
export const ENTRIES_PER_TABLE_BLOCK = PAYLOAD_SIZE / ENTRY_SIZE;

export const LOCATION_SIZE = 24;
/** The payload is not a multiple of a location: its last 8 bytes stay zero. */
export const LOCATIONS_PER_BLOCK = Math.floor(PAYLOAD_SIZE / LOCATION_SIZE);

export const BITS_PER_BITMAP_BLOCK = PAYLOAD_SIZE * 8;

/** The application information of one snapshot fits into one block. */
export const APPLICATION_INFORMATION_MAX = PAYLOAD_SIZE;
export const SNAPSHOTS_MAX = 512;

/** What a metadata block is, as its header says. */
export const BlockType = {
  start: 1,
  control: 2,
  table: 3,
  applicationInformation: 4,
  location: 5,
  bitmap: 6,
} as const;
export type BlockType = (typeof BlockType)[keyof typeof BlockType];
/** The types that fill a whole block; the start block is a single sector. */
export type MetadataBlockType = Exclude<BlockType, typeof BlockType.start>;

/** What messages call a block of each type. */
export const BLOCK_TYPE_NAMES: Readonly<Record<BlockType, string>> = {
  [BlockType.start]: 'start block',
  [BlockType.control]: 'control block',
  [BlockType.table]: 'diff-area table block',
  [BlockType.applicationInformation]: 'application-information block',
  [BlockType.location]: 'location block',
  [BlockType.bitmap]: 'bitmap block',
};
