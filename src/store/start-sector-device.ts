/**
 * The protected volume of an in-volume store, as its users see it.
 *
 * The start block takes the place of one sector of the volume, at 0x1E00. Here that sector is kept elsewhere, so nothing
 * that the volume held is lost, and writing to that sector does not destroy the store.
 * Whoever reads the raw device (libvshadow, Windows) sees the start block there instead.
 *
 * Where the store lies inside the volume, its blocks read as zeros here, always, and cannot be written: making them zero changes nothing.
 */
import { type AllocationExtent, allocationOf } from '../device/allocation.js';
import type { BlockDevice, Loan } from '../device/block-device.js';
import { isZeros, writeZeros } from '../device/zeros.js';
import { ClosedError, InvalidArgumentError, ReadOnlyError } from '../errors.js';
import { START_BLOCK_OFFSET, START_BLOCK_SIZE } from '../format/constants.js';
import { BLOCK_SIZE, type ByteLength, type ByteOffset, blockOf, blocksIn } from '../units.js';
import { Extents } from './extents.js';

const START = START_BLOCK_OFFSET;
const END = START_BLOCK_OFFSET + START_BLOCK_SIZE;

interface Range {
  readonly offset: ByteOffset;
  readonly length: ByteLength;
}

/** A part of a range of the volume: where it lies on the device underneath, or that it is the store's. */
interface Part extends Range {
  readonly isStore: boolean;
}

export class StartSectorDevice implements BlockDevice {
  readonly #device: BlockDevice;
  readonly #sectorOffset: ByteOffset;
  readonly #store: Extents;
  #closed = false;
  // These are there if the underlying device has them.
  readonly setModifiedAt?: NonNullable<BlockDevice['setModifiedAt']>;
  readonly settling?: NonNullable<BlockDevice['settling']>;
  readonly discard?: NonNullable<BlockDevice['discard']>;
  readonly writeZeroes?: NonNullable<BlockDevice['writeZeroes']>;
  readonly allocation?: NonNullable<BlockDevice['allocation']>;

  /**
   * @param sectorOffset where on `device` the sector that belongs at 0x1E00 is kept
   * @param store blocks inside the volume that hold the store; they may become fewer
   */
  constructor(
    device: BlockDevice,
    readonly size: ByteLength,
    sectorOffset: ByteOffset,
    store = new Extents(),
  ) {
    this.#device = device;
    this.#sectorOffset = sectorOffset;
    this.#store = store;
    const { setModifiedAt, settling, discard, writeZeroes, allocation } = device;
    if (setModifiedAt !== undefined) this.setModifiedAt = (time) => setModifiedAt.call(device, time);
    if (settling !== undefined) this.settling = (length) => settling.call(device, length);
    if (discard !== undefined) {
      this.discard = (offset, length) =>
        this.#eachRange(offset, length, (at, count) => discard.call(device, at, count));
    }
    if (writeZeroes !== undefined || store.total > 0) {
      const write = (at: ByteOffset, zeros: Uint8Array) => device.write(at, zeros);
      this.writeZeroes = (offset, length) =>
        this.#eachRange(
          offset,
          length,
          (at, count) => writeZeroes?.call(device, at, count) ?? writeZeros(write, at, count),
        );
    }
    if (allocation !== undefined || store.total > 0)
      this.allocation = (offset, length) => this.#allocation(offset, length);
  }

  get name(): string {
    return this.#device.name;
  }

  get writable(): boolean {
    return this.#device.writable;
  }

  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    await this.#eachPart(offset, target, async (at, part, isStore) => {
      if (isStore) part.fill(0);
      else await this.#device.read(at, part);
    });
  }

  async write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    await this.#eachPart(offset, source, async (at, part, isStore) => {
      if (!isStore) await this.#device.write(at, part);
      // Zeros are there already: a range that is put back, or cleared, may go across the store.
      else if (!isZeros(part)) throw new ReadOnlyError(`the store of ${this.name} lies at ${at} of it`);
    });
  }

  /** What the start block does not interrupt lies where it lies underneath. */
  lend(offset: ByteOffset, length: ByteLength, purpose: 'read' | 'write'): Loan | undefined {
    this.#check(offset, length);
    return this.#isPlain(offset, length) ? this.#device.lend?.(offset, length, purpose) : undefined;
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
    action: (at: ByteOffset, part: Uint8Array, isStore: boolean) => Promise<void>,
  ): Promise<void> {
    this.#check(offset, buffer.byteLength);
    return this.#eachOf(this.#parts(offset, buffer.byteLength), buffer, action);
  }

  async #eachOf(
    parts: readonly Part[],
    buffer: Uint8Array,
    action: (at: ByteOffset, part: Uint8Array, isStore: boolean) => Promise<void>,
  ): Promise<void> {
    let done = 0;
    for (const { offset, length, isStore } of parts) {
      await action(offset, buffer.subarray(done, done + length), isStore);
      done += length;
    }
  }

  /** Does something to each part of the range that is not the store's, where it lies on the device underneath. */
  async #eachRange(
    offset: ByteOffset,
    length: ByteLength,
    action: (at: ByteOffset, length: ByteLength) => Promise<void>,
  ): Promise<void> {
    this.#check(offset, length);
    for (const part of this.#parts(offset, length)) if (!part.isStore) await action(part.offset, part.length);
  }

  async *#allocation(offset: ByteOffset, length: ByteLength): AsyncGenerator<AllocationExtent> {
    this.#check(offset, length);
    for (const part of this.#parts(offset, length)) {
      if (part.isStore) {
        yield { length: part.length, zero: true };
        continue;
      }
      for await (const extent of allocationOf(this.#device, part.offset, part.length)) {
        this.#check(0, 0);
        yield extent;
      }
    }
  }

  /** Does the range lie underneath as it is? */
  #isPlain(offset: ByteOffset, length: ByteLength): boolean {
    const isWithout = offset >= END || offset + length <= START;
    return isWithout && (this.#store.total === 0 || !this.#store.overlaps(...blocksOf(offset, length)));
  }

  /** Where the parts of the range lie on the device underneath. */
  #parts(offset: ByteOffset, length: ByteLength): readonly Part[] {
    if (this.#isPlain(offset, length)) return [{ offset, length, isStore: false }];
    const parts: Part[] = [];
    const end = offset + length;
    let at = offset;
    const addUntil = (until: ByteOffset, kind: Pick<Part, 'isStore'> & { readonly from?: ByteOffset }) => {
      const to = Math.min(end, until);
      if (to > at) parts.push({ offset: (kind.from ?? 0) + at, length: to - at, isStore: kind.isStore });
      at = Math.max(at, to);
    };
    // Nothing of a store lies in front of the start block.
    addUntil(START, { isStore: false });
    addUntil(END, { isStore: false, from: this.#sectorOffset - START });
    for (const blocks of this.#store.within(...blocksOf(offset, length))) {
      addUntil(blocks.start * BLOCK_SIZE, { isStore: false });
      addUntil((blocks.start + blocks.length) * BLOCK_SIZE, { isStore: true });
    }
    addUntil(end, { isStore: false });
    return parts;
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

/** Start and number of the blocks that a range touches. */
const blocksOf = (offset: ByteOffset, length: ByteLength): [start: number, count: number] => {
  const start = blockOf(offset);
  return [start, Math.max(0, blocksIn(offset + length) - start)];
};
