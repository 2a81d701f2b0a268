/** Copies of the content of whole disks, most of which is zeros that nobody ever wrote. */
import { isZeros } from '../device/zeros.js';

/** Bytes that are looked at together. */
const PART = 16_384;

/**
 * The same bytes: in that room if it has the right size, because making room costs more than copying; else in room of which nothing is touched
 * that is zero, so that it takes no memory.
 */
export function sparseCopy(source: Uint8Array, room?: Uint8Array): Uint8Array {
  if (room?.byteLength === source.byteLength) {
    room.set(source);
    return room;
  }
  const copy = new Uint8Array(source.byteLength);
  for (let at = 0; at < source.byteLength; at += PART) {
    const part = source.subarray(at, at + PART);
    if (!isZeros(part)) copy.set(part, at);
  }
  return copy;
}
