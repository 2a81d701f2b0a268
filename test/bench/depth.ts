/** Question: what does it cost to read the oldest of many snapshots, when its blocks were copied in various younger ones? */
import { BLOCK_SIZE } from '../../src/units.js';
import { Place } from './place.js';
import type { Figures } from './table.js';
import { run, type Target } from './workload.js';

export async function depth(size: number): Promise<Figures[]> {
  const values: Record<string, number> = {};
  for (const count of size < 2 ** 26 ? [1, 8] : [1, 64, 512])
    values[`${count} snapshots`] = await readOldest(size / 4, count);
  return [{ name: 'oldest snapshot, 1 MiB sequential read', unit: 'MiB/s', values }];
}

/** Each snapshot gets its share of the blocks, spread over the volume. */
async function readOldest(size: number, count: number): Promise<number> {
  await using place = await Place.create(size);
  const volume = await place.volume();
  const blocks = size / BLOCK_SIZE;
  const bytes = new Uint8Array(BLOCK_SIZE).fill(9);
  for (let i = 0; i < count; i++) {
    await volume.createSnapshot();
    for (let block = i; block < blocks; block += count) await volume.write(block * BLOCK_SIZE, bytes);
  }
  const [oldest] = volume.snapshots;
  if (oldest === undefined) throw new Error('no snapshot');
  const target: Target = {
    read: (offset, buffer) => oldest.read(offset, buffer),
    write: async () => undefined,
    flush: async () => undefined,
  };
  const speed = await run(
    { name: '', kind: 'read', request: 2 ** 20, order: 'sequential', depth: 4 },
    target,
    size,
  );
  await volume.close();
  return speed;
}
