/** Keeps reading in the background within so many bytes a second, so that those in front have the device to themselves mostly. */
import type { Clock } from '../environment.js';
import type { ByteLength } from '../units.js';

export class Pace {
  readonly #clock: Clock;
  readonly #bytesPerSecond: ByteLength;
  /** When what was taken so far will have been worth its time, on the monotonic clock. */
  #nextAt = 0;
  /** Taken so far. */
  bytes: ByteLength = 0;

  /** @param bytesPerSecond 0: no limit */
  constructor(clock: Clock, bytesPerSecond: ByteLength) {
    this.#clock = clock;
    this.#bytesPerSecond = bytesPerSecond;
  }

  /** Resolves when so many bytes more may be read. @throws the signal's reason, at once when it is aborted */
  async take(bytes: ByteLength, signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    this.bytes += bytes;
    if (this.#bytesPerSecond === 0) return;
    const now = this.#clock.monotonic();
    const at = Math.max(now, this.#nextAt);
    this.#nextAt = at + (bytes / this.#bytesPerSecond) * 1000;
    if (at > now) await waitFor(this.#clock, at - now, signal);
  }
}

/** @throws the signal's reason */
function waitFor(clock: Clock, milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    };
    const cancel = clock.after(milliseconds, end);
    const onAbort = () => {
      cancel();
      reject(signal?.reason);
    };
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}
