/**
 * Writes a volume with its snapshots as one image in the in-volume layout, for libvshadow and whatever else reads
 * shadow copies: the volume first, its reserve behind it, every snapshot with the copies that it needs.
 *
 * The sector at 0x1E00 belongs to the start block then. What the volume had there is in every snapshot, and volsnap
 * shows it in the volume too; another program that mounts the image's volume itself does not see it.
 */
import { rm, writeFile } from 'node:fs/promises';
import { allocationOf } from '../device/allocation.js';
import type { BlockDevice } from '../device/block-device.js';
import { FileDevice } from '../device/file-device.js';
import { explained } from '../device/system-error.js';
import { isZeros } from '../device/zeros.js';
import { FixedSlot } from '../diff-area/area-slots.js';
import { AREA_SIZE_MIN, createDiffArea } from '../diff-area/create.js';
import type { DiffArea } from '../diff-area/diff-area.js';
import { type Environment, systemEnvironment } from '../environment.js';
import { assert, InvalidArgumentError, UnsupportedError } from '../errors.js';
import { ENTRIES_PER_TABLE_BLOCK } from '../format/constants.js';
import { SnapshotFlag } from '../format/control-block.js';
import { filetimeFromMilliseconds } from '../format/filetime.js';
import { describeSnapshot } from '../snapshot/information.js';
import type { ByteSource, Snapshot } from '../snapshot/snapshot.js';
import { InVolumeStore, RESERVE_MIN } from '../store/in-volume-store.js';
import { randomU64 } from '../store/new-start.js';
import type { AttachedStore } from '../store/store.js';
import {
  BLOCK_SIZE,
  type BlockNumber,
  type ByteLength,
  type ByteOffset,
  blocksIn,
  offsetOfBlock,
  roundUp,
} from '../units.js';
import type { VolumeAccess } from '../volume/access.js';

export interface ExportVssOptions {
  /** The newest snapshot to export: the image's volume is as this one, with it and all older ones inside. Default: all, and the volume as it is now; of a volume that is written meanwhile that is no single moment. */
  readonly until?: Snapshot;
  readonly signal?: AbortSignal;
  /** Bytes done and bytes in all. */
  readonly onProgress?: (done: ByteLength, total: ByteLength) => void;
  readonly environment?: Environment;
}

/** A snapshot and the blocks that differ from the next newer one. */
interface Layer {
  readonly snapshot: Snapshot;
  readonly blocks: readonly BlockNumber[];
}

/** Blocks that are read, checked for zeros and written together. */
const STEP_BLOCKS = 256;

/**
 * @param target path of the image; it must not exist
 * @throws UnsupportedError (the volume is Windows' own, or there are no bytes), InvalidArgumentError, DeviceError; then no file is left
 */
export async function exportVss(
  volume: VolumeAccess,
  target: string,
  options: ExportVssOptions = {},
): Promise<void> {
  const { until, environment = systemEnvironment } = options;
  if (volume.figures.layout === 'windows') {
    throw new UnsupportedError(`${volume.name} is such an image already; copy it`);
  }
  if (until !== undefined && !volume.snapshots.includes(until)) {
    throw new InvalidArgumentError(`snapshot ${until.id} is not one of ${volume.name}, or gone`);
  }
  const base: ByteSource = until ?? volume;
  const { size } = base;
  if (size === 0) {
    const what = until === undefined ? volume.name : `snapshot ${until.id} of ${volume.name}`;
    throw new UnsupportedError(`${what} has no bytes, and format vss no image of that; use format raw`);
  }
  await explained(`create ${target}`, () => writeFile(target, '', { flag: 'wx', mode: 0o600 }));
  try {
    await using device = await FileDevice.open(target, { writable: true });
    await device.resize(roundUp(size, BLOCK_SIZE));
    const progress = new Progress(size, options);
    await copyVolume(base, device, progress);
    // After the volume: what is overwritten while it is copied is then among the blocks of the newest snapshot.
    const layers = await layersOf(volume, until);
    progress.total += layers.reduce((sum, { blocks }) => sum + blocks.length * BLOCK_SIZE, 0);
    await device.resize(roundUp(size, BLOCK_SIZE) + reserveFor(layers));
    const place = new InVolumeStore({ protectedSize: size, overFileSystem: true });
    // The volume may be one of Windows, whose shadow copies are among the snapshots here.
    await place.initialize(device, { environment, maximumSize: 0, overWindows: true });
    const store = await place.attach(device, { environment, writable: true });
    let createdAt = 0n;
    for (const [index, layer] of layers.entries()) {
      const time = filetimeFromMilliseconds(layer.snapshot.createdAt.getTime());
      createdAt = time > createdAt ? time : createdAt + 1n;
      await writeLayer(store, layer, { environment, order: index + 1, createdAt, progress });
    }
    await store.control.markClosed({ volumeSize: size, modifiedAt: 0n });
    await store.close();
  } catch (error) {
    await rm(target, { force: true });
    throw error;
  }
}

class Progress {
  #done = 0;

  constructor(
    public total: ByteLength,
    readonly options: ExportVssOptions,
  ) {}

