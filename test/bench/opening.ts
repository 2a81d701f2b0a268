/**
 * Question: how long does opening take, and how much memory do tables take? One copy for every 256 bytes of `size`, and for every 25 bytes.
 *
 * Each opening is done in a process of its own, so that its memory is all that process has: what is on the heap and in buffers once the
 * volume is open, and the most that it was at any time while opening.
 */
import { execFileSync } from 'node:child_process';
import { BlockTable } from '../../src/diff-area/block-table.js';
import { createDiffArea } from '../../src/diff-area/create.js';
import type { DiffArea } from '../../src/diff-area/diff-area.js';
import { SnapshotFlag } from '../../src/format/control-block.js';
import { guidFrom } from '../../src/format/guid.js';
import { DirectoryStore, FileDevice, systemEnvironment } from '../../src/index.js';
import { describeSnapshot } from '../../src/snapshot/information.js';
import { SeededRandom } from '../../src/testing/index.js';
import { BLOCK_SIZE } from '../../src/units.js';
import type { Opened } from './opening-child.js';
import { Place } from './place.js';
import type { Figures } from './table.js';

const MEBIBYTE = 2 ** 20;
/** Blocks of a volume of 1 TiB. */
const TEBIBYTE_BLOCKS = 2 ** 26;

export async function opening(size: number): Promise<Figures[]> {
  const figures: Figures[] = [];
  for (const copies of [Math.floor(size / 256), Math.floor(size / 25.6)])
    figures.push(...(await openings(copies)));
  const copies = Math.floor(size / 256);
  figures.push({
    name: `memory a copy, ${copies.toLocaleString('en')} in a volume of 1 TiB`,
    unit: 'bytes',
    values: { 'in order': memoryOfTable(copies, (i) => i), 'at random': memoryOfTable(copies, randomly()) },
  });
  return figures;
}

/** Copies of all blocks, in order of blocks; and copies at random of 1 TiB. */
async function openings(copies: number): Promise<Figures[]> {
  const inOrder = await open(copies, copies, (i) => i);
  const atRandom = await open(copies, TEBIBYTE_BLOCKS, randomly());
  const many = copies.toLocaleString('en');
  const row = (name: string, unit: string, of: (opened: Opened) => number): Figures => ({
    name: `open, ${many} copies${name}`,
    unit,
    values: { 'in order': of(inOrder), 'at random': of(atRandom) },
  });
  return [
    row('', 'ms', ({ milliseconds }) => milliseconds),
    row(', processors busy', 'ms', ({ busy }) => busy),
    row(', heap and buffers once open', 'MiB', ({ bytes }) => bytes / MEBIBYTE),
    row(', at the most', 'MiB', ({ mostBytes }) => mostBytes / MEBIBYTE),
    row(', longest turn of the event loop', 'ms', ({ longestTurn }) => longestTurn),
  ];
}

async function open(copies: number, blockCount: number, blockAt: (i: number) => number): Promise<Opened> {
  await using place = await Place.create(blockCount * BLOCK_SIZE);
  const name = await volumeWithCopies(place, copies, blockAt);
  const child = new URL('./opening-child.ts', import.meta.url).pathname;
  return JSON.parse(
    execFileSync(process.execPath, ['--expose-gc', '--import', 'tsx', child, name], { encoding: 'utf8' }),
  );
}

const randomly = (): ((i: number) => number) => {
  const random = new SeededRandom('sparse');
  return () => random.below(TEBIBYTE_BLOCKS);
};

/** A snapshot with `copies` copies, each in a slot of its own, but without their data: opening does not look at it. */
async function volumeWithCopies(
  place: Place,
  copies: number,
  blockAt: (i: number) => number,
): Promise<string> {
  const volume = await place.volume('directory', false);
  const { name, size } = volume;
  await volume.close();
  await using device = await FileDevice.open(name, { writable: true });
  const environment = systemEnvironment;
  const store = await new DirectoryStore(`${name}.volsnap`).attach(device, { environment, writable: true });
  const storeId = guidFrom(environment.random);
  const information = describeSnapshot({
    snapshotId: storeId,
    setId: storeId,
    label: undefined,
    applicationInfo: undefined,
  });
  const area = await createDiffArea(await store.createArea(storeId), {
    storeId,
    epoch: 1n,
    information,
    blockCount: size / BLOCK_SIZE,
    length: Math.ceil(copies + copies / 500 + 16) * BLOCK_SIZE,
  });
  await fillTable(area, copies, blockAt);
  await store.control.publish({
    snapshot: {
      kind: 'snapshot',
      volumeSize: size,
      storeId,
      order: 1,
      flags: SnapshotFlag.visible,
      createdAt: 1n,
    },
    diffArea: area.item,
  });
  await area.close();
  await store.close();
  return name;
}

async function fillTable(area: DiffArea, copies: number, blockAt: (i: number) => number): Promise<void> {
  const group = 4096;
  for (let first = 0; first < copies; first += group) {
    const blocks = Array.from({ length: Math.min(group, copies - first) }, (_, i) => blockAt(first + i));
    const slots = area.reserve(blocks.length, blocks.length);
    if (slots === undefined) throw new Error('the diff area is too small');
    area.append([{ blocks, slots, checksums: blocks }]);
    await area.writeEntries();
    // Instead of a flush for each group, which would take most of the time: the whole is closed properly anyway.
    await area.flush();
  }
  await area.writeWatermark();
}

function memoryOfTable(copies: number, blockAt: (i: number) => number): number {
  const table = new BlockTable(TEBIBYTE_BLOCKS);
  for (let i = 0; i < copies; i++) table.set(blockAt(i), i + 5, 1);
  return table.memoryBytes / table.size;
}
