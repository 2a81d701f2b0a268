/** What NTFS and ext2/3/4 say is unused, held against what their own tools say; and snapshots that leave it out. */

import { createHash } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, open, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { FileDevice } from '../../src/device/file-device.ts';
import { MemoryDevice } from '../../src/device/memory-device.ts';
import { autoFreeSpace } from '../../src/filesystem/auto.ts';
import type { FreeSpace } from '../../src/filesystem/free-space.ts';
import { DirectoryStore } from '../../src/store/directory-store.ts';
import { SeededRandom } from '../../src/testing/seeded-random.ts';
import { BLOCK_SIZE } from '../../src/units.ts';
import { Volume } from '../../src/volume/volume.ts';
import { requireTool, run, runWell } from '../interop/support/writer-tools.ts';

const MEBIBYTE = 1024 * 1024;
const hasExt = requireTool('mkfs.ext4', 'dumpe2fs', 'debugfs', 'e2fsck');
const hasNtfs = requireTool('mkntfs', 'ntfscp', 'ntfscat', 'ntfsfix');

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'volsnap-free-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

let images = 0;
async function newImage(size: number): Promise<string> {
  const path = join(folder, `${images++}.img`);
  await writeFile(path, '');
  await truncate(path, size);
  return path;
}

/** Some files of random sizes. */
async function someFiles(count: number, sizeMax: number, seed = 'files'): Promise<string> {
  const random = new SeededRandom(seed);
  const path = join(folder, `files-${images++}`);
  await mkdir(path);
  for (let i = 0; i < count; i++)
    await writeFile(join(path, `file-${i}`), random.fill(new Uint8Array(random.between(1, sizeMax))));
  return path;
}

async function ask(path: string, provider = autoFreeSpace()): Promise<FreeSpace> {
  const device = await FileDevice.open(path);
  try {
    return await provider.unusedBlocks(device, device.size, new AbortController().signal);
  } finally {
    await device.close();
  }
}

function unusedIn(answer: FreeSpace): number[] {
  if ('unsure' in answer) throw new Error(`unsure: ${answer.unsure}`);
  const blocks: number[] = [];
  for (const [index, byte] of answer.unused.entries())
    for (let bit = 0; bit < 8; bit++) if (((byte >>> bit) & 1) === 1) blocks.push(index * 8 + bit);
  return blocks;
}

/** Blocks of 16 KiB that are free as a whole, by units of a file system. */
function wholeBlocks(isFree: (unit: number) => boolean, unit: number, size: number): number[] {
  const blocks: number[] = [];
  for (let block = 0; (block + 1) * BLOCK_SIZE <= size; block++) {
    const first = Math.floor((block * BLOCK_SIZE) / unit);
    const end = Math.ceil(((block + 1) * BLOCK_SIZE) / unit);
    let free = true;
    for (let at = first; at < end && free; at++) free = isFree(at);
    if (free) blocks.push(block);
  }
  return blocks;
}

/** As `dumpe2fs` prints it: `Free blocks: 12-34, 56`, a line a group. */
async function freeByDumpe2fs(
  path: string,
): Promise<{ blockSize: number; isFree: (block: number) => boolean }> {
  const text = await runWell('dumpe2fs', path);
  const blockSize = Number(/^Block size: +(\d+)$/m.exec(text)?.[1]);
  // Of clusters it prints the first block.
  const clusterSize = Number(/^Cluster size: +(\d+)$/m.exec(text)?.[1] ?? blockSize);
  const free = new Set<number>();
  for (const [, list = ''] of text.matchAll(/^ +Free blocks: ([\d\-, ]+)$/gm)) {
    for (const range of list.split(',')) {
      const [first = '', last = first] = range.trim().split('-');
      for (let block = Number(first); block < Number(last) + clusterSize / blockSize; block++)
        free.add(block);
    }
  }
  return { blockSize, isFree: (block) => free.has(block) };
}

type ExtKind = readonly [name: string, mebibytes: number, program: string, args: readonly string[]];
const EXT_KINDS: readonly ExtKind[] = [
  ['ext4', 96, 'mkfs.ext4', []],
  ['ext4 of 4 KiB blocks', 300, 'mkfs.ext4', ['-b', '4096']],
  ['ext4 of 64 KiB blocks', 96, 'mkfs.ext4', ['-b', '65536']],
  ['ext4 with clusters', 200, 'mkfs.ext4', ['-b', '1024', '-O', 'bigalloc', '-C', '16384']],
  ['ext4 with meta groups', 150, 'mkfs.ext4', ['-b', '1024', '-O', 'meta_bg,^resize_inode']],
  ['ext4 with meta groups, 32 bit', 150, 'mkfs.ext4', ['-b', '1024', '-O', 'meta_bg,^resize_inode,^64bit']],
  ['ext4 without flexible groups', 96, 'mkfs.ext4', ['-b', '1024', '-O', '^flex_bg,^64bit']],
  ['ext4 with two backups', 96, 'mkfs.ext4', ['-b', '1024', '-O', 'sparse_super2,^resize_inode']],
  [
    'ext4 with checksums of descriptors alone',
    96,
    'mkfs.ext4',
    ['-b', '1024', '-O', '^metadata_csum,uninit_bg'],
  ],
  ['ext4 with a seed of its own', 96, 'mkfs.ext4', ['-b', '1024', '-O', 'metadata_csum_seed']],
  ['ext3', 64, 'mkfs.ext3', ['-b', '1024']],
  ['ext2', 64, 'mkfs.ext2', ['-b', '1024']],
];

