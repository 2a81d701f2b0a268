/** Errors as a client hears of them. */
import {
  ClosedError,
  InvalidArgumentError,
  isOutOfSpace,
  ReadOnlyError,
  UnsupportedError,
  VolsnapError,
} from '../../errors.js';
import { ErrorValue } from '../wire/constants.js';

/** A request that is refused for what it asks. */
export class RequestError extends Error {
  constructor(
    /** One of `ErrorValue`. */
    readonly value: number,
    message: string,
  ) {
    super(message);
  }
}

export interface Failure {
  readonly value: number;
  readonly message: string;
}

export function failureOf(error: unknown): Failure {
  if (error instanceof RequestError) return { value: error.value, message: error.message };
  const message = error instanceof VolsnapError ? error.message : 'the request failed inside the server';
  if (isOutOfSpace(error)) return { value: ErrorValue.nospc, message };
  if (error instanceof ReadOnlyError) return { value: ErrorValue.perm, message };
  if (error instanceof InvalidArgumentError) return { value: ErrorValue.inval, message };
  if (error instanceof UnsupportedError) return { value: ErrorValue.notsup, message };
  if (error instanceof ClosedError) return { value: ErrorValue.shutdown, message };
  return { value: ErrorValue.io, message };
}
