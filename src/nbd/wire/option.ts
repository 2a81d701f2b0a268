/** Options and their replies: the haggling before the transmission phase; proto.md, "Newstyle negotiation". */
import { readUInt64, writeUInt64 } from './bytes.js';
import { HandshakeFlag, HeaderSize, Magic, OptionReply, STRING_MAX } from './constants.js';
import { cutString } from './reply.js';

/** What a server says first: fixed newstyle, and that it can leave out the 124 zeros. */
export function encodeGreeting(): Buffer {
  const bytes = Buffer.alloc(18);
  bytes.writeUInt32BE(Magic.greetingHigh, 0);
  bytes.writeUInt32BE(Magic.greetingLow, 4);
  bytes.writeUInt32BE(Magic.optionHigh, 8);
  bytes.writeUInt32BE(Magic.optionLow, 12);
  bytes.writeUInt16BE(HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes, 16);
  return bytes;
}

export interface OptionHeader {
  readonly option: number;
  /** Bytes of data that follow. */
  readonly length: number;
}

/** @returns `undefined` if the magic number is wrong */
export function decodeOptionHeader(bytes: Buffer): OptionHeader | undefined {
  if (bytes.readUInt32BE(0) !== Magic.optionHigh || bytes.readUInt32BE(4) !== Magic.optionLow)
    return undefined;
  return { option: bytes.readUInt32BE(8), length: bytes.readUInt32BE(12) };
}

export function encodeOption(option: number, data: Uint8Array = new Uint8Array(0)): Buffer {
  const bytes = Buffer.alloc(HeaderSize.option + data.byteLength);
  bytes.writeUInt32BE(Magic.optionHigh, 0);
  bytes.writeUInt32BE(Magic.optionLow, 4);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(data.byteLength, 12);
  bytes.set(data, HeaderSize.option);
  return bytes;
}

export interface OptionReplyHeader {
  readonly option: number;
  readonly type: number;
  readonly length: number;
}

/** @returns `undefined` if the magic number is wrong */
export function decodeOptionReplyHeader(bytes: Buffer): OptionReplyHeader | undefined {
  if (bytes.readUInt32BE(0) !== Magic.optionReplyHigh || bytes.readUInt32BE(4) !== Magic.optionReplyLow)
    return undefined;
  return { option: bytes.readUInt32BE(8), type: bytes.readUInt32BE(12), length: bytes.readUInt32BE(16) };
}

export function encodeOptionReply(
  option: number,
  type: number,
  data: Uint8Array = new Uint8Array(0),
): Buffer {
  const bytes = Buffer.alloc(HeaderSize.optionReply + data.byteLength);
  bytes.writeUInt32BE(Magic.optionReplyHigh, 0);
  bytes.writeUInt32BE(Magic.optionReplyLow, 4);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(type, 12);
  bytes.writeUInt32BE(data.byteLength, 16);
  bytes.set(data, HeaderSize.optionReply);
  return bytes;
}

/** A refusal with a sentence for people. */
export const encodeOptionError = (option: number, type: number, message: string): Buffer =>
  encodeOptionReply(option, type, cutString(message));

/** One export of `NBD_OPT_LIST`. */
export function encodeServer(option: number, name: string, description: string): Buffer {
  const nameBytes = cutString(name);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(nameBytes.byteLength, 0);
  return encodeOptionReply(
    option,
    OptionReply.server,
    Buffer.concat([head, nameBytes, cutString(description)]),
  );
}

/** Size and flags of an export: after `NBD_OPT_EXPORT_NAME`, and inside `NBD_INFO_EXPORT`. */
export function encodeExport(size: number, flags: number): Buffer {
  const bytes = Buffer.alloc(10);
  writeUInt64(bytes, size, 0);
  bytes.writeUInt16BE(flags, 8);
  return bytes;
}

export const decodeExport = (bytes: Buffer): { readonly size: number; readonly flags: number } => ({
  size: readUInt64(bytes, 0),
  flags: bytes.readUInt16BE(8),
});

/** One `NBD_REP_INFO`. */
export function encodeInfo(option: number, kind: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(2);
  head.writeUInt16BE(kind, 0);
  return encodeOptionReply(option, OptionReply.info, Buffer.concat([head, payload]));
}

export interface BlockSizes {
  readonly minimum: number;
  readonly preferred: number;
  /** Most bytes of payload in a request. */
  readonly maximum: number;
}

