/**
 * Reads of the backing whose bytes are cached afterwards.
 *
 * Whoever misses the same blocks meanwhile waits for that read. What is cached is written after the reader has its bytes.
 *
 * Shared state: the fills under way and the memory that they take, changed between awaits only.
 */
import type { BlockDevice } from '../device/block-device.js';
import { BufferPool, pooledSize } from '../device/buffer-pool.js';
import { VCI_BLOCK_SIZE } from '../format/vci.js';
import type { ByteLength } from '../units.js';
import type { CacheStore } from './cache-store.js';
import { type RangeInUse, type RangesInUse, removeFrom } from './ranges-in-use.js';

/** Most fills under way: each takes some memory besides its buffer, and they are looked through for every miss. */
const FILLS_MAX = 128;

interface Fill {
  readonly range: RangeInUse;
  readonly buffer: Uint8Array;
  /** When the bytes are there. */
  readonly read: Promise<void>;
  /** Who is to copy from the buffer yet, and the fill itself. */
  users: number;
  /** When it is over. */
  end: Promise<void>;
}

export class Fills {
  readonly #backing: BlockDevice;
  readonly #store: CacheStore;
  readonly #ranges: RangesInUse;
  readonly #limit: ByteLength;
  readonly #pool: BufferPool;
  /** In no order. */
  readonly #fills: Fill[] = [];
  #bytes = 0;

  /** @param limit bytes of fills under way */
  constructor(backing: BlockDevice, store: CacheStore, ranges: RangesInUse, limit: ByteLength) {
    this.#backing = backing;
    this.#store = store;
    this.#ranges = ranges;
    this.#limit = limit;
    this.#pool = new BufferPool(limit / 4);
  }

  /** A fill under way that holds `block` and may be used by a reader who begins now. */
  at(block: number): { readonly first: number; readonly end: number } | undefined {
    return this.#find(block)?.range;
  }

  #find(block: number): Fill | undefined {
    for (const fill of this.#fills) {
      const { first, end, void: isVoid } = fill.range;
      if (!isVoid && first <= block && block < end) return fill;
    }
    return undefined;
  }

  /** Where the first fill after `block` begins. */
  next(block: number): number {
    let next = Infinity;
    for (const { range } of this.#fills)
      if (!range.void && range.first > block) next = Math.min(next, range.first);
    return next;
  }

  /** Begins to read blocks, whole ones within the backing, to cache them. @returns `false`: there is no memory for it now */
  begin(first: number, end: number): boolean {
    const length = (end - first) * VCI_BLOCK_SIZE;
    const taken = pooledSize(length);
    if (this.#bytes + taken > this.#limit || this.#fills.length >= FILLS_MAX) return false;
    if (this.#store.failure !== undefined) return false;
    this.#bytes += taken;
    const buffer = this.#pool.take(length);
    const bytes = buffer.subarray(0, length);
    const range = this.#ranges.begin(first, end, false);
    const read = this.#backing.read(first * VCI_BLOCK_SIZE, bytes);
    const fill: Fill = { range, buffer, read, users: 1, end: DONE };
    this.#fills.push(fill);
    fill.end = this.#finish(fill, bytes, taken);
    return true;
  }

  async #finish(fill: Fill, bytes: Uint8Array, taken: ByteLength): Promise<void> {
    try {
      if (await isRead(fill.read)) {
        await this.#cache(fill.range, bytes);
        this.#leave(fill);
      }
    } finally {
      removeFrom(this.#fills, fill);
      this.#ranges.end(fill.range);
      this.#bytes -= taken;
    }
  }

  async #cache(range: RangeInUse, bytes: Uint8Array): Promise<void> {
    try {
      if (!range.void) await this.#store.put(range.first, bytes, () => range.void, false);
    } catch (error) {
      this.#store.fail(error);
    }
  }

  /** The buffer is used again once nobody needs it. */
  #leave(fill: Fill): void {
    if (--fill.users === 0) this.#pool.give(fill.buffer);
  }

  /**
   * Fills `target` from the fill that holds its first block. @param offset byte of the volume
   * @throws what the read of the backing did
   */
  async read(offset: number, target: Uint8Array): Promise<void> {
    const fill = this.#find(Math.floor(offset / VCI_BLOCK_SIZE));
    if (fill === undefined) return this.#backing.read(offset, target);
    fill.users++;
    await fill.read;
    const at = offset - fill.range.first * VCI_BLOCK_SIZE;
    target.set(fill.buffer.subarray(at, at + target.byteLength));
    this.#leave(fill);
  }

  /** When all are over. */
  async idle(): Promise<void> {
    while (this.#fills.length > 0) await Promise.all(this.#fills.map(({ end }) => end));
  }
}

const DONE = Promise.resolve();

/** An error is told to whoever waits for these bytes; who does not will read them himself. */
const isRead = (read: Promise<void>): Promise<boolean> =>
  read.then(
    () => true,
    () => false,
  );
