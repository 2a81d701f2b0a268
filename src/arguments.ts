/** Checks of what callers pass in. */
import { InvalidArgumentError } from './errors.js';
import type { ByteLength, ByteOffset } from './units.js';

/** @throws InvalidArgumentError unless `[offset, offset + length)` is a range of `size` bytes */
export function checkRange(offset: ByteOffset, length: ByteLength, size: ByteLength): void {
  checkWhole('offset', offset);
  checkWhole('length', length);
  if (offset + length > size)
    throw new InvalidArgumentError(`bytes ${offset} to ${offset + length} do not lie within ${size}`);
}

/** @throws InvalidArgumentError unless `value` is a whole number from 0 that a double holds exactly */
export function checkWhole(what: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new InvalidArgumentError(`${what} must be a whole number from 0, got ${value}`);
  }
}

/** The buffer to read into. */
export const asTarget = (target: ByteLength | Uint8Array): Uint8Array =>
  typeof target === 'number' ? new Uint8Array(target) : target;

export const lengthOf = (target: ByteLength | Uint8Array): ByteLength =>
  typeof target === 'number' ? target : target.byteLength;
