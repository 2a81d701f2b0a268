/**
 * The location list of a diff-area file: its runs, as a chain of location blocks on the device itself.
 *
 * A list is never changed in place: a growing file writes a whole new list into other blocks, and one
 * sector write of the control file makes that the list. So a crash leaves the old list or the new one.
 */
import type { BlockDevice } from '../device/block-device.js';
import { assert, FormatError } from '../errors.js';
import { LOCATIONS_PER_BLOCK } from '../format/constants.js';
import { decodeLocationBlock, encodeLocationBlock } from '../format/location-block.js';
import { BLOCK_SIZE, type ByteOffset } from '../units.js';
import { checkRuns, type Run, Runs } from './runs.js';

/** Blocks that a list of `runs` takes. */
export const locationBlocksFor = (runs: number): number => Math.max(1, Math.ceil(runs / LOCATIONS_PER_BLOCK));

export interface LocationList {
  readonly runs: Runs;
  /** Device offsets of the blocks of the chain. */
  readonly blocks: readonly ByteOffset[];
  /** Epoch of the diff-area file, which its other metadata blocks carry too. */
  readonly epoch: bigint;
}

/** Reads a list of one of our own stores. @throws FormatError, DeviceError */
export async function readLocationList(device: BlockDevice, first: ByteOffset): Promise<LocationList> {
  const runs: Run[] = [];
  const blocks: ByteOffset[] = [];
  const seen = new Set<ByteOffset>();
  let epoch: bigint | undefined;
  const block = new Uint8Array(BLOCK_SIZE);
  for (let offset = first; offset !== 0; ) {
    if (seen.has(offset))
      throw new FormatError(`location list: the chain from ${first} comes back to ${offset}`);
    if (offset % BLOCK_SIZE !== 0 || offset + BLOCK_SIZE > device.size) {
      throw new FormatError(`location list: block at ${offset}, device of ${device.size} bytes`);
    }
    seen.add(offset);
    blocks.push(offset);
    await device.read(offset, block);
    const { header, locations } = decodeLocationBlock(block, { offset });
    if (header.extension === undefined)
      throw new FormatError(`location block at ${offset} was not written by volsnap`);
    epoch ??= header.extension.epoch;
    if (header.extension.epoch !== epoch)
      throw new FormatError(`location block at ${offset} belongs to another store`);
    runs.push(...locations);
    offset = header.nextOffset;
  }
  if (epoch === undefined) throw new FormatError('the control file names no location list');
  checkRuns(runs, device.size);
  return { runs: new Runs(runs), blocks, epoch };
}

/** Writes a list into blocks of the file itself, given by their file offsets; not flushed. */
export async function writeLocationList(
  device: BlockDevice,
  epoch: bigint,
  runs: Runs,
  fileOffsets: readonly ByteOffset[],
): Promise<void> {
  const { list } = runs;
  assert(
    fileOffsets.length === locationBlocksFor(list.length),
    () => `${list.length} runs into ${fileOffsets.length} blocks`,
  );
  for (const [index, fileOffset] of fileOffsets.entries()) {
    const volumeOffset = runs.locate(fileOffset);
    const next = fileOffsets[index + 1];
    const block = encodeLocationBlock(
      { fileOffset, volumeOffset, nextOffset: next === undefined ? 0 : runs.locate(next), epoch },
      list.slice(index * LOCATIONS_PER_BLOCK, (index + 1) * LOCATIONS_PER_BLOCK),
    );
    await device.write(volumeOffset, block);
  }
}
