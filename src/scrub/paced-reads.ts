/** The device of a diff area, read at a pace, and only as long as its snapshot is there. Nothing is written. */
import type { BlockDevice } from '../device/block-device.js';
import { ReadOnlyError, SnapshotDeletedError } from '../errors.js';
import type { SnapshotRecord } from '../snapshot/record.js';
import type { ByteLength, ByteOffset } from '../units.js';
import type { Pace } from './pace.js';

export class PacedReads implements BlockDevice {
  readonly writable = false;
  readonly #device: BlockDevice;
  readonly #record: SnapshotRecord;
  readonly #pace: Pace;
  readonly #signal: AbortSignal | undefined;

  constructor(device: BlockDevice, record: SnapshotRecord, pace: Pace, signal: AbortSignal | undefined) {
    this.#device = device;
    this.#record = record;
    this.#pace = pace;
    this.#signal = signal;
  }

  get size(): ByteLength {
    return this.#device.size;
  }

  get name(): string {
    return this.#device.name;
  }

  /** @throws SnapshotDeletedError if the snapshot is gone, the reason of the signal, and as the device */
  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    await this.#pace.take(target.byteLength, this.#signal);
    // Who frees the space waits for readers, so these wait for nothing but the device.
    const isRead = await this.#record.whileThere(async () => {
      await this.#device.read(offset, target);
      return true;
    });
    if (isRead === undefined) throw new SnapshotDeletedError(`snapshot ${this.#record.id} is gone`);
  }

  async write(): Promise<void> {
    throw new ReadOnlyError('a diff area that is only looked at is not changed');
  }

  async flush(): Promise<void> {
    await this.write();
  }

  async close(): Promise<void> {
    // It is not ours.
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
