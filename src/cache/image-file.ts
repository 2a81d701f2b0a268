/**
 * The device that holds a cache image: it grows with a dynamic image, and its header is written as a whole.
 *
 * Shared state: the length and the header, changed under a mutex each.
 */
import { Mutex } from 'async-mutex';
import { type BlockDevice, isResizable } from '../device/block-device.js';
import { FormatError } from '../errors.js';
import {
  decodeVciHeader,
  encodeVciHeader,
  isVci,
  VCI_BLOCK_SIZE,
  VCI_HEADER,
  type VciExtension,
  type VciHeader,
} from '../format/vci.js';
import { roundUp } from '../units.js';

/** A file grows by so many bytes at a time. */
const GROWTH = 4 * 1024 * 1024;

const DONE = Promise.resolve();

/** The header of the image in a device. @throws FormatError if there is none, or it is damaged; DeviceError */
export async function readHeader(device: BlockDevice): Promise<VciHeader> {
  const bytes = new Uint8Array(Math.min(VCI_HEADER.size, device.size));
  await device.read(0, bytes);
  if (!isVci(bytes)) throw new FormatError(`${device.name} is no cache image: it does not begin with "VCI"`);
  const header = decodeVciHeader(bytes);
  const end = header.size * VCI_BLOCK_SIZE;
  if (header.type === 'fixed' && device.size < end)
    throw new FormatError(`${device.name} has ${device.size} bytes, but its image ${end}: it was cut off`);
  return header;
}

export class ImageFile {
  readonly device: BlockDevice;
  readonly #growing = new Mutex();
  readonly #writing = new Mutex();
  #header: VciHeader & { readonly extension: VciExtension };

  constructor(device: BlockDevice, header: VciHeader & { readonly extension: VciExtension }) {
    this.device = device;
    this.#header = header;
  }

  /** As it was written last. */
  get header(): VciHeader & { readonly extension: VciExtension } {
    return this.#header;
  }

  /** Writes the header; durable after the next flush. */
  async update(change: Partial<VciHeader>, extension: Partial<VciExtension> = {}): Promise<void> {
    await this.#writing.runExclusive(async () => {
      const header = { ...this.#header, ...change, extension: { ...this.#header.extension, ...extension } };
      // What matters lies in the first sector; the second one is zeros for ever.
      await this.device.write(0, encodeVciHeader(header).subarray(0, VCI_BLOCK_SIZE));
      this.#header = header;
    });
  }

  /** Makes the file long enough for blocks up to `end`. */
  reach(end: number): Promise<void> {
    const { device } = this;
    if (device.size >= end * VCI_BLOCK_SIZE && !this.#growing.isLocked()) return DONE;
    return this.#growing.runExclusive(async () => {
      const wanted = end * VCI_BLOCK_SIZE;
      if (device.size >= wanted || !isResizable(device)) return;
      await device.resize(Math.min(this.#header.size * VCI_BLOCK_SIZE, roundUp(wanted, GROWTH)));
    });
  }

  /** Makes the file end where the last block in use does, if it is longer. */
  async shorten(usedEnd: () => number): Promise<void> {
    const { device } = this;
    await this.#growing.runExclusive(async () => {
      const size = usedEnd() * VCI_BLOCK_SIZE;
      if (this.#header.type === 'dynamic' && isResizable(device) && device.size > size)
        await device.resize(size);
    });
  }
}
