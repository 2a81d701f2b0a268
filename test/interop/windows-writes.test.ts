/** Volumes of Windows after volsnap wrote to them: libvshadow must find every shadow copy as it was, but for what Windows left undefined. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FileDevice } from '../../src/device/file-device.ts';
import { MemoryDevice } from '../../src/device/memory-device.ts';
import { NoSpaceError, ReadOnlyError } from '../../src/errors.ts';
import { SeededRandom } from '../../src/testing/seeded-random.ts';
import { BLOCK_SIZE } from '../../src/units.ts';
import { Volume } from '../../src/volume/volume.ts';
import { ForeignStore } from '../../src/windows/foreign-store.ts';
import { readStoreMap, type StoreMap } from '../../src/windows/store-map.ts';
import { hashesOfBlocks } from './support/block-hashes.ts';
import { describeUnless } from './support/describe-unless.ts';
import { Libvshadow, whyNoLibvshadow } from './support/libvshadow.ts';
import { randomWritableImage } from './support/random-windows-image.ts';
import { DESCRIPTION, IMAGE, whyNoImage } from './support/real-volume.ts';

const IMAGES = Number(process.env.VOLSNAP_WINDOWS_IMAGES ?? 10);
const SEED = process.env.VOLSNAP_SEED ?? 'writes';
const noLibvshadow = whyNoLibvshadow();

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'volsnap-windows-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describeUnless(noLibvshadow, 'random volumes that are written', () => {
  test(`${IMAGES} of them read alike in libvshadow afterwards, and as before`, async () => {
    await using libvshadow = new Libvshadow();
    for (let index = 0; index < IMAGES; index++) {
      const seed = `${SEED}/${index}`;
      const random = new SeededRandom(seed);
      const { bytes } = randomWritableImage(random.fork('image'));
      const undefinedIn = undefinedBlocks(await mapOf(new MemoryDevice(bytes)), bytes.byteLength);
      const before = await blockHashes(await ForeignStore.open(new MemoryDevice(bytes)));
      await writeAbout(new MemoryDevice(bytes), random, 40, 3 * BLOCK_SIZE);
      const path = join(folder, 'image');
      await writeFile(path, bytes);
      const theirs = await libvshadow.read(path);
      const after = 'snapshots' in theirs ? theirs.snapshots.map(({ blocks }) => [...blocks]) : theirs;
      expect(await blockHashes(await ForeignStore.open(new MemoryDevice(bytes))), seed).toEqual(after);
      expect(differing(before, after, undefinedIn), `VOLSNAP_SEED image ${seed}`).toEqual(
        before.map(() => []),
      );
    }
  });
});

describeUnless(noLibvshadow ?? whyNoImage(), 'the volume of Windows', () => {
  test('keeps both shadow copies while it is written', { timeout: 600_000 }, async () => {
    const raw = join(folder, 'windows-vss.raw');
    execFileSync('qemu-img', ['convert', '-O', 'raw', IMAGE, raw]);
    const opened = await FileDevice.open(raw);
    const map = await mapOf(opened);
    const before = await blockHashes(await ForeignStore.open(opened));
    await opened.close();
    const copies = await writeAbout(
      await FileDevice.open(raw, { writable: true }),
      new SeededRandom(SEED),
      1500,
      100_000,
    );
    expect(copies).toBeGreaterThan(50);
    await using libvshadow = new Libvshadow();
    const theirs = await libvshadow.read(raw);
    const after = 'snapshots' in theirs ? theirs.snapshots.map(({ blocks }) => [...blocks]) : theirs;
    expect(differing(before, after, undefinedBlocks(map, 2 ** 30))).toEqual([[], []]);
    // Of the newest Windows leaves nothing undefined: what was unused reads as zeros.
    const hash = createHash('sha256');
    const device = await FileDevice.open(raw);
    const newest = (await ForeignStore.open(device)).snapshots[1];
    for (let at = 0; newest !== undefined && at < newest.size; at += 2 ** 22)
      hash.update(await newest.read(at, 2 ** 22));
    await device.close();
    const expected = JSON.parse(readFileSync(DESCRIPTION, 'utf8'));
    expect(hash.digest('hex')).toBe(expected.snapshots[1].sha256);
  });
});

const mapOf = async (device: FileDevice | MemoryDevice): Promise<StoreMap> =>
  readStoreMap(device, await ForeignStore.open(device));

/** Of each shadow copy, oldest first: what it declares unused, and the stores. */
function undefinedBlocks({ stores, controlBlocks }: StoreMap, size: number): Set<number>[] {
  const files = [...controlBlocks, ...stores.flatMap(({ layout }) => layout.ranges)];
  return stores.map(({ unused }) => {
    const blocks = new Set<number>();
    for (const { start, end } of files) for (let block = start; block < end; block++) blocks.add(block);
    for (let block = 0; block * BLOCK_SIZE < size; block++) if (unused?.has(block)) blocks.add(block);
    return blocks;
  });
}

async function blockHashes({ snapshots }: ForeignStore): Promise<string[][]> {
  const all: string[][] = [];
  for (const snapshot of snapshots) {
    const hashes: string[] = [];
    const buffer = new Uint8Array(256 * BLOCK_SIZE);
    for (let at = 0; at < snapshot.size; at += buffer.byteLength) {
      const part = buffer.subarray(0, snapshot.size - at);
      await snapshot.readInto(at, part);
      hashes.push(...hashesOfBlocks(part));
    }
    all.push(hashes);
  }
  return all;
}

/** Blocks of each shadow copy that read otherwise and should not. */
const differing = (
  before: readonly (readonly string[])[],
  after: unknown,
  undefinedIn: readonly ReadonlySet<number>[],
): number[][] =>
  before.map((hashes, age) =>
    hashes.flatMap((hash, block) =>
      undefinedIn[age]?.has(block) || (after as string[][])[age]?.[block] === hash ? [] : [block],
    ),
  );

/** Writes here and there, some at once; what would meet the stores, or has no room, is refused. @returns copies made */
async function writeAbout(
  device: FileDevice | MemoryDevice,
  random: SeededRandom,
  count: number,
  lengthMax: number,
): Promise<number> {
  await using volume = await Volume.open(device, { shadowCopies: 'keep' });
  const bytes = random.fill(new Uint8Array(lengthMax));
  for (let left = count; left > 0; left -= 8) {
    const writes = Array.from({ length: 8 }, () => {
      const length = random.between(1, lengthMax);
      const area = random.chance(0.3) ? 20 * BLOCK_SIZE : volume.size;
      return volume.write(random.below(area - length), bytes.subarray(0, length));
    });
    for (const write of await Promise.allSettled(writes)) {
      if (write.status === 'fulfilled') continue;
      if (!(write.reason instanceof ReadOnlyError || write.reason instanceof NoSpaceError))
        throw write.reason;
    }
  }
  return volume.figures.copies.copiedBlocks;
}
