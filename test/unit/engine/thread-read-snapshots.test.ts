/** Snapshots whose copies another thread reads: the same bytes, and the same refusal of what rotted. */
import { mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { FileDevice } from '../../../src/device/file-device.ts';
import { IntegrityError } from '../../../src/errors.ts';
import { ThreadReads } from '../../../src/snapshot/thread-reads.ts';
import { DirectoryStore } from '../../../src/store/directory-store.ts';
import { InVolumeStore } from '../../../src/store/in-volume-store.ts';
import { SeededRandom } from '../../../src/testing/seeded-random.ts';
import { BLOCK_SIZE } from '../../../src/units.ts';
import { Volume } from '../../../src/volume/volume.ts';
import { shared } from '../device/shared.ts';
import { LAYOUTS, MEBIBYTE } from './world.ts';

const SIZE = 2 * MEBIBYTE;
const same = (left: Uint8Array, right: Uint8Array) => Buffer.compare(left, right) === 0;

describe.each(LAYOUTS)('a snapshot all of which was copied (%s)', (layout) => {
  /** @returns a snapshot, what it holds, and a way to let a byte of a copy rot */
  async function copied() {
    const folder = await mkdtemp(join(tmpdir(), 'volsnap-summed-'));
    onTestFinished(() => rm(folder, { recursive: true, force: true }));
    const path = join(folder, 'disk.img');
    const content = new SeededRandom('summed').fill(new Uint8Array(SIZE));
    await writeFile(path, content);
    const device = await FileDevice.open(path, { writable: true });
    const reserve = layout === 'in-volume' ? new InVolumeStore({ reserve: 8 * MEBIBYTE }) : undefined;
    const store = reserve ?? new DirectoryStore(`${path}.volsnap`);
    await Volume.initialize(device, { store });
    await device.close();
    const volume = await Volume.open(await FileDevice.open(path, { writable: true }));
    onTestFinished(() => volume.close());
    const snapshot = await volume.createSnapshot();
    await volume.write(0, new Uint8Array(SIZE));
    const rot = async (block: number) => {
      const names = await readdir(folder, { recursive: true, withFileTypes: true });
      for (const name of names.filter((each) => each.isFile())) {
        const file = join(name.parentPath, name.name);
        const at = (await readFile(file)).indexOf(
          content.subarray(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE),
        );
        if (at < 0) continue;
        const handle = await open(file, 'r+');
        await handle.write(Uint8Array.of((content[block * BLOCK_SIZE + 99] ?? 0) ^ 1), 0, 1, at + 99);
        await handle.close();
        return;
      }
      throw new Error(`no copy of block ${block}`);
    };
    return { volume, snapshot, content, rot };
  }

  test('reads the same into shared memory, in whole blocks and parts of them', async () => {
    const { snapshot, content } = await copied();
    const read = vi.spyOn(ThreadReads.prototype, 'begin');
    onTestFinished(() => read.mockRestore());
    const answers = () => Promise.all(read.mock.results.map(({ value }) => value?.done));
    const target = shared(SIZE);
    await vi.waitUntil(async () => {
      target.fill(0);
      await snapshot.read(0, target);
      expect(same(target, content)).toBe(true);
      return (await answers()).includes(true);
    }, 10_000);
    const odd = shared(SIZE - 30_000);
    await snapshot.read(12_345, odd);
    expect(same(odd, content.subarray(12_345, 12_345 + odd.byteLength))).toBe(true);
  });

  test('refuses a copy that rotted, whoever reads it', async () => {
    const { snapshot, content, rot } = await copied();
    const read = vi.spyOn(ThreadReads.prototype, 'begin');
    onTestFinished(() => read.mockRestore());
    await rot(70);
    const messages = new Set<string>();
    const attempt = (target: Uint8Array) =>
      snapshot.read(0, target).then(
        () => expect.unreachable('rot was returned as data'),
        (error: unknown) => {
          expect(error).toBeInstanceOf(IntegrityError);
          messages.add(String(error));
        },
      );
    await attempt(new Uint8Array(SIZE));
    const target = shared(SIZE);
    await vi.waitUntil(async () => {
      await attempt(target);
      const answers = await Promise.allSettled(read.mock.results.map(({ value }) => value?.done));
      return answers.some(({ status }) => status === 'rejected');
    }, 10_000);
    await attempt(target);
    expect([...messages]).toEqual([expect.stringContaining('the copy of block 70 ')]);
    const before = shared(MEBIBYTE);
    await snapshot.read(0, before);
    expect(same(before, content.subarray(0, MEBIBYTE))).toBe(true);
  });

  test.each([
    ['shared memory', () => shared(SIZE)],
    ['memory of the caller', () => new Uint8Array(SIZE)],
  ])('reads blocks that many younger snapshots have, into %s', async (_, memory) => {
    const { volume, snapshot: first, content } = await copied();
    const blocks = SIZE / BLOCK_SIZE;
    const later = new SeededRandom('later').fill(new Uint8Array(SIZE));
    await volume.write(0, later);
    const oldest = await volume.createSnapshot();
    for (let i = 0; i < 8; i++) {
      if (i > 0) await volume.createSnapshot();
      const part = new Uint8Array(BLOCK_SIZE).fill(i + 1);
      for (let block = i; block < blocks; block += 8) await volume.write(block * BLOCK_SIZE, part);
    }
    const begin = vi.spyOn(ThreadReads.prototype, 'begin');
    onTestFinished(() => begin.mockRestore());
    const target = memory();
    await vi.waitUntil(async () => {
      target.fill(1);
      await oldest.read(0, target);
      expect(same(target, later)).toBe(true);
      return (await Promise.all(begin.mock.results.map(({ value }) => value?.done))).includes(true);
    }, 10_000);
    await first.read(0, target);
    expect(same(target, content)).toBe(true);
  });
});
