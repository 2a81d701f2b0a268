/**
 * Buffers to read into, used again and again: contents of whole volumes are read and compared all the time, and each new
 * buffer of that size costs more than the comparison.
 *
 * Only a buffer whose read succeeded may be given back. After a failure, or a crash, somebody may still write into it.
 */
import type { ByteLength } from '../../src/units.js';

/** What a buffer holds when it is taken: an old content would hide that a read forgot a part. */
const SCRIBBLE = 0xa5;
const CAPACITY_MIN = 65_536;
/** More of them than are read at once are not kept. */
const SPARE_MAX = 8;

export class ReadBuffers {
  readonly #spare: Uint8Array[] = [];

  take(length: ByteLength): Uint8Array {
    const at = this.#spare.findIndex((spare) => spare.byteLength >= length);
    const [whole = new Uint8Array(capacityFor(length))] = at < 0 ? [] : this.#spare.splice(at, 1);
    return whole.subarray(0, length).fill(SCRIBBLE);
  }

  /** @param bytes from `take`; nobody looks at it any more */
  give(bytes: Uint8Array): void {
    if (this.#spare.length < SPARE_MAX) this.#spare.push(new Uint8Array(bytes.buffer));
  }
}

const capacityFor = (length: ByteLength): ByteLength =>
  2 ** Math.ceil(Math.log2(Math.max(length, CAPACITY_MIN)));
