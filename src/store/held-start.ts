/**
 * A device whose start block is held back in memory: a store can be made and used on it, and the device itself still has the one that
 * it had. `commit` writes it, last of all, and one sector write makes all of the store count at once.
 *
 * Nobody but the control file touches that sector: the volume's own lies elsewhere (`StartSectorDevice`).
 */
import { type BlockDevice, isResizable, type ResizableDevice } from '../device/block-device.js';
import { assert, DeviceError } from '../errors.js';
import { START_BLOCK_OFFSET, START_BLOCK_SIZE } from '../format/constants.js';
import type { ByteLength, ByteOffset } from '../units.js';

export class HeldStart implements BlockDevice {
  readonly #device: BlockDevice;
  #start: Uint8Array | undefined;
  #isUnsure = false;
  /** There if the device has it. It has no time of change: the last write makes it another one than a store could record. */
  readonly resize?: ResizableDevice['resize'];

  constructor(device: BlockDevice) {
    this.#device = device;
    if (isResizable(device)) this.resize = (size) => device.resize(size);
  }

  get name(): string {
    return this.#device.name;
  }

  get size(): ByteLength {
    return this.#device.size;
  }

  get writable(): boolean {
    return this.#device.writable;
  }

  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    if (this.#start !== undefined && isStart(offset, target)) target.set(this.#start);
    else await this.#device.read(offset, target);
  }

  async write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    if (isStart(offset, source)) this.#start = source.slice();
    else await this.#device.write(offset, source);
  }

  async flush(): Promise<void> {
    await this.#device.flush();
  }

  /** Did a `commit` fail so that the device may have either start block? Then neither what was written nor what was there may go. */
  get isUnsure(): boolean {
    return this.#isUnsure;
  }

  /**
   * Everything that was written becomes durable, then the start block.
   * @throws DeviceError; then the device has the start block that it had, durably, or `isUnsure` is true
   */
  async commit(): Promise<void> {
    const start = this.#start;
    assert(start !== undefined, () => `no start block was written to ${this.name}`);
    const before = new Uint8Array(START_BLOCK_SIZE);
    await this.#device.read(START_BLOCK_OFFSET, before);
    await this.#device.flush();
    try {
      await this.#putStart(start);
    } catch (error) {
      await this.#putStart(before).catch(() => {
        this.#isUnsure = true;
        throw new DeviceError(
          `whether ${this.name} has its new store cannot be told, because the device failed (volsnap info tells when it works again); all that was there is there still, with the store or without it`,
          { cause: error },
        );
      });
      throw error;
    }
  }

  async #putStart(start: Uint8Array): Promise<void> {
    await this.#device.write(START_BLOCK_OFFSET, start);
    await this.#device.flush();
  }

  /** Leaves the device open. */
  async close(): Promise<void> {
    // What is held back is for `commit`.
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** @returns whether the range is the start block @throws if it is a part of it only */
function isStart(offset: ByteOffset, { byteLength }: Uint8Array): boolean {
  if (offset >= START_BLOCK_OFFSET + START_BLOCK_SIZE || offset + byteLength <= START_BLOCK_OFFSET)
    return false;
  assert(
    offset === START_BLOCK_OFFSET && byteLength === START_BLOCK_SIZE,
    () => `${byteLength} bytes at ${offset} hold the start block, and more or less`,
  );
  return true;
}
