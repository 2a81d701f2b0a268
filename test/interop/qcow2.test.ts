/** What QEMU's tools make of exported qcow2 images: sound, small, and byte for byte the snapshot. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, open, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FileDevice } from '../../src/device/file-device.ts';
import { exportQcow2, type Qcow2Figures } from '../../src/export/qcow2.ts';
import { decodeQcow2Header } from '../../src/format/qcow2.ts';
import type { Snapshot } from '../../src/snapshot/snapshot.ts';
import { BLOCK_SIZE, roundUp } from '../../src/units.ts';
import { Volume } from '../../src/volume/volume.ts';
import { LAYOUTS, MEBIBYTE, World, type WorldOptions } from '../unit/engine/world.ts';
import { requireTool, run, runWell } from './support/writer-tools.ts';

const hasQemu = requireTool('qemu-img', 'qemu-io');
const DATA = process.env.VOLSNAP_SHARED_DATA ?? resolve(import.meta.dirname, '../../../shared/data');
const WINDOWS = join(DATA, 'windows-vss.qcow2');
const GIBIBYTE = 1024 * MEBIBYTE;

describe.skipIf(!hasQemu)('QEMU reads exported qcow2 images', () => {
  let folder = '';
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'volsnap-qcow2-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));
  const path = (name: string) => join(folder, name);

  /** Exports each snapshot, the first in full and the others since the one before; `1.qcow2`, `2.qcow2`, … */
  async function exportChain(volume: Volume): Promise<Qcow2Figures[]> {
    const all: Qcow2Figures[] = [];
    let since: Snapshot | undefined;
    for (const [index, snapshot] of volume.snapshots.entries()) {
      const target = path(`${index + 1}.qcow2`);
      await rm(target, { force: true });
      const backing = { name: `${index}.qcow2`, format: 'qcow2' } as const;
      all.push(await exportQcow2(volume, target, { snapshot, ...(since && { since, backing }) }));
      await expectSound(target);
      since = snapshot;
    }
    return all;
  }

  /** Neither errors nor leaks, nothing that the tool would say at all. */
  async function expectSound(image: string): Promise<void> {
    const said = await run('qemu-img', ['check', '--output=json', image]);
    const { 'image-end-offset': end, ...report } = JSON.parse(said.output);
    expect({ status: said.status, report }).toMatchObject({ status: 0, report: { 'check-errors': 0 } });
    for (const trouble of ['leaks', 'corruptions']) expect(report).not.toHaveProperty(trouble);
    expect(end).toBe((await readFile(image)).byteLength);
  }

  /** The image, read through its chain, has these bytes, and zeros up to a whole sector. */
  async function expectReads(image: string, bytes: Uint8Array): Promise<void> {
    const size = roundUp(bytes.byteLength, 512);
    await runWell('qemu-img', 'convert', '-O', 'raw', image, path('converted'));
    const converted = await readFile(path('converted'));
    expect(converted.byteLength).toBe(size);
    const wanted = new Uint8Array(size);
    wanted.set(bytes);
    expect(converted.equals(wanted)).toBe(true);
    await writeFile(path('wanted'), wanted);
    expect(await runWell('qemu-img', 'compare', '-F', 'raw', image, path('wanted'))).toBe(
      'Images are identical.\n',
    );
  }

  async function worldWith(options: WorldOptions): Promise<World> {
    const world = await World.create(options);
    for (let i = 0; i < 4; i++) {
      await world.snapshot();
      await world.writeRandomly(12);
    }
    return world;
  }

  test.each(LAYOUTS)('a full one and three increments over it (%s)', async (layout) => {
    for (const [size, filled] of [
      [8 * MEBIBYTE, true],
      [70 * MEBIBYTE + 5 * BLOCK_SIZE + 1000, false],
      [BLOCK_SIZE + 1, true],
    ] as const) {
      const world = await worldWith({ layout, size, filled, seed: `${layout} ${size}` });
      await exportChain(world.volume);
      for (const [index, { id }] of world.volume.snapshots.entries())
        await expectReads(path(`${index + 1}.qcow2`), world.model.of(id));
    }
  });

  test('with more clusters than one refcount block or L2 table has entries for', async () => {
    // 16 KiB clusters: 2048 in an L2 table, 8192 in a refcount block.
    const size = 200 * MEBIBYTE;
    const world = await World.create({ size, filled: false, seed: 'many' });
    await world.snapshot();
    const noise = world.random.fill(new Uint8Array(MEBIBYTE));
    for (let at = 0; at < 170 * MEBIBYTE; at += noise.byteLength) await world.write(at + 4096, noise);
    const { id } = await world.snapshot();
    const [, increment] = await exportChain(world.volume);
    expect(increment).toMatchObject({ clusterSize: BLOCK_SIZE });
    expect(increment?.fileBytes).toBeGreaterThan(160 * MEBIBYTE);
    await expectReads(path('2.qcow2'), world.model.of(id));
  });

  test('says where data and zeros are, and names the chain', async () => {
    const world = await World.create({ size: MEBIBYTE, filled: false });
    await world.writeBlock(4, 8);
    await world.snapshot();
    await world.writeBlock(6);
    await world.write(8 * BLOCK_SIZE, new Uint8Array(BLOCK_SIZE));
    await world.snapshot();
    await exportChain(world.volume);
    const map = JSON.parse(await runWell('qemu-img', 'map', '--output=json', path('2.qcow2')));
    const blocks = map.map(({ start, length, depth, data, zero }: Record<string, number>) => ({
      from: Number(start) / BLOCK_SIZE,
      count: Number(length) / BLOCK_SIZE,
      depth,
      is: data ? 'data' : zero ? 'zeros' : 'nothing',
    }));
    expect(blocks).toEqual([
      { from: 0, count: 4, depth: expect.anything(), is: 'zeros' },
      { from: 4, count: 2, depth: 1, is: 'data' },
      { from: 6, count: 1, depth: 0, is: 'data' },
      { from: 7, count: 1, depth: 1, is: 'data' },
      { from: 8, count: 1, depth: 0, is: 'zeros' },
      { from: 9, count: 3, depth: 1, is: 'data' },
      { from: 12, count: 52, depth: expect.anything(), is: 'zeros' },
    ]);
    const chain = JSON.parse(
      await runWell('qemu-img', 'info', '--backing-chain', '--output=json', path('2.qcow2')),
    );
    expect(chain).toMatchObject([
      {
        format: 'qcow2',
        'virtual-size': MEBIBYTE,
        'cluster-size': BLOCK_SIZE,
        'backing-filename': '1.qcow2',
        'backing-filename-format': 'qcow2',
        'dirty-flag': false,
        'format-specific': {
          data: { compat: '1.1', 'lazy-refcounts': false, 'refcount-bits': 16, corrupt: false },
        },
      },
      { format: 'qcow2', 'virtual-size': MEBIBYTE, 'cluster-size': 65_536 },
    ]);
  });

  test('can be written to, committed and rebased by QEMU, and keeps the name of its snapshot', async () => {
    const world = await worldWith({ size: 4 * MEBIBYTE + 512, seed: 'written' });
    await exportChain(world.volume);
    const [first, second, third] = world.volume.snapshots.map(({ id }) => world.model.of(id));
    if (first === undefined || second === undefined || third === undefined)
      throw new Error('too few snapshots');
    // A virtual machine may go on from an image.
    await runWell('qemu-io', '-f', 'qcow2', '-c', 'write -P 7 100k 40k', path('4.qcow2'));
    await runWell('qemu-io', '-f', 'qcow2', '-c', 'read -P 7 100k 40k', path('4.qcow2'));
    await expectSound(path('4.qcow2'));
    const before = decodeQcow2Header(await readFile(path('3.qcow2'))).origin;
    await runWell('qemu-img', 'rebase', '-u', '-b', './2.qcow2', '-F', 'qcow2', path('3.qcow2'));
    const { origin, backing } = decodeQcow2Header(await readFile(path('3.qcow2')));
    expect(origin).toEqual(before);
    expect(backing).toEqual({ name: './2.qcow2', format: 'qcow2' });
    await expectReads(path('3.qcow2'), third);
    // The oldest image leaves the chain: its content goes into the next one.
    await runWell('qemu-img', 'rebase', '-b', '', path('2.qcow2'));
    await expectSound(path('2.qcow2'));
    await expectReads(path('2.qcow2'), second);
    await runWell('qemu-img', 'commit', '-q', '-d', path('3.qcow2'));
    await expectReads(path('2.qcow2'), third);
  });

  test('over a raw export, and over an image that qemu-img made', async () => {
    const world = await worldWith({ size: MEBIBYTE + 700, seed: 'raw' });
    const [since, snapshot] = world.volume.snapshots;
    if (since === undefined || snapshot === undefined) throw new Error('too few snapshots');
    await writeFile(path('older.raw'), world.model.of(since.id));
    await runWell(
      'qemu-img',
      'convert',
      '-f',
      'raw',
      '-O',
      'qcow2',
      '-o',
      'compat=0.10',
      path('older.raw'),
      path('older.qcow2'),
    );
    for (const format of ['raw', 'qcow2'] as const) {
      const backing = { name: `older.${format}`, format };
      await rm(path('new.qcow2'), { force: true });
      await exportQcow2(world.volume, path('new.qcow2'), { snapshot, since, backing });
      await expectSound(path('new.qcow2'));
      await expectReads(path('new.qcow2'), world.model.of(snapshot.id));
    }
    const theirs = decodeQcow2Header(await readFile(path('older.qcow2')));
    expect(theirs).toMatchObject({
      size: MEBIBYTE + 1024,
      clusterBits: 16,
      backing: undefined,
      origin: undefined,
    });
  });

  test('is not there while it is written, on a device that held one', async () => {
    const world = await worldWith({ size: 4 * MEBIBYTE });
    const [snapshot] = world.volume.snapshots;
    if (snapshot === undefined) throw new Error('no snapshot');
    const target = path('device');
    await exportQcow2(world.volume, target, { snapshot });
    await using device = await FileDevice.open(target, { writable: true, exclusive: false });
    const controller = new AbortController();
    const attempt = exportQcow2(world.volume, device, {
      snapshot,
      signal: controller.signal,
      onProgress: () => controller.abort(),
    });
    await expect(attempt).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }));
    const said = await run('qemu-img', ['check', '-f', 'qcow2', target]);
    expect(said.status).not.toBe(0);
    expect(said.output).toContain('not in qcow2 format');
  });

  test('a volume of 1 TiB that is nearly empty is not read, in full or since', async () => {
    const image = path('large.img');
    await writeFile(image, '');
    await truncate(image, 1024 * GIBIBYTE);
    const { DirectoryStore } = await import('../../src/store/directory-store.ts');
    const store = new DirectoryStore(path('large.volsnap'));
    const device = await FileDevice.open(image, { writable: true });
    await Volume.initialize(device, { store });
    await using volume = await Volume.open(device, { store });
    const since = await volume.createSnapshot();
    const places = [0, 300 * GIBIBYTE + 3, 1024 * GIBIBYTE - 5];
    for (const place of places) await volume.write(place, Buffer.from('here!'));
    const snapshot = await volume.createSnapshot();
    const figures = await exportQcow2(volume, path('large.qcow2'), { snapshot, since });
    expect(figures).toMatchObject({ size: 1024 * GIBIBYTE, dataBytes: 3 * BLOCK_SIZE });
    expect(figures.fileBytes).toBeLessThan(MEBIBYTE);
    await expectSound(path('large.qcow2'));
    await runWell('qemu-img', 'rebase', '-u', '-b', image, '-F', 'raw', path('large.qcow2'));
    // To read a tebibyte takes longer than a test may.
    await rm(path('full.qcow2'), { force: true });
    const full = await exportQcow2(volume, path('full.qcow2'), { snapshot });
    expect(full).toMatchObject({ size: 1024 * GIBIBYTE, dataBytes: 3 * 65_536 });
    await expectSound(path('full.qcow2'));
    const file = await open(image, 'r+');
    for (const place of places) await file.write(Buffer.alloc(5), 0, 5, place);
    await file.close();
    for (const name of ['large.qcow2', 'full.qcow2']) {
      for (const place of places) {
        const read = ['-r', '-f', 'qcow2', '-c', `read -v ${place} 5`, path(name)];
        expect(await runWell('qemu-io', ...read)).toContain('68 65 72 65 21');
      }
    }
  });

  test.skipIf(!existsSync(WINDOWS))(
    'a shadow copy of Windows since the one before',
    async () => {
      execFileSync('qemu-img', ['convert', '-O', 'raw', WINDOWS, path('windows.img')]);
      const expected = JSON.parse(readFileSync(join(DATA, 'windows-vss.json'), 'utf8'));
      await using volume = await Volume.open(await FileDevice.open(path('windows.img')));
      const [full, increment] = await exportChain(volume);
      expect(full?.dataBytes).toBeLessThan(400 * MEBIBYTE);
      expect(increment?.dataBytes).toBeLessThan(10 * MEBIBYTE);
      for (const [index, { sha256 }] of expected.snapshots.entries()) {
        await runWell('qemu-img', 'convert', '-O', 'raw', path(`${index + 1}.qcow2`), path('converted'));
        expect((await runWell('sha256sum', path('converted'))).slice(0, 64)).toBe(sha256);
      }
    },
    240_000,
  );
});
