/**
 * Nodes of the tree of a cache image: 4096 bytes, a kind and entries.
 *
 * A leaf holds extents: runs of cached blocks and where in the image they lie. An internal node holds the children with the blocks
 * that each covers. Entries are ascending and packed; the first one without blocks ends them. Behind the last entry that fits are
 * bytes that VirtualBox does not look at; there volsnap keeps the generation of the node and a checksum.
 *
 * In memory an entry is an index into columns, because a tree has millions of them.
 */
import { crc32 } from '../crc32.js';
import { assert } from '../errors.js';
import { badField, isZero, type ReadContext, readU64Rounded, viewOf, writeU64 } from './binary.js';
import { structure } from './structure.js';
import { VCI_BLOCK_SIZE, VCI_BLOCKS_MAX } from './vci.js';

export const NODE_SIZE = 4096;
export const NODE_BLOCKS = NODE_SIZE / VCI_BLOCK_SIZE;
export const EXTENT_SIZE = 38;
export const CHILD_SIZE = 20;
export const EXTENTS_PER_LEAF = 107;
export const CHILDREN_PER_NODE = 204;
const ENTRIES_AT = 1;
const KIND = { internal: 1, leaf: 2 } as const;

// 0 u64 previous and 8 u64 next extent in order of use, by the address of its data; 0: none | 16 u8 flags, 0 | 17 u8 reserved
// 18 u64 first cached block | 26 u32 blocks | 30 u64 address of the data
export const VCI_EXTENT = structure('VCI extent', EXTENT_SIZE, {
  previous: 8,
  next: 8,
  flags: 1,
  reserved: 1,
  first: 8,
  count: 4,
  address: 8,
});
export const VCI_CHILD = structure('VCI child', CHILD_SIZE, { first: 8, count: 4, address: 8 });
// Ours, in the last bytes of a node. 4081..4083 zero | 4084 u64 generation | 4092 u32 CRC-32 of what is before it
export const VCI_NODE_SEAL = structure(
  'VCI node seal',
  NODE_SIZE,
  { reserved: 3, generation: 8, checksum: 4 },
  NODE_SIZE - 15,
);

/** Columns of entries. Those from `size` on mean nothing. */
export interface NodeColumns {
  size: number;
  /** First cached block. */
  readonly firsts: Uint32Array;
  /** How many: of an extent all cached, of a child all that it covers. */
  readonly counts: Uint32Array;
  /** Of an extent, where its data lies in the image; of a child, where that node lies. */
  readonly addresses: Uint32Array;
}

export interface LeafColumns extends NodeColumns {
  readonly kind: 'leaf';
}
export interface InternalColumns extends NodeColumns {
  readonly kind: 'internal';
}
export type AnyColumns = LeafColumns | InternalColumns;

/** Of a leaf: for each extent the address of the one used before it, and of the one used after it; 0: none. */
export interface NodeLinks {
  readonly previous: Uint32Array;
  readonly next: Uint32Array;
}

/** A node as read. */
export interface DecodedNode extends NodeLinks {
  readonly node: AnyColumns;
  /** 0 in a node that another program wrote. */
  readonly generation: number;
}

/** Where nodes are decoded to: who reads many of them uses the memory again. */
export interface NodeMemory {
  /** Empty columns. */
  take(kind: AnyColumns['kind']): AnyColumns;
  /** For the links of a leaf; what they hold is of the leaf decoded last. */
  readonly links: NodeLinks;
}

const capacityOf = (kind: AnyColumns['kind']): number =>
  kind === 'leaf' ? EXTENTS_PER_LEAF : CHILDREN_PER_NODE;

/** Numbers that the columns of a node take. */
export const wordsOf = (kind: AnyColumns['kind']): number => 3 * (capacityOf(kind) + 1);

/**
 * Empty columns; there is room for one entry more than the image has, for a node that is about to be split.
 * @param words where they are, from `at` on: nodes of which there may be thousands share a piece of memory
 */
export function emptyColumns(
  kind: AnyColumns['kind'],
  words: Uint32Array = new Uint32Array(wordsOf(kind)),
  at = 0,
): AnyColumns {
  const capacity = capacityOf(kind) + 1;
  const column = (index: number) => words.subarray(at + index * capacity, at + (index + 1) * capacity);
  return { kind, size: 0, firsts: column(0), counts: column(1), addresses: column(2) };
}

export const emptyLinks = (): NodeLinks => ({
  previous: new Uint32Array(EXTENTS_PER_LEAF),
  next: new Uint32Array(EXTENTS_PER_LEAF),
});

const NO_LINKS = emptyLinks();

/** Memory that is used once. */
const newMemory = (): NodeMemory => ({ take: (kind) => emptyColumns(kind), links: emptyLinks() });

/**
 * @param links of a leaf; an internal node has none
 * @param bytes of a node, that are filled
 */
