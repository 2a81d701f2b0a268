/** Ranges cut to what one request may carry, and buffers cut along with them. */
import type { ByteLength, ByteOffset } from '../../units.js';

export interface Piece {
  readonly offset: ByteOffset;
  readonly length: ByteLength;
}

/** @param most bytes of a piece; all but the last have as many */
export function piecesOf(offset: ByteOffset, length: ByteLength, most: ByteLength): Piece[] {
  const pieces: Piece[] = [];
  for (let done = 0; done < length; done += most)
    pieces.push({ offset: offset + done, length: Math.min(most, length - done) });
  return pieces;
}

/** The parts of `buffers`, one after the other, from byte `start` on. */
export function partsOf(buffers: readonly Uint8Array[], start: number, length: ByteLength): Uint8Array[] {
  const parts: Uint8Array[] = [];
  let at = -start;
  for (const buffer of buffers) {
    const from = Math.max(0, -at);
    const to = Math.min(buffer.byteLength, length - at);
    if (from < to) parts.push(from === 0 && to === buffer.byteLength ? buffer : buffer.subarray(from, to));
    at += buffer.byteLength;
    if (at >= length) break;
  }
  return parts;
}

export const totalLength = (buffers: readonly Uint8Array[]): ByteLength =>
  buffers.reduce((sum, { byteLength }) => sum + byteLength, 0);
