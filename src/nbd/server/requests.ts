/** What each request does to its export, and the rules that it has to keep; proto.md, "Request types". */
import { ErrorValue, PAYLOAD_MAX, type ReplyStyle, RequestFlag, RequestType } from '../wire/constants.js';
import type { Request } from '../wire/request.js';
import type { NbdExport, StatusContext } from './export.js';
import { RequestError } from './failure.js';
import type { RequestKind } from './figures.js';

const KINDS: Readonly<Record<number, RequestKind | undefined>> = {
  [RequestType.read]: 'read',
  [RequestType.write]: 'write',
  [RequestType.flush]: 'flush',
  [RequestType.trim]: 'trim',
  [RequestType.cache]: 'cache',
  [RequestType.writeZeroes]: 'writeZeroes',
  [RequestType.blockStatus]: 'blockStatus',
};

export const kindOf = (type: number): RequestKind | undefined => KINDS[type];

/**
 * Does `length` count bytes that follow the request? Those of a write always do: QEMU (seen with 10.0) leaves out `PAYLOAD_LEN` where
 * extended headers were agreed.
 */
export const hasPayload = ({ type, flags }: Request, style: ReplyStyle): boolean =>
  type === RequestType.write || (style === 'extended' && (flags & RequestFlag.payloadLength) !== 0);

const FLAGS: Readonly<Record<RequestKind, number>> = {
  read: RequestFlag.fua,
  write: RequestFlag.fua,
  flush: RequestFlag.fua,
  trim: RequestFlag.fua,
  cache: RequestFlag.fua,
  writeZeroes: RequestFlag.fua | RequestFlag.noHole | RequestFlag.fastZero,
  blockStatus: RequestFlag.fua | RequestFlag.reqOne,
};

function allowedFlags(kind: RequestKind, style: ReplyStyle): number {
  let flags = FLAGS[kind];
  if (kind === 'read' && style !== 'simple') flags |= RequestFlag.df;
  if (style === 'extended' && (kind === 'write' || kind === 'blockStatus'))
    flags |= RequestFlag.payloadLength;
  return flags;
}

/**
 * Refuses what the protocol does not allow, before anything is done.
 * @throws RequestError
 */
export function checkRequest(
  request: Request,
  style: ReplyStyle,
  exported: NbdExport,
  contexts: readonly StatusContext[],
): RequestKind {
  const { type, flags, offset, length } = request;
  const kind = kindOf(type);
  if (kind === undefined) throw new RequestError(ErrorValue.inval, `request type ${type} is not known`);
  if ((flags & ~allowedFlags(kind, style)) !== 0)
    throw new RequestError(ErrorValue.inval, `flags 0x${flags.toString(16)} do not go with ${kind}`);
  if (kind === 'flush') {
    if (offset !== 0 || length !== 0)
      throw new RequestError(ErrorValue.inval, 'offset and length of a flush must be 0');
    return kind;
  }
  const changes = kind === 'write' || kind === 'writeZeroes' || kind === 'trim';
  if (changes && !exported.writable) throw new RequestError(ErrorValue.perm, 'the export is read-only');
  if (kind === 'blockStatus') {
    if (contexts.length === 0) throw new RequestError(ErrorValue.inval, 'no metadata context was negotiated');
    return kind; // its range may come with its payload
  }
  checkRange(kind, offset, length, exported.size);
  if (kind === 'read' && length > PAYLOAD_MAX) {
    const value = style === 'simple' ? ErrorValue.inval : ErrorValue.overflow;
    throw new RequestError(value, `reads are limited to ${PAYLOAD_MAX} bytes`);
  }
  if (kind === 'writeZeroes' && (flags & RequestFlag.fastZero) !== 0 && !canZeroFast(request, exported))
    throw new RequestError(ErrorValue.notsup, 'zeroing is no faster than writing here');
  return kind;
}

const canZeroFast = ({ flags }: Request, { zeroesFast }: NbdExport): boolean =>
  zeroesFast && (flags & RequestFlag.noHole) === 0;

/** @throws RequestError */
function checkRange(kind: RequestKind, offset: number, length: number, size: number): void {
  // Both are at most 2^64 and exact where it matters: below the size.
  if (offset <= size && length <= size - offset) return;
  const grows = kind === 'write' || kind === 'writeZeroes';
  throw new RequestError(
    grows ? ErrorValue.nospc : ErrorValue.inval,
    `${length} bytes at ${offset} are beyond the end at ${size}`,
  );
}

export interface StatusQuery {
  readonly length: number;
  /** Ids of the contexts wanted. */
  readonly ids: readonly number[];
}

/**
 * The range and the contexts that a block status request asks about.
 * @param payload with extended headers, where the client names the contexts it wants
 * @throws RequestError
 */
export function statusQuery(
  request: Request,
  payload: Buffer | undefined,
  contexts: readonly StatusContext[],
  size: number,
): StatusQuery {
  const all = contexts.map((_, i) => i + 1);
  let query: StatusQuery = { length: request.length, ids: all };
  if (payload !== undefined) {
    if (payload.byteLength < 12 || payload.byteLength % 4 !== 0)
      throw new RequestError(ErrorValue.inval, 'the payload of the status request is malformed');
    const ids: number[] = [];
    for (let at = 8; at < payload.byteLength; at += 4) ids.push(payload.readUInt32BE(at));
    if (new Set(ids).size !== ids.length || ids.some((id) => !all.includes(id)))
      throw new RequestError(
        ErrorValue.inval,
        'the payload names a context twice, or one that was not negotiated',
      );
    query = { length: payload.readUInt32BE(0) * 0x1_0000_0000 + payload.readUInt32BE(4), ids };
  }
  if (query.length === 0) throw new RequestError(ErrorValue.inval, 'a status request of no bytes');
  checkRange('blockStatus', request.offset, query.length, size);
  return query;
}

/** How much of a long cache request is read: a hint must not keep the server busy for others. */
const CACHE_MAX = 32 * 1024 * 1024;
const CACHE_PART = 1024 * 1024;

/** Reads the range for its effect on caches below. */
export async function warmCache(exported: NbdExport, offset: number, length: number): Promise<void> {
  const end = offset + Math.min(length, CACHE_MAX);
  const buffer = Buffer.allocUnsafe(Math.min(CACHE_PART, end - offset));
  for (let at = offset; at < end; at += CACHE_PART)
    await exported.read(at, buffer.subarray(0, Math.min(CACHE_PART, end - at)));
}
