/** Exports as files, and file systems inside them: what a VM host would see. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { expect, onTestFinished } from 'vitest';
import type { Bench } from '../../integration/cli-support.ts';
import { run, runWell } from './writer-tools.ts';

/** Is there what mounting needs? @throws in CI, where nothing is skipped */
export function canMount(): boolean {
  const can = process.getuid?.() === 0 && existsSync('/dev/fuse') && existsSync('/dev/loop-control');
  if (!can && process.env.CI)
    throw new Error('root, FUSE and loop devices are needed; in CI nothing is skipped');
  if (!can) console.warn('skipped: mounting needs root, FUSE and loop devices');
  return can;
}

/** An export as a file. */
export interface Fused {
  readonly path: string;
  /** Takes the file away, whoever has it open; what waits for it fails. */
  kill(): Promise<void>;
}

export async function fuse(bench: Bench, name: string, uri: string): Promise<Fused> {
  const folder = bench.path(name);
  await mkdir(folder);
  const child = spawn('nbdfuse', ['-P', `${folder}.pid`, `${folder}/nbd`, uri], { stdio: 'ignore' });
  const kill = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      const gone = once(child, 'exit');
      child.kill('SIGKILL');
      await gone;
    }
    await run('umount', ['-l', folder]);
  };
  onTestFinished(kill);
  const path = `${folder}/nbd`;
  await expect.poll(() => existsSync(`${folder}.pid`) && existsSync(path), { timeout: 20_000 }).toBe(true);
  return { path, kill };
}

export async function mount(bench: Bench, name: string, disk: string, options = 'rw'): Promise<string> {
  const folder = bench.path(name);
  await mkdir(folder);
  await runWell('mount', '-t', 'ext4', '-o', `loop,${options}`, disk, folder);
  onTestFinished(() => run('umount', ['-l', folder]).then(() => undefined));
  return folder;
}
