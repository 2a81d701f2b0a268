/** What is tried again, or given up, as the host of copy-on-write says. */
import type { DiffArea } from '../diff-area/diff-area.js';
import { AssertionError, assert, ClosedError, isOutOfSpace, NoSpaceError } from '../errors.js';
import type { Batch } from './batch.js';
import type { CopyFigures, CopyOnWriteHost } from './copy-host.js';

export class Attempts {
  readonly #host: CopyOnWriteHost;
  readonly #figures: CopyFigures;
  readonly #end: (batch: Batch, error?: unknown) => void;

  /** @param end tells the writers of a batch that it is over, or has failed */
  constructor(host: CopyOnWriteHost, figures: CopyFigures, end: (batch: Batch, error?: unknown) => void) {
    this.#host = host;
    this.#figures = figures;
    this.#end = end;
  }

  /**
   * Repeats `action` as long as the host says so. If it cannot succeed, the batches end here. Never rejects.
   * @param onFailed called before writers hear that it has failed
   */
  async make(
    batches: readonly Batch[],
    action: () => Promise<boolean>,
    onFailed: () => void = () => undefined,
  ): Promise<boolean> {
    const area = batches[0]?.area;
    assert(area !== undefined, () => 'no batch');
    try {
      if (await this.#repeat(area, action)) return true;
      for (const batch of batches) this.#end(batch);
    } catch (error) {
      onFailed();
      for (const batch of batches) this.#end(batch, error);
    }
    return false;
  }

  /** @returns false if nothing needs to be done any more. What is not an error of the store (a bug of ours, a closed device) is no reason to give snapshots up. */
  async #repeat(area: DiffArea, action: () => Promise<boolean>): Promise<boolean> {
    const attempt = { failures: 0, removals: 0 };
    for (;;) {
      attempt.removals = this.#host.removals;
      try {
        return await action();
      } catch (error) {
        if (error instanceof AssertionError || error instanceof ClosedError) throw error;
        // The host has decided, and has waited if it was to wait.
        if (error instanceof NoSpaceError) throw error;
        this.#figures.failures++;
        if (!isOutOfSpace(error)) attempt.failures++;
        if ((await this.#host.copyFailed(area, error, attempt)) === 'gone') return false;
      }
    }
  }
}

/** For what is done only where there is room. @throws any other error */
export function ifNoSpace(error: unknown): undefined {
  if (!(error instanceof NoSpaceError)) throw error;
}
