/**
 * The protected volume of an in-volume store, as its users see it.
 *
 * The start block takes the place of one sector of the volume, at 0x1E00. Here that sector is kept elsewhere, so nothing
 * that the volume held is lost, and writing to that sector does not destroy the store.
 * Whoever reads the raw device (libvshadow, Windows) sees the start block there instead.
 */
import type { BlockDevice } from '../device/block-device.js';
import { ClosedError, InvalidArgumentError } from '../errors.js';
import { START_BLOCK_OFFSET, START_BLOCK_SIZE } from '../format/constants.js';
import type { ByteLength, ByteOffset } from '../units.js';

const START = START_BLOCK_OFFSET;
const END = START_BLOCK_OFFSET + START_BLOCK_SIZE;

export class StartSectorDevice implements BlockDevice {
  readonly #device: BlockDevice;
  readonly #sectorOffset: ByteOffset;
  #closed = false;
  /** There if the underlying device has it. */
  readonly setModifiedAt?: (nanoseconds: bigint) => Promise<void>;

  /** @param sectorOffset where on `device` the sector that belongs at 0x1E00 is kept */
  constructor(
    device: BlockDevice,
    readonly size: ByteLength,
    sectorOffset: ByteOffset,
  ) {
    this.#device = device;
    this.#sectorOffset = sectorOffset;
    if (device.setModifiedAt !== undefined)
      this.setModifiedAt = (time) => device.setModifiedAt?.(time) ?? Promise.resolve();
  }

  get name(): string {
    return this.#device.name;
  }

  get writable(): boolean {
    return this.#device.writable;
  }

  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    await this.#eachPart(offset, target, (at, part) => this.#device.read(at, part));
  }

  async write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    await this.#eachPart(offset, source, (at, part) => this.#device.write(at, part));
  }

  async writev(offset: ByteOffset, sources: readonly Uint8Array[]): Promise<void> {
    let at = offset;
    for (const source of sources) {
      await this.write(at, source);
      at += source.byteLength;
    }
  }

  async flush(): Promise<void> {
    this.#check(0, 0);
    await this.#device.flush();
  }

  async modifiedAt(): Promise<bigint | undefined> {
    return this.#device.modifiedAt?.();
  }

  /** Leaves the underlying device open. */
  async close(): Promise<void> {
    this.#closed = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #eachPart(
    offset: ByteOffset,
    buffer: Uint8Array,
    action: (at: ByteOffset, part: Uint8Array) => Promise<void>,
  ): Promise<void> {
    this.#check(offset, buffer.byteLength);
    const end = offset + buffer.byteLength;
    if (offset >= END || end <= START) return action(offset, buffer);
    const inner = Math.max(offset, START);
    const innerEnd = Math.min(end, END);
    if (offset < inner) await action(offset, buffer.subarray(0, inner - offset));
    await action(this.#sectorOffset + (inner - START), buffer.subarray(inner - offset, innerEnd - offset));
    if (innerEnd < end) await action(innerEnd, buffer.subarray(innerEnd - offset));
  }

  #check(offset: ByteOffset, length: ByteLength): void {
    if (this.#closed) throw new ClosedError(`${this.name} is closed`);
    if (offset < 0 || offset + length > this.size) {
      throw new InvalidArgumentError(
        `bytes ${offset} to ${offset + length} of a volume of ${this.size} bytes`,
      );
    }
  }
}
