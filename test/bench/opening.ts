/** Question: how long does opening take, and how much memory do tables take, with a million copies? */

import { BlockTable } from '../../src/diff-area/block-table.js';
import { FileDevice, Volume } from '../../src/index.js';
import { SeededRandom } from '../../src/testing/index.js';
import { BLOCK_SIZE } from '../../src/units.js';
import { Place } from './place.js';
import type { Figures } from './table.js';

const COPIES = 1_000_000;

export async function opening(): Promise<Figures[]> {
  await using place = await Place.create(COPIES * BLOCK_SIZE);
  // Blocks of zeros: each has an entry, none takes space.
  const volume = await place.volume('directory', false);
  await volume.createSnapshot();
  for (let at = 0; at < place.size; at += 2 ** 24)
    await volume.discard(at, Math.min(2 ** 24, place.size - at)).catch(() => undefined);
  const { name } = volume;
  await volume.close();
  const started = performance.now();
  const again = await Volume.open(await FileDevice.open(name, { writable: true }));
  const milliseconds = performance.now() - started;
  const bytes = again.figures.tableMemoryBytes / COPIES;
  await again.close();
  return [
    { name: 'open, 1,000,000 copies', unit: 'ms', values: { volsnap: milliseconds } },
    { name: 'memory a copy, all blocks', unit: 'bytes', values: { volsnap: bytes } },
    {
      name: 'memory a copy, 1,000,000 at random of 64 Mi',
      unit: 'bytes',
      values: { volsnap: sparseMemory() },
    },
  ];
}

function sparseMemory(): number {
  const blocks = 2 ** 26;
  const table = new BlockTable(blocks);
  const random = new SeededRandom('sparse');
  while (table.size < COPIES) table.set(random.below(blocks), table.size, 1);
  return table.memoryBytes / table.size;
}