export function encodeNode(
  node: AnyColumns,
  generation: number,
  { previous, next }: NodeLinks = NO_LINKS,
  bytes: Uint8Array = new Uint8Array(NODE_SIZE),
): Uint8Array {
  assert(node.size <= capacityOf(node.kind), () => `${node.size} entries do not fit a ${node.kind} node`);
  bytes.fill(0);
  const view = viewOf(bytes);
  bytes[0] = KIND[node.kind];
  for (let index = 0; index < node.size; index++) {
    const first = node.firsts[index] ?? 0;
    const count = node.counts[index] ?? 0;
    const address = node.addresses[index] ?? 0;
    if (node.kind === 'leaf') {
      const base = ENTRIES_AT + index * EXTENT_SIZE;
      const { at } = VCI_EXTENT;
      writeU64(view, base + at.previous, previous[index] ?? 0);
      writeU64(view, base + at.next, next[index] ?? 0);
      writeU64(view, base + at.first, first);
      view.setUint32(base + at.count, count, true);
      writeU64(view, base + at.address, address);
    } else {
      const base = ENTRIES_AT + index * CHILD_SIZE;
      const { at } = VCI_CHILD;
      writeU64(view, base + at.first, first);
      view.setUint32(base + at.count, count, true);
      writeU64(view, base + at.address, address);
    }
  }
  writeU64(view, VCI_NODE_SEAL.at.generation, generation);
  view.setUint32(VCI_NODE_SEAL.at.checksum, nodeChecksum(bytes), true);
  return bytes;
}

const nodeChecksum = (bytes: Uint8Array): number => crc32(bytes.subarray(0, VCI_NODE_SEAL.at.checksum));

/**
 * @param sealed the image is one of ours, so the node must have its checksum
 * @param memory what the columns and links of the result are a part of
 * @throws FormatError if its kind is unknown, entries do not ascend, lie outside what the format can hold or follow a gap, flags are set,
 * or the checksum is wrong
 */
export function decodeNode(
  bytes: Uint8Array,
  context: ReadContext,
  sealed: boolean,
  memory: NodeMemory = newMemory(),
): DecodedNode {
  if (bytes.byteLength !== NODE_SIZE)
    throw badField(context, 'length of a tree node', bytes.byteLength, `${NODE_SIZE} bytes`);
  const view = viewOf(bytes);
  const { at: seal } = VCI_NODE_SEAL;
  let generation = 0;
  if (sealed) {
    const checksum = view.getUint32(seal.checksum, true);
    if (checksum !== nodeChecksum(bytes))
      throw badField(context, 'checksum of the tree node', checksum, `0x${nodeChecksum(bytes).toString(16)}`);
    generation = readU64Rounded(view, seal.generation);
  }
  const kindNumber = bytes[0] ?? 0;
  if (kindNumber !== KIND.leaf && kindNumber !== KIND.internal)
    throw badField(context, 'kind of the tree node', kindNumber, '1 (internal) or 2 (leaf)');
  const kind = kindNumber === KIND.leaf ? 'leaf' : 'internal';
  const node = memory.take(kind);
  const { previous, next } = memory.links;
  const size = kind === 'leaf' ? EXTENT_SIZE : CHILD_SIZE;
  const at = kind === 'leaf' ? VCI_EXTENT.at : VCI_CHILD.at;
  const number = (place: number, field: string): number => {
    const value = readU64Rounded(view, place);
    if (value > VCI_BLOCKS_MAX) throw badField(context, field, value, `below ${VCI_BLOCKS_MAX}`);
    return value;
  };
  const end = ENTRIES_AT + capacityOf(kind) * size;
  let covered = 0;
  for (let index = 0; index < capacityOf(kind); index++) {
    const base = ENTRIES_AT + index * size;
    const name = `${kind === 'leaf' ? 'extent' : 'child'} ${index}`;
    const count = view.getUint32(base + at.count, true);
    if (count === 0) {
      if (!isZero(bytes, base, end))
        throw badField(context, `${name}: blocks`, 0, 'more than 0, or the last');
      break;
    }
    const first = number(base + at.first, `${name}: first block`);
    if (first < covered)
      throw badField(context, `${name}: first block`, first, `${covered} or more, in order`);
    covered = first + count;
    if (covered > VCI_BLOCKS_MAX)
      throw badField(context, `${name}: end`, covered, `${VCI_BLOCKS_MAX} at most`);
    const address = number(base + at.address, `${name}: address`);
    if (address === 0) throw badField(context, `${name}: address`, 0, 'a place behind the header');
    if (kind === 'leaf') {
      const flags = bytes[base + VCI_EXTENT.at.flags] ?? 0;
      if (flags !== 0) throw badField(context, `${name}: flags`, flags, '0: volsnap knows none');
      previous[index] = number(base + VCI_EXTENT.at.previous, `${name}: previous extent`);
      next[index] = number(base + VCI_EXTENT.at.next, `${name}: next extent`);
    }
    node.firsts[index] = first;
    node.counts[index] = count;
    node.addresses[index] = address;
    node.size = index + 1;
  }
  if (kind === 'internal' && node.size === 0)
    throw badField(context, 'children of the internal node', 0, '1 or more');
  return { node, generation, previous, next };
}
