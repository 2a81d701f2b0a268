/**
 * Takes the replies of the transmission phase apart, whatever pieces they come in. Content goes straight into the buffers of the
 * request that asked for it.
 *
 * Invariant: bytes of a socket are either in `#scratch` between `#start` and `#end`, waiting to be understood, or belong to
 * the payload that is being taken in.
 */
import { decodeBlockStatus } from '../wire/block-status.js';
import { readUInt64 } from '../wire/bytes.js';
import {
  HeaderSize,
  REPLY_DONE,
  REPLY_TYPE_IS_ERROR,
  type ReplyStyle,
  ReplyType,
  RequestType,
  STRING_MAX,
} from '../wire/constants.js';
import { decodeReplyHeader, type ReplyHeader, replyHeaderSize } from '../wire/reply.js';
import type { Reader } from './channel.js';
import { malformed, shown } from './failure.js';
import type { Pending } from './pending.js';

/** Bytes read at once where no payload is expected. */
const SCRATCH = 64 * 1024;
/** From here on the rest of a payload is read straight to its place instead of through the scratch. */
const DIRECT_FROM = 8 * 1024;
/** Most extents of one context in a reply, as the protocol recommends to servers. */
const EXTENTS_MAX = 2 ** 20;

/** A payload that is being taken in. */
interface Payload {
  /** Bytes still to come. */
  rest: number;
  /** Where the next ones go. */
  next(): Uint8Array;
  /** All are there. */
  done(): void;
}

export interface ReplyListener {
  /** @returns `undefined` if there is no such request */
  find(cookieHigh: number, cookieLow: number): Pending | undefined;
  /** The reply is complete. */
  finished(cookieLow: number, pending: Pending): void;
}

export class ReplyReader implements Reader {
  readonly #scratch = Buffer.allocUnsafeSlow(SCRATCH);
  #start = 0;
  #end = 0;
  #payload: Payload | undefined;
  #direct: Uint8Array | undefined;
  readonly #style: ReplyStyle;
  readonly #listener: ReplyListener;

  constructor(style: ReplyStyle, listener: ReplyListener) {
    this.#style = style;
    this.#listener = listener;
  }

