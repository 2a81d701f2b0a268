/**
 * Room in the write buffer: how much may be acknowledged before it is in the volume. Whoever gets none waits in order.
 *
 * A longer queue does not make the device faster, only flushes slower and snapshots later to take. So usually a share of the
 * whole is given out; all of it while a snapshot is being taken, when nothing is passed on; and little just before, so
 * that not much is left to be written then. From more to less it goes smoothly: a 16th of what becomes free is given
 * out again, so that writers get slower instead of standing still.
 *
 * Shared state: changes between awaits only.
 */
import { assert } from '../errors.js';
import type { ByteLength } from '../units.js';

/** Parts of the whole. */
const USUAL = 1 / 4;
const LOW = 1 / 64;
/** And at most, in bytes: each block of it takes some 20 µs of the main thread to be copied and written. */
const LOW_MAX: ByteLength = 32 * 1024;
/** Share of what becomes free that is given out while there is too much. */
const REUSED = 1 / 16;

export type RoomLevel = 'low' | 'usual' | 'all';

export class BufferRoom {
  readonly #hurry: () => () => void;
  readonly #levels: Readonly<Record<RoomLevel, ByteLength>>;
  #level: RoomLevel = 'usual';
  /** Bytes that may be used now; above its level only until that much has become free. */
  #limit: ByteLength;
  #used = 0;
  #isOpen = false;
  readonly #waiting: { readonly length: ByteLength; readonly go: () => void }[] = [];

  /** @param hurry lets nothing that takes up room wait for more, until what it returns is called */
  constructor(most: ByteLength, hurry: () => () => void) {
    this.#hurry = hurry;
    this.#levels = { low: Math.min(most * LOW, LOW_MAX), usual: most * USUAL, all: most };
    this.#limit = this.#levels.usual;
  }

  get usedBytes(): ByteLength {
    return this.#used;
  }

  /** Takes `length` bytes, if there is room and nobody waits for it. */
  tryAcquire(length: ByteLength): boolean {
    if (this.#waiting.length > 0 || !this.#fits(length)) return false;
    this.#used += length;
    return true;
  }

  /** Resolves when `length` bytes may be used; they are in use from then until `release`. */
  async acquire(length: ByteLength): Promise<void> {
    if (this.tryAcquire(length)) return;
    const leisure = this.#hurry();
    await new Promise<void>((go) => this.#waiting.push({ length, go }));
    leisure();
  }

  release(length: ByteLength): void {
    assert(length <= this.#used, () => `releasing ${length} of ${this.#used} bytes`);
    this.#used -= length;
    this.#limit = Math.max(this.#levels[this.#level], this.#limit - length * (1 - REUSED));
    this.#serve();
  }

  set level(level: RoomLevel) {
    this.#level = level;
    this.#limit = Math.max(this.#levels[level], Math.min(this.#limit, this.#used));
    this.#serve();
  }

  /** Nobody waits any more. */
  open(): void {
    this.#isOpen = true;
    this.#serve();
  }

  #serve(): void {
    for (let next = this.#waiting[0]; next && this.#fits(next.length); next = this.#waiting[0]) {
      this.#waiting.shift();
      this.#used += next.length;
      next.go();
    }
  }

  /** What is larger than everything gets its turn when nothing else is there. */
  #fits(length: ByteLength): boolean {
    return this.#isOpen || this.#used === 0 || this.#used + length <= this.#limit;
  }
}
