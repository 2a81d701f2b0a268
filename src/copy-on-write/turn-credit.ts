/**
 * Turns of the event loop between writes that take none.
 *
 * Acknowledging from memory needs no turn, so a caller that awaits one write after the other would keep devices and
 * sockets from being served. After so many bytes he waits for a turn.
 */
import { type Clock, turnOf } from '../environment.js';
import type { ByteLength } from '../units.js';

const TURN_BYTES: ByteLength = 1024 * 1024;
/** The same while somebody waits for many turns, such as who takes a snapshot. */
const SHORT_TURN_BYTES: ByteLength = 16 * 1024;
/** What a write costs besides its bytes. */
const WRITE_COST: ByteLength = 4096;

export class TurnCredit {
  readonly #clock: Clock;
  #bytes = TURN_BYTES;
  #left = TURN_BYTES;
  #turn: Promise<void> | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Whether turns are to be short. */
  set short(short: boolean) {
    this.#bytes = short ? SHORT_TURN_BYTES : TURN_BYTES;
    this.#left = short ? Math.min(this.#left, this.#bytes) : this.#bytes;
  }

  /** When a write of so many bytes may be acknowledged; `undefined`, and mostly so: at once. */
  spend(length: ByteLength): Promise<void> | undefined {
    this.#left -= length + WRITE_COST;
    if (this.#left > 0) return undefined;
    this.#turn ??= turnOf(this.#clock).then(() => {
      this.#left = this.#bytes;
      this.#turn = undefined;
    });
    return this.#turn;
  }

  /** The same for a write that has been made: only while turns are to be short must it be followed by one. */
  spendIfShort(length: ByteLength): Promise<void> | undefined {
    return this.#bytes === SHORT_TURN_BYTES ? this.spend(length) : undefined;
  }
}
