/** A store of volsnap that takes shadow copies of Windows over: libvshadow must find them as they were, and new snapshots as the volume was. */
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { BlockDevice } from '../../src/device/block-device.ts';
import { FileDevice } from '../../src/device/file-device.ts';
import { MemoryContent, MemoryDevice } from '../../src/device/memory-device.ts';
import { ReadOnlyError } from '../../src/errors.ts';
import { exportVss } from '../../src/export/vss.ts';
import type { ByteSource } from '../../src/snapshot/snapshot.ts';
import { InVolumeStore } from '../../src/store/in-volume-store.ts';
import { SeededRandom } from '../../src/testing/seeded-random.ts';
import { BLOCK_SIZE } from '../../src/units.ts';
import { Volume } from '../../src/volume/volume.ts';
import { ForeignStore } from '../../src/windows/foreign-store.ts';
import { readStoreMap } from '../../src/windows/store-map.ts';
import { hashesOfBlocks } from './support/block-hashes.ts';
import { describeUnless } from './support/describe-unless.ts';
import { Libvshadow, whyNoLibvshadow } from './support/libvshadow.ts';
import { randomWritableImage } from './support/random-windows-image.ts';
import { IMAGE, whyNoImage } from './support/real-volume.ts';

const IMAGES = Number(process.env.VOLSNAP_WINDOWS_IMAGES ?? 10);
const SEED = process.env.VOLSNAP_SEED ?? 'taken over';
const noLibvshadow = whyNoLibvshadow();

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'volsnap-taken-over-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Label of the snapshot that shadow copies are read through. */
const BASE = 'as volsnap found it';

/** What somebody must read: a hash of each block, `undefined` where Windows leaves it undefined. */
type Expected = (string | undefined)[];

async function hashesOf(source: ByteSource): Promise<string[]> {
  const hashes: string[] = [];
  const buffer = new Uint8Array(256 * BLOCK_SIZE);
  for (let at = 0; at < source.size; at += buffer.byteLength) {
    const part = buffer.subarray(0, source.size - at);
    await source.read(at, part);
    hashes.push(...hashesOfBlocks(part));
  }
  return hashes;
}

/** Of each shadow copy, oldest first. */
async function expectedOf(device: BlockDevice): Promise<Expected[]> {
  const store = await ForeignStore.open(device);
  const { stores, controlBlocks } = await readStoreMap(device, store);
  const all: Expected[] = [];
  for (const { snapshot, unused } of stores) {
    const read = (offset: number, target: Uint8Array) => snapshot.readInto(offset, target);
    const hashes: Expected = await hashesOf({ size: snapshot.size, read });
    for (const { start, end } of [...controlBlocks, ...stores.flatMap(({ layout }) => layout.ranges)])
      hashes.fill(undefined, start, end);
    all.push(hashes.map((hash, block) => (unused?.has(block) === true ? undefined : hash)));
  }
  return all;
}

/** Blocks of each that read otherwise and should not. */
const differing = (actual: readonly (readonly string[])[], expected: readonly Expected[]): number[][] =>
  expected.map((hashes, age) =>
    hashes.flatMap((hash, block) => (hash === undefined || hash === actual[age]?.[block] ? [] : [block])),
  );

/** Writes here and there, takes two snapshots, deletes one between. @returns what is read then, as it must be, oldest first */
async function useVolume(
  device: BlockDevice,
  copies: readonly Expected[],
  random: SeededRandom,
  { count, lengthMax }: { readonly count: number; readonly lengthMax: number },
): Promise<string[][]> {
  await using volume = await Volume.open(device);
  const found = [await hashesOf(volume)];
  for (const snapshot of volume.snapshots.slice(-1)) found.push(await hashesOf(snapshot));
  // The volume does not lead to the catalog of Windows any more.
  expect(differing(found.slice(1), found.slice(0, 1))).toEqual([[0]]);
  const expected: Expected[] = [...copies, ...found.slice(1)];
  const bytes = random.fill(new Uint8Array(lengthMax));
  const write = async () => {
    for (let left = count; left > 0; left--) {
      const length = random.between(1, lengthMax);
      const area = random.chance(0.3) ? 20 * BLOCK_SIZE : volume.size;
      await volume.write(random.below(area - length), bytes.subarray(0, length)).catch((error: unknown) => {
        if (!(error instanceof ReadOnlyError)) throw error;
      });
    }
  };
  await write();
  const middle = await volume.createSnapshot({ label: 'middle' });
  await write();
  await middle.delete({ wait: true });
  expected.push(await hashesOf(volume));
  await volume.createSnapshot({ label: 'last' });
  await write();
  const all: string[][] = [];
  for (const snapshot of volume.snapshots) all.push(await hashesOf(snapshot));
  expect(all).toHaveLength(expected.length);
  expect(differing(all, expected)).toEqual(expected.map(() => []));
  return all;
}