describe.skipIf(!hasExt)('ext2/3/4', () => {
  test.each(EXT_KINDS)('%s: exactly what dumpe2fs calls free', async (_, mebibytes, program, args) => {
    const path = await newImage(mebibytes * MEBIBYTE + 5000);
    await runWell(program, '-q', '-F', ...args, '-d', await someFiles(20, 400_000), path);
    await runWell('debugfs', '-w', '-R', 'rm file-3', path);
    const { blockSize, isFree } = await freeByDumpe2fs(path);
    const unused = unusedIn(await ask(path));
    expect(unused).toEqual(wholeBlocks(isFree, blockSize, mebibytes * MEBIBYTE + 5000));
    expect(unused.length).toBeGreaterThan((mebibytes * MEBIBYTE) / BLOCK_SIZE / 2);
  });

  test.each([
    ['its journal is newer', 'feature needs_recovery', 'journal'],
    ['it was not unmounted', 'set_super_value state 0', 'not unmounted'],
    ['it has errors', 'set_super_value state 3', 'errors'],
    ['it has a feature that is unknown', 'set_super_value feature_incompat 0x80002c2', 'features'],
    ['a group counts wrong', 'set_block_group 0 free_blocks_count 1', 'free clusters'],
  ])('is not sure where %s', async (_, command, reason) => {
    const path = await newImage(16 * MEBIBYTE);
    await runWell('mkfs.ext4', '-q', '-F', '-O', '^metadata_csum', path);
    expect(unusedIn(await ask(path)).length).toBeGreaterThan(0);
    await runWell('debugfs', '-w', '-R', command, path);
    expect(await ask(path)).toEqual({ unsure: expect.stringContaining(reason) });
  });

  test('one without a journal is believed, where it was not unmounted, if it is said to be frozen', async () => {
    const path = await newImage(16 * MEBIBYTE);
    for (const [program, journal] of [
      ['mkfs.ext2', false],
      ['mkfs.ext4', true],
    ] as const) {
      await runWell(program, '-q', '-F', path);
      await runWell('debugfs', '-w', '-R', 'set_super_value state 0', path);
      expect(await ask(path)).toHaveProperty('unsure');
      expect(await ask(path, autoFreeSpace({ frozen: true }))).toHaveProperty(journal ? 'unsure' : 'unused');
    }
  });

  test('is not sure where a checksum is wrong, be it of the superblock, a descriptor or a bitmap', async () => {
    const path = await newImage(16 * MEBIBYTE);
    await runWell('mkfs.ext4', '-q', '-F', '-b', '1024', path);
    const bitmap = Number(/Block bitmap at (\d+)/.exec(await runWell('dumpe2fs', path))?.[1]);
    for (const [at, what] of [
      [1024 + 0x30, 'superblock'],
      [2048 + 0xc, 'descriptor'],
      [bitmap * 1024 + 900, 'bitmap'],
    ] as const) {
      const bytes = await readFile(path);
      bytes[at] = (bytes[at] ?? 0) ^ 1;
      const device = new MemoryDevice(new Uint8Array(bytes));
      const answer = await autoFreeSpace().unusedBlocks(device, device.size, new AbortController().signal);
      expect(answer).toEqual({ unsure: expect.stringMatching(`${what}.*checksum`) });
    }
  });

  test('is not sure of a volume that is smaller than the file system', async () => {
    const path = await newImage(16 * MEBIBYTE);
    await runWell('mkfs.ext4', '-q', '-F', path);
    await truncate(path, 15 * MEBIBYTE);
    expect(await ask(path)).toHaveProperty('unsure');
    await truncate(path, 1500);
    expect(await ask(path)).toHaveProperty('unsure');
  });
});

const FROZEN = autoFreeSpace({ frozen: true });

const NTFS_KINDS = [
  ['clusters of 4 KiB', 64, 4096],
  ['clusters of 512 bytes', 40, 512],
  ['clusters of 64 KiB', 256, 65_536],
  ['clusters of 2 MiB', 600, 2 * MEBIBYTE],
] as const;

