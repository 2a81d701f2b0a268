/** What a command has while it runs, besides its arguments. */
import type { Notes, Output } from './output.js';

export interface Session {
  /** Was `--json` given? */
  readonly json: boolean;
  /** Aborted when the user wants the command to stop. */
  readonly signal: AbortSignal;
  /** Standard output. */
  readonly output: Output;
  /** Standard error. */
  readonly notes: Notes;
}

/** What a command does. @returns its exit status if that is not 0 */
export type Body<Arguments extends unknown[]> = (
  session: Session,
  ...args: Arguments
) => Promise<number | undefined>;

/** Makes an action of commander out of a body. @param failed exit status of a failure that is not wrong usage */
export type Runner = <Arguments extends unknown[]>(
  body: Body<Arguments>,
  failed?: number,
) => (...args: Arguments) => Promise<void>;
