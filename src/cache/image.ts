/**
 * A cache image: blocks of a slow device, in a file in VirtualBox's format (VCI), kept over restarts and crashes.
 *
 *     const image = await CacheImage.open(await FileDevice.open('disk.vci', { writable: true }));
 *     const { cached, length } = await image.read(offset, target);
 *
 * What is cached is what the backing holds. Whoever changes the backing says so before, with `discard`, and may `write` what it holds afterwards;
 * `CachedDevice` does all that.
 */
import { Mutex } from 'async-mutex';
import type { BlockDevice } from '../device/block-device.js';
import { Lifetime } from '../device/lifetime.js';
import { checkRange, checkWritable } from '../device/range.js';
import { type Environment, systemEnvironment } from '../environment.js';
import { InvalidArgumentError } from '../errors.js';
import { type Guid, isGuid } from '../format/guid.js';
import { isVci, VCI_BLOCK_SIZE, VCI_BLOCKS_MAX, VCI_HEADER, type VciType } from '../format/vci.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { CacheFigures, CacheStore } from './cache-store.js';
import { checkCacheImage } from './check.js';
import { compact } from './compact.js';
import { createCacheImage } from './create.js';
import { dumpCacheImage } from './dump.js';
import { EXTENT_BLOCKS_MAX } from './extent-tree.js';
import { DEFAULT_MEMORY, type OpenedStore, openStore } from './open.js';

export interface CacheImageOptions {
  /** Default: writable where the device is. */
  readonly readOnly?: boolean;
  /** Bytes of memory for the tree and the order of use; also bounds how many extents there are. Default: 48 MiB. */
  readonly memory?: ByteLength;
  readonly environment?: Environment;
}

/** What lies at a place of the volume. */
export interface CachedRun {
  /** Is it cached? */
  readonly cached: boolean;
  /** Bytes from there on for which that holds; of a miss with nothing cached behind it, as many as were asked for. */
  readonly length: ByteLength;
}

export class CacheImage implements AsyncDisposable {
  static readonly create = createCacheImage;
  static readonly check = checkCacheImage;
  static readonly dump = dumpCacheImage;

  /** What was found when it was opened. */
  readonly recovery: Pick<OpenedStore, 'wasUnclean' | 'droppedExtents' | 'isForeign'>;
  readonly name: string;
  readonly writable: boolean;
  /** For `CachedDevice`. */
  readonly store: CacheStore;
  readonly #lifetime: Lifetime;
  /** One at a time: the file gets shorter. */
  readonly #compacting = new Mutex();

  private constructor(device: BlockDevice, writable: boolean, opened: OpenedStore) {
    const { wasUnclean, droppedExtents, isForeign } = opened;
    this.recovery = { wasUnclean, droppedExtents, isForeign };
    this.name = device.name;
    this.writable = writable;
    this.store = opened.store;
    this.#lifetime = new Lifetime(device.name);
  }

  /** Does the device begin as a cache image does? @throws DeviceError */
  static async probe(device: BlockDevice): Promise<boolean> {
    const head = new Uint8Array(Math.min(device.size, VCI_HEADER.size));
    await device.read(0, head);
    return isVci(head);
  }

  /**
   * Opens an image; it owns the device from then on.
   * @throws FormatError if it is none, or damaged; LimitError if it has more extents than the memory allows; DeviceError
   */
  static async open(device: BlockDevice, options: CacheImageOptions = {}): Promise<CacheImage> {
    const { readOnly = !device.writable, memory = DEFAULT_MEMORY, environment = systemEnvironment } = options;
    if (!readOnly) checkWritable(device);
    const opened = await openStore(device, !readOnly, memory, environment);
    return new CacheImage(device, !readOnly, opened);
  }

  /** Bytes of the image at most, metadata included. */
  get size(): ByteLength {
    return this.store.file.header.size * VCI_BLOCK_SIZE;
  }

  /** Bytes that the file has now. */
  get fileSize(): ByteLength {
    return this.store.file.device.size;
  }

  get type(): VciType {
    return this.store.file.header.type;
  }

  get id(): Guid {
    return this.store.file.header.imageId;
  }

  /** Of which state of the backing it is; all zeros: nobody said. */
  get modificationId(): Guid {
    return this.store.file.header.modificationId;
  }

  get flags(): { readonly readOnly: boolean; readonly unclean: boolean; readonly failed: boolean } {
    const { file, failure } = this.store;
    return { readOnly: !this.writable, unclean: file.header.unclean, failed: failure !== undefined };
  }

  get figures(): CacheFigures {
    return this.store.figures;
  }

