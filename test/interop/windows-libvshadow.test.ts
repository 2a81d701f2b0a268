import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { MemoryDevice } from '../../src/device/memory-device.ts';
import { SeededRandom } from '../../src/testing/seeded-random.ts';
import { BLOCK_SIZE } from '../../src/units.ts';
import { ForeignStore } from '../../src/windows/foreign-store.ts';
import { describeUnless } from './support/describe-unless.ts';
import { Libvshadow, type LibvshadowSnapshot, whyNoLibvshadow } from './support/libvshadow.ts';
import { randomWindowsImage } from './support/random-windows-image.ts';

const missing = whyNoLibvshadow();
const IMAGES = Number(process.env.VOLSNAP_WINDOWS_IMAGES ?? 150);
const SEED = process.env.VOLSNAP_SEED ?? 'windows';

describeUnless(missing, 'random volumes against libvshadow', () => {
  let folder = '';
  let libvshadow: Libvshadow;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'volsnap-windows-'));
    libvshadow = new Libvshadow();
  });
  afterAll(async () => {
    await libvshadow[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  test(`${IMAGES} random images read alike, block for block`, async () => {
    for (let index = 0; index < IMAGES; index++) {
      const seed = `${SEED}/${index}`;
      const { bytes } = randomWindowsImage(new SeededRandom(seed));
      const path = join(folder, 'image');
      await writeFile(path, bytes);
      const theirs = await libvshadow.read(path);
      const store = await ForeignStore.open(new MemoryDevice(bytes));
      expect(await readAll(store), `VOLSNAP_SEED image ${seed}`).toEqual(theirs);
    }
  });
});

async function readAll(store: ForeignStore): Promise<{ snapshots: LibvshadowSnapshot[] }> {
  const snapshots: LibvshadowSnapshot[] = [];
  for (const snapshot of store.snapshots) {
    const content = await snapshot.read(0, snapshot.size);
    const blocks: string[] = [];
    for (let at = 0; at < content.byteLength; at += BLOCK_SIZE)
      blocks.push(
        createHash('sha256')
          .update(content.subarray(at, at + BLOCK_SIZE))
          .digest('hex'),
      );
    snapshots.push({
      storeId: snapshot.storeId,
      snapshotId: snapshot.snapshotId ?? '',
      setId: snapshot.setId ?? '',
      ticks: String(snapshot.createdAtTicks),
      size: snapshot.size,
      entryCount: snapshot.entryCount,
      blocks,
    });
  }
  return { snapshots };
}
