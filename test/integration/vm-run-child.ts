/**
 * A load on a file system until the disk fails: files of random content, each made durable and only then told on standard
 * output as `NAME SHA-256`. The oldest go, so that their space is taken again.
 */
import { createHash } from 'node:crypto';
import { closeSync, fsyncSync, openSync, renameSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { SeededRandom } from '../../src/testing/seeded-random.ts';

const [folder = '', seed = ''] = process.argv.slice(2);
const random = new SeededRandom(seed);

/** @returns whether the file is durable */
function writeDurably(name: string): boolean {
  const bytes = random.fill(
    new Uint8Array(random.chance(0.1) ? random.between(100_000, 800_000) : random.below(40_000)),
  );
  const hash = createHash('sha256').update(bytes).digest('hex');
  try {
    const file = openSync(join(folder, `${name}.new`), 'w');
    writeSync(file, bytes);
    fsyncSync(file);
    closeSync(file);
    renameSync(join(folder, `${name}.new`), join(folder, name));
    const directory = openSync(folder, 'r');
    fsyncSync(directory);
    closeSync(directory);
  } catch {
    return false; // The disk is gone: that is what the test is about.
  }
  process.stdout.write(`${name} ${hash}\n`);
  return true;
}

let count = 0;
function next(): void {
  const name = `file-${String(count++).padStart(5, '0')}`;
  if (!writeDurably(name)) return;
  // Space is taken again: blocks that snapshots need are overwritten.
  if (count > 60) {
    try {
      unlinkSync(join(folder, `file-${String(count - 60).padStart(5, '0')}`));
    } catch {
      return;
    }
  }
  setImmediate(next);
}
next();
