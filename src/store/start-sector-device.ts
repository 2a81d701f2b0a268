/**
 * The protected volume of an in-volume store, as its users see it.
 *
 * The start block takes the place of one sector of the volume, at 0x1E00. Here that sector is kept elsewhere, so nothing
 * that the volume held is lost, and writing to that sector does not destroy the store.
 * Whoever reads the raw device (libvshadow, Windows) sees the start block there instead.
 */
import { type AllocationExtent, allocationOf } from '../device/allocation.js';
import type { BlockDevice, Loan } from '../device/block-device.js';
import { ClosedError, InvalidArgumentError } from '../errors.js';
import { START_BLOCK_OFFSET, START_BLOCK_SIZE } from '../format/constants.js';
import type { ByteLength, ByteOffset } from '../units.js';

const START = START_BLOCK_OFFSET;
const END = START_BLOCK_OFFSET + START_BLOCK_SIZE;

interface Range {
  readonly offset: ByteOffset;
  readonly length: ByteLength;
}

export class StartSectorDevice implements BlockDevice {
  readonly #device: BlockDevice;
  readonly #sectorOffset: ByteOffset;
  #closed = false;
  // These are there if the underlying device has them.
  readonly setModifiedAt?: NonNullable<BlockDevice['setModifiedAt']>;
  readonly discard?: NonNullable<BlockDevice['discard']>;
  readonly writeZeroes?: NonNullable<BlockDevice['writeZeroes']>;
  readonly allocation?: NonNullable<BlockDevice['allocation']>;

  /** @param sectorOffset where on `device` the sector that belongs at 0x1E00 is kept */
  constructor(
    device: BlockDevice,
    readonly size: ByteLength,
    sectorOffset: ByteOffset,
  ) {
    this.#device = device;
    this.#sectorOffset = sectorOffset;
    const { setModifiedAt, discard, writeZeroes, allocation } = device;
    if (setModifiedAt !== undefined) this.setModifiedAt = (time) => setModifiedAt.call(device, time);
    if (discard !== undefined) {
      this.discard = (offset, length) =>
        this.#eachRange(offset, length, (at, count) => discard.call(device, at, count));
    }
    if (writeZeroes !== undefined) {
      this.writeZeroes = (offset, length) =>
        this.#eachRange(offset, length, (at, count) => writeZeroes.call(device, at, count));
    }
    if (allocation !== undefined) this.allocation = (offset, length) => this.#allocation(offset, length);
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

  /** What the start block does not interrupt lies where it lies underneath. */
  lend(offset: ByteOffset, length: ByteLength, purpose: 'read' | 'write'): Loan | undefined {
    this.#check(offset, length);
    return offset >= END || offset + length <= START
      ? this.#device.lend?.(offset, length, purpose)
      : undefined;
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

  #eachPart(
    offset: ByteOffset,
    buffer: Uint8Array,
    action: (at: ByteOffset, part: Uint8Array) => Promise<void>,
  ): Promise<void> {
    let done = 0;
    return this.#eachRange(offset, buffer.byteLength, (at, length) => {
      done += length;
      return action(at, buffer.subarray(done - length, done));
    });
  }

  /** Does something to each part of the range, where it lies on the device underneath. */
  async #eachRange(
    offset: ByteOffset,
    length: ByteLength,
    action: (at: ByteOffset, length: ByteLength) => Promise<void>,
  ): Promise<void> {
    this.#check(offset, length);
    for (const part of this.#parts(offset, length)) await action(part.offset, part.length);
  }

  async *#allocation(offset: ByteOffset, length: ByteLength): AsyncGenerator<AllocationExtent> {
    this.#check(offset, length);
    for (const part of this.#parts(offset, length)) {
      for await (const extent of allocationOf(this.#device, part.offset, part.length)) {
        this.#check(0, 0);
        yield extent;
      }
    }
  }

  /** Where the parts of the range lie on the device underneath. */
  #parts(offset: ByteOffset, length: ByteLength): readonly Range[] {
    const end = offset + length;
    if (offset >= END || end <= START) return [{ offset, length }];
    const inner = Math.max(offset, START);
    const innerEnd = Math.min(end, END);
    return [
      { offset, length: inner - offset },
      { offset: this.#sectorOffset + (inner - START), length: innerEnd - inner },
      { offset: innerEnd, length: end - innerEnd },
    ].filter((part) => part.length > 0);
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