  /** Says of which state of the backing it is; durable when it returns. */
  setModificationId(id: Guid): Promise<void> {
    return this.#change(async () => {
      if (!isGuid(id)) throw new InvalidArgumentError(`${id} is no UUID in lower case, without braces`);
      await this.store.file.update({ modificationId: id }, { derivedModification: false });
      await this.store.file.device.flush();
    });
  }

  /** What lies at `offset`, looking no further than `most` bytes. */
  find(offset: ByteOffset, most: ByteLength): Promise<CachedRun> {
    return this.#lifetime.run(async () => {
      checkVolumeRange(offset, most);
      const { extent, next } = await this.store.find(Math.floor(offset / VCI_BLOCK_SIZE));
      const end = extent === undefined ? next : extent.first + extent.count;
      return { cached: extent !== undefined, length: Math.min(most, end * VCI_BLOCK_SIZE - offset) };
    });
  }

  /** Fills the beginning of `target` with what is cached at `offset`. @returns how much that is; or how long nothing is */
  read(offset: ByteOffset, target: Uint8Array): Promise<CachedRun> {
    return this.#lifetime.run(async () => {
      checkVolumeRange(offset, target.byteLength);
      for (;;) {
        const commits = this.store.commits.count;
        const { extent, next } = await this.store.find(Math.floor(offset / VCI_BLOCK_SIZE));
        const end = extent === undefined ? next : extent.first + extent.count;
        const length = Math.min(target.byteLength, end * VCI_BLOCK_SIZE - offset);
        if (extent === undefined) return { cached: false, length };
        this.store.touch(extent);
        await this.store.readExtent(
          extent,
          offset - extent.first * VCI_BLOCK_SIZE,
          target.subarray(0, length),
        );
        // A commit made blocks free meanwhile, maybe these.
        if (this.store.commits.count === commits) return { cached: true, length };
      }
    });
  }

  /**
   * Caches what the backing holds at `offset`: whole blocks of 512 bytes. In place of what was cached there before.
   * @returns whether there was room
   */
  write(offset: ByteOffset, source: Uint8Array): Promise<boolean> {
    return this.#change(async () => {
      checkBlocks(offset, source.byteLength);
      const first = offset / VCI_BLOCK_SIZE;
      const step = EXTENT_BLOCKS_MAX * VCI_BLOCK_SIZE;
      const count = source.byteLength / VCI_BLOCK_SIZE;
      if (count > 0) await this.store.forget(first, first + count);
      for (let at = 0; at < source.byteLength; at += step) {
        const part = source.subarray(at, at + step);
        if (!(await this.store.put(first + at / VCI_BLOCK_SIZE, part, () => false, true))) return false;
      }
      return true;
    });
  }

  /** Nothing of the range is cached any more, also not after a crash: the backing may change there once this has returned. */
  discard(offset: ByteOffset, length: ByteLength): Promise<void> {
    return this.#change(async () => {
      checkVolumeRange(offset, length);
      if (length === 0) return;
      const first = Math.floor(offset / VCI_BLOCK_SIZE);
      await this.store.forget(first, Math.ceil((offset + length) / VCI_BLOCK_SIZE));
    });
  }

  /** Makes all that is cached survive a crash. */
  flush(): Promise<void> {
    return this.#change(() => this.store.commit());
  }

  /** Moves what is cached to the beginning of the image, and makes the file of a dynamic image shorter. @returns bytes that it is shorter by */
  compact(signal?: AbortSignal): Promise<ByteLength> {
    return this.#change(() => this.#compacting.runExclusive(() => compact(this.store, signal)));
  }

  /** A last commit with the order of use, and the mark that it was closed cleanly; then closes the device. May be called repeatedly. */
  close(): Promise<void> {
    return this.#lifetime.close(async () => {
      try {
        if (this.writable) await this.store.finish();
      } finally {
        await this.store.file.device.close();
      }
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #change<T>(action: () => Promise<T>): Promise<T> {
    return this.#lifetime.run(() => {
      checkWritable(this);
      return action();
    });
  }
}

/** The volume ends nowhere that the image knows; but the format does not number more blocks. */
const VOLUME = { name: 'the volume of a cache image', size: VCI_BLOCKS_MAX * VCI_BLOCK_SIZE };

const checkVolumeRange = (offset: ByteOffset, length: ByteLength): void => checkRange(VOLUME, offset, length);

function checkBlocks(offset: ByteOffset, length: ByteLength): void {
  checkVolumeRange(offset, length);
  if (offset % VCI_BLOCK_SIZE !== 0 || length % VCI_BLOCK_SIZE !== 0)
    throw new InvalidArgumentError(
      `${length} bytes at ${offset} are not whole blocks of ${VCI_BLOCK_SIZE} bytes`,
    );
}
