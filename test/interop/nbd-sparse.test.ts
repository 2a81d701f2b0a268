/** A served volume that is mostly hole: what clients do to all of it costs what it holds, and space comes back. */
import { readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Bench, expectSame, MEBIBYTE, noise } from '../integration/cli-support.ts';
import { canMount, fuse, mount } from './support/mounts.ts';
import { Served } from './support/served.ts';
import { requireTool, run, runWell } from './support/writer-tools.ts';

const SIZE = 2 ** 40;

describe.skipIf(!canMount() || !requireTool('nbdfuse', 'nbdinfo', 'mkfs.ext4', 'e2fsck'))(
  '1 TiB with holes',
  () => {
    test('is formatted, trimmed and discarded; its snapshot stays', async () => {
      const bench = new Bench();
      const volume = 'disk.img';
      const image = bench.path(volume);
      await writeFile(image, '');
      await truncate(image, SIZE);
      bench.ok(['init', volume]);
      const served = await Served.start(bench, volume);
      const spaceOf = async () => (await stat(image)).blocks * 512;
      const { path: disk } = await fuse(bench, 'raw', served.uri('live'));
      await runWell('mkfs.ext4', '-q', '-F', disk);
      const folder = await mount(bench, 'new', disk);
      await writeFile(`${folder}/file`, noise(32 * MEBIBYTE, 1));
      await runWell('sync', '-f', folder);
      const id = bench.snapshot(volume);
      const full = await spaceOf();
      await rm(`${folder}/file`);
      await runWell('sync', '-f', folder);
      await runWell('fstrim', folder);
      expect(full - (await spaceOf())).toBeGreaterThan(31 * MEBIBYTE);
      await runWell('umount', folder);
      await runWell('e2fsck', '-fn', disk);

      const loop = (await runWell('losetup', '-f', '--show', disk)).trim();
      onTestFinished(() => run('losetup', ['-d', loop]).then(() => undefined));
      await runWell('blkdiscard', '-f', loop);
      const map: unknown = JSON.parse(await runWell('nbdinfo', '--json', '--map', served.uri('live')));
      expect(map).toEqual([{ offset: 0, length: SIZE, type: 3, description: 'hole,zero' }]);

      const past = await fuse(bench, 'snapshot', served.uri(`snapshot/${id}`));
      const old = await mount(bench, 'old', past.path, 'ro,noload');
      expectSame(await readFile(`${old}/file`), noise(32 * MEBIBYTE, 1));
    });
  },
);