  room(): Uint8Array {
    const payload = this.#payload;
    if (payload !== undefined && payload.rest >= DIRECT_FROM) {
      const place = payload.next();
      this.#direct = place.byteLength > payload.rest ? place.subarray(0, payload.rest) : place;
      return this.#direct;
    }
    this.#direct = undefined;
    if (this.#start === this.#end) {
      this.#start = 0;
      this.#end = 0;
      return this.#scratch;
    }
    if (this.#end === SCRATCH) {
      this.#scratch.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    return this.#scratch.subarray(this.#end);
  }

  /** @throws ConnectionEnd if what came cannot be understood */
  filled(count: number): void {
    if (this.#direct !== undefined) this.#advance(count);
    else this.#end += count;
    while (this.#payload !== undefined ? this.#takePayload() : this.#takeHeader());
  }

  /** @returns false if more has to come first */
  #takePayload(): boolean {
    const payload = this.#payload;
    if (payload === undefined) return true;
    while (payload.rest > 0) {
      const here = Math.min(payload.rest, this.#end - this.#start);
      if (here === 0) return false;
      const place = payload.next();
      const count = Math.min(here, place.byteLength);
      place.set(this.#scratch.subarray(this.#start, this.#start + count));
      this.#start += count;
      this.#advance(count);
    }
    return true;
  }

  #advance(count: number): void {
    const payload = this.#payload;
    if (payload === undefined) return;
    payload.rest -= count;
    if (payload.rest > 0) return;
    this.#payload = undefined;
    payload.done();
  }

  #takeHeader(): boolean {
    const here = this.#end - this.#start;
    if (here < 4) return false;
    const size = replyHeaderSize(this.#scratch.readUInt32BE(this.#start));
    if (size === undefined) throw malformed('a reply has an unknown magic number');
    if (here < size) return false;
    const header = decodeReplyHeader(this.#scratch, this.#start);
    const pending = this.#listener.find(header.cookieHigh, header.cookieLow);
    if (pending === undefined) throw malformed('it answers a request that was not made');
    if (!this.#allows(size, pending)) throw malformed('a reply has a form that was not agreed on');
    if (size === HeaderSize.extendedReply && header.offset !== pending.command.offset)
      throw malformed('a reply names another offset than its request');
    this.#start += size;
    if (header.style === 'simple') this.#takeSimple(header, pending);
    else this.#takeChunk(header, pending);
    return true;
  }

  #allows(size: number, { command }: Pending): boolean {
    if (this.#style === 'extended') return size === HeaderSize.extendedReply;
    if (this.#style === 'simple') return size === HeaderSize.simpleReply;
    const hasPayload = command.type === RequestType.read || command.type === RequestType.blockStatus;
    return size === HeaderSize.structuredReply || (size === HeaderSize.simpleReply && !hasPayload);
  }

  #takeSimple(header: ReplyHeader, pending: Pending): void {
    const { command } = pending;
    const finish = () => this.#finish(header, pending);
    if (header.error !== 0) {
      pending.fail({ value: header.error, message: '' });
      finish();
    } else if (command.type === RequestType.read) {
      this.#takeContent(pending, command.offset, command.length, finish);
    } else {
      finish();
    }
  }

  #takeChunk(header: ReplyHeader, pending: Pending): void {
    pending.countChunk();
    const isLast = (header.flags & REPLY_DONE) !== 0;
    const finish = () => {
      if (isLast) this.#finish(header, pending);
    };
    const { type, length } = header;
    if (type === ReplyType.offsetData) {
      if (length < 9 || length - 8 > pending.command.length)
        throw malformed(`a chunk of content has ${length} bytes`);
      this.#takeBytes(8, (bytes) => this.#takeContent(pending, readUInt64(bytes, 0), length - 8, finish));
      return;
    }
    if (type === ReplyType.none && (length !== 0 || !isLast))
      throw malformed('an empty chunk is not empty, or not the last one');
    if (length > payloadMax(type, pending, this.#style))
      throw malformed(`a chunk of type ${type} has ${length} bytes`);
    this.#takeBytes(length, (bytes) => {
      if ((type & REPLY_TYPE_IS_ERROR) !== 0) takeError(bytes, pending);
      else if (type === ReplyType.offsetHole) takeHole(bytes, pending);
      else if (type !== ReplyType.none) this.#takeStatus(type, bytes, pending);
      finish();
    });
  }

  #takeStatus(type: number, bytes: Buffer, pending: Pending): void {
    const extended = this.#style === 'extended';
    const status =
      type === (extended ? ReplyType.blockStatusExtended : ReplyType.blockStatus)
        ? decodeBlockStatus(bytes, extended)
        : undefined;
    if (status === undefined) throw malformed(`a chunk of type ${type} makes no sense`);
    pending.addStatus(status.id, status.extents);
  }

  #takeContent(pending: Pending, offset: number, length: number, done: () => void): void {
    pending.cover(offset, length);
    const start = offset - pending.command.offset;
    const payload = {
      rest: length,
      next: () => pending.target(start + length - payload.rest),
      done,
    };
    this.#payload = payload;
  }

  #takeBytes(length: number, done: (bytes: Buffer) => void): void {
    const bytes = Buffer.alloc(length);
    if (length === 0) {
      done(bytes);
      return;
    }
    const payload = {
      rest: length,
      next: () => bytes.subarray(length - payload.rest),
      done: () => done(bytes),
    };
    this.#payload = payload;
  }

  #finish({ cookieLow }: ReplyHeader, pending: Pending): void {
    pending.finish();
    this.#listener.finished(cookieLow, pending);
  }
}

/** Most payload of a chunk without content; 0 where it has no business to be. */
function payloadMax(type: number, { command }: Pending, style: ReplyStyle): number {
  if ((type & REPLY_TYPE_IS_ERROR) !== 0) return STRING_MAX + 64;
  if (type === ReplyType.offsetHole) return 12;
  if (command.type !== RequestType.blockStatus) return 0;
  return style === 'extended' ? 8 + 16 * EXTENTS_MAX : 4 + 8 * EXTENTS_MAX;
}

function takeHole(bytes: Buffer, pending: Pending): void {
  if (bytes.byteLength !== 12) throw malformed(`a hole has ${bytes.byteLength} bytes`);
  const offset = readUInt64(bytes, 0);
  const length = bytes.readUInt32BE(8);
  pending.cover(offset, length);
  for (let at = offset - pending.command.offset, rest = length; rest > 0; ) {
    const place = pending.target(at);
    const count = Math.min(rest, place.byteLength);
    place.fill(0, 0, count);
    at += count;
    rest -= count;
  }
}

function takeError(bytes: Buffer, pending: Pending): void {
  const length = bytes.byteLength >= 6 ? bytes.readUInt16BE(4) : 0;
  if (bytes.byteLength < 6 || 6 + length > bytes.byteLength)
    throw malformed('an error in a reply has the wrong length');
  const value = bytes.readUInt32BE(0);
  if (value === 0) throw malformed('an error in a reply is none');
  pending.fail({ value, message: shown(bytes.subarray(6, 6 + length)) });
}
