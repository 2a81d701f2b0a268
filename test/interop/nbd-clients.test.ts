/** Clients that people use, against live and snapshot exports of `volsnap serve`. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { Bench, expectSame, MEBIBYTE, noise } from '../integration/cli-support.ts';
import { canMount, fuse, mount } from './support/mounts.ts';
import { Served } from './support/served.ts';
import { requireTool, run, runWell } from './support/writer-tools.ts';

const SIZE = 32 * MEBIBYTE;
const CHANGED = 5 * MEBIBYTE;

/** A served volume with a snapshot, after which a stretch was changed. */
async function setUp() {
  const bench = new Bench();
  const before = noise(SIZE, 1);
  const after = Buffer.from(before);
  after.fill(noise(MEBIBYTE, 2), CHANGED, CHANGED + MEBIBYTE);
  const volume = await bench.volume('disk.img', before);
  const id = bench.snapshot(volume);
  bench.ok(['write', volume, '--offset', String(CHANGED)], after.subarray(CHANGED, CHANGED + MEBIBYTE));
  await writeFile(bench.path('before.img'), before);
  await writeFile(bench.path('after.img'), after);
  const served = await Served.start(bench, volume);
  return {
    bench,
    before,
    after,
    volume,
    id,
    served,
    live: served.uri(),
    snapshot: served.uri(`snapshot/${id}`),
  };
}

interface MapExtent {
  readonly offset: number;
  readonly length: number;
  readonly type: number;
  readonly description?: string;
}

const qemuIo = (uri: string, options: readonly string[], ...commands: readonly string[]) =>
  run('qemu-io', ['-f', 'raw', ...options, ...commands.flatMap((each) => ['-c', each]), uri]);

describe.skipIf(!requireTool('qemu-img', 'qemu-io'))('QEMU', () => {
  test('qemu-img reads, compares, maps and converts both', async () => {
    const { bench, after, before, live, snapshot } = await setUp();
    const info = JSON.parse(await runWell('qemu-img', 'info', '--output=json', live));
    expect(info).toMatchObject({ 'virtual-size': SIZE, format: 'raw' });
    for (const [uri, image] of [
      [live, 'after.img'],
      [snapshot, 'before.img'],
    ] as const) {
      await runWell('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', uri, bench.path(image));
      const map: { start: number; length: number }[] = JSON.parse(
        await runWell('qemu-img', 'map', '--output=json', '-f', 'raw', uri),
      );
      expect(map.reduce((sum, { length }) => sum + length, 0)).toBe(SIZE);
    }
    await runWell('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', live, bench.path('live.raw'));
    await runWell('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', snapshot, bench.path('old.qcow2'));
    await runWell('qemu-img', 'check', bench.path('old.qcow2'));
    await runWell('qemu-img', 'convert', '-O', 'raw', bench.path('old.qcow2'), bench.path('old.raw'));
    expectSame(await readFile(bench.path('live.raw')), after);
    expectSame(await readFile(bench.path('old.raw')), before);
  });

  test('qemu-img writes a whole image into the volume; the snapshot stays', async () => {
    const { bench, before, live, snapshot } = await setUp();
    const other = noise(SIZE, 3);
    await writeFile(bench.path('other.img'), other);
    await runWell('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', bench.path('other.img'), live);
    await runWell('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', live, bench.path('other.img'));
    await runWell('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', snapshot, bench.path('old.raw'));
    expectSame(await readFile(bench.path('old.raw')), before);
  });

  test('qemu-io writes, zeroes, discards, flushes and reads what it wrote', async () => {
    const { live, snapshot } = await setUp();
    const { output } = await qemuIo(
      live,
      [],
      'write -P 0x5a 1M 64k',
      'write -f -P 0x5b 1100001 777',
      'read -P 0x5b 1100001 777',
      'write -z 2M 128k',
      'read -P 0 2M 128k',
      'write -z -u 3M 1M',
      'read -P 0 3M 1M',
      'discard 4M 64k',
      'aio_write -P 0x11 6M 32k',
      'aio_write -P 0x12 7M 32k',
      'aio_flush',
      'flush',
      'read -P 0x11 6M 32k',
      'read -P 0x12 7M 32k',
    );
    expect(output).not.toMatch(/failed|error/i);
    const refused = await run('qemu-io', ['-f', 'raw', '-c', 'write 0 512', snapshot]);
    expect(refused.output).toMatch(/read-only|permission denied/i);
  });

  test('qemu-io reads in a snapshot what was there, at any place, after it was overwritten on the volume', async () => {
    const { bench, volume, served, live } = await setUp();
    const places = ['0 64k', '1100001 777', '5200000 3M', '31M 1M'];
    const onAll = (command: string) => places.map((place) => `${command} ${place}`);
    const verified = async (uri: string, pattern: string) => {
      const { status, output } = await qemuIo(uri, ['-r'], ...onAll(`read -P ${pattern}`));
      expect(output.match(/^read /gm)).toHaveLength(places.length);
      return status === 0 && !/failed|error/i.test(output);
    };
    await qemuIo(live, [], ...onAll('write -P 0x11'), 'flush');
    const snapshot = served.uri(`snapshot/${bench.snapshot(volume)}`);
    await qemuIo(live, [], ...onAll('write -P 0x22'), 'flush');
    expect(await verified(snapshot, '0x11')).toBe(true);
    expect(await verified(live, '0x22')).toBe(true);
    // Other content would be seen.
    expect(await verified(snapshot, '0x22')).toBe(false);
  });
});

