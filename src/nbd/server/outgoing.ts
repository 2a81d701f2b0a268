/**
 * Answers on their way out. What is produced in one turn of the event loop, or while others are being sent, leaves in one `writev`:
 * short pieces are packed together, long ones go as they are.
 *
 * The stream gets one batch at a time, of about a MiB: the memory of a long answer is used again while it is still in the
 * processor's cache, not only when the sixteen that were ready with it have left.
 */
import type { Duplex } from 'node:stream';
import type { Clock } from '../../environment.js';
import type { ByteLength } from '../../units.js';

/** Pieces up to this are copied together; a call for each costs more than the copy. */
const PACK_MAX = 8_192;
const SLAB_SIZE = 65_536;
/** Bytes after which a batch takes no more pieces: more than the operating system takes over at once. */
const BATCH_ENOUGH: ByteLength = 1_048_576;

interface Piece {
  readonly bytes: Buffer;
  /** Bytes of it that nobody else counts. */
  readonly loose: ByteLength;
  readonly release: (() => void) | undefined;
}

export class Outgoing {
  readonly #stream: Duplex;
  #slab = Buffer.allocUnsafeSlow(SLAB_SIZE);
  /** The slab is filled up to here; from `#slabSent` on nothing is queued yet. */
  #slabEnd = 0;
  #slabSent = 0;
  readonly #queue: Piece[] = [];
  #scheduled = false;
  /** When the stream was given the batch that it has not taken over yet. */
  #sendingSince: number | undefined;
  readonly #clock: Clock;
  readonly #onSent: () => void;
  #looseBytes = 0;

  /** @param onSent called when the operating system has taken over a batch, or never will */
  constructor(stream: Duplex, clock: Clock, onSent: () => void) {
    this.#stream = stream;
    this.#clock = clock;
    this.#onSent = onSent;
  }

  /** Bytes that have not left and that nobody counts but this: whoever adds to them has to look here. */
  get looseBytes(): ByteLength {
    return this.#looseBytes;
  }

  /** Is there nobody any more to read an answer? */
  get isOver(): boolean {
    return this.#stream.destroyed;
  }

  /** Milliseconds (monotonic) since which the peer has not read an answer; `undefined` if it has read all. */
  get waitingSince(): number | undefined {
    return this.#sendingSince;
  }

  /** @param release called once the bytes are with the operating system, or never will be */
  send(piece: Buffer, release?: () => void): void {
    const length = piece.byteLength;
    if (length <= PACK_MAX) {
      if (this.#slabEnd + length > SLAB_SIZE) this.#newSlab();
      piece.copy(this.#slab, this.#slabEnd);
      this.#slabEnd += length;
      this.#looseBytes += length;
      release?.();
    } else {
      this.#closePack();
      const loose = release === undefined ? length : 0;
      this.#looseBytes += loose;
      this.#queue.push({ bytes: piece, loose, release });
    }
    if (this.#scheduled || this.#sendingSince !== undefined) return;
    this.#scheduled = true;
    // Runs after everything that this turn of the event loop has still to answer.
    process.nextTick(() => {
      this.#scheduled = false;
      if (this.#sendingSince === undefined) this.#sendBatch();
    });
  }

  /** Hands over all there is, now: nothing more will come. */
  flush(): void {
    this.#closePack();
    while (this.#queue.length > 0) this.#sendBatch();
  }

  #sendBatch(): void {
    this.#closePack();
    let count = 0;
    for (let bytes = 0; bytes < BATCH_ENOUGH && count < this.#queue.length; count++)
      bytes += this.#queue[count]?.bytes.byteLength ?? 0;
    const batch = this.#queue.splice(0, count);
    const last = batch.at(-1);
    if (last === undefined) return;
    this.#sendingSince = this.#clock.monotonic();
    const done = () => {
      this.#sendingSince = undefined;
      for (const { loose, release } of batch) {
        this.#looseBytes -= loose;
        release?.();
      }
      if (this.#sendingSince === undefined) this.#sendBatch();
      this.#onSent();
    };
    if (this.#stream.destroyed || this.#stream.writableEnded) {
      done();
      return;
    }
    if (count > 1) this.#stream.cork();
    for (const { bytes } of batch.slice(0, -1)) this.#stream.write(bytes);
    this.#stream.write(last.bytes, done);
    if (count > 1) this.#stream.uncork();
  }

  #closePack(): void {
    const length = this.#slabEnd - this.#slabSent;
    if (length === 0) return;
    const bytes = this.#slab.subarray(this.#slabSent, this.#slabEnd);
    this.#queue.push({ bytes, loose: length, release: undefined });
    this.#slabSent = this.#slabEnd;
  }

  /** The stream may still hold the old one. */
  #newSlab(): void {
    this.#closePack();
    this.#slab = Buffer.allocUnsafeSlow(SLAB_SIZE);
    this.#slabEnd = 0;
    this.#slabSent = 0;
  }
}
