/**
 * Reads a cache image: header, tree, order of use, block map.
 *
 * The tree is walked once, as nothing else shows that no two extents share a block. What is in use follows from it; the block map of an image
 * that was closed cleanly must say the same. After a crash the block map counts for nothing.
 */
import type { BlockDevice } from '../device/block-device.js';
import { FormatError, LimitError } from '../errors.js';
import { badField, hex } from '../format/binary.js';
import { decodeBlockMapHeader, VCI_BLOCK_SIZE, VCI_HEADER_BLOCKS, type VciHeader } from '../format/vci.js';
import { type DecodedNode, decodeNode, NODE_BLOCKS, NODE_SIZE } from '../format/vci-node.js';
import { BlockMap } from './block-map.js';
import { readHeader } from './image-file.js';
import { NodePool } from './node-pool.js';
import { Recency } from './recency.js';

/** Levels of a tree; four hold more extents than any image. */
const LEVELS_MAX = 8;
/** What the index of an extent takes of a key of `Usage`, and how much is left in it for an age. */
const INDEXES = 2 ** 21;
const AGES = 2 ** 31;
export const EXTENTS_MAX = INDEXES - 1;
const COUNT_LIMIT = 2 ** 20;
/** Bytes of the bitmap that are compared at once. */
const BITMAP_STEP = 65_536;

export interface LoadedImage {
  readonly header: VciHeader;
  readonly map: BlockMap;
  readonly recency: Recency;
  /** Bits of regions that cannot be relied on; none in an image of another program. */
  readonly intents: Uint8Array;
}

/** @param extentsMax most extents that there may be @throws FormatError, LimitError, DeviceError */
export async function loadImage(device: BlockDevice, extentsMax: number): Promise<LoadedImage> {
  const header = await readHeader(device);
  const intents = new Uint8Array((header.extension?.intentsSize ?? 0) * VCI_BLOCK_SIZE);
  if (header.extension !== undefined) await readBlocks(device, header.extension.intents, intents, 'intents');
  const usage = new Usage(header, extentsMax);
  await new Walk(device, header, usage).run();
  const map = usage.map();
  if (!header.unclean) await checkBlockMap(device, header, map);
  return { header, map, recency: usage.order(), intents };
}

async function readBlocks(
  device: BlockDevice,
  address: number,
  target: Uint8Array,
  what: string,
): Promise<void> {
  const offset = address * VCI_BLOCK_SIZE;
  if (offset + target.byteLength > device.size)
    throw new FormatError(
      `${device.name}: the ${what} at ${hex(offset)} lie behind its ${device.size} bytes: it was cut off`,
    );
  await device.read(offset, target);
}

/** Reads all nodes, from the root on. */
class Walk {
  readonly #device: BlockDevice;
  readonly #header: VciHeader;
  readonly #usage: Usage;
  /** Memory for the nodes on the way, used again for others. */
  readonly #memory = new NodePool();
  readonly #bytes = new Uint8Array(NODE_SIZE);
  #leafLevel: number | undefined;

  constructor(device: BlockDevice, header: VciHeader, usage: Usage) {
    this.#device = device;
    this.#header = header;
    this.#usage = usage;
  }

  async run(): Promise<void> {
    await this.#visit(this.#header.treeRoot, 0, undefined);
  }

