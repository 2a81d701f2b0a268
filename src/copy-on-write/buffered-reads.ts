/** Reads of the volume with what the write buffer holds laid over. */
import { type AllocationExtent, allocationOf } from '../device/allocation.js';
import type { BlockDevice } from '../device/block-device.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { BufferedWrite } from './buffered-write.js';
import { lessHeld } from './held-zeros.js';
import type { OverlapIndex } from './overlap-index.js';

const DONE = Promise.resolve();

export class BufferedReads {
  readonly #device: BlockDevice;
  readonly #index: OverlapIndex<BufferedWrite>;
  readonly #release: (write: BufferedWrite) => void;

  /** @param release called when a reader needs the bytes of a write no more, which counted among its holders */
  constructor(
    device: BlockDevice,
    index: OverlapIndex<BufferedWrite>,
    release: (write: BufferedWrite) => void,
  ) {
    this.#device = device;
    this.#index = index;
    this.#release = release;
  }

  /** @throws DeviceError */
  read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    if (this.#index.isEmpty) return this.#readDirect(offset, target);
    const end = offset + target.byteLength;
    const held = this.#index.overlapping(offset, end).filter(({ bytes }) => bytes !== undefined);
    const newest = held.at(-1);
    if (newest === undefined) return this.#readDirect(offset, target);
    if (newest.offset <= offset && newest.end >= end) {
      newest.layOver(offset, target);
      return DONE;
    }
    return this.#readUnder(held, offset, target);
  }

  #readDirect(offset: ByteOffset, target: Uint8Array): Promise<void> {
    return this.#device.readNow?.(offset, target) === true ? DONE : this.#device.read(offset, target);
  }

  async #readUnder(held: readonly BufferedWrite[], offset: ByteOffset, target: Uint8Array): Promise<void> {
    for (const write of held) write.holders++;
    try {
      await this.#device.read(offset, target);
      for (const write of held) write.layOver(offset, target);
    } finally {
      for (const write of held) this.#release(write);
    }
  }

  /** What the device knows to be zero, less what the buffer held when this was first asked. */
  async *allocation(offset: ByteOffset, length: ByteLength): AsyncGenerator<AllocationExtent> {
    const held = this.#index.overlapping(offset, offset + length);
    yield* lessHeld(allocationOf(this.#device, offset, length), offset, held);
  }
}
