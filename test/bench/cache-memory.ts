/** Question: how much memory does a process take that does nothing but fill a cache, with the package as it is installed? */
import { execFile } from 'node:child_process';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { transform } from 'esbuild';
import type { MemoryOptions, MemoryUsed } from './cache-memory-child.js';

const run = promisify(execFile);

/** Needs `dist`. @param folder where the image and the backing are, also for a second round */
export async function cacheMemory(options: Omit<MemoryOptions, 'packageUrl'>): Promise<MemoryUsed> {
  const source = await readFile(new URL('cache-memory-child.ts', import.meta.url), 'utf8');
  const { code } = await transform(source, { loader: 'ts', format: 'esm', target: 'node20' });
  const scripts = join(options.folder, 'script');
  const script = join(scripts, 'child.mjs');
  await mkdir(scripts, { recursive: true });
  try {
    await writeFile(script, code);
    const packageUrl = process.env.VOLSNAP_PACKAGE ?? new URL('../../dist/index.js', import.meta.url).href;
    const { stdout } = await run(process.execPath, [script, JSON.stringify({ ...options, packageUrl })]);
    return JSON.parse(stdout);
  } finally {
    await rm(scripts, { recursive: true, force: true });
  }
}