describe.skipIf(!hasNtfs)('NTFS', () => {
  test.each(NTFS_KINDS)('%s: exactly what $Bitmap calls free', async (_, mebibytes, cluster) => {
    const size = mebibytes * MEBIBYTE;
    const path = await newImage(size);
    await runWell('mkntfs', '-F', '-q', '-Q', '-s', '512', '-c', String(cluster), path);
    const files = await someFiles(4, 300_000);
    for (let i = 0; i < 4; i++) await runWell('ntfscp', '-q', path, join(files, `file-${i}`), `file-${i}`);
    const out = join(folder, 'bitmap');
    await runWell('sh', '-ec', `ntfscat "$1" '$Bitmap' > "$2"`, 'sh', path, out);
    const bits = await readFile(out);
    const clusters = Math.floor((size - 512) / cluster);
    const isFree = (at: number) => at < clusters && (((bits[at >>> 3] ?? 0xff) >>> (at & 7)) & 1) === 0;
    expect(unusedIn(await ask(path, FROZEN))).toEqual(wholeBlocks(isFree, cluster, size));
  });

  test('is not sure of one that is marked dirty, or whose log was not closed, unless it is said to be frozen', async () => {
    const path = await newImage(16 * MEBIBYTE);
    await runWell('mkntfs', '-F', '-q', '-Q', '-s', '512', path);
    expect(await ask(path)).toEqual({ unsure: expect.stringContaining('its log is empty') });
    const clean = unusedIn(await ask(path, FROZEN));
    const bytes = await readFile(path);
    const at = (text: string, from = 0) => bytes.indexOf(text, from, 'latin1');
    // The log is full of ones until Windows writes there. A restart page of a volume that is in use:
    const mft = bytes.readUInt32LE(0x30) * 4096;
    const log = bytes.indexOf(Buffer.alloc(8192, 0xff), 4096);
    expect(log % 4096).toBe(0);
    const page = Buffer.alloc(4096);
    page.write('RSTR', 0, 'latin1');
    page.writeUInt16LE(0x1e, 4);
    page.writeUInt16LE(9, 6);
    page.writeUInt32LE(4096, 0x10);
    page.writeUInt32LE(4096, 0x14);
    page.writeUInt16LE(0x30, 0x18);
    page.writeBigUInt64LE(77n, 0x30);
    page.writeUInt16LE(1, 0x38);
    for (let end = 510; end < 4096; end += 512) page.writeUInt16LE(0, end);
    const withLog = async (client: number, flags: number) => {
      page.writeUInt16LE(client, 0x30 + 0xc);
      page.writeUInt16LE(flags, 0x30 + 0xe);
      const changed = Buffer.from(bytes);
      page.copy(changed, log);
      page.copy(changed, log + 4096);
      await writeFile(path, changed);
      return ask(path);
    };
    expect(await withLog(0, 0)).toEqual({ unsure: expect.stringContaining('its log is newer') });
    expect(unusedIn(await ask(path, FROZEN))).toEqual(clean);
    expect(unusedIn(await withLog(0, 2))).toEqual(clean);
    expect(unusedIn(await withLog(0xffff, 0))).toEqual(clean);
    // Record 3 is $Volume; attribute 0x70 holds the flags.
    const record = mft + 3 * 1024;
    expect(at('FILE', record)).toBe(record);
    const information = bytes.indexOf(Buffer.from([0x70, 0, 0, 0]), record + 0x38);
    const dirty = Buffer.from(bytes);
    const value = information + dirty.readUInt16LE(information + 0x14);
    dirty.writeUInt16LE(dirty.readUInt16LE(value + 0xa) | 1, value + 0xa);
    await writeFile(path, dirty);
    expect(await ask(path)).toEqual({ unsure: expect.stringContaining('dirty') });
    expect(await ask(path, FROZEN)).toEqual({
      unsure: expect.stringContaining('dirty'),
    });
  });
});

const hashOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

interface Kind {
  readonly name: string;
  readonly unusedSpace: 'auto' | 'frozen';
  readonly canRun: boolean;
  format(image: string): Promise<unknown>;
  add(image: string, files: string, names: readonly string[]): Promise<unknown>;
  remove?(image: string, names: readonly string[]): Promise<unknown>;
  read(image: string, name: string, to: string): Promise<unknown>;
  check(image: string): Promise<{ status: number | null; output: string }>;
}

