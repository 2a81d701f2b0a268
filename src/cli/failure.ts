/** Failures, as the program reports them: one line, a stable code, an exit status. */
import { CommanderError } from 'commander';
import { DeviceError, InvalidArgumentError, VolsnapError } from '../index.js';
import { oneLine } from './text.js';

/** Exit statuses. */
export const Status = { done: 0, failed: 1, usage: 2 } as const;

/** The command line asks for something that makes no sense; ends with status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** For calls whose arguments are what the command line says and nothing else: what is wrong with them is wrong usage. */
export const asUsage = (error: unknown): unknown =>
  error instanceof InvalidArgumentError ? new UsageError(error.message, { cause: error }) : error;

export interface Failure {
  /** An `ErrorCode` of the library, `USAGE`, `INTERRUPTED`, or `INTERNAL`: a bug in volsnap. */
  readonly code: string;
  readonly message: string;
  readonly status: number;
}

/** @param failed status of what is not wrong usage */
export function failureOf(error: unknown, failed: number): Failure {
  if (error instanceof UsageError) {
    return { code: 'USAGE', message: oneLine(error.message), status: Status.usage };
  }
  if (error instanceof CommanderError) {
    // A suggestion of commander follows on a line of its own.
    const message = oneLine(error.message.replace(/^error: /, ''));
    return { code: 'USAGE', message, status: Status.usage };
  }
  if (error instanceof VolsnapError) {
    return { code: error.code, message: oneLine(error.message), status: failed };
  }
  if (isAbort(error)) return { code: 'INTERRUPTED', message: 'interrupted', status: failed };
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return {
    code: 'INTERNAL',
    message: oneLine(`internal error, please report it: ${text} (VOLSNAP_DEBUG=1 shows where)`),
    status: failed,
  };
}

export const isAbort = (error: unknown): boolean => error instanceof Error && error.name === 'AbortError';

/** Runs `action`; a failure of the operating system becomes `cannot DOING: why`. */
export async function explained<T>(doing: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    if (cause instanceof VolsnapError || isAbort(cause) || !(cause instanceof Error)) throw cause;
    throw new DeviceError(`cannot ${doing}: ${cause.message}`, { cause });
  }
}
