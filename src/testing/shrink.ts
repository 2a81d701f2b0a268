/**
 * Makes a failing list of operations short: delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating
 * Failure-Inducing Input", 2002), with complements only.
 *
 * Chunks are taken out, half of the list first, then ever smaller ones. The result is 1-minimal: without any single
 * one of its operations it no longer fails, unless `attemptsMax` came first.
 */
import { InvalidArgumentError } from '../errors.js';

export interface ShrinkOptions<T> {
  /** Runs of `fails` after which the shortest list so far has to do. Default 2000. */
  readonly attemptsMax?: number;
  /** Is told of every shorter list that fails. */
  readonly onProgress?: (shortest: readonly T[], attempts: number) => void;
}

/**
 * The shortest list that could be found, in the order given, that still fails.
 * @param fails runs a list from scratch: whether it shows the failure; it must not depend on earlier runs
 * @throws InvalidArgumentError if the whole list does not fail
 */
export async function shrink<T>(
  operations: readonly T[],
  fails: (candidate: readonly T[]) => Promise<boolean>,
  options: ShrinkOptions<T> = {},
): Promise<readonly T[]> {
  const attemptsMax = options.attemptsMax ?? 2000;
  if (!(await fails(operations))) {
    throw new InvalidArgumentError(
      'the list to shrink does not fail, so the run depends on something else as well',
    );
  }
  let shortest = operations;
  let attempts = 1;
  let chunk = Math.ceil(shortest.length / 2);
  while (chunk > 0 && shortest.length > 0) {
    const before = shortest.length;
    // From the end: later operations depend on earlier ones, so they are easier to do without.
    for (let end = shortest.length; end > 0; end -= chunk) {
      if (attempts >= attemptsMax) return shortest;
      const candidate = [...shortest.slice(0, Math.max(0, end - chunk)), ...shortest.slice(end)];
      attempts++;
      if (!(await fails(candidate))) continue;
      shortest = candidate;
      options.onProgress?.(shortest, attempts);
    }
    // At this size again while it helps: what is gone may have kept others from going.
    if (shortest.length === before) chunk = chunk === 1 ? 0 : Math.ceil(chunk / 2);
    else chunk = Math.min(chunk, Math.ceil(shortest.length / 2));
  }
  return shortest;
}
