/**
 * A part of another device, such as a partition of a disk, as a device of its own.
 *
 * The optional operations are there exactly where the device underneath has them, so that a caller who picks the
 * best one sees the truth. `flush` and `modifiedAt` are those of the whole device: nobody keeps finer ones.
 */
import type { ByteLength, ByteOffset } from '../units.js';
import { type AllocationExtent, allocationOf } from './allocation.js';
import type { BlockDevice, Loan } from './block-device.js';
import { Lifetime } from './lifetime.js';
import { checkRange } from './range.js';

export interface SliceDeviceOptions {
  /** Whether closing the slice closes the device underneath. Default: false. */
  readonly owns?: boolean;
  /** What messages call it. Default: made of the name underneath and the range. */
  readonly name?: string;
}

export class SliceDevice implements BlockDevice {
  readonly name: string;
  readonly size: ByteLength;
  readonly writable: boolean;
  readonly readNow?: NonNullable<BlockDevice['readNow']>;
  readonly writeNow?: NonNullable<BlockDevice['writeNow']>;
  readonly lend?: NonNullable<BlockDevice['lend']>;
  readonly writev?: NonNullable<BlockDevice['writev']>;
  readonly settling?: NonNullable<BlockDevice['settling']>;
  readonly discard?: NonNullable<BlockDevice['discard']>;
  readonly writeZeroes?: NonNullable<BlockDevice['writeZeroes']>;
  readonly allocation?: NonNullable<BlockDevice['allocation']>;
  readonly modifiedAt?: NonNullable<BlockDevice['modifiedAt']>;

  readonly #device: BlockDevice;
  readonly #offset: ByteOffset;
  readonly #owns: boolean;
  readonly #lifetime: Lifetime;

  /**
   * @param offset where the slice begins, in bytes
   * @param size of the slice, in bytes
   * @throws InvalidArgumentError if the slice does not lie within the device
   */
  constructor(device: BlockDevice, offset: ByteOffset, size: ByteLength, options: SliceDeviceOptions = {}) {
    checkRange(device, offset, size);
    this.name = options.name ?? `${device.name}[${offset}..${offset + size}]`;
    this.size = size;
    this.writable = device.writable;
    this.#device = device;
    this.#offset = offset;
    this.#owns = options.owns ?? false;
    this.#lifetime = new Lifetime(this.name);

    const { readNow, writeNow, lend, writev, settling, discard, writeZeroes, allocation, modifiedAt } =
      device;
    if (readNow !== undefined) {
      this.readNow = (at, target) => {
        this.#lifetime.check();
        checkRange(this, at, target.byteLength);
        return readNow.call(device, offset + at, target);
      };
    }
    if (writeNow !== undefined) {
      this.writeNow = (at, sources) => {
        this.#lifetime.check();
        checkRange(this, at, byteLength(sources));
        return writeNow.call(device, offset + at, sources);
      };
    }
    if (lend !== undefined) {
      this.lend = (at, length, purpose) => {
        this.#lifetime.enter();
        try {
          checkRange(this, at, length);
          const loan = lend.call(device, offset + at, length, purpose);
          if (loan !== undefined) return this.#lent(loan);
          this.#lifetime.leave();
          return undefined;
        } catch (error) {
          this.#lifetime.leave();
          throw error;
        }
      };
    }
    if (writev !== undefined) {
      this.writev = (at, sources) =>
        this.#within(at, byteLength(sources), (there) => writev.call(device, there, sources));
    }
    // How much, wherever it lies; a flush is that of the whole device, too.
    if (settling !== undefined) this.settling = (length) => settling.call(device, length);
    if (discard !== undefined) {
      this.discard = (at, length) => this.#within(at, length, (there) => discard.call(device, there, length));
    }
    if (writeZeroes !== undefined) {
      this.writeZeroes = (at, length) =>
        this.#within(at, length, (there) => writeZeroes.call(device, there, length));
    }
    if (allocation !== undefined) this.allocation = (at, length) => this.#allocation(at, length);
    if (modifiedAt !== undefined) this.modifiedAt = () => this.#lifetime.run(() => modifiedAt.call(device));
  }

  #lent({ descriptor, origin, end }: Loan): Loan {
    return {
      descriptor,
      origin: origin + this.#offset,
      end: () => {
        end();
        this.#lifetime.leave();
      },
    };
  }

  read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    return this.#within(offset, target.byteLength, (there) => this.#device.read(there, target));
  }

  write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    return this.#within(offset, source.byteLength, (there) => this.#device.write(there, source));
  }

  flush(): Promise<void> {
    return this.#lifetime.run(() => this.#device.flush());
  }

  /** Waits for calls under way; closes the device underneath only with `{ owns: true }`. */
  close(): Promise<void> {
    return this.#lifetime.close(async () => {
      if (this.#owns) await this.#device.close();
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async *#allocation(offset: ByteOffset, length: ByteLength): AsyncGenerator<AllocationExtent> {
    this.#lifetime.check();
    checkRange(this, offset, length);
    for await (const extent of allocationOf(this.#device, this.#offset + offset, length)) {
      this.#lifetime.check();
      yield extent;
    }
  }

  #within(
    offset: ByteOffset,
    length: ByteLength,
    action: (offsetUnderneath: ByteOffset) => Promise<void>,
  ): Promise<void> {
    return this.#lifetime.run(() => {
      checkRange(this, offset, length);
      return action(this.#offset + offset);
    });
  }
}

const byteLength = (sources: readonly Uint8Array[]): ByteLength =>
  sources.reduce((sum, source) => sum + source.byteLength, 0);
