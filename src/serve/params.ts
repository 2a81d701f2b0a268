/** What handlers of the control channel take out of a call. */
import { InvalidArgumentError } from '../errors.js';

/** @throws InvalidArgumentError */
export function idIn(params: unknown): string {
  const id = typeof params === 'object' && params !== null ? Reflect.get(params, 'id') : undefined;
  if (typeof id !== 'string') throw new InvalidArgumentError('“id” must be a string');
  return id;
}

/** @throws InvalidArgumentError */
export function numberIn(params: unknown, name: string): number {
  const value = typeof params === 'object' && params !== null ? Reflect.get(params, name) : undefined;
  if (typeof value !== 'number') throw new InvalidArgumentError(`“${name}” must be a number`);
  return value;
}

/** Waits for what goes on whether anybody waits or not. @throws the reason of the signal */
export async function unlessAborted<T>(
  work: Promise<T> | undefined,
  signal: AbortSignal,
): Promise<T | undefined> {
  let stop: () => void = () => undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
  });
  aborted.catch(() => undefined);
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
