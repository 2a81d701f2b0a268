/**
 * Reading and writing numbers of the format, and the errors for bytes that break it.
 *
 * A u64 of the format is an offset, a size or a count and must be a safe integer; it is put together from two u32,
 * because a BigInt for every table entry would cost more than all the rest. Identifiers and times stay `bigint`.
 */
import { assert, FormatError } from '../errors.js';
import { BLOCK_SIZE, type ByteOffset } from '../units.js';

/** Where bytes being decoded came from. */
export interface ReadContext {
  /** Device offset at which the block was read; messages name it. */
  readonly offset: ByteOffset;
  /** Written by Windows: bytes that are reserved to us may hold anything. */
  readonly foreign?: boolean;
}

const TWO_TO_32 = 0x1_0000_0000;

/** A view of exactly the bytes of `bytes`. */
export const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/**
 * The u64 at `at`, rounded when it is beyond 2^53. For fields that nothing is read from, and for hot paths, which then
 * compare with `Number.MAX_SAFE_INTEGER`: whatever does not fit comes out above it.
 */
export const readU64Rounded = (view: DataView, at: number): number =>
  view.getUint32(at, true) + view.getUint32(at + 4, true) * TWO_TO_32;

/** The u64 at `at`. @throws FormatError when it is beyond 2^53 - 1, naming `field`. */
export function readU64(view: DataView, at: number, field: string, context?: ReadContext): number {
  const value = readU64Rounded(view, at);
  if (value > Number.MAX_SAFE_INTEGER)
    throw badField(context, field, view.getBigUint64(at, true), 'no larger than 2^53 - 1');
  return value;
}

/** Stores a safe, non-negative integer as u64. */
export function writeU64(view: DataView, at: number, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) assert(false, () => `${value} does not fit a u64 field`);
  const low = value >>> 0;
  view.setUint32(at, low, true);
  view.setUint32(at + 4, (value - low) / TWO_TO_32, true);
}

const ZEROS = Buffer.alloc(BLOCK_SIZE);
/** Below so many bytes a loop is faster than a call. */
const FEW = 64;

/** Whether the bytes from `from` up to `to` are all zero. */
export function isZero(bytes: Uint8Array, from = 0, to = bytes.byteLength): boolean {
  let at = from;
  // A comparison of the C library, many times as fast as a loop; in place, as views would cost more than it does.
  for (; to - at >= FEW; at += Math.min(to - at, BLOCK_SIZE)) {
    const length = Math.min(to - at, BLOCK_SIZE);
    if (ZEROS.compare(bytes, at, at + length, 0, length) !== 0) return false;
  }
  for (; at < to; at++) if (bytes[at] !== 0) return false;
  return true;
}

/** `value` as it appears in messages. */
export const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

/** An error about one field of a structure; `rule` says what the value should have been. */
export function badField(
  context: ReadContext | undefined,
  field: string,
  value: number | bigint | string,
  rule: string,
): FormatError {
  const place = context === undefined ? '' : `block at offset ${hex(context.offset)}: `;
  return new FormatError(
    `${place}${field} is ${typeof value === 'string' ? value : hex(value)}, must be ${rule}`,
  );
}

/** @throws FormatError unless the bytes from `from` up to `to` are zero. */
export function checkReserved(
  bytes: Uint8Array,
  from: number,
  to: number,
  field: string,
  context: ReadContext,
): void {
  if (isZero(bytes, from, to)) return;
  const at = bytes.subarray(from, to).findIndex((byte) => byte !== 0);
  throw badField(context, `${field}, byte ${from + at},`, bytes[from + at] ?? 0, 'zero (reserved)');
}

/** @throws FormatError unless `value` is a multiple of the block size. */
export function checkAligned(value: number, field: string, context: ReadContext): void {
  if (value % BLOCK_SIZE !== 0) throw badField(context, field, value, `a multiple of ${BLOCK_SIZE}`);
}
