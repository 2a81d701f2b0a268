/** Errors on their way from the process that serves a volume to the one that asked: same code, same message. */
import * as errors from '../../errors.js';
import { ProtocolError } from './frame.js';

export interface SentError {
  readonly code: string;
  readonly name: string;
  readonly message: string;
}

/** The volume is being closed: it will soon have no owner, or another one. */
export class ClosingError extends errors.ClosedError {}

/** The connection broke; whatever was asked may have been done or not. */
export class PeerGoneError extends errors.DeviceError {}

/** Codes besides those of the library. */
export const ABORTED = 'ABORTED';
const INTERNAL = 'INTERNAL';

export function sentError(error: unknown): SentError {
  if (error instanceof errors.VolsnapError) {
    return { code: error.code, name: error.name, message: error.message };
  }
  if (error instanceof Error) {
    const code = error.name === 'AbortError' ? ABORTED : INTERNAL;
    return { code, name: error.name, message: error.message };
  }
  return { code: INTERNAL, name: 'Error', message: String(error) };
}

const CLASSES: Readonly<Record<errors.ErrorCode, new (message: string) => errors.VolsnapError>> = {
  INVALID_ARGUMENT: errors.InvalidArgumentError,
  FORMAT: errors.FormatError,
  UNSUPPORTED: errors.UnsupportedError,
  INTEGRITY: errors.IntegrityError,
  NOT_INITIALIZED: errors.NotInitializedError,
  ALREADY_INITIALIZED: errors.AlreadyInitializedError,
  NOT_FOUND: errors.NotFoundError,
  READ_ONLY: errors.ReadOnlyError,
  CLOSED: errors.ClosedError,
  IN_USE: errors.InUseError,
  VOLUME_CHANGED: errors.VolumeChangedError,
  SNAPSHOT_DELETED: errors.SnapshotDeletedError,
  OFFLINE: errors.OfflineError,
  HOLD_TIMEOUT: errors.HoldTimeoutError,
  NO_SPACE: errors.NoSpaceError,
  HELD: errors.HeldError,
  LIMIT: errors.LimitError,
  REVERT_IN_PROGRESS: errors.RevertInProgressError,
  WRITER_FAILED: errors.WriterFailedError,
  DEVICE: errors.DeviceError,
};

const isCode = (code: string): code is errors.ErrorCode => Object.hasOwn(CLASSES, code);

/** @throws ProtocolError if `value` is no error at all */
export function receivedError(value: unknown): Error {
  if (typeof value !== 'object' || value === null) throw new ProtocolError('an error without content');
  const { code, name, message } = value as Partial<SentError>;
  if (typeof code !== 'string' || typeof name !== 'string' || typeof message !== 'string') {
    throw new ProtocolError('an error without code, name or message');
  }
  if (name === ClosingError.name) return new ClosingError(message);
  if (isCode(code)) return new CLASSES[code](message);
  if (code === ABORTED) return new DOMException(message, 'AbortError');
  const error = new Error(message);
  error.name = name;
  return error;
}
