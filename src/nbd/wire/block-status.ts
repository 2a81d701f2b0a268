/** Extents of a metadata context in a reply to `NBD_CMD_BLOCK_STATUS`; proto.md, `NBD_REPLY_TYPE_BLOCK_STATUS`. */
import { readUInt64, writeUInt64 } from './bytes.js';
import { ReplyType } from './constants.js';
import { type Answered, encodeChunk } from './reply.js';

/** Consecutive bytes of an export with one status. */
export interface StatusExtent {
  /** Bytes, more than 0. */
  readonly length: number;
  readonly status: number;
}

/** The longest extent of a compact chunk: what 32 bits hold, rounded down to the preferred block size. */
export const COMPACT_EXTENT_MAX = 0x1_0000_0000 - 65_536;

export function encodeBlockStatus(
  to: Answered,
  extended: boolean,
  context: { readonly id: number; readonly extents: readonly StatusExtent[]; readonly done: boolean },
): Buffer {
  const { id, extents, done } = context;
  const payload = extended ? 8 + extents.length * 16 : 4 + extents.length * 8;
  const { bytes, extraAt } = encodeChunk(to, extended, {
    type: extended ? ReplyType.blockStatusExtended : ReplyType.blockStatus,
    done,
    payload,
    extra: payload,
  });
  bytes.writeUInt32BE(id, extraAt);
  if (extended) bytes.writeUInt32BE(extents.length, extraAt + 4);
  let at = extraAt + (extended ? 8 : 4);
  for (const { length, status } of extents) {
    if (extended) {
      writeUInt64(bytes, length, at);
      writeUInt64(bytes, status, at + 8);
      at += 16;
    } else {
      bytes.writeUInt32BE(length, at);
      bytes.writeUInt32BE(status, at + 4);
      at += 8;
    }
  }
  return bytes;
}

/** @returns `undefined` if the payload cannot be one */
export function decodeBlockStatus(
  payload: Buffer,
  extended: boolean,
): { readonly id: number; readonly extents: readonly StatusExtent[] } | undefined {
  const [head, each] = extended ? [8, 16] : [4, 8];
  if (payload.byteLength <= head || (payload.byteLength - head) % each !== 0) return undefined;
  const count = (payload.byteLength - head) / each;
  if (extended && payload.readUInt32BE(4) !== count) return undefined;
  const extents: StatusExtent[] = [];
  for (let at = head; at < payload.byteLength; at += each) {
    const extent = extended
      ? { length: readUInt64(payload, at), status: readUInt64(payload, at + 8) }
      : { length: payload.readUInt32BE(at), status: payload.readUInt32BE(at + 4) };
    if (extent.length === 0) return undefined;
    extents.push(extent);
  }
  return { id: payload.readUInt32BE(0), extents };
}
