/** A seed that breaks a promise, and how to see it again. */
import { ENTRIES_PER_TABLE_BLOCK } from '../../src/format/constants.js';
import type { PlanOptions } from './plan.js';
import { SMALL_TABLE_ENTRIES } from './planted/bug.js';

export interface SeedOptions extends PlanOptions {
  readonly seed: number;
}

/** The command that runs one seed again. */
export function replayOf({ seed, cycles, faults, rot, atOnce, about }: SeedOptions): string {
  const flags = [
    ...(faults ? [] : ['--no-faults']),
    ...(rot ? ['--rot'] : []),
    ...(atOnce ? ['--at-once'] : []),
    ...(about === undefined ? [] : [`--about ${about}`]),
    // This runs in the copy then.
    ...(ENTRIES_PER_TABLE_BLOCK === SMALL_TABLE_ENTRIES ? ['--small-blocks'] : []),
  ];
  return ['npm run simulate --', `--seed ${seed} --runs 1 --cycles ${cycles}`, ...flags].join(' ');
}

export class SeedFailed extends Error {
  override readonly name = 'SeedFailed';

  constructor(
    readonly options: SeedOptions,
    cause: unknown,
  ) {
    const what = cause instanceof Error ? cause.message : String(cause);
    const replay = replayOf(options);
    super(`seed ${options.seed}: ${what}\n  replay:  ${replay}\n  shorten: ${replay} --shrink`, { cause });
  }
}
