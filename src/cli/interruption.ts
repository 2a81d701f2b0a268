/**
 * SIGINT, SIGTERM and SIGHUP: the first one asks the command to stop, so that it closes the volume cleanly; a second
 * one ends the process at once, which the volume survives like any crash.
 */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export class Interruption {
  readonly #controller = new AbortController();
  #received: NodeJS.Signals | undefined;

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
      this.#controller.abort();
    } else {
      this.raise();
    }
  };
}
