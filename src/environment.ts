/**
 * Everything that the engine takes from the outside world besides devices: time and randomness.
 * A simulation hands in its own, so that a whole run is a function of one seed.
 */
import { randomFillSync } from 'node:crypto';
import { performance } from 'node:perf_hooks';

/** Time, as the engine sees it. */
export interface Clock {
  /** Milliseconds since 1970-01-01 UTC. May stand still or go back. */
  now(): number;
  /** Milliseconds from an arbitrary start; never goes back. For measuring and for time limits. */
  monotonic(): number;
  /** Calls `action` once after `milliseconds`; the returned function cancels it and may be called at any time. */
  after(milliseconds: number, action: () => void): () => void;
  /** Calls `action` once everything else that is ready has had its turn. Without it `after(0)` serves. */
  soon?(action: () => void): void;
}

/** Resolves once everything else that is ready has had its turn. */
export const turnOf = (clock: Clock): Promise<void> =>
  new Promise((resolve) => {
    if (clock.soon === undefined) clock.after(0, resolve);
    else clock.soon(resolve);
  });

/** Randomness, as the engine sees it. */
export interface Random {
  /** Fills `target` with random bytes and returns it. */
  fill(target: Uint8Array): Uint8Array;
}

export interface Environment {
  readonly clock: Clock;
  readonly random: Random;
}

/** The real world. */
export const systemEnvironment: Environment = {
  clock: {
    now: () => Date.now(),
    monotonic: () => performance.now(),
    after: (milliseconds, action) => {
      const timer = setTimeout(action, milliseconds);
      return () => clearTimeout(timer);
    },
    soon: (action) => {
      setImmediate(action);
    },
  },
  random: { fill: (target) => randomFillSync(target) },
};
