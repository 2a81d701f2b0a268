/**
 * One owner at a time: a writer excludes everybody, readers share.
 *
 * The lock is flock(2) on the very descriptor that the device uses. It belongs to the open file description, so it lasts
 * exactly as long as the descriptor: the kernel drops it when the device is closed or the process dies, however it
 * dies, and no stale lock file is ever left. A second open in the same process is refused like any other.
 *
 * Node.js cannot call flock, so the `flock` program of util-linux (or busybox) does, on the descriptor it inherits;
 * the lock stays when that program exits. It costs a few milliseconds, once for each open.
 *
 * Left out: programs that do not ask. The lock is advisory; for a block special file the caller adds O_EXCL, which also
 * keeps out mounts, swap and device mapper.
 */
import { spawn } from 'node:child_process';
import { readdir, readFile, stat } from 'node:fs/promises';
import { DeviceError, InUseError, type VolsnapError } from '../errors.js';
import { codeOf } from './system-error.js';

export interface Claim {
  /** What messages call it. */
  readonly path: string;
  /** The open descriptor that is to carry the lock. */
  readonly descriptor: number;
  readonly kind: 'exclusive' | 'shared';
  /** Seconds to wait for somebody who holds the lock for a moment only; 0 not to wait. */
  readonly patience: number;
}

/** Which file, whatever path leads to it. */
export interface FileIdentity {
  readonly dev: bigint;
  readonly ino: bigint;
}

/**
 * Locks the file until `claim.descriptor` is closed.
 * @throws InUseError if another descriptor holds a lock that excludes this one
 * @throws DeviceError if the lock cannot be taken at all
 */
export async function takeOwnership(claim: Claim, file: FileIdentity): Promise<void> {
  const waiting = claim.patience === 0 ? ['-n'] : ['-w', String(claim.patience)];
  // Short options are the ones that busybox knows too.
  const outcome = await runFlock(
    [...waiting, claim.kind === 'exclusive' ? '-x' : '-s', '3'],
    claim.descriptor,
    claim.path,
  );
  if (outcome.status === 0) return;
  if (outcome.status === 1) throw await inUse(claim.path, file, claim.descriptor);
  throw new DeviceError(
    `cannot lock ${claim.path}: flock ended with ${outcome.status ?? 'a signal'}` +
      ` (${outcome.complaint || 'no message'}); if its file system cannot lock, pass { exclusive: false }` +
      ' and make sure that nobody else opens it',
  );
}

/** The error for a file that somebody else has, naming them where that can be seen. */
export async function inUse(
  path: string,
  file: FileIdentity,
  ownDescriptor?: number,
  cause?: unknown,
): Promise<VolsnapError> {
  const owners = await findOwners(file, ownDescriptor);
  const who = owners.length === 0 ? 'another process' : owners.slice(0, 3).join(' and ');
  return new InUseError(
    `${path} is in use by ${who}: close it there, then try again`,
    cause === undefined ? {} : { cause },
  );
}

interface Outcome {
  readonly status: number | null;
  readonly complaint: string;
}

function runFlock(options: readonly string[], descriptor: number, path: string): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn('flock', options, { stdio: ['ignore', 'ignore', 'pipe', descriptor] });
    let complaint = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      complaint += text;
    });
    child.once('error', (cause) => {
      const advice =
        codeOf(cause) === 'ENOENT'
          ? 'install util-linux, which has the flock program, or pass { exclusive: false } and make sure that nobody else opens it'
          : 'the flock program could not be run';
      reject(new DeviceError(`cannot lock ${path}: ${advice}`, { cause }));
    });
    child.once('close', (status) => resolve({ status, complaint: complaint.trim() }));
  });
}

/**
 * Processes that have the file open, as far as this user may see: those with a lock on it or, if none has, all.
 * The kernel's own list, /proc/locks, does not help: it names the `flock` program, long gone.
 */
async function findOwners(file: FileIdentity, ownDescriptor: number | undefined): Promise<string[]> {
  const holders: { readonly pid: number; readonly locks: boolean }[] = [];
  for (const entry of await namesIn('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid)) continue;
    for (const descriptor of await namesIn(`/proc/${pid}/fdinfo`)) {
      if (pid === process.pid && Number(descriptor) === ownDescriptor) continue;
      const locks = await inspect(pid, descriptor, file);
      if (locks !== undefined) holders.push({ pid, locks });
    }
  }
  const locking = holders.filter((holder) => holder.locks);
  const pids = new Set((locking.length > 0 ? locking : holders).map((holder) => holder.pid));
  return Promise.all([...pids].map(describeProcess));
}

/** Whether a descriptor of the file holds a lock; `undefined` if it is not of this file, gone, or not ours to see. */
async function inspect(pid: number, descriptor: string, file: FileIdentity): Promise<boolean | undefined> {
  try {
    const info = await readFile(`/proc/${pid}/fdinfo/${descriptor}`, 'utf8');
    // Before stat, which hangs on a file of a dead network server. Linux before 5.14 does not tell the inode here.
    const inode = /^ino:\s*(\d+)/m.exec(info)?.[1];
    if (inode !== undefined && BigInt(inode) !== file.ino) return undefined;
    const { dev, ino } = await stat(`/proc/${pid}/fd/${descriptor}`, { bigint: true });
    return dev === file.dev && ino === file.ino ? /^lock:.*\bFLOCK\b/m.test(info) : undefined;
  } catch {
    return undefined;
  }
}

async function describeProcess(pid: number): Promise<string> {
  if (pid === process.pid) return 'this process';
  const words = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  // A process may write anything there; a message must stay one line.
  const command = words
    .replace(/[\p{Cc}\s]+/gu, ' ')
    .trim()
    .slice(0, 200);
  return command === '' ? `process ${pid}` : `process ${pid} (${command})`;
}

const namesIn = (path: string): Promise<string[]> => readdir(path).catch(() => []);