export function encodeBlockSizes({ minimum, preferred, maximum }: BlockSizes): Buffer {
  const bytes = Buffer.alloc(12);
  bytes.writeUInt32BE(minimum, 0);
  bytes.writeUInt32BE(preferred, 4);
  bytes.writeUInt32BE(maximum, 8);
  return bytes;
}

export const decodeBlockSizes = (bytes: Buffer): BlockSizes => ({
  minimum: bytes.readUInt32BE(0),
  preferred: bytes.readUInt32BE(4),
  maximum: bytes.readUInt32BE(8),
});

/** One context of a reply to `NBD_OPT_LIST_META_CONTEXT` or `NBD_OPT_SET_META_CONTEXT`. */
export function encodeMetaContext(option: number, id: number, name: string): Buffer {
  const nameBytes = cutString(name);
  const data = Buffer.alloc(4 + nameBytes.byteLength);
  data.writeUInt32BE(id, 0);
  nameBytes.copy(data, 4);
  return encodeOptionReply(option, OptionReply.metaContext, data);
}

/** Data of `NBD_OPT_INFO` and `NBD_OPT_GO`. */
export interface InfoRequest {
  readonly name: string;
  /** Kinds of information asked for. */
  readonly kinds: readonly number[];
}

/** @returns `undefined` if the data is malformed */
export function decodeInfoRequest(data: Buffer): InfoRequest | undefined {
  const name = decodeName(data, 2);
  if (name === undefined) return undefined;
  const count = data.readUInt16BE(name.end);
  if (data.byteLength !== name.end + 2 + count * 2) return undefined;
  const kinds = Array.from({ length: count }, (_, i) => data.readUInt16BE(name.end + 2 + i * 2));
  return { name: name.text, kinds };
}

export function encodeInfoRequest({ name, kinds }: InfoRequest): Buffer {
  const nameBytes = Buffer.from(name, 'utf8');
  const bytes = Buffer.alloc(4 + nameBytes.byteLength + 2 + kinds.length * 2);
  bytes.writeUInt32BE(nameBytes.byteLength, 0);
  nameBytes.copy(bytes, 4);
  bytes.writeUInt16BE(kinds.length, 4 + nameBytes.byteLength);
  for (const [i, kind] of kinds.entries()) bytes.writeUInt16BE(kind, 4 + nameBytes.byteLength + 2 + i * 2);
  return bytes;
}

/** Data of the two options about metadata contexts. */
export interface ContextQuery {
  readonly exportName: string;
  readonly queries: readonly string[];
}

/** @returns `undefined` if the data is malformed */
export function decodeContextQuery(data: Buffer): ContextQuery | undefined {
  const name = decodeName(data, 4);
  if (name === undefined) return undefined;
  const count = data.readUInt32BE(name.end);
  const queries: string[] = [];
  let at = name.end + 4;
  for (let i = 0; i < count; i++) {
    if (at + 4 > data.byteLength) return undefined;
    const length = data.readUInt32BE(at);
    at += 4;
    if (length > STRING_MAX || at + length > data.byteLength) return undefined;
    const text = decodeString(data.subarray(at, at + length));
    if (text === undefined) return undefined;
    queries.push(text);
    at += length;
  }
  return at === data.byteLength ? { exportName: name.text, queries } : undefined;
}

export function encodeContextQuery({ exportName, queries }: ContextQuery): Buffer {
  const parts: Buffer[] = [];
  const add = (text: string) => {
    const bytes = Buffer.from(text, 'utf8');
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.byteLength, 0);
    parts.push(length, bytes);
  };
  add(exportName);
  const count = Buffer.alloc(4);
  count.writeUInt32BE(queries.length, 0);
  parts.push(count);
  for (const query of queries) add(query);
  return Buffer.concat(parts);
}

/** A name with its length before it, and at least `after` bytes behind it. */
function decodeName(
  data: Buffer,
  after: number,
): { readonly text: string; readonly end: number } | undefined {
  if (data.byteLength < 4 + after) return undefined;
  const length = data.readUInt32BE(0);
  if (length > STRING_MAX || 4 + length + after > data.byteLength) return undefined;
  const text = decodeString(data.subarray(4, 4 + length));
  return text === undefined ? undefined : { text, end: 4 + length };
}

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** A string of the protocol. @returns `undefined` if it is none: too long, not UTF-8, with a NUL */
export function decodeString(bytes: Uint8Array): string | undefined {
  if (bytes.byteLength > STRING_MAX || bytes.includes(0)) return undefined;
  try {
    return UTF8.decode(bytes);
  } catch {
    return undefined;
  }
}