/** Also where Windows leaves them undefined. */
async function expectInLibvshadow(libvshadow: Libvshadow, path: string, expected: readonly string[][]) {
  const theirs = await libvshadow.read(path);
  const found = 'snapshots' in theirs ? theirs.snapshots.map(({ blocks }) => blocks) : [];
  expect(found, JSON.stringify(theirs).slice(0, 200)).toHaveLength(expected.length);
  expect(differing(found, expected)).toEqual(expected.map(() => []));
}

describeUnless(noLibvshadow, 'random volumes whose shadow copies are taken over', () => {
  test(`${IMAGES} of them read right in libvshadow`, async () => {
    await using libvshadow = new Libvshadow();
    for (let index = 0; index < IMAGES; index++) {
      const random = new SeededRandom(`${SEED}/${index}`);
      const content = new MemoryContent(randomWritableImage(random.fork('image')).bytes.slice());
      const copies = await expectedOf(new MemoryDevice(content));
      const store = new InVolumeStore({ reserve: 16 * 1024 * 1024 });
      await Volume.initialize(new MemoryDevice(content), { store, shadowCopies: 'keep' });
      const sizes = { count: 15, lengthMax: 3 * BLOCK_SIZE };
      const expected = await useVolume(new MemoryDevice(content), copies, random, sizes);
      const path = join(folder, 'image');
      await writeFile(path, content.bytes);
      await expectInLibvshadow(libvshadow, path, expected);
      if (index > 0) continue;
      const exported = join(folder, 'exported');
      await using volume = await Volume.open(new MemoryDevice(content), { readOnly: true });
      await exportVss(volume, exported);
      await expectInLibvshadow(libvshadow, exported, expected);
      // Copies lead to no shadow copies; that of the first snapshot to those that it has.
      const base = volume.snapshots.find(({ label }) => label === BASE);
      const sources = [volume, volume.snapshots.at(-1), base];
      const [live, last, original] = await Promise.all(sources.map((source) => source?.read(0, volume.size)));
      for (const copy of [live, last]) {
        await writeFile(exported, copy ?? '');
        expect(await libvshadow.read(exported)).toEqual({ snapshots: [] });
      }
      await writeFile(exported, original ?? '');
      const theirs = await libvshadow.read(exported);
      const found = 'snapshots' in theirs ? theirs.snapshots.map(({ blocks }) => blocks) : [];
      expect(found).toHaveLength(copies.length);
      expect(differing(found, copies)).toEqual(copies.map(() => []));
    }
  });
});

describeUnless(noLibvshadow ?? whyNoImage(), 'the volume of Windows', () => {
  test('keeps both shadow copies, and new snapshots, while it is written', { timeout: 600_000 }, async () => {
    const raw = join(folder, 'windows-vss.raw');
    execFileSync('qemu-img', ['convert', '-O', 'raw', IMAGE, raw]);
    const device = await FileDevice.open(raw, { writable: true });
    const copies = await expectedOf(device);
    const store = new InVolumeStore({ reserve: 256 * 1024 * 1024 });
    await Volume.initialize(device, { store, shadowCopies: 'keep' });
    const sizes = { count: 400, lengthMax: 100_000 };
    const expected = await useVolume(device, copies, new SeededRandom(SEED), sizes);
    expect(expected).toHaveLength(4);
    await using libvshadow = new Libvshadow();
    await expectInLibvshadow(libvshadow, raw, expected);
  });
});
