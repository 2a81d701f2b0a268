/**
 * The volume as its users see it: its device, or while it is put back to a snapshot what `PutBack` makes of that.
 *
 * Snapshots and copies read the device itself. The optional operations are there where the device has them.
 *
 * Shared state: which put-back is under way; it changes between awaits, and with writes held when one begins.
 */
import { type AllocationExtent, allocationOf } from '../device/allocation.js';
import { type BlockDevice, writeAll } from '../device/block-device.js';
import { writeZeros } from '../device/zeros.js';
import { type ByteLength, type ByteOffset, blockOf, offsetOfBlock } from '../units.js';
import type { PutBack } from './put-back.js';

export class LiveDevice implements BlockDevice {
  readonly #device: BlockDevice;
  #putBack: PutBack | undefined;
  readonly readNow?: NonNullable<BlockDevice['readNow']>;
  readonly writeNow?: NonNullable<BlockDevice['writeNow']>;
  readonly discard?: NonNullable<BlockDevice['discard']>;
  readonly allocation?: NonNullable<BlockDevice['allocation']>;
  readonly modifiedAt?: NonNullable<BlockDevice['modifiedAt']>;

  constructor(device: BlockDevice) {
    this.#device = device;
    const { readNow, writeNow, discard, allocation, modifiedAt } = device;
    if (readNow !== undefined) {
      this.readNow = (offset, target) =>
        this.#touched(offset, target.byteLength) === undefined && readNow.call(device, offset, target);
    }
    if (writeNow !== undefined) {
      this.writeNow = (offset, sources) =>
        this.#touched(offset, lengthOf(sources)) === undefined && writeNow.call(device, offset, sources);
    }
    if (discard !== undefined) {
      this.discard = (offset, length) =>
        this.#change(offset, length, () => discard.call(device, offset, length));
    }
    if (allocation !== undefined) this.allocation = (offset, length) => this.#allocation(offset, length);
    if (modifiedAt !== undefined) this.modifiedAt = () => modifiedAt.call(device);
  }

  get size(): ByteLength {
    return this.#device.size;
  }

  get writable(): boolean {
    return this.#device.writable;
  }

  get name(): string {
    return this.#device.name;
  }

  /** From now on users see what it makes of the volume; `undefined`: the volume itself. */
  set putBack(putBack: PutBack | undefined) {
    this.#putBack = putBack;
  }

  get putBack(): PutBack | undefined {
    return this.#putBack;
  }

  /** The put-back, if there is one and it has something to do with the range. */
  #touched(offset: ByteOffset, length: ByteLength): PutBack | undefined {
    const putBack = this.#putBack;
    return putBack?.touches(offset, length) ? putBack : undefined;
  }

  read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    const putBack = this.#touched(offset, target.byteLength);
    return putBack === undefined ? this.#device.read(offset, target) : putBack.read(offset, target);
  }

  write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    const putBack = this.#touched(offset, source.byteLength);
    return putBack === undefined ? this.#device.write(offset, source) : putBack.write(offset, [source]);
  }

  writev(offset: ByteOffset, sources: readonly Uint8Array[]): Promise<void> {
    const putBack = this.#touched(offset, lengthOf(sources));
    return putBack === undefined ? writeAll(this.#device, offset, sources) : putBack.write(offset, sources);
  }

  writeZeroes(offset: ByteOffset, length: ByteLength): Promise<void> {
    const device = this.#device;
    return this.#change(
      offset,
      length,
      () =>
        device.writeZeroes?.(offset, length) ??
        writeZeros((at, source) => device.write(at, source), offset, length),
    );
  }

  #change(offset: ByteOffset, length: ByteLength, action: () => Promise<void>): Promise<void> {
    const putBack = this.#touched(offset, length);
    return putBack === undefined ? action() : putBack.change(offset, length, action);
  }

  /** Of a pending block: whether the snapshot has zeros there. Where all was put back the device is asked, and that later. */
  async *#allocation(offset: ByteOffset, length: ByteLength): AsyncGenerator<AllocationExtent> {
    const putBack = this.#touched(offset, length);
    if (putBack === undefined) {
      yield* allocationOf(this.#device, offset, length);
      return;
    }
    const extents: (AllocationExtent | { readonly from: ByteOffset; readonly length: ByteLength })[] = [];
    let at = offset;
    for (const { end, isPending } of putBack.runs(offset, length)) {
      if (!isPending) extents.push({ from: at, length: end - at });
      for (let next: ByteOffset; isPending && at < end; at = next) {
        next = Math.min(end, offsetOfBlock(blockOf(at) + 1));
        extents.push({ length: next - at, zero: putBack.isZero(blockOf(at)) });
      }
      at = end;
    }
    for (const extent of extents) {
      if ('zero' in extent) yield extent;
      else yield* allocationOf(this.#device, extent.from, extent.length);
    }
  }

  settling(length: ByteLength): void {
    this.#device.settling?.(length);
  }

  flush(): Promise<void> {
    return this.#device.flush();
  }

  async close(): Promise<void> {
    // The device belongs to others.
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

const lengthOf = (sources: readonly Uint8Array[]): ByteLength =>
  sources.reduce((sum, { byteLength }) => sum + byteLength, 0);
