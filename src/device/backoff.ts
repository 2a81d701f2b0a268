/**
 * Trials of a way that is quicker as long as no call has to wait for a disk, which nobody can know beforehand.
 *
 * Two slow calls in a row were no mere copies: the next 16 go another way, then 32, … up to 4096, until a trial is fast again. A cold disk
 * so costs one wait in thousands of calls, a warm one is noticed soon. One slow call alone says nothing: more often than not the
 * process lost its processor meanwhile. (With a client and the server on two cores 70 % of the reads of cached blocks went the slow way
 * when one was enough, for half as much processor time again.)
 */
const FIRST = 16;
const LAST = 4096;

export class Backoff {
  /** Calls that go the other way before the next trial. */
  #resting = 0;
  #length = FIRST;
  /** The last call was slow, the one before it was not. */
  #suspicious = false;

  /** Is it time for a trial? Asking counts for nothing. */
  get isOver(): boolean {
    return this.#resting === 0;
  }

  /** Whether the next call may be one; else it counts as one that went the other way. */
  allows(): boolean {
    if (this.#resting === 0) return true;
    this.#resting--;
    return false;
  }

  /**
   * What a call turned out to be. One that began before a rest says nothing about what comes after it: of a dozen under way, slow for
   * one reason, all would otherwise double the rest.
   */
  report(slow: boolean): void {
    if (this.#resting > 0) return;
    if (!slow) {
      this.#length = FIRST;
      this.#suspicious = false;
    } else if (this.#length === FIRST && !this.#suspicious) {
      this.#suspicious = true;
    } else {
      this.#resting = this.#length;
      this.#length = Math.min(2 * this.#length, LAST);
    }
  }
}
