/**
 * The list of a reserve that lies inside the volume: which blocks of it belong to the store, although the volume's users see
 * a file of theirs there.
 *
 * The list only becomes shorter, when blocks are left to the volume, and it is one block in two places: the second is written first, and
 * of two that are sound the shorter one counts. So a crash leaves the old list or the new one, and an old one
 * that it has left is brought up to date before the next.
 */
import type { BlockDevice } from '../device/block-device.js';
import { FormatError, InvalidArgumentError, ReadOnlyError } from '../errors.js';
import { LOCATIONS_PER_BLOCK } from '../format/constants.js';
import { decodeLocationBlock, encodeLocationBlock } from '../format/location-block.js';
import { BLOCK_SIZE, type ByteLength, type ByteOffset } from '../units.js';
import { type Extent, Extents } from './extents.js';

/** Blocks that the list takes. */
export const RESERVE_LIST_BLOCKS = 2;

/** Whole blocks of runs that need not begin or end with one, as block numbers. @throws InvalidArgumentError */
export function wholeBlocks(
  runs: readonly { readonly offset: ByteOffset; readonly length: ByteLength }[],
  deviceSize: ByteLength,
): Extents {
  const blocks = new Extents();
  for (const { offset, length } of runs) {
    const isRange = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length > 0;
    if (!isRange) throw new InvalidArgumentError(`${length} bytes at ${offset} are no run`);
    if (offset + length > deviceSize)
      throw new InvalidArgumentError(`the run of ${length} bytes at ${offset} is not within ${deviceSize}`);
    const start = Math.ceil(offset / BLOCK_SIZE);
    const count = Math.floor((offset + length) / BLOCK_SIZE) - start;
    if (count <= 0) continue;
    if (blocks.overlaps(start, count))
      throw new InvalidArgumentError(`the run of ${length} bytes at ${offset} overlaps another one`);
    blocks.add(start, count);
  }
  if ([...blocks].length > LOCATIONS_PER_BLOCK)
    throw new InvalidArgumentError(
      `a reserve inside the volume has at most ${LOCATIONS_PER_BLOCK} runs, these are ${[...blocks].length}`,
    );
  return blocks;
}

/**
 * What has to be left besides, because what was left before cuts the reserve into more runs than the list holds: the shortest
 * runs that are free. @throws ReadOnlyError if there are not enough of those
 */
export function beyondList(blocks: Extents, free: Extents): Extent[] {
  const runs = [...blocks];
  const count = Math.max(0, runs.length - LOCATIONS_PER_BLOCK);
  const unused = runs.filter(({ start, length }) => free.contains(start, length));
  if (unused.length < count)
    throw new ReadOnlyError(`the list of the reserve holds ${LOCATIONS_PER_BLOCK} runs, and all are in use`);
  return unused.sort((a, b) => a.length - b.length).slice(0, count);
}

/**
 * Writes the list to its two places, one after the other, each durably.
 * @param inForce the list that counts now, if there is one. A crash may have left an older one in one of the places: it must go first, or it would
 *   count again if the power fails while the other place is written.
 */
export async function writeReserveList(
  device: BlockDevice,
  at: ByteOffset,
  epoch: bigint,
  blocks: Iterable<Extent>,
  inForce?: Extents,
): Promise<void> {
  for (let place = RESERVE_LIST_BLOCKS - 1; inForce !== undefined && place >= 0; place--) {
    const found = await tryPlace(device, at + place * BLOCK_SIZE, epoch);
    if (found instanceof FormatError || found.total !== inForce.total)
      await writePlace(device, at + place * BLOCK_SIZE, epoch, inForce);
  }
  for (let place = RESERVE_LIST_BLOCKS - 1; place >= 0; place--)
    await writePlace(device, at + place * BLOCK_SIZE, epoch, blocks);
}

async function writePlace(
  device: BlockDevice,
  offset: ByteOffset,
  epoch: bigint,
  blocks: Iterable<Extent>,
): Promise<void> {
  let fileOffset = 0;
  const locations = [...blocks].map(({ start, length }) => {
    const location = { volumeOffset: start * BLOCK_SIZE, fileOffset, length: length * BLOCK_SIZE };
    fileOffset += location.length;
    return location;
  });
  const header = { fileOffset: offset, volumeOffset: offset, nextOffset: 0, epoch };
  await device.write(offset, encodeLocationBlock(header, locations));
  await device.flush();
}

/** @returns what is wrong if no sound list is there @throws DeviceError */
async function tryPlace(
  device: BlockDevice,
  offset: ByteOffset,
  epoch: bigint,
): Promise<Extents | FormatError> {
  try {
    return await readPlace(device, offset, epoch);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return error;
  }
}

/** @throws FormatError if neither place holds a sound list, DeviceError */
export async function readReserveList(device: BlockDevice, at: ByteOffset, epoch: bigint): Promise<Extents> {
  let shortest: Extents | undefined;
  let failure: FormatError | undefined;
  for (let place = 0; place < RESERVE_LIST_BLOCKS; place++) {
    const found = await tryPlace(device, at + place * BLOCK_SIZE, epoch);
    if (found instanceof FormatError) failure = found;
    else if (shortest === undefined || found.total < shortest.total) shortest = found;
  }
  if (shortest === undefined) throw failure;
  return shortest;
}

async function readPlace(device: BlockDevice, offset: ByteOffset, epoch: bigint): Promise<Extents> {
  const block = new Uint8Array(BLOCK_SIZE);
  await device.read(offset, block);
  const { header, locations } = decodeLocationBlock(block, { offset });
  if (header.extension?.epoch !== epoch)
    throw new FormatError(`the list of the reserve at ${offset} belongs to another store`);
  const blocks = new Extents();
  for (const { volumeOffset, length } of locations) {
    const [start, count] = [volumeOffset / BLOCK_SIZE, length / BLOCK_SIZE];
    if (volumeOffset + length > device.size || blocks.overlaps(start, count))
      throw new FormatError(`the list of the reserve at ${offset}: ${length} bytes at ${volumeOffset}`);
    blocks.add(start, count);
  }
  return blocks;
}
