/**
 * Answers on their way out. What is produced in one turn of the event loop leaves in one `writev`: short pieces are
 * packed together, long ones go as they are.
 */
import type { Duplex } from 'node:stream';
import type { Clock } from '../../environment.js';

/** Pieces up to this are copied together; a call for each costs more than the copy. */
const PACK_MAX = 8_192;
const SLAB_SIZE = 65_536;

export class Outgoing {
  readonly #stream: Duplex;
  #slab = Buffer.allocUnsafeSlow(SLAB_SIZE);
  /** The slab is filled up to here; from `#slabSent` on nothing is queued yet. */
  #slabEnd = 0;
  #slabSent = 0;
  #pieces: Buffer[] = [];
  #releases: (() => void)[] = [];
  #scheduled = false;
  /** When each batch was given to the stream that it has not taken over yet; oldest first. */
  readonly #unsent: number[] = [];
  readonly #clock: Clock;
  readonly #onSent: () => void;
  /** Bytes of pieces without a release of their own, in all and in the batch that is being put together. */
  #looseBytes = 0;
  #looseInBatch = 0;

  /** @param onSent called when the operating system has taken over a batch, or never will */
  constructor(stream: Duplex, clock: Clock, onSent: () => void) {
    this.#stream = stream;
    this.#clock = clock;
    this.#onSent = onSent;
  }

  /** Bytes that have not left and that nobody counts but this: whoever adds to them has to look here. */
  get looseBytes(): number {
    return this.#looseBytes;
  }

  /** Is there nobody any more to read an answer? */
  get isOver(): boolean {
    return this.#stream.destroyed;
  }

  /** Milliseconds (monotonic) since which the peer has not read an answer; `undefined` if it has read all. */
  get waitingSince(): number | undefined {
    return this.#unsent[0];
  }

  /** @param release called once the bytes are with the operating system, or never will be */
  send(piece: Buffer, release?: () => void): void {
    if (piece.byteLength <= PACK_MAX) {
      if (this.#slabEnd + piece.byteLength > SLAB_SIZE) this.#newSlab();
      piece.copy(this.#slab, this.#slabEnd);
      this.#slabEnd += piece.byteLength;
      release?.();
    } else {
      this.#closePack();
      this.#pieces.push(piece);
      if (release !== undefined) this.#releases.push(release);
    }
    if (release === undefined || piece.byteLength <= PACK_MAX) {
      this.#looseBytes += piece.byteLength;
      this.#looseInBatch += piece.byteLength;
    }
    if (this.#scheduled) return;
    this.#scheduled = true;
    // Runs after everything that this turn of the event loop has still to answer.
    process.nextTick(() => this.flush());
  }

  /** Hands over what there is, now. */
  flush(): void {
    this.#scheduled = false;
    this.#closePack();
    const pieces = this.#pieces;
    const releases = this.#releases;
    this.#pieces = [];
    this.#releases = [];
    const loose = this.#looseInBatch;
    this.#looseInBatch = 0;
    const done = () => {
      this.#unsent.shift();
      this.#looseBytes -= loose;
      for (const release of releases) release();
      this.#onSent();
    };
    if (pieces.length === 0) return;
    this.#unsent.push(this.#clock.monotonic());
    if (this.#stream.destroyed || this.#stream.writableEnded) {
      done();
      return;
    }
    const last = pieces.pop();
    if (pieces.length > 0) {
      this.#stream.cork();
      for (const piece of pieces) this.#stream.write(piece);
    }
    this.#stream.write(last, done);
    if (pieces.length > 0) this.#stream.uncork();
  }

  #closePack(): void {
    if (this.#slabEnd === this.#slabSent) return;
    this.#pieces.push(this.#slab.subarray(this.#slabSent, this.#slabEnd));
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
