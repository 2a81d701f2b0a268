/** Replies of the transmission phase; proto.md, "Simple reply message" and the two that follow it. */
import { type Cookie, readUInt64, writeUInt64 } from './bytes.js';
import { HeaderSize, Magic, REPLY_DONE, ReplyType, STRING_MAX } from './constants.js';

/** What a chunk answers: extended headers repeat the offset of the request, whatever it was. */
export interface Answered extends Cookie {
  readonly offsetHigh: number;
  readonly offsetLow: number;
}

export function encodeSimpleReply({ cookieHigh, cookieLow }: Cookie, error: number): Buffer {
  const bytes = Buffer.allocUnsafe(HeaderSize.simpleReply);
  bytes.writeUInt32BE(Magic.simpleReply, 0);
  bytes.writeUInt32BE(error, 4);
  bytes.writeUInt32BE(cookieHigh, 8);
  bytes.writeUInt32BE(cookieLow, 12);
  return bytes;
}

/**
 * Header of a chunk, followed by `extra` bytes for the caller to fill.
 * @param extended with extended headers, else structured
 * @param payload bytes that follow the header, `extra` among them
 */
export function encodeChunk(
  to: Answered,
  extended: boolean,
  chunk: { readonly type: number; readonly done: boolean; readonly payload: number; readonly extra: number },
): { readonly bytes: Buffer; readonly extraAt: number } {
  const extraAt = extended ? HeaderSize.extendedReply : HeaderSize.structuredReply;
  const bytes = Buffer.allocUnsafe(extraAt + chunk.extra);
  bytes.writeUInt32BE(extended ? Magic.extendedReply : Magic.structuredReply, 0);
  bytes.writeUInt16BE(chunk.done ? REPLY_DONE : 0, 4);
  bytes.writeUInt16BE(chunk.type, 6);
  bytes.writeUInt32BE(to.cookieHigh, 8);
  bytes.writeUInt32BE(to.cookieLow, 12);
  if (extended) {
    bytes.writeUInt32BE(to.offsetHigh, 16);
    bytes.writeUInt32BE(to.offsetLow, 20);
    writeUInt64(bytes, chunk.payload, 24);
  } else {
    bytes.writeUInt32BE(chunk.payload, 16);
  }
  return { bytes, extraAt };
}

/** Success without payload. */
export const encodeDone = (to: Answered, extended: boolean): Buffer =>
  encodeChunk(to, extended, { type: ReplyType.none, done: true, payload: 0, extra: 0 }).bytes;

/** Header of a chunk of data, which the caller sends after it. */
export function encodeDataHeader(
  to: Answered,
  extended: boolean,
  data: { readonly offset: number; readonly length: number; readonly done: boolean },
): Buffer {
  const { bytes, extraAt } = encodeChunk(to, extended, {
    type: ReplyType.offsetData,
    done: data.done,
    payload: 8 + data.length,
    extra: 8,
  });
  writeUInt64(bytes, data.offset, extraAt);
  return bytes;
}

/** A range of zeros in a reply to a read. */
export function encodeHole(
  to: Answered,
  extended: boolean,
  hole: { readonly offset: number; readonly length: number; readonly done: boolean },
): Buffer {
  const { bytes, extraAt } = encodeChunk(to, extended, {
    type: ReplyType.offsetHole,
    done: hole.done,
    payload: 12,
    extra: 12,
  });
  writeUInt64(bytes, hole.offset, extraAt);
  bytes.writeUInt32BE(hole.length, extraAt + 8);
  return bytes;
}

/** The request failed; `message` is for people, and cut at what the protocol allows. */
export function encodeErrorChunk(to: Answered, extended: boolean, error: number, message: string): Buffer {
  const text = cutString(message);
  const payload = 6 + text.byteLength;
  const { bytes, extraAt } = encodeChunk(to, extended, {
    type: ReplyType.error,
    done: true,
    payload,
    extra: payload,
  });
  bytes.writeUInt32BE(error, extraAt);
  bytes.writeUInt16BE(text.byteLength, extraAt + 4);
  text.copy(bytes, extraAt + 6);
  return bytes;
}

/** As UTF-8 without NUL, at most as long as the protocol allows and never cut inside a character. */
export function cutString(text: string): Buffer {
  const bytes = Buffer.from(text.replaceAll('\0', '\u{FFFD}'), 'utf8');
  if (bytes.byteLength <= STRING_MAX) return bytes;
  let end = STRING_MAX;
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return bytes.subarray(0, end);
}

/** Header of a reply, as a client reads it. */
export interface ReplyHeader extends Cookie {
  readonly style: 'simple' | 'chunk';
  /** Of a simple reply. */
  readonly error: number;
  /** Of a chunk. */
  readonly flags: number;
  readonly type: number;
  /** Bytes of payload of a chunk; a simple reply does not say. */
  readonly length: number;
  /** Of the request; only extended replies have it, 0 in others. */
  readonly offset: number;
}

/** Bytes of the header that begins with `magic`; `undefined` for an unknown one. */
export function replyHeaderSize(magic: number): number | undefined {
  if (magic === Magic.simpleReply) return HeaderSize.simpleReply;
  if (magic === Magic.structuredReply) return HeaderSize.structuredReply;
  if (magic === Magic.extendedReply) return HeaderSize.extendedReply;
  return undefined;
}

/** @param bytes hold the whole header at `at`, of a known magic number */
export function decodeReplyHeader(bytes: Buffer, at: number): ReplyHeader {
  const magic = bytes.readUInt32BE(at);
  const cookieHigh = bytes.readUInt32BE(at + 8);
  const cookieLow = bytes.readUInt32BE(at + 12);
  if (magic === Magic.simpleReply) {
    return {
      cookieHigh,
      cookieLow,
      style: 'simple',
      error: bytes.readUInt32BE(at + 4),
      flags: REPLY_DONE,
      type: 0,
      length: 0,
      offset: 0,
    };
  }
  const isExtended = magic === Magic.extendedReply;
  return {
    cookieHigh,
    cookieLow,
    style: 'chunk',
    error: 0,
    flags: bytes.readUInt16BE(at + 4),
    type: bytes.readUInt16BE(at + 6),
    length: isExtended ? readUInt64(bytes, at + 24) : bytes.readUInt32BE(at + 16),
    offset: isExtended ? readUInt64(bytes, at + 16) : 0,
  };
}