  /** @throws the reason of an abort */
  add(length: ByteLength): void {
    this.options.signal?.throwIfAborted();
    this.#done += length;
    this.options.onProgress?.(this.#done, this.total);
  }
}

async function layersOf(volume: VolumeAccess, until: Snapshot | undefined): Promise<Layer[]> {
  const { snapshots } = volume;
  const last = until === undefined ? snapshots.length : snapshots.indexOf(until) + 1;
  const layers: Layer[] = [];
  for (const [index, snapshot] of snapshots.slice(0, last).entries()) {
    // Block 0 of the image holds the start block, so every snapshot has its own.
    const blocks = new Set<BlockNumber>(snapshot.size === 0 ? [] : [0]);
    const next = index + 1 < last ? snapshots[index + 1] : until;
    if (next !== snapshot) {
      for await (const { offset, length } of volume.changedBlocks({
        since: snapshot,
        ...(next && { until: next }),
        // What the volume has grown by since is nothing to this one.
        length: snapshot.size,
      })) {
        for (let at = offset; at < offset + length; at += BLOCK_SIZE) blocks.add(at / BLOCK_SIZE);
      }
    }
    layers.push({ snapshot, blocks: [...blocks].sort((a, b) => a - b) });
  }
  return layers;
}

const areaLength = ({ blocks }: Layer): ByteLength =>
  Math.max(
    AREA_SIZE_MIN,
    (FixedSlot.count + blocks.length + Math.ceil(blocks.length / ENTRIES_PER_TABLE_BLOCK) + 1) * BLOCK_SIZE,
  );

const reserveFor = (layers: readonly Layer[]): ByteLength =>
  RESERVE_MIN + layers.reduce((sum, layer) => sum + areaLength(layer), 0);

/** What is known to be zero is not read: the image is a file of holes to begin with. */
async function copyVolume(source: ByteSource, device: BlockDevice, progress: Progress): Promise<void> {
  let at = 0;
  for await (const { length, zero } of allocationOf(source)) {
    if (zero) progress.add(length);
    else await copyRange(source, at, at + length, device, progress);
    at += length;
  }
}

async function copyRange(
  source: ByteSource,
  start: ByteOffset,
  end: ByteOffset,
  device: BlockDevice,
  progress: Progress,
): Promise<void> {
  const buffer = new Uint8Array(Math.min(STEP_BLOCKS * BLOCK_SIZE, end - start));
  for (let at = start; at < end; at += buffer.byteLength) {
    const part = buffer.subarray(0, Math.min(buffer.byteLength, end - at));
    await source.read(at, part);
    for (let inside = 0; inside < part.byteLength; inside += BLOCK_SIZE) {
      const block = part.subarray(inside, inside + BLOCK_SIZE);
      if (!isZeros(block)) await device.write(at + inside, block);
    }
    progress.add(part.byteLength);
  }
}

interface LayerPlace {
  readonly environment: Environment;
  readonly order: number;
  readonly createdAt: bigint;
  readonly progress: Progress;
}

async function writeLayer(store: AttachedStore, layer: Layer, place: LayerPlace): Promise<void> {
  const { snapshot, blocks } = layer;
  const { storeId, setId, label, applicationInfo } = snapshot;
  const area = await createDiffArea(await store.createArea(storeId), {
    storeId,
    epoch: randomU64(place.environment),
    information: describeSnapshot({ snapshotId: snapshot.id, setId, label, applicationInfo }),
    blockCount: blocksIn(snapshot.size),
    length: areaLength(layer),
  });
  for (let start = 0; start < blocks.length; start += STEP_BLOCKS) {
    const some = blocks.slice(start, start + STEP_BLOCKS);
    await copyBlocks(area, snapshot, some);
    place.progress.add(some.length * BLOCK_SIZE);
  }
  await area.flush();
  await area.writeWatermark();
  await area.flush();
  await store.control.publish({
    snapshot: {
      kind: 'snapshot',
      volumeSize: snapshot.size,
      storeId,
      order: place.order,
      flags: SnapshotFlag.visible | SnapshotFlag.noDiffAreaFill,
      createdAt: place.createdAt,
    },
    diffArea: area.item,
  });
}

async function copyBlocks(area: DiffArea, snapshot: Snapshot, blocks: readonly BlockNumber[]): Promise<void> {
  const data = blocks.map(() => new Uint8Array(BLOCK_SIZE));
  for (const [index, block] of blocks.entries()) {
    const offset = offsetOfBlock(block);
    await snapshot.read(offset, data[index]?.subarray(0, Math.min(BLOCK_SIZE, snapshot.size - offset)) ?? 0);
  }
  const stored = data.filter((bytes) => !isZeros(bytes));
  const reserved = area.reserve(stored.length, blocks.length);
  assert(
    reserved !== undefined,
    () => `a diff area of ${area.allocatedBytes} bytes is too small for what it was made for`,
  );
  let next = 0;
  const slots = data.map((bytes) => (bytes === stored[next] ? (reserved[next++] ?? 0) : FixedSlot.zeros));
  const checksums = data.map((bytes, i) => area.checksum(blocks[i] ?? 0, slots[i] ?? 0, bytes));
  await area.writeData(reserved, stored);
  area.append([{ blocks, slots, checksums }]);
  await area.writeEntries();
}
