/** The quick start runs as README says and keeps its promise. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { expect, test } from 'vitest';
import { hasProgram, PROGRAM } from './cli-support.js';

const ROOT = resolve(import.meta.dirname, '../..');
const isMissing = !['mkfs.ext4', 'e2fsck', 'debugfs'].every(hasProgram);

test.skipIf(isMissing)(`the quick start${isMissing ? ' (skipped: no e2fsprogs)' : ''}`, () => {
  const started = performance.now();
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--import', 'tsx', 'docs/examples/quick-start.ts'],
    { cwd: ROOT, encoding: 'utf8', env: { ...process.env, VOLSNAP_PROGRAM: PROGRAM } },
  );
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  expect(stdout).toMatch(/^Verdict: everything is back \(180 of 180 files, e2fsck clean, [\d.]+ MiB used\)/m);
  expect(stdout).toContain('$ volsnap init disk.img');
  const folder = /happens in (\S+)\./.exec(stdout)?.[1];
  expect(folder !== undefined && existsSync(folder)).toBe(false);
  expect(performance.now() - started).toBeLessThan(30_000);
});
