/**
 * Notices who reads one byte after the other, and says what will be wanted next.
 *
 * A few streams are remembered by where they will go on. Each time one does, what is wanted ahead of it doubles, up to a limit.
 * Shared state: changed between awaits only.
 */
import type { ByteLength, ByteOffset } from '../units.js';

interface Stream {
  /** Where its next read is expected. */
  at: ByteOffset;
  /** Up to where was asked for. */
  ahead: ByteOffset;
  window: ByteLength;
}

const STREAMS_MAX = 8;
const FIRST_WINDOW = 131_072;

export class ReadAhead {
  readonly #limit: ByteLength;
  /** The one used last at the end. */
  readonly #streams: Stream[] = [];

  /** @param limit bytes ahead of a reader, at most; 0: none */
  constructor(limit: ByteLength) {
    this.#limit = limit;
  }

  /** A read happened. @returns what is worth reading now, if anything */
  note(
    offset: ByteOffset,
    length: ByteLength,
  ): { readonly from: ByteOffset; readonly to: ByteOffset } | undefined {
    if (this.#limit === 0) return undefined;
    const end = offset + length;
    const index = this.#streams.findIndex(({ at }) => at === offset);
    if (index < 0) {
      if (this.#streams.length === STREAMS_MAX) this.#streams.shift();
      this.#streams.push({ at: end, ahead: end, window: FIRST_WINDOW / 2 });
      return undefined;
    }
    const [stream] = this.#streams.splice(index, 1);
    if (stream === undefined) return undefined;
    this.#streams.push(stream);
    stream.at = end;
    // Half of what was asked for is still before the reader: not yet.
    if (stream.ahead - end > stream.window / 2) return undefined;
    stream.window = Math.min(this.#limit, 2 * stream.window);
    const from = Math.max(end, stream.ahead);
    stream.ahead = end + stream.window;
    return from < stream.ahead ? { from, to: stream.ahead } : undefined;
  }
}
