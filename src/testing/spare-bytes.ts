/** Room for contents of whole volumes, used again and again: making it costs more than filling it. */
import type { ByteLength } from '../units.js';

/** More than are in use at once are not kept. */
const SPARE_MAX = 16;

export class SpareBytes {
  readonly #spare: Uint8Array[] = [];

  /** So many bytes, that hold anything. */
  take(length: ByteLength): Uint8Array {
    const at = this.#spare.findLastIndex(({ byteLength }) => byteLength === length);
    const [room = new Uint8Array(length)] = at < 0 ? [] : this.#spare.splice(at, 1);
    return room;
  }

  /** The same bytes in other room. */
  copy(bytes: Uint8Array): Uint8Array {
    const room = this.take(bytes.byteLength);
    room.set(bytes);
    return room;
  }

  /** @param room nobody looks at it any more, nor at a part of it */
  give(room: Uint8Array): void {
    this.#spare.push(room);
    // Those from before the volume grew are never asked for again.
    if (this.#spare.length > SPARE_MAX) this.#spare.shift();
  }
}
