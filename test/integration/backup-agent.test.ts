/**
 * The example backup agent, whole: it backs up an ext4 file system that is written all the while, in full and then what
 * changed, and what it gives back is sound and as it was at the snapshot's moment.
 *
 * The writer rewrites one file in place, a sector after the other, so that the file system is sound at every moment and the
 * file says which moment that is: a beginning of one generation, the rest of the one before.
 */
import { execFile, spawnSync } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { backUp, restore, verify } from '../../docs/examples/backup-agent.js';
import { DirectoryStore, FileDevice, Volume, VolumeServer } from '../../src/index.js';
import { hasProgram } from './cli-support.js';

const run = promisify(execFile);
const ROOT = resolve(import.meta.dirname, '../..');
const MEBIBYTE = 1024 * 1024;
const SIZE = 16 * MEBIBYTE;
const BLOCK = 4096;
/** Blocks of the file that is rewritten. */
const DIARY_BLOCKS = 64;
const TOOLS = ['mkfs.ext4', 'debugfs', 'e2fsck'];
const PATH = `${process.env.PATH}:/usr/sbin:/sbin`;
const isMissing = !TOOLS.every(hasProgram);
let folder = '';
let image = '';

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'volsnap-agent-'));
  image = join(folder, 'disk.img');
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const tool = async (name: string, ...args: string[]) =>
  (await run(name, args, { env: { ...process.env, PATH } })).stdout;

/** An ext4 file system with a few files, `diary` among them. @returns where in the image the diary's blocks lie */
async function makeFileSystem(): Promise<number[]> {
  const files = join(folder, 'files');
  await run('mkdir', [files]);
  await writeFile(join(files, 'diary'), Buffer.alloc(DIARY_BLOCKS * BLOCK, pageOf(1)));
  await writeFile(join(files, 'other'), Buffer.alloc(MEBIBYTE, 'other'));
  await writeFile(image, '');
  await truncate(image, SIZE);
  await tool('mkfs.ext4', '-q', '-F', '-b', String(BLOCK), '-d', files, image);
  const blocks = (await tool('debugfs', '-R', 'blocks diary', image)).trim().split(/\s+/).map(Number);
  expect(blocks).toHaveLength(DIARY_BLOCKS);
  return blocks.map((block) => block * BLOCK);
}

/** A block of the diary. */
const pageOf = (generation: number) => Buffer.alloc(BLOCK, String(generation).padStart(8, '0'));

/** Writes generation after generation until it is stopped. */
function keepDiary(volume: Volume, places: readonly number[]) {
  let isStopped = false;
  let generation = 1;
  const ended = (async () => {
    while (!isStopped) {
      generation++;
      for (const place of places) await volume.write(place, pageOf(generation));
    }
  })();
  return {
    get generation() {
      return generation;
    },
    async stop() {
      isStopped = true;
      await ended;
    },
  };
}

/** The newest generation in a diary, of which it has a beginning, and of the one before it the rest. */
function momentOf(diary: Buffer): number {
  const generations = Array.from({ length: DIARY_BLOCKS }, (_, i) => {
    const page = diary.subarray(i * BLOCK, (i + 1) * BLOCK);
    const generation = Number(page.toString('latin1', 0, 8));
    expect(page.equals(pageOf(generation))).toBe(true);
    return generation;
  });
  const [newest = 0] = generations;
  const begun = generations.findIndex((generation) => generation !== newest);
  if (begun >= 0) expect(new Set(generations.slice(begun))).toEqual(new Set([newest - 1]));
  return newest;
}

/** Restores a backup and looks at it. */
async function restored(repository: string, name: string) {
  const path = join(folder, `restored-${name}.img`);
  await restore(repository, name, path);
  await tool('e2fsck', '-fn', path); // It fails unless the file system is sound.
  const out = join(folder, `diary-${name}`);
  await tool('debugfs', '-R', `dump diary ${out}`, path);
  return { bytes: await readFile(path), moment: momentOf(await readFile(out)) };
}

test.skipIf(isMissing)('the agent backs up a live file system, and gives it back', async () => {
  const places = await makeFileSystem();
  const repository = join(folder, 'repository');
  const device = await FileDevice.open(image, { writable: true });
  const store = new DirectoryStore(`${image}.volsnap`);
  await Volume.initialize(device, { store });
  await using volume = await Volume.open(device, { store, writeMode: 'writeback' });
  await using _ = await VolumeServer.start([volume]);
  const diary = keepDiary(volume, places);

  const full = await backUp(image, repository);
  expect(full).toMatchObject({ name: '000001', kind: 'full' });
  const moments = [diary.generation];
  const [first] = volume.snapshots;
  if (first === undefined) throw new Error('the snapshot of the last backup stays');
  const asItWas = await first.read(0, first.size);

  const second = await backUp(image, repository);
  moments.push(diary.generation);
  expect(second).toMatchObject({ name: '000002', kind: 'incremental' });
  expect(second.readBytes).toBeLessThan(full.readBytes);
  // An interrupted backup is none, and the next one goes on where the last ended.
  await expect(backUp(image, repository, AbortSignal.abort())).rejects.toThrow(/abort/);
  expect(volume.snapshots).toHaveLength(1);
  await diary.stop();
  const atTheEnd = await volume.read(0, volume.size);
  expect(await backUp(image, repository)).toMatchObject({ name: '000003', kind: 'incremental' });
  const nothing = await backUp(image, repository);
  expect(nothing).toEqual({ name: '000004', kind: 'incremental', readBytes: 0, newChunks: 0 });

  const [one, two, three] = await Promise.all(
    ['000001', '000002', '000003'].map((name) => restored(repository, name)),
  );
  expect(one?.bytes.equals(asItWas)).toBe(true);
  expect(three?.bytes.equals(atTheEnd)).toBe(true);
  expect(one?.moment).toBeLessThanOrEqual(two?.moment ?? 0);
  expect(one?.moment).toBeLessThanOrEqual(moments[0] ?? 0);
  expect(two?.moment).toBeLessThanOrEqual(moments[1] ?? 0);
  expect(await verify(repository)).toEqual([]);

  const [chunk = ''] = await readdir(join(repository, 'chunks'));
  await writeFile(join(repository, 'chunks', chunk), 'rotten');
  expect(await verify(repository)).toEqual([expect.stringContaining(`chunk ${chunk} is damaged`)]);
});

test('from the command line it opens what nobody serves; without its snapshot a backup is a full one', async () => {
  const path = join(folder, 'plain.img');
  const repository = join(folder, 'plain');
  await writeFile(path, Buffer.alloc(100_000, 'plain'));
  const store = new DirectoryStore(`${path}.volsnap`);
  const device = await FileDevice.open(path, { writable: true });
  await Volume.initialize(device, { store });
  await device.close();
  const agent = (...args: string[]) =>
    spawnSync(process.execPath, ['--import', 'tsx', 'docs/examples/backup-agent.ts', ...args], {
      cwd: ROOT,
      encoding: 'utf8',
    });
  expect(agent('backup', path, repository)).toMatchObject({
    status: 0,
    stdout: "{ name: '000001', kind: 'full', readBytes: 100000, newChunks: 2 }\n",
  });
  {
    await using volume = await Volume.open(await FileDevice.open(path, { writable: true }), { store });
    await volume.deleteOldest();
  }
  expect(await backUp(path, repository)).toMatchObject({ kind: 'full', readBytes: 100_000, newChunks: 0 });
  await restore(repository, '000002', join(folder, 'plain-restored.img'));
  expect(await readFile(join(folder, 'plain-restored.img'))).toEqual(await readFile(path));
});
