import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

/** A directory of its own for the test, gone when it finishes. */
export async function temporaryDirectory(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'volsnap-device-'));
  onTestFinished(() => rm(path, { recursive: true, force: true }));
  return path;
}

/** A file of its own for the test, gone when it finishes. */
export async function temporaryFile(content: Uint8Array): Promise<string> {
  const path = join(await temporaryDirectory(), 'disk.img');
  await writeFile(path, content);
  return path;
}
