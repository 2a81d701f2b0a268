/**
 * The seam between volsnap and everything that holds bytes.
 *
 * Contract, which every implementation keeps and `test/unit/device` runs against each of them:
 * - `read` and `write` take any byte range within `size`; a range outside it is an `InvalidArgumentError`.
 * - `read` fills the whole target or rejects. `write` takes the whole source or rejects; after a rejected write each
 *   sector of the range holds either its old or its new bytes.
 * - An acknowledged write is seen by every later read, and is durable after a `flush` that began later has returned.
 * - A sector (512 bytes) of a write is kept or lost whole at a power cut.
 * - Overlapping writes in flight together have no order; whoever cares waits.
 * - A failed `flush` is final: which writes became durable is unknown, and every later `flush` fails as well until
 *   the device is opened again. (After a failed fsync Linux forgets the pages; a later success would prove nothing.)
 * - The buffers passed in belong to the device until the promise settles.
 * - `close` may be called repeatedly; any other call after it is a `ClosedError`.
 */
import type { ByteLength, ByteOffset } from '../units.js';
import type { Allocated } from './allocation.js';

/** A range of a device that another thread may read or write, as a range of a file. */
export interface Loan {
  readonly descriptor: number;
  /** Position in the file of the device's byte 0. */
  readonly origin: ByteOffset;
  /** Must be called once, when the other thread is done. */
  end(): void;
}

export interface BlockDevice extends Allocated {
  /** Size in bytes. Constant, except for a `ResizableDevice`. */
  readonly size: ByteLength;
  readonly writable: boolean;
  /** What messages call it: a path, a URI. */
  readonly name: string;

  read(offset: ByteOffset, target: Uint8Array): Promise<void>;
  write(offset: ByteOffset, source: Uint8Array): Promise<void>;
  flush(): Promise<void>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;

  /**
   * Reads without a promise, where the device thinks that this takes less time than one would. Otherwise reads nothing and returns
   * `false`: then it is for `read` to do. @throws as `read`
   */
  readNow?(offset: ByteOffset, target: Uint8Array): boolean;
  /** The same for writing several buffers one after the other. `false`: nothing was written. @throws as `write` */
  writeNow?(offset: ByteOffset, sources: readonly Uint8Array[]): boolean;
  /**
   * Lends a range to a thread of this process that works on files, if it lies in one as it is. Until the loan ends the device stays
   * open, and what is said of reads and writes under way holds for the whole range. `undefined`: it does not.
   * @throws ClosedError, InvalidArgumentError
   */
  lend?(offset: ByteOffset, length: ByteLength, purpose: 'read' | 'write'): Loan | undefined;
  /** Writes several buffers one after the other, in as few operations as the device can. */
  writev?(offset: ByteOffset, sources: readonly Uint8Array[]): Promise<void>;
  /**
   * So many bytes were written that will hardly be written again soon, wherever they lie: a device that keeps them in a cache may begin to make
   * them durable before anybody asks.
   */
  settling?(length: ByteLength): void;
  /** Makes the range read as zeros, giving its space back where the device can. */
  discard?(offset: ByteOffset, length: ByteLength): Promise<void>;
  /** Makes the range read as zeros. */
  writeZeroes?(offset: ByteOffset, length: ByteLength): Promise<void>;
  /**
   * When the content was last changed, as nanoseconds since 1970; `undefined` where nobody keeps it. Of a writable
   * device it is durable when this resolves, so that a power cut does not make it seem another.
   */
  modifiedAt?(): Promise<bigint | undefined>;
  /** Makes `modifiedAt` say this, durably; whole seconds are kept exactly. */
  setModifiedAt?(nanoseconds: bigint): Promise<void>;
}

/** A device that can grow and shrink: a file of a directory store. */
export interface ResizableDevice extends BlockDevice {
  /** New bytes read as zeros. Durable after the next `flush`. */
  resize(size: ByteLength): Promise<void>;
}

/** Can its size be changed? A wrapper may have the member without anything behind it. */
export const isResizable = (device: BlockDevice): device is ResizableDevice =>
  'resize' in device && typeof device.resize === 'function';

/** Writes buffers one after the other, through `writev` where the device has it. */
export async function writeAll(
  device: BlockDevice,
  offset: ByteOffset,
  sources: readonly Uint8Array[],
): Promise<void> {
  if (sources.length === 1 && sources[0] !== undefined) return device.write(offset, sources[0]);
  if (device.writev !== undefined) return device.writev(offset, sources);
  let at = offset;
  for (const source of sources) {
    await device.write(at, source);
    at += source.byteLength;
  }
}
