/** Scripts that tests run as processes, each bundled into one file: with tsx every start takes most of a second, so a sixth of that. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';
import { afterAll } from 'vitest';

/**
 * Bundles a script with all that it imports.
 * @param folder where to; default: a folder of its own, gone after the tests of the file that asks
 * @returns what Node.js is to be started with, before the script's own arguments
 * @throws Error if the script cannot be bundled
 */
export function bundled(script: URL, folder = ownFolder()): readonly string[] {
  const path = fileURLToPath(script);
  const outfile = join(folder, `${basename(path, '.ts')}.mjs`);
  buildSync({
    entryPoints: [path],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    keepNames: true,
    sourcemap: 'inline',
    sourcesContent: false,
    logLevel: 'warning',
  });
  return ['--enable-source-maps', outfile];
}

function ownFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'volsnap-bundled-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}
