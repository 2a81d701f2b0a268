/** Names of files in a folder: one step, never a way out of it. */
import { InvalidArgumentError } from '../errors.js';

/** Bytes that a name may take on Linux file systems. */
const LONGEST = 255;

/** @param folder what messages call the folder. @throws InvalidArgumentError unless `name` names a file right in it. */
export function checkFileName(folder: string, name: string): void {
  const fits = name !== '' && Buffer.byteLength(name) <= LONGEST;
  if (fits && name !== '.' && name !== '..' && !name.includes('/') && !name.includes('\0')) return;
  throw new InvalidArgumentError(
    `${folder}: a file name is 1 to ${LONGEST} bytes without "/" and NUL, and not "." or "..": ${JSON.stringify(name)}`,
  );
}
