/**
 * Turns of the event loop between writes that take none.
 *
 * Acknowledging from memory needs no turn, so a caller that awaits one write after the other would keep devices and
 * sockets from being served. After so many bytes he waits for a turn.
 */
import { type Clock, turnOf } from '../environment.js';
import type { ByteLength } from '../units.js';

const TURN_BYTES: ByteLength = 1024 * 1024;
/** What a write costs besides its bytes. */
const WRITE_COST: ByteLength = 4096;

const DONE = Promise.resolve();

export class TurnCredit {
  readonly #clock: Clock;
  #left = TURN_BYTES;
  #turn: Promise<void> | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Resolves when a write of so many bytes may be acknowledged: mostly at once. */
  spend(length: ByteLength): Promise<void> {
    this.#left -= length + WRITE_COST;
    if (this.#left > 0) return DONE;
    this.#turn ??= turnOf(this.#clock).then(() => {
      this.#left = TURN_BYTES;
      this.#turn = undefined;
    });
    return this.#turn;
  }
}
