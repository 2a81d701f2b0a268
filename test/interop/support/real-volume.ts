/** The volume that Windows wrote, which is too large for the repository. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';

const DATA = process.env.VOLSNAP_SHARED_DATA ?? resolve(import.meta.dirname, '../../../../shared/data');

/** As a qcow2 image. */
export const IMAGE = join(DATA, 'windows-vss.qcow2');
/** What is in it: JSON. */
export const DESCRIPTION = join(DATA, 'windows-vss.json');

export function whyNoImage(): string | undefined {
  if (!existsSync(IMAGE)) return `${IMAGE} is not there; set VOLSNAP_SHARED_DATA to its folder`;
  try {
    execFileSync('qemu-img', ['--version'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'qemu-img is not there (Debian package qemu-utils)';
  }
}
