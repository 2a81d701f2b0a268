/**
 * Reading a snapshot: for each block its own copy, else that of the next newer snapshot, and so on, else the volume.
 *
 * Race-free against writers without a lock: a copy is published before its block is overwritten, so a block that was
 * read from the volume is right if no table has it after the read. If one has, it is read again from there.
 */
import type { BlockDevice } from '../device/block-device.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { VolumeChangedError } from '../errors.js';
import {
  BLOCK_SIZE,
  type BlockNumber,
  type ByteLength,
  type ByteOffset,
  blockOf,
  offsetOfBlock,
  type Slot,
} from '../units.js';

/** Where the content of one block lies. */
interface Source {
  /** `undefined`: in the volume. */
  readonly area: DiffArea | undefined;
  readonly slot: Slot;
}

const IN_VOLUME: Source = { area: undefined, slot: -1 };

/**
 * Fills `target` with the snapshot's bytes from `offset`.
 * @param areas gives the diff areas of the snapshot itself and of all newer ones, in order of age; asked again after
 *   each read of the volume, because a snapshot may have been taken meanwhile
 * @throws IntegrityError, DeviceError
 */
export async function readSnapshot(
  areas: () => readonly DiffArea[],
  volume: BlockDevice,
  offset: ByteOffset,
  target: Uint8Array,
): Promise<void> {
  const end = offset + target.byteLength;
  for (let at = offset; at < end; ) {
    const block = blockOf(at);
    const source = find(areas(), block);
    const last = lastOfRun(areas(), source, block, blockOf(end - 1));
    const until = Math.min(end, offsetOfBlock(last + 1));
    const part = target.subarray(at - offset, until - offset);
    if (source.area === undefined) await readFromVolume(areas, volume, at, part);
    else await readFromArea(source.area, source.slot, at, part);
    at = until;
  }
}

function find(areas: readonly DiffArea[], block: BlockNumber): Source {
  for (const area of areas) {
    const slot = area.table.slotOf(block);
    if (slot !== -1) return { area, slot };
  }
  return IN_VOLUME;
}

/** The last block, up to `limit`, that can be read in one request together with `first`. */
function lastOfRun(
  areas: readonly DiffArea[],
  source: Source,
  first: BlockNumber,
  limit: BlockNumber,
): BlockNumber {
  let last: number = first;
  while (last < limit) {
    const next = find(areas, last + 1);
    if (next.area !== source.area) break;
    if (next.area !== undefined && !next.area.canReadTogether(source.slot, next.slot, last + 1 - first))
      break;
    last++;
  }
  return last;
}

async function readFromVolume(
  areas: () => readonly DiffArea[],
  volume: BlockDevice,
  offset: ByteOffset,
  target: Uint8Array,
): Promise<void> {
  const end = offset + target.byteLength;
  if (end > volume.size) {
    throw new VolumeChangedError(
      `${volume.name} was cut to ${volume.size} bytes; bytes ${offset} to ${end} of the snapshot are lost`,
    );
  }
  await volume.read(offset, target);
  for (let block: number = blockOf(offset); block <= blockOf(end - 1); block++) {
    const source = find(areas(), block);
    if (source.area === undefined) continue;
    const from = Math.max(offset, offsetOfBlock(block));
    const until = Math.min(end, offsetOfBlock(block + 1));
    await readFromArea(source.area, source.slot, from, target.subarray(from - offset, until - offset));
  }
}

/** Checksums cover whole blocks, so blocks that are wanted in part are read whole. */
async function readFromArea(
  area: DiffArea,
  firstSlot: Slot,
  offset: ByteOffset,
  target: Uint8Array,
): Promise<void> {
  const first = blockOf(offset);
  const end = offset + target.byteLength;
  const count = blockOf(end - 1) + 1 - first;
  if (offset === offsetOfBlock(first) && target.byteLength === count * BLOCK_SIZE) {
    return area.readCopies(first, firstSlot, target);
  }
  const whole = new Uint8Array(count * BLOCK_SIZE);
  await area.readCopies(first, firstSlot, whole);
  const skip: ByteLength = offset - offsetOfBlock(first);
  target.set(whole.subarray(skip, skip + target.byteLength));
}
