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
import { allDone } from '../all-done.js';
import { type AllocationExtent, allocationOf } from '../device/allocation.js';
import type { BlockDevice } from '../device/block-device.js';
import { Lifetime } from '../device/lifetime.js';
import { checkRange, checkWritable } from '../device/range.js';
import { InvalidArgumentError, LimitError } from '../errors.js';
import { type Guid, isGuid } from '../format/guid.js';
import { VCI_BLOCK_SIZE, VCI_BLOCKS_MAX } from '../format/vci.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { CacheStore } from './cache-store.js';
import { type CachedDeviceFigures, CachedReads, FILL_BLOCKS_MAX, UNIT_BLOCKS } from './cached-reads.js';
import { EXTENT_BLOCKS_MAX } from './extent-tree.js';
import { Fills } from './fills.js';
import { Identity } from './identity.js';
import type { CacheImage } from './image.js';
import { clearStore } from './open.js';
import { RangesInUse } from './ranges-in-use.js';

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

const DEFAULT_FILL = 65_536;
/** Bytes that a fill may have. */
export const FILL_SIZE_MIN = UNIT_BLOCKS * VCI_BLOCK_SIZE;
export const FILL_SIZE_MAX = FILL_BLOCKS_MAX * VCI_BLOCK_SIZE;

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
  readonly #reads: CachedReads;
  readonly #isThrough: boolean;
  /** Blocks that can be cached: a rest that is no block is not. */
  readonly #blocks: number;

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
    this.#isThrough = options.policy !== 'write-around';
    this.#blocks = Math.floor(backing.size / VCI_BLOCK_SIZE);
    const { fillSize = DEFAULT_FILL, readAhead = 4 * 1024 * 1024 } = options;
    this.#reads = new CachedReads(backing, image.store, this.#fills, fillSize, readAhead);
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
    const { fillSize = DEFAULT_FILL, modificationId } = options;
    if (!image.writable)
      throw new InvalidArgumentError(`${image.name} is open for reading: a cache has to be written`);
    const isPower = Number.isSafeInteger(Math.log2(fillSize));
    if (!isPower || fillSize < FILL_SIZE_MIN || fillSize > FILL_SIZE_MAX)
      throw new InvalidArgumentError(
        `a fill is a power of two from ${FILL_SIZE_MIN} to ${FILL_SIZE_MAX} bytes, not ${fillSize}`,
      );
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
    return this.#reads.figures;
  }

  readNow(offset: ByteOffset, target: Uint8Array): boolean {
    this.#lifetime.check();
    checkRange(this, offset, target.byteLength);
    return this.#reads.readNow(offset, target);
  }

  read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    return this.#lifetime.run(() => {
      checkRange(this, offset, target.byteLength);
      return this.#reads.read(offset, target);
    });
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
      await allDone(ends.map((end) => end()));
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
