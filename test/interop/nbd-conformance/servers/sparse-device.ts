/** A device of any size that keeps only what was written, so that 8 GiB of zeros cost nothing. */
import type { BlockDevice } from '../../../../src/device/block-device.ts';

const BLOCK = 65_536;

export class SparseDevice implements BlockDevice {
  readonly name = 'sparse';
  readonly writable = true;
  readonly size: number;
  readonly #blocks = new Map<number, Buffer>();

  constructor(size: number) {
    this.size = size;
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    this.#each(offset, target.byteLength, (block, within, at, length) => {
      const held = this.#blocks.get(block);
      if (held === undefined) target.fill(0, at, at + length);
      else target.set(held.subarray(within, within + length), at);
    });
  }

  async write(offset: number, source: Uint8Array): Promise<void> {
    this.#each(offset, source.byteLength, (block, within, at, length) => {
      const held = this.#blocks.get(block) ?? Buffer.alloc(BLOCK);
      held.set(source.subarray(at, at + length), within);
      this.#blocks.set(block, held);
    });
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    for (const [block, held] of this.#blocks) {
      const start = Math.max(offset - block * BLOCK, 0);
      const end = Math.min(offset + length - block * BLOCK, BLOCK);
      if (start < end) held.fill(0, start, end);
    }
  }

  async discard(offset: number, length: number): Promise<void> {
    await this.writeZeroes(offset, length);
  }

  async flush(): Promise<void> {
    // Nothing is volatile here.
  }

  async close(): Promise<void> {
    this.#blocks.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #each(
    offset: number,
    total: number,
    action: (block: number, within: number, at: number, length: number) => void,
  ): void {
    for (let at = 0; at < total; ) {
      const within = (offset + at) % BLOCK;
      const length = Math.min(BLOCK - within, total - at);
      action(Math.floor((offset + at) / BLOCK), within, at, length);
      at += length;
    }
  }
}
