/** Question: how long does opening take, and how much memory do tables take? One copy for every 256 bytes of `size`. */
import { FixedSlot } from '../../src/diff-area/area-slots.js';
import { BlockTable } from '../../src/diff-area/block-table.js';
import { createDiffArea } from '../../src/diff-area/create.js';
import { SnapshotFlag } from '../../src/format/control-block.js';
import { guidFrom } from '../../src/format/guid.js';
import { DirectoryStore, FileDevice, systemEnvironment, Volume } from '../../src/index.js';
import { describeSnapshot } from '../../src/snapshot/information.js';
import { SeededRandom } from '../../src/testing/index.js';
import { BLOCK_SIZE } from '../../src/units.js';
import { Place } from './place.js';
import type { Figures } from './table.js';

export async function opening(size: number): Promise<Figures[]> {
  const copies = Math.floor(size / 256);
  await using place = await Place.create(copies * BLOCK_SIZE);
  const { name } = await volumeWithCopies(place, copies);
  const started = performance.now();
  const volume = await Volume.open(await FileDevice.open(name, { writable: true }));
  const milliseconds = performance.now() - started;
  const bytes = volume.figures.tableMemoryBytes / copies;
  await volume.close();
  const many = copies.toLocaleString('en');
  return [
    { name: `open, ${many} copies`, unit: 'ms', values: { volsnap: milliseconds } },
    { name: 'memory a copy, all blocks', unit: 'bytes', values: { volsnap: bytes } },
    {
      name: `memory a copy, ${many} at random of 64 Mi`,
      unit: 'bytes',
      values: { volsnap: sparseMemory(copies) },
    },
  ];
}

/** A snapshot with a copy of every block, all of zeros: tables as large as they get, without the data. */
async function volumeWithCopies(place: Place, copies: number): Promise<{ name: string }> {
  const volume = await place.volume('directory', false);
  const { name, size } = volume;
  await volume.close();
  await using device = await FileDevice.open(name, { writable: true });
  const environment = systemEnvironment;
  const store = await new DirectoryStore(`${name}.volsnap`).attach(device, { environment, writable: true });
  const storeId = guidFrom(environment.random);
  const area = await createDiffArea(await store.createArea(storeId), {
    storeId,
    epoch: 1n,
    information: describeSnapshot({
      snapshotId: storeId,
      setId: storeId,
      label: undefined,
      applicationInfo: undefined,
    }),
    blockCount: copies,
    length: Math.ceil(copies / 500 + 16) * BLOCK_SIZE,
  });
  const zeros = new Uint8Array(BLOCK_SIZE);
  for (let first = 0; first < copies; first += 1000) {
    const blocks = Array.from({ length: Math.min(1000, copies - first) }, (_, i) => first + i);
    area.reserve(0, blocks.length);
    const slots = blocks.map(() => FixedSlot.zeros);
    area.append([
      { blocks, slots, checksums: blocks.map((block) => area.checksum(block, FixedSlot.zeros, zeros)) },
    ]);
    await area.writeEntries();
  }
  await area.flush();
  await area.writeWatermark();
  const flags = SnapshotFlag.visible;
  await store.control.publish({
    snapshot: { kind: 'snapshot', volumeSize: size, storeId, order: 1, flags, createdAt: 1n },
    diffArea: area.item,
  });
  await area.close();
  await store.close();
  return { name };
}

function sparseMemory(copies: number): number {
  const blocks = 2 ** 26;
  const table = new BlockTable(blocks);
  const random = new SeededRandom('sparse');
  while (table.size < copies) table.set(random.below(blocks), table.size, 1);
  return table.memoryBytes / table.size;
}
