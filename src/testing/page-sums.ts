/** A checksum of each page of a disk, kept up to date: tells whether two disks are equal without reading all of either. */
import { crc32 } from 'node:zlib';
import type { ByteLength, ByteOffset } from '../units.js';

const PAGE = 4096;
const ZEROS = new Uint8Array(PAGE);

export class PageSums {
  readonly #sums: Uint32Array;

  private constructor(sums: Uint32Array) {
    this.#sums = sums;
  }

  /** Of everything. */
  static of(bytes: Uint8Array): PageSums {
    const sums = new PageSums(new Uint32Array(Math.ceil(bytes.byteLength / PAGE)));
    sums.update(bytes, 0, bytes.byteLength);
    return sums;
  }

  clone(): PageSums {
    return new PageSums(this.#sums.slice());
  }

  /** The bytes are others there than before; there are as many as before. */
  update(bytes: Uint8Array, from: ByteOffset, to: ByteOffset): void {
    const last = Math.min(this.#sums.length, Math.ceil(to / PAGE));
    for (let page = Math.floor(from / PAGE); page < last; page++) {
      const part = bytes.subarray(page * PAGE, (page + 1) * PAGE);
      // As if there were zeros behind the end, which is nobody's choice.
      this.#sums[page] = crc32(ZEROS.subarray(part.byteLength), crc32(part));
    }
  }

  /** Those of the bytes before the end. */
  upTo(end: ByteLength): Uint32Array {
    return this.#sums.subarray(0, Math.ceil(end / PAGE));
  }
}