  async #visit(
    address: number,
    level: number,
    covered: { readonly first: number; readonly count: number } | undefined,
  ): Promise<void> {
    const offset = address * VCI_BLOCK_SIZE;
    const context = { offset };
    this.#usage.addNode(address, context);
    await readBlocks(this.#device, address, this.#bytes, 'tree nodes');
    const decoded = decodeNode(this.#bytes, context, this.#header.extension !== undefined, this.#memory);
    const { node, generation } = decoded;
    const newest = this.#header.extension?.generation ?? 0;
    if (generation > newest)
      throw badField(context, 'generation of the tree node', generation, `${newest} at most`);
    const last = node.size - 1;
    const end = (node.firsts[last] ?? 0) + (node.counts[last] ?? 0);
    if (covered !== undefined) {
      const isAs = node.size > 0 && node.firsts[0] === covered.first && end === covered.first + covered.count;
      if (!isAs)
        throw badField(
          context,
          'what the tree node covers',
          `${node.firsts[0] ?? 0} to ${end}`,
          `${covered.first} to ${covered.first + covered.count}`,
        );
    }
    if (node.kind === 'leaf') {
      this.#leafLevel ??= level;
      if (level !== this.#leafLevel)
        throw badField(context, 'level of the leaf', level, `${this.#leafLevel}, as of the others`);
      this.#usage.addLeaf(decoded, context);
      this.#memory.give(node);
      return;
    }
    if (level + 1 >= LEVELS_MAX)
      throw badField(context, 'level of the node', level, `${LEVELS_MAX - 2} at most`);
    for (let index = 0; index < node.size; index++) {
      const child = node.addresses[index] ?? 0;
      if (child + NODE_BLOCKS > this.#header.size)
        throw badField(context, `child ${index}: address`, child, `within ${this.#header.size} blocks`);
      await this.#visit(child, level + 1, { first: node.firsts[index] ?? 0, count: node.counts[index] ?? 0 });
    }
    this.#memory.give(node);
  }
}

/** What takes which blocks, and the extents with their links. */
class Usage {
  readonly #header: VciHeader;
  readonly #extentsMax: number;
  /** Does the order of use follow from the links? If not, from when nodes were written. Only what it follows from is kept. */
  readonly #isLinked: boolean;
  /** (address * 2^20 + count) * 2 + 1 for data. */
  readonly #ranges = new Column((length) => new Float64Array(length));
  readonly #firsts = new Column((length) => new Uint32Array(length));
  readonly #addresses = new Column((length) => new Uint32Array(length));
  readonly #next = new Column((length) => new Uint32Array(length));
  readonly #previous = new Column((length) => new Uint32Array(length));
  readonly #generations = new Column((length) => new Float64Array(length));
  #nodes = 0;

  constructor(header: VciHeader, extentsMax: number) {
    this.#header = header;
    this.#isLinked = !header.unclean;
    this.#extentsMax = Math.min(extentsMax, EXTENTS_MAX);
    const { blockMap, blockMapSize, extension } = header;
    this.#add(0, VCI_HEADER_BLOCKS, 0);
    this.#add(blockMap, blockMapSize, 0);
    if (extension !== undefined) this.#add(extension.intents, extension.intentsSize, 0);
  }

  addNode(address: number, context: { readonly offset: number }): void {
    // A loop in the tree would otherwise never end.
    if (++this.#nodes * NODE_BLOCKS > this.#header.size)
      throw badField(context, 'number of tree nodes', this.#nodes, 'no more than fit into the image');
    this.#add(address, NODE_BLOCKS, 0);
  }

  addLeaf({ node, generation, previous, next }: DecodedNode, context: { readonly offset: number }): void {
    for (let index = 0; index < node.size; index++) {
      const address = node.addresses[index] ?? 0;
      const count = node.counts[index] ?? 0;
      if (address + count > this.#header.size)
        throw badField(
          context,
          `extent ${index}: end in the image`,
          address + count,
          `${this.#header.size} at most`,
        );
      if (count >= COUNT_LIMIT)
        throw badField(context, `extent ${index}: blocks`, count, `below ${COUNT_LIMIT}`);
      if (this.#firsts.length >= this.#extentsMax)
        throw new LimitError(
          `the cache image has more than ${this.#extentsMax} extents: open it with more memory`,
        );
      this.#add(address, count, 1);
      this.#firsts.push(node.firsts[index] ?? 0);
      this.#addresses.push(address);
      if (this.#isLinked) {
        this.#previous.push(previous[index] ?? 0);
        this.#next.push(next[index] ?? 0);
      } else this.#generations.push(generation);
    }
  }

  #add(address: number, count: number, kind: 0 | 1): void {
    // A block map takes more blocks than a key holds only in an image larger than any.
    for (let from = address, left = count; left > 0; from += COUNT_LIMIT - 1, left -= COUNT_LIMIT - 1)
      this.#ranges.push((from * COUNT_LIMIT + Math.min(left, COUNT_LIMIT - 1)) * 2 + kind);
  }

  /** May be asked once. @throws FormatError if two take the same block */
  map(): BlockMap {
    const map = new BlockMap(this.#header.size);
    const keys = this.#ranges.all.sort();
    let end = 0;
    let run = { start: 0, count: 0, kind: 0 };
    const take = () => {
      if (run.count > 0) map.allocateAt(run.start, run.count, run.kind === 1 ? 'data' : 'metadata');
    };
    for (const key of keys) {
      const kind = key % 2;
      const count = Math.floor(key / 2) % COUNT_LIMIT;
      const start = Math.floor(key / 2 / COUNT_LIMIT);
      if (start < end)
        throw badField(undefined, 'block', start, 'used once, but two parts of the image lie there');
      if (start === end && kind === run.kind) run.count += count;
      else {
        take();
        run = { start, count, kind };
      }
      end = start + count;
    }
    take();
    this.#ranges.clear();
    return map;
  }

  /** The extents in order of use: as linked, or, where that is not to be relied on, those of nodes written last. */
  order(): Recency {
    const order = this.#isLinked ? this.#linked() : this.#byGeneration();
    const recency = new Recency(this.#extentsMax, order.length);
    for (const index of order) recency.add(this.#firsts.at(index), this.#addresses.at(index));
    return recency;
  }

  #byGeneration(): Uint32Array {
    const newest = this.#header.extension?.generation ?? 0;
    // Sorting with a comparison would take a list of them, and much memory: generation and index are one number. Who is older than all that fit is the oldest.
    const keys = this.#generations.all;
    keys.forEach((generation, index) => {
      keys[index] = (AGES - Math.min(AGES, newest - generation)) * INDEXES + index;
    });
    return Uint32Array.from(keys.sort(), (key) => key % INDEXES);
  }

  /** @throws FormatError unless the links lead through all extents */
  #linked(): Uint32Array {
    const count = this.#firsts.length;
    const byAddress = new Float64Array(count);
    for (let index = 0; index < count; index++)
      byAddress[index] = this.#addresses.at(index) * INDEXES + index;
    byAddress.sort();
    const indexOf = (address: number): number => {
      let low = 0;
      let high = byAddress.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if ((byAddress[middle] ?? 0) < address * INDEXES) low = middle + 1;
        else high = middle;
      }
      const key = byAddress[low] ?? -1;
      return Math.floor(key / INDEXES) === address ? key % INDEXES : -1;
    };
    const order = new Uint32Array(count);
    let done = 0;
    let previous = 0;
    let next = 0;
    for (let index = this.#previous.all.indexOf(0); index >= 0 && done < count; ) {
      if (this.#previous.at(index) !== previous) break;
      order[done++] = index;
      previous = this.#addresses.at(index);
      next = this.#next.at(index);
      index = next === 0 ? -1 : indexOf(next);
    }
    const isWhole = done === count && next === 0;
    if (!isWhole)
      throw badField(
        undefined,
        'order of use',
        `a chain of ${done} extents`,
        `one of all ${this.#firsts.length}`,
      );
    return order;
  }
}

/** Numbers, as many as come, without the overhead of an array of them. */
class Column<Numbers extends Float64Array | Uint32Array> {
  readonly #make: (length: number) => Numbers;
  #numbers: Numbers;
  #length = 0;

  constructor(make: (length: number) => Numbers) {
    this.#make = make;
    this.#numbers = make(1024);
  }

  get length(): number {
    return this.#length;
  }

  /** The numbers themselves, not a copy. */
  get all() {
    return this.#numbers.subarray(0, this.#length);
  }

  at(index: number): number {
    return this.#numbers[index] ?? 0;
  }

  clear(): void {
    this.#numbers = this.#make(0);
    this.#length = 0;
  }

  push(value: number): void {
    if (this.#length === this.#numbers.length) {
      const longer = this.#make(2 * this.#length);
      longer.set(this.#numbers);
      this.#numbers = longer;
    }
    this.#numbers[this.#length++] = value;
  }
}

/** @throws FormatError unless the block map says what the tree says */
async function checkBlockMap(device: BlockDevice, header: VciHeader, map: BlockMap): Promise<void> {
  const offset = header.blockMap * VCI_BLOCK_SIZE;
  const head = new Uint8Array(VCI_BLOCK_SIZE);
  await readBlocks(device, header.blockMap, head, 'block map');
  const counts = decodeBlockMapHeader(head, { offset });
  const { counts: actual } = map;
  for (const field of ['blocks', 'free', 'metadata', 'data'] as const)
    if (counts[field] !== actual[field])
      throw badField(
        { offset },
        `${field} of the block map`,
        counts[field],
        `${actual[field]}, as in the tree`,
      );
  const bytes = (header.blockMapSize - 1) * VCI_BLOCK_SIZE;
  const memory = { stored: new Uint8Array(BITMAP_STEP), expected: new Uint8Array(BITMAP_STEP) };
  for (let at = 0; at < bytes; at += BITMAP_STEP) {
    const stored = memory.stored.subarray(0, bytes - at);
    const expected = memory.expected.subarray(0, bytes - at);
    await readBlocks(device, header.blockMap + 1 + at / VCI_BLOCK_SIZE, stored, 'block map');
    map.fillBitmap(8 * at, expected);
    if (Buffer.compare(stored, expected) === 0) continue;
    const wrong = stored.findIndex((byte, index) => byte !== expected[index]);
    throw badField(
      { offset },
      `block map, blocks from ${8 * (at + wrong)},`,
      stored[wrong] ?? 0,
      `${hex(expected[wrong] ?? 0)}, as in the tree`,
    );
  }
}