describe.skipIf(!requireTool('nbdinfo', 'nbdcopy'))('libnbd', () => {
  test('nbdinfo sees what the server can do', async () => {
    const { live, snapshot } = await setUp();
    const [about] = JSON.parse(await runWell('nbdinfo', '--json', live)).exports;
    expect(about).toMatchObject({
      'export-size': SIZE,
      is_read_only: false,
      can_cache: true,
      can_df: true,
      can_fast_zero: true,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      block_size_minimum: 1,
      block_size_preferred: 16_384,
      block_size_maximum: 32 * MEBIBYTE,
    });
    const [old] = JSON.parse(await runWell('nbdinfo', '--json', snapshot)).exports;
    expect(old).toMatchObject({ 'export-size': SIZE, is_read_only: true, can_multi_conn: true });
  });

  test('nbdinfo lists the exports as they come and go', async () => {
    const { bench, volume, id, live } = await setUp();
    const names = async () =>
      JSON.parse(await runWell('nbdinfo', '--list', '--json', live)).exports.map(
        (each: { 'export-name': string }) => each['export-name'],
      );
    expect(await names()).toEqual(['', 'live', `snapshot/${id}`]);
    const second = bench.snapshot(volume);
    expect(await names()).toEqual(['', 'live', `snapshot/${id}`, `snapshot/${second}`]);
    bench.ok(['delete', volume, '--oldest']);
    expect(await names()).toEqual(['', 'live', `snapshot/${second}`]);
  });

  test('nbdinfo maps what is allocated, and what changed', async () => {
    const { bench, volume, id, served, live } = await setUp();
    const map = async (context: string, uri: string): Promise<MapExtent[]> =>
      JSON.parse(await runWell('nbdinfo', '--json', `--map=${context}`, uri));
    const allocation = await map('base:allocation', live);
    expect(allocation.reduce((sum, { length }) => sum + length, 0)).toBe(SIZE);
    const changed = { offset: CHANGED, length: MEBIBYTE, type: 1 };
    const dirty = await map(`qemu:dirty-bitmap:since-${id}`, live);
    expect(dirty.filter(({ type }) => type === 1)).toMatchObject([changed]);
    expect(dirty.reduce((sum, { length }) => sum + length, 0)).toBe(SIZE);
    const second = bench.snapshot(volume);
    const between = await map(`volsnap:changed:${id}..${second}`, served.uri(`snapshot/${second}`));
    expect(between.filter(({ type }) => type === 1)).toMatchObject([changed]);
    const since = await map(`qemu:dirty-bitmap:since-${second}`, live);
    expect(since.map(({ type }) => type)).toEqual([0]);
  });

  test('a snapshot that is named by the beginning of its id is told by the whole one', async () => {
    const { id, served } = await setUp();
    const short = served.uri(`snapshot/${id.slice(0, 8)}`);
    const [about] = JSON.parse(await runWell('nbdinfo', '--json', short)).exports;
    expect(about).toMatchObject({ 'export-name': `snapshot/${id}`, 'export-size': SIZE });
  });

  test('nbdcopy copies both ways over several connections', async () => {
    const { bench, before, live, snapshot } = await setUp();
    await runWell('nbdcopy', '--connections=4', snapshot, bench.path('old.raw'));
    expectSame(await readFile(bench.path('old.raw')), before);
    const other = noise(SIZE, 4);
    await writeFile(bench.path('other.img'), other);
    await runWell('nbdcopy', '--connections=4', '--flush', bench.path('other.img'), live);
    await runWell('nbdcopy', '--connections=4', live, bench.path('live.raw'));
    expectSame(await readFile(bench.path('live.raw')), other);
    await runWell('nbdcopy', snapshot, bench.path('old.again'));
    expectSame(await readFile(bench.path('old.again')), before);
  });
});

