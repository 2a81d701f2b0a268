/**
 * Writes a snapshot as a qcow2 image: all of it, or what changed since an older snapshot, to be read through the older
 * one's image.
 *
 * A full image has clusters of 64 KiB, QEMU's own choice; what holds zeros is left out. An incremental one has clusters of
 * 16 KiB, the unit in which changes are known: it holds exactly what changed, nothing has to be filled up from around it,
 * and a cluster of zeros is said to be zeros, so that the older image does not show through. Images of both kinds
 * may be mixed in a chain. Of disks that are too large for such clusters (128 TiB, 2 PiB) they are larger.
 *
 * What the snapshot knows to be zero is not read, so an image of a large empty volume is made at once.
 *
 * Left out: compression, which costs readers more than it gives them here.
 */
import { rm, writeFile } from 'node:fs/promises';
import type { BlockDevice } from '../device/block-device.js';
import { FileDevice } from '../device/file-device.js';
import { explained } from '../device/system-error.js';
import { isZeros } from '../device/zeros.js';
import { InvalidArgumentError } from '../errors.js';
import { isBackingName } from '../format/qcow2.js';
import { clusterBitsFor } from '../format/qcow2-tables.js';
import type { Snapshot } from '../snapshot/snapshot.js';
import { BLOCK_SIZE, type ByteLength, roundUp, SECTOR_SIZE } from '../units.js';
import type { VolumeAccess } from '../volume/access.js';
import type { ChangedExtent } from '../volume/changed-blocks.js';
import { piecesOf } from './extent-reader.js';
import { Qcow2Writer } from './qcow2-writer.js';
import { everything, zeroParts } from './zero-parts.js';

/** What an export needs of a volume. */
export type ExportedVolume = Pick<VolumeAccess, 'name' | 'snapshots' | 'changedBlocks'>;

export interface ExportQcow2Options {
  /** What to export. */
  readonly snapshot: Snapshot;
  /** Export only what changed since this older snapshot. */
  readonly since?: Snapshot;
  /**
   * The image of `since`, as the new image is to name it; only with `since`. Without, the image names none, and
   * has to be given one (`qemu-img rebase -u`) before it is read.
   */
  readonly backing?: {
    /** As programs that read the image take it: relative to its folder, or absolute. At most 1023 bytes. */
    readonly name: string;
    readonly format: 'qcow2' | 'raw';
  };
  readonly signal?: AbortSignal;
  /** Bytes of the snapshot up to which the export has come, and how many it has. */
  readonly onProgress?: (done: ByteLength, total: ByteLength) => void;
}

export interface Qcow2Figures {
  /** Bytes of the disk in the image: the snapshot's, rounded up to 512. */
  readonly size: ByteLength;
  readonly clusterSize: ByteLength;
  /** Bytes of the disk that the image has the content of. */
  readonly dataBytes: ByteLength;
  /** Bytes of the disk that it says to be zeros. */
  readonly zeroBytes: ByteLength;
  /** Bytes of the image itself. */
  readonly fileBytes: ByteLength;
}

const FULL_CLUSTER_BITS = 16;
const BLOCK_CLUSTER_BITS = Math.log2(BLOCK_SIZE);

/**
 * @param target path of the image, which must not exist; or a device, whose content is replaced and which grows if it can.
 *   It stays the caller's
 * @throws InvalidArgumentError, SnapshotDeletedError, NoSpaceError (the device is too
 *   small), DeviceError, the reason of an abort; then no file is left, and a device holds no image
 */
export async function exportQcow2(
  volume: ExportedVolume,
  target: string | BlockDevice,
  options: ExportQcow2Options,
): Promise<Qcow2Figures> {
  checkOptions(volume, options);
  if (typeof target !== 'string') return writeImage(volume, target, options);
  await explained(`create ${target}`, () => writeFile(target, '', { flag: 'wx', mode: 0o600 }));
  try {
    await using device = await FileDevice.open(target, { writable: true });
    return await writeImage(volume, device, options);
  } catch (error) {
    await rm(target, { force: true });
    throw error;
  }
}

function checkOptions(volume: ExportedVolume, { snapshot, since, backing }: ExportQcow2Options): void {
  for (const given of [snapshot, since]) {
    if (given !== undefined && !volume.snapshots.includes(given))
      throw new InvalidArgumentError(`snapshot ${given.id} is not one of ${volume.name}, or gone`);
  }
  if (since !== undefined && volume.snapshots.indexOf(since) >= volume.snapshots.indexOf(snapshot)) {
    throw new InvalidArgumentError(
      `snapshot ${since.id} is not older than ${snapshot.id}; name an older one`,
    );
  }
  if (backing === undefined) return;
  if (since === undefined)
    throw new InvalidArgumentError('a backing file is for an image of what changed: say since when');
  if (!isBackingName(backing.name))
    throw new InvalidArgumentError(`backing name "${backing.name}": qcow2 takes 1 to 1023 bytes`);
}

async function writeImage(
  volume: ExportedVolume,
  device: BlockDevice,
  { snapshot, since, backing, signal, onProgress }: ExportQcow2Options,
): Promise<Qcow2Figures> {
  const size = roundUp(snapshot.size, SECTOR_SIZE);
  const writer = new Qcow2Writer(device, {
    size,
    clusterBits: clusterBitsFor(size, since === undefined ? FULL_CLUSTER_BITS : BLOCK_CLUSTER_BITS),
    backing,
    origin: { snapshotId: snapshot.id, sinceId: since?.id },
  });
  const { clusterSize } = writer;
  const extents: AsyncIterable<ChangedExtent> =
    since === undefined
      ? everything(snapshot)
      : volume.changedBlocks({ since, until: snapshot, alignment: clusterSize, ...(signal && { signal }) });
  await writer.begin();
  const figures = { dataBytes: 0, zeroBytes: 0 };
  const parts = zeroParts(snapshot, extents, clusterSize);
  // Of a full image zeros are what it says nothing about.
  const skipsZeros = since === undefined;
  for await (const pieces of piecesOf(snapshot, parts, { unit: clusterSize, skipsZeros, signal })) {
    for (const { offset, length, bytes } of pieces) {
      if (bytes === undefined && skipsZeros) continue;
      for (let inside = 0; inside < length; inside += clusterSize) {
        const cluster = (offset + inside) / clusterSize;
        const content = bytes?.subarray(inside, inside + clusterSize);
        const held = Math.min(clusterSize, size - offset - inside);
        if (content !== undefined && !isZeros(content)) {
          writer.data(cluster, content);
          figures.dataBytes += held;
        } else if (!skipsZeros) {
          writer.zeros(cluster);
          figures.zeroBytes += held;
        }
      }
    }
    await writer.writePending();
    const last = pieces.at(-1);
    if (last !== undefined) onProgress?.(last.offset + last.length, snapshot.size);
  }
  signal?.throwIfAborted();
  const fileBytes = await writer.finish();
  return { size, clusterSize, ...figures, fileBytes };
}
