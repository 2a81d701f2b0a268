/**
 * A raw image or a block special file, as a device.
 *
 * Long ranges are discarded and zeroed by a tool (see hole-tool.ts); where that does not work, and for short ones, zeros
 * are written. It does not work on a disk that is held exclusively: the kernel lets nobody else drop its cached pages. So a
 * disk has no `discard`: writing all of it would be a poor way to say that it is not needed. A file without holes keeps its
 * space when it is zeroed, one with holes may get more of them.
 */
import { constants } from 'node:fs';
import { stat } from 'node:fs/promises';
import { DeviceError, InvalidArgumentError, UnsupportedError } from '../errors.js';
import { type ByteLength, type ByteOffset, roundUp } from '../units.js';
import type { AllocationExtent } from './allocation.js';
import type { BlockDevice, Loan, ResizableDevice } from './block-device.js';
import { byteLength, Descriptor } from './descriptor.js';
import { FileAllocation } from './file-allocation.js';
import { findHoles } from './file-holes.js';
import { Flushes } from './flushes.js';
import { HoleTool, type ZeroingMode } from './hole-tool.js';
import { imageSize } from './image-size.js';
import { Lifetime } from './lifetime.js';
import { inUse, takeOwnership } from './ownership.js';
import { checkRange, checkSize, checkWritable } from './range.js';
import { codeOf, explained, systemError } from './system-error.js';
import type { ZeroMap } from './zero-map.js';
import { zeroBuffers } from './zeros.js';

export interface FileDeviceOptions {
  /** Default: false. */
  readonly writable?: boolean;
  /**
   * Whether to hold a lock while it is open: a writer then excludes everybody, readers share. Default: true.
   * Pass false only where something else keeps others out.
   */
  readonly exclusive?: boolean;
}

/** Seconds in which udev, which probes a disk under a shared lock after each writer, is done with it. */
const UDEV_PATIENCE = 1;
/** Bytes of zeros in one system call. */
const ZEROES_AT_ONCE = 1024 * 1024;
/** Alignment of ranges given to the tool, in bytes: the block of most file systems, the sector of any disk. */
const TOOL_UNIT = 4096;
/** The shortest range given to the tool, in bytes. Above that zeros take longer to reach the disk than the tool takes. */
const TOOL_FROM = 1024 * 1024;
/** The same for discarding, which is to give space back. */
const TOOL_FROM_DISCARDING = 256 * 1024;
/** The unit of `blocks` in what stat(2) tells, in bytes. */
const STAT_BLOCK = 512;

