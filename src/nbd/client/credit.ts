/**
 * The bound on what is in flight: so many requests, with so many bytes. Who comes first goes first; a request of any
 * size goes once nothing else is in flight.
 */
import type { ByteLength } from '../../units.js';

export class Credit {
  readonly #most: { readonly requests: number; readonly bytes: ByteLength };
  #requests = 0;
  #bytes = 0;
  /** Changed between awaits only, as the counts are. */
  readonly #waiting: { readonly bytes: ByteLength; readonly go: () => void }[] = [];

  constructor(most: { readonly requests: number; readonly bytes: ByteLength }) {
    this.#most = most;
  }

  /** Takes credit at once if there is some and nobody waits; else `undefined` comes back later. */
  take(bytes: ByteLength): Promise<void> | undefined {
    if (this.#waiting.length === 0 && this.#fits(bytes)) {
      this.#use(bytes);
      return undefined;
    }
    return new Promise((go) => this.#waiting.push({ bytes, go }));
  }

  give(bytes: ByteLength): void {
    this.#requests -= 1;
    this.#bytes -= bytes;
    for (let next = this.#waiting[0]; next !== undefined && this.#fits(next.bytes); next = this.#waiting[0]) {
      this.#waiting.shift();
      this.#use(next.bytes);
      next.go();
    }
  }

  #use(bytes: ByteLength): void {
    this.#requests += 1;
    this.#bytes += bytes;
  }

  #fits(bytes: ByteLength): boolean {
    if (this.#requests === 0) return true;
    return this.#requests < this.#most.requests && this.#bytes + bytes <= this.#most.bytes;
  }
}
