/**
 * Every error that this package throws on purpose.
 *
 * Callers match on `code`, which never changes; the message says what happened and what to do about it, and
 * `cause` keeps the error underneath. A broken promise of the program itself is an `AssertionError` from `assert`.
 */

export type ErrorCode =
  | 'INVALID_ARGUMENT'
  | 'FORMAT'
  | 'UNSUPPORTED'
  | 'INTEGRITY'
  | 'NOT_INITIALIZED'
  | 'ALREADY_INITIALIZED'
  | 'NOT_FOUND'
  | 'READ_ONLY'
  | 'CLOSED'
  | 'IN_USE'
  | 'VOLUME_CHANGED'
  | 'SNAPSHOT_DELETED'
  | 'OFFLINE'
  | 'HOLD_TIMEOUT'
  | 'NO_SPACE'
  | 'HELD'
  | 'LIMIT'
  | 'REVERT_IN_PROGRESS'
  | 'WRITER_FAILED'
  | 'DEVICE';

/** Base class: an error with a stable `code`. */
export class VolsnapError extends Error {
  constructor(
    readonly code: ErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = new.target.name;
  }
}

const errorClass = <Code extends ErrorCode>(code: Code) =>
  class extends VolsnapError {
    declare readonly code: Code;
    constructor(message: string, options?: ErrorOptions) {
      super(code, message, options);
    }
  };

/** An argument that breaks the rule its documentation states; nothing was done. */
export class InvalidArgumentError extends errorClass('INVALID_ARGUMENT') {}
/** Bytes on a device that are not what the format says; the message names the field and the offset. */
export class FormatError extends errorClass('FORMAT') {}
/** Well-formed, but this version cannot do it; the message names what is missing. */
export class UnsupportedError extends errorClass('UNSUPPORTED') {}
/** Stored data that fails its checksum. The right bytes are not known; wrong ones are never returned. */
export class IntegrityError extends errorClass('INTEGRITY') {}
/** The volume has no store yet. */
export class NotInitializedError extends errorClass('NOT_INITIALIZED') {}
/** The volume has a store already. */
export class AlreadyInitializedError extends errorClass('ALREADY_INITIALIZED') {}
/** No such snapshot, file or device. */
export class NotFoundError extends errorClass('NOT_FOUND') {}
/** A change was asked of something opened for reading only. */
export class ReadOnlyError extends errorClass('READ_ONLY') {}
/** Used after `close()`. */
export class ClosedError extends errorClass('CLOSED') {}
/** Another owner has it open; the message names the process where that can be found out. */
export class InUseError extends errorClass('IN_USE') {}
/** The volume was written while volsnap was not there, so its snapshots may be wrong. */
export class VolumeChangedError extends errorClass('VOLUME_CHANGED') {}
/** The snapshot was deleted, or given up, before or while it was read. */
export class SnapshotDeletedError extends errorClass('SNAPSHOT_DELETED') {}
/** The snapshot was taken offline: it is kept, but cannot be read until it is online again. Or diff areas have not arrived that are needed. */
export class OfflineError extends errorClass('OFFLINE') {}
/** Writes could not be held long enough to take a snapshot; nothing was left behind. */
export class HoldTimeoutError extends errorClass('HOLD_TIMEOUT') {}
/** No room in the diff area and none to be had under the policy in force. */
export class NoSpaceError extends errorClass('NO_SPACE') {}
/** A snapshot that is held would have to be deleted; release it first, or wait for its date. */
export class HeldError extends errorClass('HELD') {}
/** A fixed limit of the format or of the engine was reached. */
export class LimitError extends errorClass('LIMIT') {}
/** Not while the volume is being put back to a snapshot: wait for it, or cancel it. */
export class RevertInProgressError extends errorClass('REVERT_IN_PROGRESS') {}
/** An application that was to take part in a snapshot set failed, or took too long; no snapshot was taken. */
export class WriterFailedError extends errorClass('WRITER_FAILED') {
  /** Its name, and what it was doing; `undefined` where another process says so. */
  writer?: string;
  phase?: string;
}
/** The operating system, or what stands in for it, failed a device operation; see `cause`. */
export class DeviceError extends errorClass('DEVICE') {}

/** Throws unless an invariant of this program holds; `describe` names the values and is called only on failure. */
export function assert(condition: boolean, describe: () => string): asserts condition {
  if (!condition) throw new AssertionError(describe());
}

/** A bug in this package: report it, with the message. */
export class AssertionError extends Error {
  override readonly name = 'AssertionError';
}

const TOO_LONG = new Set(['EFBIG']);
const OUT_OF_SPACE_CODES = new Set(['ENOSPC', 'EDQUOT', ...TOO_LONG]);
const OWN_LIMIT_CODES = new Set(['EMFILE', 'ENFILE', 'ENOMEM']);

/** Is the reason, or a reason underneath, that there is no space left: a limit of ours, or of the host? */
export const isOutOfSpace = (error: unknown): boolean =>
  isOrIsCausedBy(
    error,
    (reason) => reason instanceof NoSpaceError || hasCodeAmong(OUT_OF_SPACE_CODES, reason),
  );

/** Is the reason, or a reason underneath, that a file may be no longer, whatever else is deleted? */
export const isTooLong = (error: unknown): boolean =>
  isOrIsCausedBy(error, (reason) => hasCodeAmong(TOO_LONG, reason));

/** Is a limit of this process or of the machine the reason, which says nothing of what was to be read? */
export const isOwnLimit = (error: unknown): boolean =>
  isOrIsCausedBy(error, (reason) => hasCodeAmong(OWN_LIMIT_CODES, reason));

const hasCodeAmong = (codes: ReadonlySet<string>, error: Error): boolean =>
  'code' in error && codes.has(String(error.code));

/** Is it so of an error, or of one underneath? */
function isOrIsCausedBy(error: unknown, isSo: (error: Error) => boolean): boolean {
  return error instanceof Error && (isSo(error) || isOrIsCausedBy(error.cause, isSo));
}
