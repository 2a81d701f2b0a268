/** What changed between two shadow copies of Windows, or since one, is never left out. */
import { describe, expect, test } from 'vitest';
import { MemoryDevice } from '../../../src/device/memory-device.ts';
import type { ByteSource, Snapshot } from '../../../src/snapshot/snapshot.ts';
import { SeededRandom } from '../../../src/testing/seeded-random.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { Volume } from '../../../src/volume/volume.ts';
import { randomWindowsImage } from '../../interop/support/random-windows-image.ts';
import { buildWindowsImage, copy, overlay } from '../../interop/support/windows-image.ts';
import { withSnapshots } from './fixtures.ts';

async function differing(a: ByteSource, b: ByteSource): Promise<number[]> {
  const [left, right] = [Buffer.alloc(BLOCK_SIZE), Buffer.alloc(BLOCK_SIZE)];
  const blocks: number[] = [];
  for (let at = 0; at < b.size; at += BLOCK_SIZE) {
    const length = Math.min(BLOCK_SIZE, b.size - at);
    await a.read(at, left.subarray(0, length));
    await b.read(at, right.subarray(0, length));
    if (!left.subarray(0, length).equals(right.subarray(0, length))) blocks.push(at / BLOCK_SIZE);
  }
  return blocks;
}

async function changed(volume: Volume, since: Snapshot, until?: Snapshot): Promise<number[]> {
  const blocks: number[] = [];
  for await (const { offset, length } of volume.changedBlocks({ since, ...(until && { until }) }))
    for (let at = offset; at < offset + length; at += BLOCK_SIZE) blocks.push(at / BLOCK_SIZE);
  return blocks;
}

describe('changed blocks of a volume of Windows', () => {
  test('are those of the tables, with what is overlaid or unused on either side', async () => {
    const plan = withSnapshots(
      { tables: [[copy(1, 20), overlay(2, 21, 1)]] },
      { tables: [[copy(4, 22), overlay(3, 30, 1)]], unused: [4, 5] },
    );
    const { bytes } = buildWindowsImage(plan);
    await using volume = await Volume.open(new MemoryDevice(bytes, { writable: false }));
    const [first, second] = volume.snapshots;
    if (first === undefined || second === undefined) throw new Error('two snapshots were made');
    expect(await changed(volume, first, second)).toEqual([1, 2, 3, 5]);
    expect(await changed(volume, second)).toEqual([3, 4, 5]);
    expect(await changed(volume, first)).toEqual([1, 2, 4]);
    expect(await changed(volume, first, first)).toEqual([]);
    // Of a range only what lies in it, cut at its edges.
    const extents: unknown[] = [];
    const range = { offset: 2 * BLOCK_SIZE + 100, length: 3 * BLOCK_SIZE };
    for await (const extent of volume.changedBlocks({ since: first, until: second, ...range }))
      extents.push(extent);
    expect(extents).toEqual([
      { offset: range.offset, length: 2 * BLOCK_SIZE - 100 },
      { offset: 5 * BLOCK_SIZE, length: 100 },
    ]);
    await expect(changed(volume, second, first)).rejects.toThrow('give the older one first');
  });

  test('take no longer than their caller has patience', async () => {
    const { bytes } = buildWindowsImage(withSnapshots({ tables: [[]], unused: [5, 6] }));
    await using volume = await Volume.open(new MemoryDevice(bytes, { writable: false }));
    const [since] = volume.snapshots;
    if (since === undefined) throw new Error('a snapshot was made');
    const extents = volume.changedBlocks({ since, signal: AbortSignal.abort() });
    await expect(extents.next()).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }));
  });

  test('are all that differ, whatever was moved, overlaid or declared unused', async () => {
    let pairs = 0;
    for (let index = 0; index < 60; index++) {
      const { bytes } = randomWindowsImage(new SeededRandom(`changed ${index}`));
      await using volume = await Volume.open(new MemoryDevice(bytes, { writable: false }));
      const sound = volume.snapshots.filter(({ state }) => state === 'ok');
      for (const [place, since] of sound.entries()) {
        for (const until of [...sound.slice(place + 1), undefined]) {
          // A copy may lie where the random image has no data to read.
          const wrong = await differing(since, until ?? volume).catch(() => undefined);
          if (wrong === undefined) continue;
          const found = await changed(volume, since, until);
          expect(found, `image ${index}, ascending`).toEqual([...new Set(found)].sort((a, b) => a - b));
          expect(found, `image ${index}, snapshot ${place}`).toEqual(expect.arrayContaining(wrong));
          pairs++;
        }
      }
    }
    expect(pairs).toBeGreaterThan(100);
  });
});
