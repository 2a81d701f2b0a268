/** A seed that breaks a promise, and how to see it again. */
import { ENTRIES_PER_TABLE_BLOCK } from '../../src/format/constants.js';
import { OutcomeBroken } from './outcomes.js';
import type { OutcomeName, PlanOptions } from './plan.js';
import { SMALL_TABLE_ENTRIES } from './planted/bug.js';

export interface SeedOptions extends PlanOptions {
  readonly seed: number;
}

/** The command that runs one seed again. */
export function replayOf({
  seed,
  cycles,
  faults,
  rot,
  atOnce,
  about,
  outcomes = 0,
  moments = 0,
  outcome,
}: SeedOptions): string {
  const flags = [
    ...(faults ? [] : ['--no-faults']),
    ...(rot ? ['--rot'] : []),
    ...(atOnce ? ['--at-once'] : []),
    ...(about === undefined ? [] : [`--about ${about}`]),
    ...(outcomes === 0 ? [] : [`--outcomes ${outcomes}`]),
    ...(moments === 0 ? [] : [`--moments ${moments}`]),
    ...(outcome === undefined ? [] : [`--outcome ${outcome.crash}.${outcome.outcome}`]),
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
    const outcome = outcomeIn(cause) ?? options.outcome;
    const replay = replayOf({ ...options, outcome });
    const shorten = `${replayOf({ ...options, outcome: undefined })} --shrink`;
    super(`seed ${options.seed}: ${what}\n  replay:  ${replay}\n  shorten: ${shorten}`, { cause });
  }
}

/** The outcome of a crash that an error is about. */
function outcomeIn(error: unknown): OutcomeName | undefined {
  if (error instanceof OutcomeBroken) return error.at;
  return error instanceof Error ? outcomeIn(error.cause) : undefined;
}
