/** Bytes in memory, as a device: for tests, for small images, and as the files of a `MemoryFolder`. */
import { ClosedError } from '../errors.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { AllocationExtent } from './allocation.js';
import type { ResizableDevice } from './block-device.js';
import { checkRange, checkSize, checkWritable } from './range.js';

/** Bytes that are looked at together. */
const UNIT = 4096;
const ZEROS = new Uint8Array(UNIT);

export interface MemoryDeviceOptions {
  /** What messages call it. Default: `memory`. */
  readonly name?: string;
  /** Default: true. */
  readonly writable?: boolean;
}

/**
 * A resizable run of bytes. Several devices may share one, as several descriptors share a file.
 * Invariant: bytes of `#room` from `#size` on are zero, so growing never shows old content.
 */
export class MemoryContent {
  #room: Uint8Array;
  #size: ByteLength;

  /** @param source the initial bytes, which are used as they are and not copied; or a size in bytes, all zeros */
  constructor(source: ByteLength | Uint8Array) {
    if (typeof source === 'number') checkSize('memory', source);
    this.#room = typeof source === 'number' ? new Uint8Array(source) : source;
    this.#size = this.#room.byteLength;
  }

  get size(): ByteLength {
    return this.#size;
  }

  /** The bytes themselves, not a copy; good until the next `resize`. */
  get bytes(): Uint8Array {
    return this.#room.subarray(0, this.#size);
  }

  resize(size: ByteLength): void {
    if (size > this.#room.byteLength) {
      // Doubling keeps a file that grows block by block from being copied at every block.
      const room = new Uint8Array(Math.max(size, 2 * this.#room.byteLength));
      room.set(this.bytes);
      this.#room = room;
    }
    if (size < this.#size) this.#room.fill(0, size, this.#size);
    this.#size = size;
  }
}

/** Nothing here outlives the process, so `flush` has nothing to do. */
export class MemoryDevice implements ResizableDevice {
  readonly name: string;
  readonly writable: boolean;
  readonly #content: MemoryContent;
  #open = true;

  /**
   * @param source a size in bytes, all zeros; bytes, which are used as they are and not copied; or content to share
   * @throws InvalidArgumentError if the size is not a safe integer of 0 or more
   */
  constructor(source: ByteLength | Uint8Array | MemoryContent, options: MemoryDeviceOptions = {}) {
    this.name = options.name ?? 'memory';
    this.writable = options.writable ?? true;
    this.#content = source instanceof MemoryContent ? source : new MemoryContent(source);
  }

  get size(): ByteLength {
    return this.#content.size;
  }

  /** The bytes themselves, not a copy; good until the next `resize`, and after `close`. */
  get bytes(): Uint8Array {
    return this.#content.bytes;
  }

  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    this.#checkOpen();
    checkRange(this, offset, target.byteLength);
    target.set(this.bytes.subarray(offset, offset + target.byteLength));
  }

  async write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    this.#checkChange(offset, source.byteLength);
    this.bytes.set(source, offset);
  }

  async writeZeroes(offset: ByteOffset, length: ByteLength): Promise<void> {
    this.#checkChange(offset, length);
    this.bytes.fill(0, offset, offset + length);
  }

  async discard(offset: ByteOffset, length: ByteLength): Promise<void> {
    return this.writeZeroes(offset, length);
  }

  /** Looks, in units of 4 KiB: that takes less time than to keep account. */
  async *allocation(offset: ByteOffset, length: ByteLength): AsyncGenerator<AllocationExtent> {
    this.#checkOpen();
    checkRange(this, offset, length);
    const end = offset + length;
    for (let at = offset; at < end; ) {
      this.#checkOpen();
      const from = at;
      const zero = this.#isZero(at, end);
      do at += UNIT - (at % UNIT);
      while (at < end && this.#isZero(at, end) === zero);
      yield { length: Math.min(at, end) - from, zero };
    }
  }

  /** Is the rest of the unit at `offset`, up to `end`, zero? */
  #isZero(offset: ByteOffset, end: ByteOffset): boolean {
    const until = Math.min(offset + UNIT - (offset % UNIT), end);
    return Buffer.compare(this.bytes.subarray(offset, until), ZEROS.subarray(0, until - offset)) === 0;
  }

  async resize(size: ByteLength): Promise<void> {
    this.#checkOpen();
    checkWritable(this);
    checkSize(this.name, size);
    this.#content.resize(size);
  }

  async flush(): Promise<void> {
    this.#checkOpen();
  }

  async close(): Promise<void> {
    this.#open = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #checkChange(offset: ByteOffset, length: ByteLength): void {
    this.#checkOpen();
    checkWritable(this);
    checkRange(this, offset, length);
  }

  #checkOpen(): void {
    if (!this.#open) throw new ClosedError(`${this.name} is closed: open it again`);
  }
}
