/** Checks that every device makes before it touches a byte. */
import { InvalidArgumentError, ReadOnlyError } from '../errors.js';
import type { ByteLength, ByteOffset } from '../units.js';

interface Named {
  readonly name: string;
  readonly size: ByteLength;
}

/** @throws InvalidArgumentError unless `length` bytes from `offset` lie within the device. */
export function checkRange(device: Named, offset: ByteOffset, length: ByteLength): void {
  if (isCount(offset) && isCount(length) && length <= device.size - offset) return;
  throw new InvalidArgumentError(
    `${device.name}: ${length} bytes at offset ${offset} are not within its ${device.size} bytes`,
  );
}

/** @throws InvalidArgumentError unless `size` can be the size of a device, in bytes. */
export function checkSize(name: string, size: ByteLength): void {
  if (!isCount(size)) {
    throw new InvalidArgumentError(`${name}: size must be a safe integer of bytes, 0 or more, not ${size}`);
  }
}

/** @throws ReadOnlyError unless the device was opened for writing. */
export function checkWritable(device: { readonly name: string; readonly writable: boolean }): void {
  if (!device.writable) {
    throw new ReadOnlyError(`${device.name} is open for reading only: open it with { writable: true }`);
  }
}

const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 0;
