/** Images of the blocks of a table chain, read one after the other: only a block says where the next one lies. */
import type { AreaFile } from '../store/store.js';
import { BLOCK_SIZE, type ByteOffset, offsetOfSlot, type Slot } from '../units.js';

export class TableImages {
  readonly #file: AreaFile;
  readonly #spare: Uint8Array[] = [];

  constructor(file: AreaFile) {
    this.#file = file;
  }

  /** @throws DeviceError */
  async read(slot: Slot): Promise<Uint8Array> {
    const image = this.#newImage();
    await this.#file.device.read(this.#locate(slot), image);
    return image;
  }

  /** The same, or `undefined` where it has to wait: a promise for each block takes a tenth of all the time. @throws DeviceError */
  readNow(slot: Slot): Uint8Array | undefined {
    const image = this.#newImage();
    if (this.#file.device.readNow?.(this.#locate(slot), image) === true) return image;
    this.release(image);
    return undefined;
  }

  /** Nothing needs this image any more. */
  release(image: Uint8Array): void {
    this.#spare.push(image);
  }

  #newImage(): Uint8Array {
    return this.#spare.pop() ?? new Uint8Array(BLOCK_SIZE);
  }

  #locate(slot: Slot): ByteOffset {
    return this.#file.runs.locate(offsetOfSlot(slot));
  }
}
