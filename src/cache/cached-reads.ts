/**
 * Reads of a cached device: hits from the image, misses through fills, and reading ahead.
 *
 * A look-up and what follows from it have no await in between; who waits looks again. Blocks of an extent that was found become another's only when a
 * commit is done, and that is counted.
 */
import { allDone } from '../all-done.js';
import type { BlockDevice } from '../device/block-device.js';
import { VCI_BLOCK_SIZE } from '../format/vci.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { CacheStore } from './cache-store.js';
import { EXTENT_BLOCKS_MAX, type Extent } from './extent-tree.js';
import type { Fills } from './fills.js';
import { ReadAhead } from './read-ahead.js';

/** Counted since it was opened, bytes. */
export interface CachedDeviceFigures {
  readonly hitBytes: number;
  readonly missBytes: number;
}

/** Writes and reads are cached in these, so that the image does not fall to pieces: what a node takes. */
export const UNIT_BLOCKS = 8;
export const FILL_BLOCKS_MAX = EXTENT_BLOCKS_MAX;
/** Bytes of one read ahead. */
const AHEAD_STEP = 262_144;

export class CachedReads {
  readonly #backing: BlockDevice;
  readonly #store: CacheStore;
  readonly #fills: Fills;
  readonly #ahead: ReadAhead;
  readonly #fillBlocks: number;
  /** Blocks that can be cached: a rest that is no block is not. */
  readonly #blocks: number;
  #hitBytes = 0;
  #missBytes = 0;

  constructor(
    backing: BlockDevice,
    store: CacheStore,
    fills: Fills,
    fillSize: ByteLength,
    readAhead: ByteLength,
  ) {
    this.#backing = backing;
    this.#store = store;
    this.#fills = fills;
    this.#ahead = new ReadAhead(readAhead);
    this.#fillBlocks = fillSize / VCI_BLOCK_SIZE;
    this.#blocks = Math.floor(backing.size / VCI_BLOCK_SIZE);
  }

