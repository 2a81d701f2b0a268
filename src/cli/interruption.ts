/**
 * SIGINT, SIGTERM and SIGHUP: the first one asks the command to stop, so that it closes the volume cleanly; a second
 * one ends the process at once, which the volume survives like any crash.
 *
 * A signal that was sent once may come twice: timeout(1) sends it to its child and then to the whole group, and npm passes on
 * what the terminal has sent already. That must not end a server that has acknowledged writes in memory.
 */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** What comes so soon after the first signal is the same one again, in milliseconds; a person is slower. */
const SAME_SIGNAL_MS = 300;

export class Interruption {
  readonly #controller = new AbortController();
  #received: NodeJS.Signals | undefined;
  /** When, by `performance.now`. */
  #receivedAt = 0;

  constructor() {
    for (const name of SIGNALS) process.on(name, this.#onSignal);
  }

  /** Aborted by the first signal. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Ends the process as the signal would have; whoever started it sees that. Does nothing if none came. */
  raise(): void {
    this.forget();
    if (this.#received !== undefined) process.kill(process.pid, this.#received);
  }

  /** Signals do what they do by default again. */
  forget(): void {
    for (const name of SIGNALS) process.off(name, this.#onSignal);
  }

  readonly #onSignal = (name: NodeJS.Signals): void => {
    if (this.#received === undefined) {
      this.#received = name;
      this.#receivedAt = performance.now();
      this.#controller.abort();
    } else if (performance.now() - this.#receivedAt > SAME_SIGNAL_MS) {
      this.raise();
    }
  };
}
