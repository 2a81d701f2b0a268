/** A cache image as text, for people: header, block map, and the tree with every extent. */
import type { BlockDevice } from '../device/block-device.js';
import { hex } from '../format/binary.js';
import { VCI_BLOCK_SIZE } from '../format/vci.js';
import { decodeNode, NODE_SIZE } from '../format/vci-node.js';
import { readHeader } from './image-file.js';
import { EXTENTS_MAX, loadImage } from './load.js';

/** Lines of text; every number is in blocks of 512 bytes. @throws FormatError, DeviceError */
export async function* dumpCacheImage(device: BlockDevice): AsyncGenerator<string> {
  const header = await readHeader(device);
  const { map, recency } = await loadImage(device, EXTENTS_MAX);
  const { extension } = header;
  yield `cache image ${device.name}, ${device.size} bytes`;
  yield `  type ${header.type}, ${header.size} blocks, ${header.unclean ? 'not closed cleanly' : 'closed cleanly'}`;
  yield `  image UUID ${header.imageId}`;
  yield `  modification UUID ${header.modificationId}${extension?.derivedModification ? ' (from the time of change)' : ''}`;
  yield `  tree root at ${header.treeRoot}`;
  yield `  block map at ${header.blockMap}, ${header.blockMapSize} blocks`;
  if (extension === undefined) yield '  made by another program';
  else {
    yield `  generation ${extension.generation}, backing of ${extension.backingSize} bytes`;
    yield `  intents at ${extension.intents}, ${extension.intentsSize} blocks`;
  }
  const { free, metadata, data } = map.counts;
  yield `blocks: ${free} free in ${map.freeRangeCount} ranges, ${metadata} metadata, ${data} data; ${recency.size} extents`;
  yield* dumpNode(device, header.treeRoot, extension !== undefined, '');
}

async function* dumpNode(
  device: BlockDevice,
  address: number,
  sealed: boolean,
  indent: string,
): AsyncGenerator<string> {
  const offset = address * VCI_BLOCK_SIZE;
  const bytes = new Uint8Array(NODE_SIZE);
  await device.read(offset, bytes);
  const { node, generation, previous, next } = decodeNode(bytes, { offset }, sealed);
  yield `${indent}${node.kind} at ${address} (byte ${hex(offset)}), ${node.size} entries, generation ${generation}`;
  for (let index = 0; index < node.size; index++) {
    const first = node.firsts[index] ?? 0;
    const blocks = `${first}..${first + (node.counts[index] ?? 0) - 1}`;
    const to = node.addresses[index] ?? 0;
    if (node.kind === 'leaf')
      yield `${indent}  ${blocks} at ${to}, used after ${previous[index] || 'none'}, before ${next[index] || 'none'}`;
    else {
      yield `${indent}  ${blocks}`;
      yield* dumpNode(device, to, sealed, `${indent}    `);
    }
  }
}