  get figures(): CachedDeviceFigures {
    return { hitBytes: this.#hitBytes, missBytes: this.#missBytes };
  }

  /** Without a promise, if all of it is in one extent. @returns whether it was read */
  readNow(offset: ByteOffset, target: Uint8Array): boolean {
    const { device } = this.#store.file;
    if (device.readNow === undefined || this.#store.failure !== undefined || target.byteLength === 0)
      return false;
    const extent = this.#wholeHit(offset, target.byteLength);
    if (extent === undefined) return false;
    try {
      if (!device.readNow(addressOf(extent, offset), target)) return false;
    } catch {
      return false; // `read` will meet the same error, and read the backing.
    }
    this.#hitBytes += target.byteLength;
    this.#store.touch(extent);
    this.#lookAhead(offset, target.byteLength);
    return true;
  }

  /** The range lies within the backing. @throws what the backing does */
  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    if (target.byteLength === 0) return;
    if (this.#store.failure !== undefined) return this.#backing.read(offset, target);
    const extent = this.#wholeHit(offset, target.byteLength);
    if (extent !== undefined) await this.#hit(extent, offset, target);
    else await this.#readParts(offset, target);
    this.#lookAhead(offset, target.byteLength);
  }

  /** The extent that holds all of it, if that is known without waiting. */
  #wholeHit(offset: ByteOffset, length: ByteLength): Extent | undefined {
    const extent = this.#store.findNow(Math.floor(offset / VCI_BLOCK_SIZE))?.extent;
    const isWhole = extent !== undefined && offset + length <= (extent.first + extent.count) * VCI_BLOCK_SIZE;
    return isWhole ? extent : undefined;
  }

  async #hit(extent: Extent, offset: ByteOffset, target: Uint8Array): Promise<void> {
    const { commits } = this.#store;
    const before = commits.count;
    this.#store.touch(extent);
    try {
      await this.#store.readExtent(extent, offset - extent.first * VCI_BLOCK_SIZE, target);
    } catch {
      // What cannot be read is of no use; the backing has it.
      await this.#store
        .drop(extent.first, extent.first + extent.count)
        .catch((error: unknown) => this.#store.fail(error));
      return this.#backing.read(offset, target);
    }
    // A commit made blocks free meanwhile, maybe these.
    if (commits.count !== before) return this.#backing.read(offset, target);
    this.#hitBytes += target.byteLength;
  }

  /** Cached parts from the image, the others through fills. */
  async #readParts(offset: ByteOffset, target: Uint8Array): Promise<void> {
    const end = offset + target.byteLength;
    const parts: Promise<void>[] = [];
    for (let at = offset; at < end; ) {
      const block = Math.floor(at / VCI_BLOCK_SIZE);
      const rest = target.subarray(at - offset);
      if (block >= this.#blocks || !(await this.#isLoaded(block))) {
        parts.push(this.#backing.read(at, rest));
        break;
      }
      // Looked up and used without an await in between: what was found may be gone after one.
      const found = this.#store.findNow(block);
      if (found === undefined) continue;
      const { extent, next } = found;
      const stop = extent === undefined ? Math.min(next, this.#blocks) : extent.first + extent.count;
      const part = rest.subarray(0, Math.min(end, stop * VCI_BLOCK_SIZE) - at);
      parts.push(extent === undefined ? this.#miss(at, part, stop) : this.#hit(extent, at, part));
      at += part.byteLength;
    }
    await allDone(parts);
  }

  /** @returns `false`: the image is of no use any more */
  async #isLoaded(block: number): Promise<boolean> {
    if (this.#store.findNow(block) !== undefined) return true;
    try {
      await this.#store.find(block);
      return true;
    } catch (error) {
      this.#store.fail(error);
      return false;
    }
  }

  /** @param limit first block behind the miss */
  async #miss(offset: ByteOffset, target: Uint8Array, limit: number): Promise<void> {
    this.#missBytes += target.byteLength;
    const parts: Promise<void>[] = [];
    for (let done = 0; done < target.byteLength; ) {
      const block = Math.floor((offset + done) / VCI_BLOCK_SIZE);
      const last = Math.ceil((offset + target.byteLength) / VCI_BLOCK_SIZE);
      const end = this.#fills.at(block)?.end ?? this.#beginFill(block, last, limit);
      const part = target.subarray(done, end === undefined ? undefined : end * VCI_BLOCK_SIZE - offset);
      parts.push(
        end === undefined ? this.#backing.read(offset + done, part) : this.#fills.read(offset + done, part),
      );
      done += part.byteLength;
    }
    await allDone(parts);
  }

  /** @param last what is wanted ends before this block @returns where the fill ends */
  #beginFill(block: number, last: number, limit: number): number | undefined {
    const size = this.#fillBlocks;
    const next = this.#fills.next(block);
    const first = Math.max(
      block - (block % size),
      block - FILL_BLOCKS_MAX / 2,
      this.#uncachedFrom(block, block - (block % size)),
    );
    const end = Math.min(Math.ceil(last / size) * size, first + FILL_BLOCKS_MAX, limit, next);
    return this.#fills.begin(first, end) ? end : undefined;
  }

  /** The first block from `from` on from which on nothing is cached up to `block`. */
  #uncachedFrom(block: number, from: number): number {
    for (let at = from; at < block; ) {
      const found = this.#store.findNow(at);
      if (found === undefined) return block - (block % UNIT_BLOCKS);
      const fill = this.#fills.at(at);
      if (found.extent !== undefined) at = found.extent.first + found.extent.count;
      else if (fill !== undefined) at = fill.end;
      else if (Math.min(found.next, this.#fills.next(at)) > block) return at;
      else at = Math.min(found.next, this.#fills.next(at));
    }
    return block;
  }

  #lookAhead(offset: ByteOffset, length: ByteLength): void {
    const wanted = this.#ahead.note(offset, length);
    if (wanted === undefined) return;
    const end = Math.min(this.#blocks, Math.floor(wanted.to / VCI_BLOCK_SIZE));
    for (let at = Math.floor(wanted.from / VCI_BLOCK_SIZE); at < end; ) {
      const found = this.#store.findNow(at);
      if (found === undefined) return;
      const fill = this.#fills.at(at);
      if (found.extent !== undefined) at = found.extent.first + found.extent.count;
      else if (fill !== undefined) at = fill.end;
      else {
        const stop = Math.min(end, found.next, this.#fills.next(at), at + AHEAD_STEP / VCI_BLOCK_SIZE);
        if (!this.#fills.begin(at, stop)) return;
        at = stop;
      }
    }
  }
}

const addressOf = ({ first, address }: Extent, offset: ByteOffset): ByteOffset =>
  address * VCI_BLOCK_SIZE + offset - first * VCI_BLOCK_SIZE;
