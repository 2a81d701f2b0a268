/** Times that are waited for, as people write them. */
import { InvalidArgumentError } from 'commander';

/** A day. */
const SECONDS_MAX = 86_400;

/** `300`, `0.5`; from a millisecond to a day. @throws InvalidArgumentError of commander, which ends as wrong usage */
export function parseSeconds(text: string): number {
  const seconds = Number(text);
  if (seconds >= 0.001 && seconds <= SECONDS_MAX) return seconds;
  throw new InvalidArgumentError(`Give seconds, up to ${SECONDS_MAX}, such as 300.`);
}
