import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { cacheMemory } from '../bench/cache-memory.js';

const MEBIBYTE = 2 ** 20;

// Everything that may pile up does: flushes are slow, so what is read waits for commits; and there can be 21,845 extents, so some are evicted.
test.skipIf(process.platform !== 'linux')('what a cache takes beside its setting stays small', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'volsnap-cache-'));
  try {
    const used = await cacheMemory({
      folder,
      round: 'filling',
      extents: 21_800,
      more: 2000,
      memory: MEBIBYTE,
      flushMilliseconds: 100,
    });
    expect(used.evicted).toBeGreaterThan(0);
    // 36 to 42 MiB; before buffers, nodes and commits were used again 72 to 80.
    expect(used.residentMost - used.residentBefore).toBeLessThan(58 * MEBIBYTE);
    expect(used.buffersMost).toBeLessThan(16 * MEBIBYTE);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
