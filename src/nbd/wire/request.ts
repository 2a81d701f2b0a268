/** Requests of the transmission phase: 28 bytes, or 32 with extended headers; proto.md, "Request message". */
import { fromWords, highWord, lowWord, readUInt64, writeUInt64 } from './bytes.js';
import { HeaderSize, Magic } from './constants.js';
import type { Answered } from './reply.js';

export interface Request extends Answered {
  readonly flags: number;
  readonly type: number;
  /** Bytes; may be beyond what is exact, then it is beyond every export too. */
  readonly offset: number;
  /** Bytes of the payload, or of the range: which, say type and flags. */
  readonly length: number;
}

/** What a client decides on; the words of the offset follow from it. */
export type NewRequest = Omit<Request, 'offsetHigh' | 'offsetLow'>;

export const requestSize = (extended: boolean): number =>
  extended ? HeaderSize.extendedRequest : HeaderSize.request;

/** @returns `undefined` if the magic number is wrong: then nothing that follows can be understood */
export function decodeRequest(bytes: Buffer, at: number, extended: boolean): Request | undefined {
  if (bytes.readUInt32BE(at) !== (extended ? Magic.extendedRequest : Magic.request)) return undefined;
  const offsetHigh = bytes.readUInt32BE(at + 16);
  const offsetLow = bytes.readUInt32BE(at + 20);
  return {
    flags: bytes.readUInt16BE(at + 4),
    type: bytes.readUInt16BE(at + 6),
    cookieHigh: bytes.readUInt32BE(at + 8),
    cookieLow: bytes.readUInt32BE(at + 12),
    offsetHigh,
    offsetLow,
    offset: fromWords(offsetHigh, offsetLow),
    length: extended ? readUInt64(bytes, at + 24) : bytes.readUInt32BE(at + 24),
  };
}

/** @param request compact requests need a length below 2^32 */
export function encodeRequest(request: NewRequest, extended: boolean): Buffer {
  const bytes = Buffer.allocUnsafe(requestSize(extended));
  bytes.writeUInt32BE(extended ? Magic.extendedRequest : Magic.request, 0);
  bytes.writeUInt16BE(request.flags, 4);
  bytes.writeUInt16BE(request.type, 6);
  bytes.writeUInt32BE(request.cookieHigh, 8);
  bytes.writeUInt32BE(request.cookieLow, 12);
  bytes.writeUInt32BE(highWord(request.offset), 16);
  bytes.writeUInt32BE(lowWord(request.offset), 20);
  if (extended) writeUInt64(bytes, request.length, 24);
  else bytes.writeUInt32BE(request.length, 24);
  return bytes;
}