export class FileDevice implements ResizableDevice {
  readonly path: string;
  readonly writable: boolean;
  /** Of a file; gives its space back. */
  readonly discard?: NonNullable<BlockDevice['discard']>;
  readonly #descriptor: Descriptor;
  readonly #isBlockSpecial: boolean;
  readonly #lifetime: Lifetime;
  readonly #tool: HoleTool;
  readonly #allocation = new FileAllocation(() => this.#findHoles());
  readonly #flushes = new Flushes(
    () =>
      explained(`flush ${this.path}, so what was written since the last flush may be lost`, () =>
        this.#descriptor.datasync(),
      ),
    () => void this.flush().catch(() => undefined),
  );
  #size: ByteLength;

  private constructor(
    path: string,
    writable: boolean,
    descriptor: Descriptor,
    size: ByteLength,
    isBlockSpecial: boolean,
  ) {
    this.path = path;
    this.writable = writable;
    this.#descriptor = descriptor;
    this.#size = size;
    this.#isBlockSpecial = isBlockSpecial;
    this.#lifetime = new Lifetime(path);
    this.#tool = new HoleTool(descriptor.number);
    if (!isBlockSpecial)
      this.discard = (offset, length) =>
        this.#zero(offset, length, TOOL_FROM_DISCARDING, async () => 'punch-hole');
  }

  /**
   * Opens an existing raw image or block special file.
   * @throws NotFoundError if there is none
   * @throws InvalidArgumentError if it is something else, such as a directory
   * @throws InUseError if its owner excludes this one; the message names the process where it can be seen
   * @throws DeviceError if it cannot be opened or locked
   */
  static async open(path: string, options: FileDeviceOptions = {}): Promise<FileDevice> {
    const { writable = false, exclusive = true } = options;
    const purpose = `open ${path} for ${writable ? 'writing' : 'reading'}`;
    // Looked at before it is opened: opening a pipe waits for its other end, opening a tape winds it.
    const found = await explained(purpose, () => stat(path, { bigint: true }));
    if (!found.isFile() && !found.isBlockDevice()) {
      throw new InvalidArgumentError(
        `${path} is neither a file nor a block special file: name a disk or an image`,
      );
    }
    // On a block special file O_EXCL is a claim that the kernel honours: it fails where a file system is mounted.
    const claim = exclusive && writable && found.isBlockDevice() ? constants.O_EXCL : 0;
    const flags = (writable ? constants.O_RDWR : constants.O_RDONLY) | claim;
    const descriptor = await Descriptor.open(path, flags).catch(async (cause) => {
      throw claim !== 0 && codeOf(cause) === 'EBUSY'
        ? await inUse(path, found, undefined, cause)
        : systemError(purpose, cause);
    });
    try {
      const opened = await descriptor.stat();
      if (opened.dev !== found.dev || opened.ino !== found.ino) {
        throw new DeviceError(`${path} was replaced while it was being opened: try again`);
      }
      if (exclusive) {
        const kind = writable ? 'exclusive' : 'shared';
        const patience = opened.isBlockDevice() ? UDEV_PATIENCE : 0;
        await takeOwnership({ path, descriptor: descriptor.number, kind, patience }, opened);
      }
      // Only now: the owner before us may have resized it up to the moment it let go.
      const holdsByte = async (at: ByteOffset) => (await descriptor.read(new Uint8Array(1), at)) === 1;
      const size = await imageSize(await descriptor.stat(), holdsByte);
      return new FileDevice(path, writable, descriptor, size, opened.isBlockDevice());
    } catch (error) {
      await descriptor.close().catch(() => undefined); // The first error is the one to tell.
      throw systemError(purpose, error);
    }
  }

  /** A file that was just made, empty, and that nobody else knows of: without a lock. */
  static ofNew(path: string, descriptor: Descriptor): FileDevice {
    return new FileDevice(path, true, descriptor, 0, false);
  }

  get name(): string {
    return this.path;
  }

  get size(): ByteLength {
    return this.#size;
  }

  /** @throws DeviceError also where the file turns out to be shorter than `size`: somebody has truncated it. */
  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    this.#lifetime.enter();
    try {
      checkRange(this, offset, target.byteLength);
      const count = await this.#descriptor.read(target, offset).catch((cause) => {
        throw this.#readError(offset, target, cause);
      });
      this.#checkCount(offset, target, count);
    } finally {
      this.#lifetime.leave();
    }
  }

  readNow(offset: ByteOffset, target: Uint8Array): boolean {
    this.#lifetime.check();
    checkRange(this, offset, target.byteLength);
    let count: ByteLength | undefined;
    try {
      count = this.#descriptor.readNow(target, offset);
    } catch (cause) {
      throw this.#readError(offset, target, cause);
    }
    if (count === undefined) return false;
    this.#checkCount(offset, target, count);
    return true;
  }

  lend(offset: ByteOffset, length: ByteLength, purpose: 'read' | 'write'): Loan {
    const writes = purpose === 'write';
    if (writes) checkWritable(this);
    checkRange(this, offset, length);
    this.#lifetime.enter();
    if (writes) this.#allocation.written(offset, length);
    const end = () => {
      if (writes) this.#allocation.written(offset, length);
      this.#lifetime.leave();
    };
    return { descriptor: this.#descriptor.number, origin: 0, end };
  }

  #readError(offset: ByteOffset, target: Uint8Array, cause: unknown): Error {
    return systemError(`read ${target.byteLength} bytes at offset ${offset} of ${this.path}`, cause);
  }

  #checkCount(offset: ByteOffset, target: Uint8Array, count: ByteLength): void {
    if (count === target.byteLength) return;
    throw new DeviceError(
      `${this.path} ends at byte ${offset + count}, inside its ${this.#size} bytes: ` +
        'somebody has truncated it; restore it before going on',
    );
  }

  write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    return this.writev(offset, [source]);
  }

  writeNow(offset: ByteOffset, sources: readonly Uint8Array[]): boolean {
    this.#lifetime.check();
    checkWritable(this);
    const length = byteLength(sources);
    checkRange(this, offset, length);
    try {
      if (!this.#descriptor.writeNow(sources, offset)) return false;
    } catch (cause) {
      throw systemError(`write ${length} bytes at offset ${offset} of ${this.path}`, cause);
    } finally {
      this.#allocation.written(offset, length);
    }
    this.#flushes.written(offset, length);
    return true;
  }

  async writev(offset: ByteOffset, sources: readonly Uint8Array[]): Promise<void> {
    this.#lifetime.enter();
    try {
      checkWritable(this);
      const length = byteLength(sources);
      checkRange(this, offset, length);
      this.#allocation.written(offset, length);
      try {
        await this.#descriptor.write(sources, offset);
      } catch (cause) {
        throw systemError(`write ${length} bytes at offset ${offset} of ${this.path}`, cause);
      } finally {
        this.#allocation.written(offset, length);
      }
      this.#flushes.written(offset, length);
    } finally {
      this.#lifetime.leave();
    }
  }

  settling(length: ByteLength): void {
    this.#flushes.settling(length);
  }

  writeZeroes(offset: ByteOffset, length: ByteLength): Promise<void> {
    return this.#zero(offset, length, TOOL_FROM, async () =>
      (await this.#hasHoles()) ? 'punch-hole' : 'zero-range',
    );
  }

  #zero(
    offset: ByteOffset,
    length: ByteLength,
    toolFrom: ByteLength,
    mode: () => Promise<ZeroingMode>,
  ): Promise<void> {
    return this.#lifetime.run(async () => {
      checkWritable(this);
      checkRange(this, offset, length);
      const zeroing = this.#allocation.zeroing(offset, length);
      try {
        await explained(`write ${length} zero bytes at offset ${offset} of ${this.path}`, async () => {
          const end = offset + length;
          const first = roundUp(offset, TOOL_UNIT);
          const last = end - (end % TOOL_UNIT);
          if (last - first >= toolFrom && (await this.#tool.zero(await mode(), first, last - first))) {
            await this.#writeZeros(offset, first);
            await this.#writeZeros(last, end);
          } else {
            await this.#writeZeros(offset, end);
          }
        });
      } catch (error) {
        this.#allocation.abandoned(zeroing);
        throw error;
      }
      this.#allocation.zeroed(zeroing);
    });
  }

  async #writeZeros(offset: ByteOffset, end: ByteOffset): Promise<void> {
    for (let at = offset; at < end; at += ZEROES_AT_ONCE)
      await this.#descriptor.write(zeroBuffers(Math.min(ZEROES_AT_ONCE, end - at)), at);
  }

  /** Of a file: the holes that it had when this was first asked, and what became of them. */
  async *allocation(offset: ByteOffset, length: ByteLength): AsyncGenerator<AllocationExtent> {
    await this.#lifetime.run(async () => {
      checkRange(this, offset, length);
      await this.#allocation.ready(this.#size);
    });
    for (let at = offset; at < offset + length; ) {
      this.#lifetime.check();
      const extent = this.#allocation.extentAt(at, offset + length);
      yield extent;
      at += extent.length;
    }
  }

  async #findHoles(): Promise<ZeroMap | undefined> {
    if (this.#isBlockSpecial || !(await this.#hasHoles())) return undefined;
    return findHoles(this.#descriptor.number, this.#size);
  }

  async #hasHoles(): Promise<boolean> {
    if (this.#isBlockSpecial) return false;
    const { blocks, size } = await this.#descriptor.stat();
    return blocks * BigInt(STAT_BLOCK) < size;
  }

  flush(): Promise<void> {
    return this.#lifetime.run(() => this.#flushes.flush());
  }

  /** New bytes read as zeros. @throws UnsupportedError on a block special file. */
  resize(size: ByteLength): Promise<void> {
    return this.#lifetime.run(async () => {
      checkWritable(this);
      checkSize(this.path, size);
      if (this.#isBlockSpecial) {
        throw new UnsupportedError(
          `${this.path} is a block special file: resize it with the tools of its driver`,
        );
      }
      this.#allocation.resized();
      await explained(`resize ${this.path} to ${size} bytes`, () => this.#descriptor.truncate(size));
      this.#size = size;
      this.#allocation.resized();
    });
  }

  /** `undefined` for a block special file: the kernel keeps no time for its content. */
  modifiedAt(): Promise<bigint | undefined> {
    return this.#lifetime.run(async () => {
      if (this.#isBlockSpecial) return undefined;
      return explained(`look at ${this.path}`, async () => {
        // fdatasync, which is what `flush` does, leaves times alone.
        if (this.writable) await this.#descriptor.sync();
        return (await this.#descriptor.stat()).mtimeNs;
      });
    });
  }

  setModifiedAt(nanoseconds: bigint): Promise<void> {
    return this.#lifetime.run(async () => {
      checkWritable(this);
      if (this.#isBlockSpecial) return;
      const seconds = Number(nanoseconds / 1_000_000_000n);
      await explained(`set the time of ${this.path}`, async () => {
        await this.#descriptor.setTimes(seconds);
        await this.#descriptor.sync();
      });
    });
  }

  /** Waits for calls under way, then lets the lock go. Does not flush. */
  close(): Promise<void> {
    return this.#lifetime.close(() =>
      explained(`close ${this.path}`, async () => {
        await this.#tool.close();
        await this.#descriptor.close();
      }),
    );
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
