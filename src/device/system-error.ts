/** Failures of the operating system as errors of this package: what was being done, why it failed, what to do. */
import { DeviceError, isTooLong, NotFoundError, VolsnapError } from '../errors.js';

const ADVICE: Readonly<Record<string, string>> = {
  EACCES: 'run as a user who may do this, or ask for less (read only)',
  EPERM: 'run as a user who may do this, or ask for less (read only)',
  EROFS: 'it is on a read-only file system: open it read only, or remount',
  EIO: 'the disk or its driver failed: see the kernel log (dmesg) before trying again',
  ENOSPC: 'free some space on the file system that holds it',
  EDQUOT: "free some space, or raise the owner's quota",
  EFBIG: 'the file system, or the limit on file size (ulimit -f), allows no file this large',
  EMFILE: 'raise the limit on open files (ulimit -n)',
  ENFILE: 'the machine has too many open files: close some programs',
  ENOENT: 'check the path',
  EEXIST: 'choose another name, or remove what is there',
};

/** The `code` of a system error, such as `ENOENT`; `undefined` for any other value. */
export function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/**
 * @param doing completes "cannot …"
 * @returns NotFoundError for `ENOENT`, else DeviceError, with `cause` underneath; an error of this package is returned
 *   as it is, being explained already
 */
export function systemError(doing: string, cause: unknown): VolsnapError {
  if (cause instanceof VolsnapError) return cause;
  const code = codeOf(cause) ?? '';
  const advice = ADVICE[code];
  const why = cause instanceof Error ? cause.message : String(cause);
  const message = `cannot ${doing}: ${why}${advice === undefined ? '' : `; ${advice}`}`;
  return code === 'ENOENT' ? new NotFoundError(message, { cause }) : new DeviceError(message, { cause });
}

/** Why the host gave no room in `place` (see `isOutOfSpace`): `cause` tells a full disk from a file that would become too long. */
export const hostLack = (place: string, cause: unknown): string =>
  isTooLong(cause)
    ? `a file of ${place} would become longer than its file system, or the limit on file size (ulimit -f), allows`
    : `the file system of ${place} is full`;

/** Runs `action` and explains its failure: see `systemError`. */
export async function explained<T>(doing: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    throw systemError(doing, cause);
  }
}
