/**
 * A device with a cache image before it: what is cached is read from there, what is not is read from the backing and cached.
 *
 *     const device = await CachedDevice.open(image, await NbdDevice.open(uri, { writable: true }));
 *
 * Everything written is in the backing when the write returns, and durable there after a flush: the cache never holds the only copy of anything. If the
 * image fails, or is full, reads go to the backing.
 *
 * Before the backing is written, the range is taken out of the cache and noted in the image as about to change (`CacheStore.forget`); what was written is
 * cached afterwards (`write-through`) or not (`write-around`).
 *
 * Shared state: ranges being changed or filled (ranges-in-use.ts), changed between awaits only.
 */
import { type AllocationExtent, allocationOf } from '../device/allocation.js';
import type { BlockDevice } from '../device/block-device.js';
import { Lifetime } from '../device/lifetime.js';
import { checkRange, checkWritable } from '../device/range.js';
import { InvalidArgumentError, LimitError } from '../errors.js';
import { type Guid, isGuid } from '../format/guid.js';
import { VCI_BLOCK_SIZE, VCI_BLOCKS_MAX } from '../format/vci.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { CacheStore } from './cache-store.js';
import { allOf } from './commits.js';
import { EXTENT_BLOCKS_MAX, type Extent } from './extent-tree.js';
import { Fills } from './fills.js';
import { Identity } from './identity.js';
import type { CacheImage } from './image.js';
import { clearStore } from './open.js';
import { RangesInUse } from './ranges-in-use.js';
import { ReadAhead } from './read-ahead.js';

export interface CachedDeviceOptions {
  /** Is what is written cached? Default: write-through. */
  readonly policy?: 'write-through' | 'write-around';
  /** Bytes that a miss reads around what is wanted; a power of two from 4096. Default: 64 KiB. */
  readonly fillSize?: ByteLength;
  /** Bytes read ahead of somebody who reads in order; 0: none. Default: 4 MiB. */
  readonly readAhead?: ByteLength;
  /** Bytes of memory for reads of the backing that are being cached. Default: 16 MiB. */
  readonly buffers?: ByteLength;
  /**
   * Names the state of the backing. If the image was made of another, it starts empty. Without it, the time of the backing's last change stands in, where
   * there is one, and its name and size.
   */
  readonly modificationId?: Guid;
  /** The image is not used any more, because of this; the device goes on without it. */
  readonly onCacheFailure?: (error: Error) => void;
}

/** Counted since it was opened, bytes. */
export interface CachedDeviceFigures {
  readonly hitBytes: number;
  readonly missBytes: number;
}

/** Writes and reads are cached in these, so that the image does not fall to pieces: what a node takes. */
const UNIT_BLOCKS = 8;
const FILL_BLOCKS_MAX = EXTENT_BLOCKS_MAX;
/** Bytes of one read ahead. */
const AHEAD_STEP = 262_144;

export class CachedDevice implements BlockDevice {
  readonly image: CacheImage;
  readonly backing: BlockDevice;
  readonly name: string;
  readonly size: ByteLength;
  readonly writable: boolean;
  /** Was the image of another backing, or of another state of it, and so emptied? */
  readonly wasInvalidated: boolean;
  readonly discard?: NonNullable<BlockDevice['discard']>;
  readonly writeZeroes?: NonNullable<BlockDevice['writeZeroes']>;
  readonly modifiedAt?: NonNullable<BlockDevice['modifiedAt']>;

  readonly #store: CacheStore;
  readonly #lifetime: Lifetime;
  readonly #ranges = new RangesInUse();
  readonly #fills: Fills;
  readonly #ahead: ReadAhead;
  readonly #fillBlocks: number;
  readonly #isThrough: boolean;
  /** Blocks that can be cached: a rest that is no block is not. */
  readonly #blocks: number;
  #hitBytes = 0;
  #missBytes = 0;

  private constructor(
    image: CacheImage,
    backing: BlockDevice,
    options: CachedDeviceOptions,
    invalidated: boolean,
  ) {
    this.image = image;
    this.backing = backing;
    this.name = backing.name;
    this.size = backing.size;
    this.writable = backing.writable;
    this.wasInvalidated = invalidated;
    this.#store = image.store;
    this.#lifetime = new Lifetime(`${backing.name} with cache ${image.name}`);
    this.#fills = new Fills(backing, image.store, this.#ranges, options.buffers ?? 16 * 1024 * 1024);
    this.#ahead = new ReadAhead(options.readAhead ?? 4 * 1024 * 1024);
    this.#fillBlocks = (options.fillSize ?? 65_536) / VCI_BLOCK_SIZE;
    this.#isThrough = options.policy !== 'write-around';
    this.#blocks = Math.floor(backing.size / VCI_BLOCK_SIZE);
    const { discard, writeZeroes, modifiedAt } = backing;
    if (discard !== undefined)
      this.discard = (offset, length) =>
        this.#change(offset, length, () => discard.call(backing, offset, length));
    if (writeZeroes !== undefined)
      this.writeZeroes = (offset, length) =>
        this.#change(offset, length, () => writeZeroes.call(backing, offset, length));
    if (modifiedAt !== undefined) this.modifiedAt = () => this.#lifetime.run(() => modifiedAt.call(backing));
  }

