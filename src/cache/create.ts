/** Makes an empty cache image. */
import { type BlockDevice, isResizable } from '../device/block-device.js';
import { writeZeros } from '../device/zeros.js';
import { type Environment, systemEnvironment } from '../environment.js';
import { AlreadyInitializedError, InvalidArgumentError, UnsupportedError } from '../errors.js';
import { type Guid, guidFrom, NIL_GUID } from '../format/guid.js';
import {
  blockMapSizeFor,
  encodeBlockMapHeader,
  encodeVciHeader,
  isVci,
  VCI_BLOCK_SIZE,
  VCI_BLOCKS_MAX,
  VCI_HEADER,
  VCI_HEADER_BLOCKS,
  type VciHeader,
  type VciType,
} from '../format/vci.js';
import { emptyColumns, encodeNode, NODE_BLOCKS } from '../format/vci-node.js';
import { type ByteLength, roundUp } from '../units.js';
import { BlockMap } from './block-map.js';
import { intentBlocksFor } from './intents.js';

export interface CreateCacheOptions {
  /** Bytes of the image at most, metadata included; a multiple of 512. */
  readonly size: ByteLength;
  /** `dynamic`: the file grows with what is cached. `fixed`: it has its space from the beginning. Default: dynamic. */
  readonly type?: VciType;
  /** Default: a random one. */
  readonly id?: Guid;
  /** Replaces an image that is there. Default: false. */
  readonly replace?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: ByteLength, total: ByteLength) => void;
  readonly environment?: Environment;
}

/** The smallest image, bytes. */
export const CACHE_SIZE_MIN = 1024 * 1024;
/** The largest, bytes: just below 2 TiB. */
export const CACHE_SIZE_MAX = VCI_BLOCKS_MAX * VCI_BLOCK_SIZE;
const STEP = 4 * 1024 * 1024;

/**
 * Makes an empty image in a device. An interruption leaves no image.
 * @throws InvalidArgumentError for a size that no image has, AlreadyInitializedError if there is an image, UnsupportedError if the device is too short and
 * cannot grow, DeviceError
 */
export async function createCacheImage(device: BlockDevice, options: CreateCacheOptions): Promise<void> {
  const { size, type = 'dynamic', environment = systemEnvironment, signal } = options;
  if (size % VCI_BLOCK_SIZE !== 0 || size < CACHE_SIZE_MIN || size > CACHE_SIZE_MAX)
    throw new InvalidArgumentError(
      `a cache image has ${CACHE_SIZE_MIN} to ${CACHE_SIZE_MAX} bytes, a multiple of ${VCI_BLOCK_SIZE}; not ${size}`,
    );
  await makePlace(device, options.replace ?? false);
  const header = headerOf(size / VCI_BLOCK_SIZE, type, options.id ?? guidFrom(environment.random));
  const end = header.treeRoot + NODE_BLOCKS;
  if (device.size < (type === 'fixed' ? size : end * VCI_BLOCK_SIZE)) {
    if (!isResizable(device))
      throw new UnsupportedError(
        `${device.name} has ${device.size} bytes and cannot grow: choose a smaller, fixed image`,
      );
    await device.resize(type === 'fixed' ? size : end * VCI_BLOCK_SIZE);
  }
  const zeros = type === 'fixed' ? size : end * VCI_BLOCK_SIZE;
  for (let at = 0; at < zeros; at += STEP) {
    signal?.throwIfAborted();
    await writeZeros((offset, source) => device.write(offset, source), at, Math.min(STEP, zeros - at));
    options.onProgress?.(Math.min(zeros, at + STEP), zeros);
  }
  const root = encodeNode(emptyColumns('leaf'), 1);
  await device.write(header.treeRoot * VCI_BLOCK_SIZE, root);
  await writeBlockMap(device, header);
  // Before the header there is no image.
  await device.flush();
  await device.write(0, encodeVciHeader(header));
  await device.flush();
}

async function makePlace(device: BlockDevice, replace: boolean): Promise<void> {
  const head = new Uint8Array(Math.min(device.size, VCI_HEADER.size));
  await device.read(0, head);
  if (!isVci(head)) return;
  if (!replace) throw new AlreadyInitializedError(`${device.name} holds a cache image already`);
  await device.write(0, new Uint8Array(head.byteLength));
  await device.flush();
}

function headerOf(size: number, type: VciType, imageId: Guid): VciHeader {
  const blockMap = VCI_HEADER_BLOCKS;
  const blockMapSize = blockMapSizeFor(size);
  const intents = blockMap + blockMapSize;
  const intentsSize = intentBlocksFor(size);
  return {
    size,
    unclean: false,
    type,
    // Data lies behind it, so all of it is aligned as the pages of the host are.
    treeRoot: roundUp(intents + intentsSize, NODE_BLOCKS),
    blockMap,
    blockMapSize,
    imageId,
    modificationId: NIL_GUID,
    extension: {
      generation: 1,
      intents,
      intentsSize,
      derivedModification: false,
      backingSize: 0,
      backingName: 0n,
    },
  };
}

async function writeBlockMap(
  device: BlockDevice,
  { size, blockMap, treeRoot, extension }: VciHeader,
): Promise<void> {
  const map = new BlockMap(size);
  const fixed = (extension?.intents ?? 0) + (extension?.intentsSize ?? 0);
  map.allocateAt(0, fixed, 'metadata');
  map.allocateAt(treeRoot, NODE_BLOCKS, 'metadata');
  await device.write(blockMap * VCI_BLOCK_SIZE, encodeBlockMapHeader(map.counts));
  const bits = new Uint8Array(roundUp(Math.ceil((treeRoot + NODE_BLOCKS) / 8), VCI_BLOCK_SIZE));
  map.fillBitmap(0, bits);
  await device.write((blockMap + 1) * VCI_BLOCK_SIZE, bits);
}
