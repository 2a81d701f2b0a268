/**
 * Location blocks: which runs of the device a diff-area file consists of, as a chain of up to 677 runs a block.
 *
 * The list that Windows writes may leave out the first blocks of the file; nothing is read through it there.
 */
import { assert } from '../errors.js';
import { BLOCK_SIZE, type ByteLength, type ByteOffset } from '../units.js';
import {
  badField,
  checkAligned,
  checkReserved,
  isZero,
  type ReadContext,
  readU64,
  viewOf,
  writeU64,
} from './binary.js';
import { type BlockHeader, decodeHeader, encodeHeader, headerOf, type NewBlock } from './block-header.js';
import { BlockType, HEADER_SIZE, LOCATION_SIZE, LOCATIONS_PER_BLOCK } from './constants.js';
import { sealBlock } from './extension.js';
import { structure } from './structure.js';

/** A run: `length` bytes of the file from `fileOffset` on lie at `volumeOffset` of the device. */
export interface Location {
  readonly volumeOffset: ByteOffset;
  readonly fileOffset: ByteOffset;
  readonly length: ByteLength;
}

// 0 u64 volume offset | 8 u64 file offset | 16 u64 length
export const LOCATION = structure('location', LOCATION_SIZE, { volumeOffset: 8, fileOffset: 8, length: 8 });
const at = LOCATION.at;

/** One block of the chain, sealed. */
export function encodeLocationBlock(place: NewBlock, locations: readonly Location[]): Uint8Array {
  assert(locations.length <= LOCATIONS_PER_BLOCK, () => `${locations.length} locations do not fit one block`);
  const block = new Uint8Array(BLOCK_SIZE);
  encodeHeader(block, headerOf(BlockType.location, place));
  const view = viewOf(block);
  locations.forEach((location, index) => {
    const place = HEADER_SIZE + index * LOCATION_SIZE;
    assert(location.length > 0, () => `location ${index} is empty`);
    writeU64(view, place + at.volumeOffset, location.volumeOffset);
    writeU64(view, place + at.fileOffset, location.fileOffset);
    writeU64(view, place + at.length, location.length);
  });
  sealBlock(block);
  return block;
}

/**
 * The locations of one block of the chain, in order; zero ones are left out.
 * @throws FormatError for a number beyond 2^53, and (ours) an empty or odd run or bytes after the last one
 */
export function decodeLocationBlock(
  block: Uint8Array,
  context: ReadContext,
): { header: BlockHeader; locations: Location[] } {
  const header = decodeHeader(block, BlockType.location, context);
  const ours = header.extension !== undefined;
  const view = viewOf(block);
  const locations: Location[] = [];
  for (let index = 0; index < LOCATIONS_PER_BLOCK; index++) {
    const place = HEADER_SIZE + index * LOCATION_SIZE;
    if (isZero(block, place, place + LOCATION_SIZE)) {
      if (!ours) continue;
      checkReserved(block, place, BLOCK_SIZE, 'location block after its last location', context);
      break;
    }
    const location: Location = {
      volumeOffset: readU64(view, place + at.volumeOffset, `location ${index}: volume offset`, context),
      fileOffset: readU64(view, place + at.fileOffset, `location ${index}: file offset`, context),
      length: readU64(view, place + at.length, `location ${index}: length`, context),
    };
    if (ours) checkLocation(location, index, context);
    locations.push(location);
  }
  if (ours)
    checkReserved(
      block,
      HEADER_SIZE + LOCATIONS_PER_BLOCK * LOCATION_SIZE,
      BLOCK_SIZE,
      'location block',
      context,
    );
  return { header, locations };
}

function checkLocation(location: Location, index: number, context: ReadContext): void {
  checkAligned(location.volumeOffset, `location ${index}: volume offset`, context);
  checkAligned(location.fileOffset, `location ${index}: file offset`, context);
  checkAligned(location.length, `location ${index}: length`, context);
  if (location.length === 0) throw badField(context, `location ${index}: length`, 0, 'more than zero');
  const end = Math.max(location.volumeOffset, location.fileOffset) + location.length;
  if (end > Number.MAX_SAFE_INTEGER)
    throw badField(context, `location ${index}: end`, end, 'no larger than 2^53 - 1');
}
