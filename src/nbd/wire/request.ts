/** Requests of the transmission phase: 28 bytes, or 32 with extended headers; proto.md, "Request message". */
import { type Cookie, readUInt64, writeUInt64 } from './bytes.js';
import { HeaderSize, Magic } from './constants.js';

export interface Request extends Cookie {
  readonly flags: number;
  readonly type: number;
  /** Bytes; may be beyond what is exact, then it is beyond every export too. */
  readonly offset: number;
  /** Bytes of the payload, or of the range: which, say type and flags. */
  readonly length: number;
}

export const requestSize = (extended: boolean): number =>
  extended ? HeaderSize.extendedRequest : HeaderSize.request;

/** @returns `undefined` if the magic number is wrong: then nothing that follows can be understood */
export function decodeRequest(bytes: Buffer, at: number, extended: boolean): Request | undefined {
  if (bytes.readUInt32BE(at) !== (extended ? Magic.extendedRequest : Magic.request)) return undefined;
  return {
    flags: bytes.readUInt16BE(at + 4),
    type: bytes.readUInt16BE(at + 6),
    cookieHigh: bytes.readUInt32BE(at + 8),
    cookieLow: bytes.readUInt32BE(at + 12),
    offset: readUInt64(bytes, at + 16),
    length: extended ? readUInt64(bytes, at + 24) : bytes.readUInt32BE(at + 24),
  };
}

/** @param request compact requests need a length below 2^32 */
export function encodeRequest(request: Request, extended: boolean): Buffer {
  const bytes = Buffer.allocUnsafe(requestSize(extended));
  bytes.writeUInt32BE(extended ? Magic.extendedRequest : Magic.request, 0);
  bytes.writeUInt16BE(request.flags, 4);
  bytes.writeUInt16BE(request.type, 6);
  bytes.writeUInt32BE(request.cookieHigh, 8);
  bytes.writeUInt32BE(request.cookieLow, 12);
  writeUInt64(bytes, request.offset, 16);
  if (extended) writeUInt64(bytes, request.length, 24);
  else bytes.writeUInt32BE(request.length, 24);
  return bytes;
}