const KINDS: readonly Kind[] = [
  {
    name: 'ext4',
    unusedSpace: 'auto',
    canRun: hasExt,
    format: (image) => runWell('mkfs.ext4', '-q', '-F', image),
    add: async (image, files, names) => {
      const script = `${image}.script`;
      await writeFile(
        script,
        names.map((name) => `rm ${name}\nwrite ${join(files, name)} ${name}\n`).join(''),
      );
      await runWell('debugfs', '-w', '-f', script, image);
    },
    remove: async (image, names) => {
      const script = `${image}.script`;
      await writeFile(script, names.map((name) => `rm ${name}\n`).join(''));
      await runWell('debugfs', '-w', '-f', script, image);
    },
    read: (image, name, to) => runWell('debugfs', '-R', `dump ${name} ${to}`, image),
    check: (image) => run('e2fsck', ['-fn', image]),
  },
  {
    name: 'NTFS',
    unusedSpace: 'frozen',
    canRun: hasNtfs,
    format: (image) => runWell('mkntfs', '-F', '-q', '-Q', '-s', '512', image),
    add: (image, files, names) =>
      runWell(
        'sh',
        '-ec',
        'i=$1; f=$2; shift 2; for n; do ntfscp -q "$i" "$f/$n" "$n"; done',
        'sh',
        image,
        files,
        ...names,
      ),
    read: (image, name, to) => runWell('sh', '-ec', 'ntfscat -q "$1" "$2" > "$3"', 'sh', image, name, to),
    check: (image) => run('ntfsfix', ['-n', image]),
  },
];

const SIZE = Number(process.env.VOLSNAP_UNUSED_MIB ?? 48) * MEBIBYTE;

describe.each(KINDS)('a snapshot of $name that leaves out what is unused', (kind) => {
  test.skipIf(!kind.canRun)('keeps every file, and takes fewer copies', { timeout: 600_000 }, async () => {
    const image = await newImage(SIZE);
    onTestFinished(() => rm(image, { force: true }));
    // No room of the volume is blank: it was full once.
    await writeFile(image, new SeededRandom('junk').fill(new Uint8Array(SIZE)));
    await kind.format(image);
    const sizeMax = Math.floor(SIZE / 100);
    const files = await someFiles(60, sizeMax);
    const names = Array.from({ length: 60 }, (_, i) => `file-${i}`);
    await kind.add(image, files, names.slice(0, 40));
    await kind.remove?.(image, names.slice(0, 5));
    const kept = names.slice(kind.remove === undefined ? 0 : 5, 40);
    const hashes = new Map<string, string>();
    for (const name of kept) hashes.set(name, hashOf(await readFile(join(files, name))));

    // Then a third is written anew, and as many files again are added.
    const changed = `${image}.changed`;
    await copyFile(image, changed);
    const newer = await someFiles(60, sizeMax, 'newer');
    await kind.add(changed, newer, names.slice(28, 60));
    const copies = { plain: 0, skipping: 0 };
    for (const way of ['plain', 'skipping'] as const) {
      const path = `${image}.${way}`;
      await copyFile(image, path);
      const device = await FileDevice.open(path, { writable: true });
      await Volume.initialize(device, { store: new DirectoryStore(`${path}.volsnap`) });
      await device.close();
      const volume = await Volume.open(await FileDevice.open(path, { writable: true }));
      const snapshot = await volume.createSnapshot(way === 'plain' ? {} : { unusedSpace: kind.unusedSpace });
      if (way === 'skipping') expect(snapshot.unusedBytes).toBeGreaterThan(SIZE / 4);
      await writeDifferences(volume, changed);
      const { copiedBlocks, zeroBlocks } = volume.figures.copies;
      copies[way] = copiedBlocks + zeroBlocks;
      const out = `${image}.out`;
      await writeFile(out, await snapshot.read(0, snapshot.size));
      await volume.close();
      const { status, output } = await kind.check(out);
      expect(status, output).toBe(0);
      for (const [name, hash] of hashes) {
        await kind.read(out, name, join(folder, 'one'));
        expect(hashOf(await readFile(join(folder, 'one'))), `${name}, ${way}`).toBe(hash);
      }
      await rm(path);
    }
    console.info(
      `${kind.name} of ${SIZE / MEBIBYTE} MiB: ${copies.plain} copies, ${copies.skipping} without what is unused`,
    );
    expect(copies.skipping).toBeLessThan(copies.plain / 2);
  });
});

/** Writes the blocks of 4 KiB that differ. */
async function writeDifferences(volume: Volume, path: string): Promise<void> {
  const unit = 4096;
  await using file = await open(path);
  const wanted = Buffer.alloc(MEBIBYTE);
  for (let at = 0; at < volume.size; at += MEBIBYTE) {
    const { bytesRead } = await file.read(wanted, 0, MEBIBYTE, at);
    const there = Buffer.from(await volume.read(at, bytesRead));
    for (let from = 0; from < bytesRead; from += unit)
      if (wanted.compare(there, from, from + unit, from, from + unit) !== 0)
        await volume.write(at + from, wanted.subarray(from, from + unit));
  }
}