describe.skipIf(!requireTool('fio'))('fio', () => {
  test('verifies what it wrote, with many requests in flight and several jobs', async () => {
    const { bench, before, live, snapshot } = await setUp();
    const job = [
      '--ioengine=nbd',
      `--uri=${live}`,
      '--verify=crc32c',
      '--verify_fatal=1',
      '--verify_state_save=0',
      '--do_verify=1',
    ];
    const both = ['--name=a', '--rw=randwrite', '--bs=4k', '--size=16M', '--iodepth=32', ...job];
    const large = ['--name=b', '--rw=write', '--bs=1M', '--offset=16M', '--size=16M', '--iodepth=16', ...job];
    await runWell('fio', '--output-format=terse', ...both, ...large);
    await runWell('nbdcopy', snapshot, bench.path('old.raw'));
    expectSame(await readFile(bench.path('old.raw')), before);
  });

  test('reads a snapshot and verifies every block of it, while the volume is overwritten', async () => {
    const { bench, volume, served, live } = await setUp();
    const job = (name: string, uri: string, rw: string, bs: string) => [
      ...[`--name=${name}`, '--ioengine=nbd', `--uri=${uri}`, `--rw=${rw}`, `--bs=${bs}`],
      ...['--size=32M', '--iodepth=16', '--verify_fatal=1', '--verify_state_save=0'],
    ];
    const checked = ['--verify=crc32c', '--verify_interval=4k', '--do_verify=0'];
    await runWell('fio', ...job('fill', live, 'write', '1M'), ...checked);
    const snapshot = served.uri(`snapshot/${bench.snapshot(volume)}`);
    const reading = (uri: string) => [...job('old', uri, 'randread', '4k'), ...checked];
    await runWell('fio', ...reading(snapshot), ...job('new', live, 'randwrite', '64k'));
    // Other content would be seen.
    const { status, output } = await run('fio', reading(live));
    expect(status).not.toBe(0);
    expect(output).toMatch(/verify: bad/);
  });
});

describe.skipIf(!requireTool('nbdkit', 'qemu-img'))('nbdkit', () => {
  test('its nbd plugin passes both exports on', async () => {
    const { bench, live, snapshot } = await setUp();
    for (const [uri, image] of [
      [live, 'after.img'],
      [snapshot, 'before.img'],
    ] as const) {
      const compare = `qemu-img compare -f raw -F raw "$uri" '${bench.path(image)}'`;
      await runWell('nbdkit', '-U', '-', 'nbd', `uri=${uri}`, '--run', compare);
    }
  });
});

describe.skipIf(!canMount() || !requireTool('nbdfuse', 'mkfs.ext4', 'e2fsck', 'debugfs'))('nbdfuse', () => {
  test('a damaged ext4 is repaired inside a writable snapshot; the volume and another snapshot stay as they were', async () => {
    const bench = new Bench();
    const volume = await bench.volume('disk.img', 4 * MEBIBYTE);
    const served = await Served.start(bench, volume);
    const { path: live } = await fuse(bench, 'raw', served.uri('live'));
    await runWell('mkfs.ext4', '-q', '-F', '-E', 'nodiscard', live);
    await runWell('debugfs', '-w', '-R', 'mkdir lost', live);
    await runWell('debugfs', '-w', '-R', 'clri lost', live);
    await runWell('sync', live);
    const other = bench.snapshot(volume);
    const id = bench.snapshot(volume, '--writable');
    const hashes = () =>
      [volume, `${volume}@${other}`].map((source) =>
        createHash('sha256').update(bench.read(source)).digest('hex'),
      );
    const before = hashes();
    const check = async (path: string, how: string) => (await run('e2fsck', [how, path])).status;
    const written = await fuse(bench, 'written', served.uri(`snapshot/${id}`));
    expect(await check(written.path, '-fn')).toBe(4);
    expect(await check(written.path, '-fy')).toBe(1);
    expect(await check(written.path, '-fn')).toBe(0);
    await runWell('sync', written.path);
    expect(await check(live, '-fn')).toBe(4);
    expect(hashes()).toEqual(before);
    await written.kill();
    await served.end();
    expect(hashes()).toEqual(before);
    await writeFile(bench.path('repaired.img'), bench.read(`${volume}@${id}`));
    expect(await check(bench.path('repaired.img'), '-fn')).toBe(0);
    bench.ok(['export', volume, id, '-o', 'exported.img']);
    expect(
      (await readFile(bench.path('exported.img'))).equals(await readFile(bench.path('repaired.img'))),
    ).toBe(true);
    bench.ok(['check', volume, '--scrub']);
  });

  test('an ext4 inside is mounted, written and read; its snapshot mounts as it was', async () => {
    const { bench, served, volume } = await setUp();
    const { path: disk } = await fuse(bench, 'raw', served.uri('live'));
    await runWell('mkfs.ext4', '-q', '-F', '-E', 'nodiscard', disk);
    const folder = await mount(bench, 'new', disk);
    await writeFile(`${folder}/first`, 'written before the snapshot');
    await runWell('sync', '-f', folder);
    const id = bench.snapshot(volume);
    await writeFile(`${folder}/first`, 'and overwritten');
    await writeFile(`${folder}/second`, 'later');
    await runWell('umount', folder);
    await runWell('e2fsck', '-fn', disk);
    const { path: oldDisk } = await fuse(bench, 'snapshot', served.uri(`snapshot/${id}`));
    const old = await mount(bench, 'old', oldDisk, 'ro,noload');
    expect(await readFile(`${old}/first`, 'utf8')).toBe('written before the snapshot');
    expect(existsSync(`${old}/second`)).toBe(false);
  });
});
