/** The thread that works on files: what it copies and writes is what the main thread would have, or it says that it has not. */
import { open, readFile } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { FileThread, ThreadRole } from '../../../src/device/file-thread.js';
import { BLOCK_SIZE } from '../../../src/units.js';
import { pattern } from './contract.js';
import { temporaryFile } from './temporary.js';

const BLOCKS = 40;
/** The last block is short, and some are zero. */
const SHORT = 1000;
const ZEROS = [3, 4, 17];
const content = pattern((BLOCKS - 1) * BLOCK_SIZE + SHORT);
for (const block of ZEROS) content.fill(0, block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE);

async function files() {
  const thread = FileThread.join(ThreadRole.copies, 2);
  if (thread === undefined) throw new Error('no thread though there are two processors');
  onTestFinished(() => thread.leave());
  const source = await open(await temporaryFile(content));
  const path = await temporaryFile(new Uint8Array(0));
  const target = await open(path, 'r+');
  onTestFinished(async () => {
    await source.close();
    await target.close();
  });
  await vi.waitUntil(() => thread.waiting === 0, { timeout: 10_000, interval: 5 });
  return { thread, source, target, path };
}

const blockAt = (block: number) => {
  const data = new Uint8Array(BLOCK_SIZE);
  data.set(content.subarray(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE));
  return data;
};

/** Blocks in some order of places: neighbours and others. */
const blocks = [0, 1, 3, 4, 5, 9, 16, 17, 18, ...Array.from({ length: 18 }, (_, i) => 22 + i)];
const request = (from: number, to: number) => ({
  from,
  to,
  sources: Float64Array.from(blocks, (block) => block * BLOCK_SIZE),
  targets: Float64Array.from(blocks, (_, i) => (i < 5 ? 60 - i : i) * BLOCK_SIZE),
  lastLength: SHORT,
});

describe('copying', () => {
  test('puts every block that is not zero into its place, and computes its checksum', async () => {
    const { thread, source, target, path } = await files();
    const copy = request(source.fd, target.fd);
    const answer = await thread.copy(copy);
    const written = await readFile(path);
    expect(answer?.zeros.map((i) => blocks[i])).toEqual(ZEROS);
    for (const [i, block] of blocks.entries()) {
      const place = copy.targets[i] ?? 0;
      const there = new Uint8Array(BLOCK_SIZE);
      there.set(written.subarray(place, place + BLOCK_SIZE));
      expect(Buffer.compare(there, blockAt(block)), `block ${block}`).toBe(0);
      if (!ZEROS.includes(block)) expect(answer?.sums[i], `block ${block}`).toBe(crc32(blockAt(block)));
    }
  });

  test('that meets an end of the file, or cannot write, is not done', async () => {
    const { thread, source, target } = await files();
    expect(await thread.copy({ ...request(source.fd, target.fd), lastLength: SHORT + 1 })).toBeUndefined();
    expect(await thread.copy(request(target.fd, source.fd))).toBeUndefined();
    expect(await thread.copy(request(source.fd, 9999))).toBeUndefined();
    // And the thread goes on.
    expect(await thread.copy(request(source.fd, target.fd))).toBeDefined();
  });
});

test('with one processor there is no thread', () => {
  expect(FileThread.join(ThreadRole.copies, 1)).toBeUndefined();
});
