/**
 * Messages of the control channel, as bytes:
 *
 *     0  magic 'vs'   2  version   3  kind   4  request id   8  length of the JSON text   12  length of the bytes
 *     16 JSON text (UTF-8), then bytes
 *
 * All numbers big-endian. Bytes travel as they are, so that a volume can be read through the channel at full speed.
 */
import type { ByteLength } from '../../units.js';

export const FRAME_HEADER_SIZE = 16;
const MAGIC = 0x7673;
const VERSION = 1;

export const FrameKind = {
  /** From the client: `{ method, params }`, and bytes. */
  request: 1,
  /** From the client: the request is not wanted any more. */
  cancel: 2,
  /** The value that a request asked for, and bytes. */
  result: 3,
  /** `{ code, name, message }`: the request failed. */
  error: 4,
  /** `{ done, total }` of a request under way. */
  progress: 5,
  /** `{ name, event }`: something happened to the volume; request id 0. */
  event: 6,
} as const;
export type FrameKind = (typeof FrameKind)[keyof typeof FrameKind];
const KINDS: ReadonlySet<number> = new Set(Object.values(FrameKind));

export interface Frame {
  readonly kind: FrameKind;
  readonly id: number;
  readonly value: unknown;
  readonly bytes: Uint8Array;
}

export interface FrameLimits {
  readonly json: ByteLength;
  readonly bytes: ByteLength;
}

/** The peer does not speak this protocol, or too much of it. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
}

const NOTHING = new Uint8Array(0);

/** Head and text of a frame; its bytes follow as they are. */
export function encodeFrame(kind: FrameKind, id: number, value?: unknown, bytes: ByteLength = 0): Buffer {
  const text = value === undefined ? '' : JSON.stringify(value);
  const length = Buffer.byteLength(text);
  const frame = Buffer.allocUnsafe(FRAME_HEADER_SIZE + length);
  frame.writeUInt16BE(MAGIC, 0);
  frame.writeUInt8(VERSION, 2);
  frame.writeUInt8(kind, 3);
  frame.writeUInt32BE(id, 4);
  frame.writeUInt32BE(length, 8);
  frame.writeUInt32BE(bytes, 12);
  frame.write(text, FRAME_HEADER_SIZE);
  return frame;
}

interface Header {
  readonly kind: FrameKind;
  readonly id: number;
  readonly json: ByteLength;
  readonly bytes: ByteLength;
}

function decodeHeader(head: Buffer, limits: FrameLimits): Header {
  const [magic, version, kind] = [head.readUInt16BE(0), head.readUInt8(2), head.readUInt8(3)];
  if (magic !== MAGIC) throw new ProtocolError('what came is no message of the control channel');
  if (version !== VERSION) throw new ProtocolError(`the peer speaks version ${version}, this is ${VERSION}`);
  if (!KINDS.has(kind)) throw new ProtocolError(`messages of kind ${kind} are not known`);
  const header = {
    kind: kind as FrameKind,
    id: head.readUInt32BE(4),
    json: head.readUInt32BE(8),
    bytes: head.readUInt32BE(12),
  };
  if (header.json > limits.json || header.bytes > limits.bytes) {
    throw new ProtocolError(`a message of ${header.json} and ${header.bytes} bytes is too long`);
  }
  return header;
}

/** Cuts what comes from a socket into frames. What is passed in may be reused as soon as `push` has returned. */
export class FrameDecoder {
  readonly #limits: FrameLimits;
  readonly #targetFor: (id: number, length: ByteLength) => Uint8Array | undefined;
  readonly #head = Buffer.alloc(FRAME_HEADER_SIZE);
  #header: Header | undefined;
  #text: Buffer | undefined;
  #bytes: Uint8Array = NOTHING;
  #value: unknown;
  /** Bytes there of the part that is being collected: head, text or bytes. */
  #filled = 0;

  /** @param targetFor where the bytes of the answer to a request are to go, if that is known */
  constructor(
    limits: FrameLimits,
    targetFor: (id: number, length: ByteLength) => Uint8Array | undefined = () => undefined,
  ) {
    this.#limits = limits;
    this.#targetFor = targetFor;
  }

  /** Has a message begun that is not whole? */
  get isHalfWay(): boolean {
    return this.#header !== undefined || this.#filled > 0;
  }

  /** The target for the answer to this request is its owner's again; what still comes goes nowhere. */
  release(id: number): void {
    if (this.#header?.id === id && this.#bytes.byteLength > 0) this.#bytes = Buffer.alloc(this.#header.bytes);
  }

  /** @throws ProtocolError; nothing more may be pushed then */
  *push(chunk: Uint8Array): Generator<Frame> {
    let at = 0;
    for (;;) {
      const part = this.#part();
      const count = Math.min(part.byteLength - this.#filled, chunk.byteLength - at);
      part.set(chunk.subarray(at, at + count), this.#filled);
      at += count;
      this.#filled += count;
      if (this.#filled < part.byteLength) return;
      this.#filled = 0;
      const frame = this.#partDone();
      if (frame !== undefined) yield frame;
    }
  }

  #part(): Uint8Array {
    if (this.#header === undefined) return this.#head;
    return this.#text ?? this.#bytes;
  }

  /** Head, text or bytes are whole. @returns the frame if it is */
  #partDone(): Frame | undefined {
    if (this.#header === undefined) {
      this.#header = decodeHeader(this.#head, this.#limits);
      this.#text = Buffer.allocUnsafe(this.#header.json);
      return undefined;
    }
    const { kind, id, bytes } = this.#header;
    if (this.#text !== undefined) {
      this.#value = parse(this.#text);
      this.#text = undefined;
      this.#bytes = bytes === 0 ? NOTHING : this.#place(id, bytes);
      return undefined;
    }
    const frame = { kind, id, value: this.#value, bytes: this.#bytes };
    this.#header = undefined;
    this.#bytes = NOTHING;
    return frame;
  }

  #place(id: number, length: ByteLength): Uint8Array {
    const target = this.#targetFor(id, length);
    return target?.byteLength === length ? target : Buffer.allocUnsafeSlow(length);
  }
}

function parse(text: Buffer): unknown {
  if (text.byteLength === 0) return undefined;
  try {
    return JSON.parse(text.toString());
  } catch (cause) {
    throw new ProtocolError('the text of a message is no JSON', { cause });
  }
}
