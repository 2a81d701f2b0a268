/**
 * Reads of a device that fill parts of one buffer: neighbours become one request, and a few requests run side by side.
 */
import { allDone } from '../all-done.js';
import { FormatError } from '../errors.js';
import { hex } from '../format/binary.js';
import type { BlockNumber, ByteLength, ByteOffset } from '../units.js';

/** A device, or something else that bytes can be read from at an offset. */
export interface ReadSource {
  /** Bytes. */
  readonly size: ByteLength;
  /** Fills `target`. */
  read(offset: ByteOffset, target: Uint8Array): Promise<unknown>;
}

interface Request {
  readonly offset: ByteOffset;
  readonly target: Uint8Array;
}

const REQUESTS_AT_ONCE = 8;

export class DeviceReads {
  readonly #device: ReadSource;
  #last: Request | undefined;
  #ready: Request[] = [];

  constructor(device: ReadSource) {
    this.#device = device;
  }

  /**
   * Fills `target`, at the latest in `finish`. Parts that follow each other on the device and in the buffer are joined.
   * @throws FormatError when the bytes of `block` are said to lie past the end of the device; DeviceError
   */
  async add(offset: ByteOffset, target: Uint8Array, block: BlockNumber): Promise<void> {
    if (!(offset <= this.#device.size - target.byteLength))
      throw new FormatError(
        `content of block ${block} lies at offset ${hex(offset)}, past the end of the device of ${this.#device.size} bytes`,
      );
    const last = this.#last;
    if (last !== undefined && follows(last, offset, target)) {
      this.#last = { offset: last.offset, target: joined(last.target, target) };
      return;
    }
    if (last !== undefined) this.#ready.push(last);
    this.#last = { offset, target };
    if (this.#ready.length === REQUESTS_AT_ONCE) await this.#run();
  }

  /** Waits until everything added is filled. */
  async finish(): Promise<void> {
    if (this.#last !== undefined) this.#ready.push(this.#last);
    this.#last = undefined;
    await this.#run();
  }

  async #run(): Promise<void> {
    const requests = this.#ready;
    this.#ready = [];
    await allDone(requests.map(({ offset, target }) => this.#device.read(offset, target)));
  }
}

const follows = (last: Request, offset: ByteOffset, target: Uint8Array): boolean =>
  last.offset + last.target.byteLength === offset &&
  last.target.buffer === target.buffer &&
  last.target.byteOffset + last.target.byteLength === target.byteOffset;

const joined = (first: Uint8Array, second: Uint8Array): Uint8Array =>
  new Uint8Array(first.buffer, first.byteOffset, first.byteLength + second.byteLength);