  /**
   * Puts an image, open for writing, before a backing; both belong to the device from then on.
   * @throws InvalidArgumentError for options or an image that cannot be used, LimitError for a backing beyond 2 TiB, DeviceError
   */
  static async open(
    image: CacheImage,
    backing: BlockDevice,
    options: CachedDeviceOptions = {},
  ): Promise<CachedDevice> {
    const { fillSize = 65_536, modificationId } = options;
    if (!image.writable)
      throw new InvalidArgumentError(`${image.name} is open for reading: a cache has to be written`);
    const isPower = Number.isSafeInteger(Math.log2(fillSize));
    if (!isPower || fillSize < UNIT_BLOCKS * VCI_BLOCK_SIZE || fillSize > FILL_BLOCKS_MAX * VCI_BLOCK_SIZE)
      throw new InvalidArgumentError(`a fill is a power of two from 4096 to 1048576 bytes, not ${fillSize}`);
    if (modificationId !== undefined && !isGuid(modificationId))
      throw new InvalidArgumentError(`${modificationId} is no UUID in lower case, without braces`);
    if (backing.size > VCI_BLOCKS_MAX * VCI_BLOCK_SIZE)
      throw new LimitError(
        `${backing.name} has ${backing.size} bytes; a cache image is for volumes of 2 TiB at most`,
      );
    const { store } = image;
    const identity = new Identity(backing, modificationId);
    const isOther = await identity.differs(store);
    store.onFailure = options.onCacheFailure ?? (() => undefined);
    // Before the header can say that the image is in use: until then a crash leaves it as one to be emptied.
    store.commits.settle = () => identity.settle();
    if (isOther) await clearStore(store);
    else await identity.adopt(store);
    return new CachedDevice(image, backing, options, isOther);
  }

  get figures(): CachedDeviceFigures {
    return { hitBytes: this.#hitBytes, missBytes: this.#missBytes };
  }

  readNow(offset: ByteOffset, target: Uint8Array): boolean {
    this.#lifetime.check();
    checkRange(this, offset, target.byteLength);
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

  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    this.#lifetime.enter();
    try {
      checkRange(this, offset, target.byteLength);
      if (target.byteLength === 0) return;
      if (this.#store.failure !== undefined) return await this.backing.read(offset, target);
      const extent = this.#wholeHit(offset, target.byteLength);
      if (extent !== undefined) await this.#hit(extent, offset, target);
      else await this.#readParts(offset, target);
      this.#lookAhead(offset, target.byteLength);
    } finally {
      this.#lifetime.leave();
    }
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
      return this.backing.read(offset, target);
    }
    // A commit made blocks free meanwhile, maybe these.
    if (commits.count !== before) return this.backing.read(offset, target);
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
        parts.push(this.backing.read(at, rest));
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
    await allOf(parts);
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
        end === undefined ? this.backing.read(offset + done, part) : this.#fills.read(offset + done, part),
      );
      done += part.byteLength;
    }
    await allOf(parts);
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

  write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    return this.#change(offset, source.byteLength, () => this.backing.write(offset, source), source);
  }

  /** @param source what the range holds afterwards, if it is to be cached */
  #change(
    offset: ByteOffset,
    length: ByteLength,
    action: () => Promise<void>,
    source?: Uint8Array,
  ): Promise<void> {
    return this.#lifetime.run(async () => {
      checkWritable(this);
      checkRange(this, offset, length);
      if (length === 0) return action();
      const first = Math.floor(offset / VCI_BLOCK_SIZE / UNIT_BLOCKS) * UNIT_BLOCKS;
      const end = Math.min(
        Math.ceil((offset + length) / VCI_BLOCK_SIZE / UNIT_BLOCKS) * UNIT_BLOCKS,
        Math.ceil(this.size / VCI_BLOCK_SIZE),
      );
      const range = this.#ranges.begin(first, end, true);
      try {
        await this.#store.forget(first, end);
        await action();
        if (this.#isThrough && source !== undefined) await this.#cache(offset, source, () => range.void);
      } finally {
        this.#ranges.end(range);
      }
    });
  }

  /** Caches the whole units of what was written. */
  async #cache(offset: ByteOffset, source: Uint8Array, isVoid: () => boolean): Promise<void> {
    const unit = UNIT_BLOCKS * VCI_BLOCK_SIZE;
    const from = Math.ceil(offset / unit) * unit;
    const atEnd = offset + source.byteLength === this.size;
    const to = atEnd ? this.#blocks * VCI_BLOCK_SIZE : Math.floor((offset + source.byteLength) / unit) * unit;
    const step = EXTENT_BLOCKS_MAX * VCI_BLOCK_SIZE;
    try {
      for (let at = from; at < to && !isVoid(); at += step) {
        const part = source.subarray(at - offset, Math.min(at + step, to) - offset);
        if (!(await this.#store.put(at / VCI_BLOCK_SIZE, part, isVoid, false))) return;
      }
    } catch (error) {
      // The write itself is done.
      this.#store.fail(error);
    }
  }

  /** Durable in the backing, where everything is. */
  flush(): Promise<void> {
    return this.#lifetime.run(() => this.backing.flush());
  }

  async *allocation(offset: ByteOffset, length: ByteLength): AsyncGenerator<AllocationExtent> {
    this.#lifetime.check();
    checkRange(this, offset, length);
    for await (const extent of allocationOf(this.backing, offset, length)) {
      this.#lifetime.check();
      yield extent;
    }
  }

  /** Waits for what is being cached, closes the image, then the backing. */
  close(): Promise<void> {
    return this.#lifetime.close(async () => {
      await this.#fills.idle();
      const ends = [await settled(this.image.close()), await settled(this.backing.close())];
      await allOf(ends.map((end) => end()));
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Waits for the end, whatever it is. @returns gives the outcome again */
async function settled(promise: Promise<void>): Promise<() => Promise<void>> {
  await promise.catch(() => undefined);
  return () => promise;
}

const addressOf = ({ first, address }: Extent, offset: ByteOffset): ByteOffset =>
  address * VCI_BLOCK_SIZE + offset - first * VCI_BLOCK_SIZE;
