/** Bytes of a stream, taken in the lengths that a protocol asks for; used while options are haggled over. */
import type { Duplex } from 'node:stream';
import { assert } from '../../errors.js';
import type { ByteLength } from '../../units.js';

export class ByteReader {
  readonly #stream: Duplex;
  #chunks: Buffer[] = [];
  #length = 0;
  #ended = false;
  #wanted: ByteLength = 0;
  #wake: (() => void) | undefined;
  readonly #onData = (chunk: Buffer) => {
    this.#chunks.push(chunk);
    this.#length += chunk.byteLength;
    if (this.#length >= this.#wanted) this.#stir();
  };
  readonly #onEnd = () => {
    this.#ended = true;
    this.#stir();
  };

  constructor(stream: Duplex) {
    this.#stream = stream;
    stream.on('data', this.#onData);
    stream.on('end', this.#onEnd);
    stream.on('close', this.#onEnd);
  }

  /** Bytes received and not taken. */
  get length(): ByteLength {
    return this.#length;
  }

  /** @returns `undefined` if the stream ends before there are that many */
  async take(length: ByteLength): Promise<Buffer | undefined> {
    if (this.#length < length && !this.#ended) {
      assert(this.#wake === undefined, () => 'two readers of one stream');
      this.#wanted = length;
      this.#stream.resume();
      await new Promise<void>((wake) => {
        this.#wake = wake;
      });
    }
    if (this.#length < length) return undefined;
    const all = this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks);
    const bytes = all ?? Buffer.alloc(0);
    const rest = bytes.subarray(length);
    this.#chunks = rest.byteLength === 0 ? [] : [rest];
    this.#length = rest.byteLength;
    return bytes.subarray(0, length);
  }

  /** Stops reading and hands over what was received and not taken; the stream is paused. */
  detach(): Buffer {
    this.#stream.off('data', this.#onData);
    this.#stream.off('end', this.#onEnd);
    this.#stream.off('close', this.#onEnd);
    this.#stream.pause();
    const rest = Buffer.concat(this.#chunks);
    this.#chunks = [];
    this.#length = 0;
    return rest;
  }

  #stir(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    if (this.#length > 2 * Math.max(this.#wanted, 65_536)) this.#stream.pause();
    wake?.();
  }
}
