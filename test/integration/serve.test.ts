/** `volsnap serve`, and every other command on the volume meanwhile. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { connectToOwner, FileDevice, NbdDevice, Volume, VolumeServer } from '../../src/index.js';
import { Bench, ended, expectSame, MEBIBYTE, noise } from './cli-support.js';
import { exportAt, Load, runBeside, serve } from './serve-support.js';

const BLOCK = 16_384;
const SIZE = 16 * MEBIBYTE;

/** A volume of noise with a server, and a client that never stops to write to its second half. */
async function busy(...options: readonly string[]) {
  const bench = new Bench();
  const content = noise(SIZE, 1);
  await bench.volume('a.img', content);
  const server = await serve(bench, ['a.img', ...options]);
  const load = await Load.start(server.ready.uri, SIZE / 2, SIZE / 2);
  const run = async (...args: readonly string[]) => {
    const outcome = await runBeside(bench, args);
    expect({ args, status: outcome.status, stderr: outcome.stderr }).toEqual({ args, status: 0, stderr: '' });
    return outcome;
  };
  const json = async (...args: readonly string[]) => JSON.parse((await run(...args, '--json')).stdout);
  return { bench, content, server, load, run, json };
}

describe.each(['writeback', 'ordered'])('while a client writes (%s)', (mode) => {
  test('every command works at once, and says what it says of a volume of its own', async () => {
    const { bench, content, server, load, run, json } = await busy('--write-mode', mode);
    const first = (await run('create', 'a.img', '--label', 'first')).stdout.trim();
    expect(await json('list', 'a.img')).toMatchObject([{ id: first, label: 'first', order: 1, state: 'ok' }]);
    expect(await json('info', 'a.img')).toMatchObject({
      volume: 'a.img',
      volumeSize: SIZE,
      snapshots: 1,
      servedBy: { pid: server.child.pid, uris: server.ready.uris },
    });
    // Into the volume through its owner, and out of it and its snapshot.
    const patch = noise(MEBIBYTE, 2);
    const writing = bench.start(['write', 'a.img', '--offset', '1M']);
    writing.stdin?.end(patch);
    expect(await ended(writing)).toEqual({ status: 0, signal: null });
    const read = async (source: string) =>
      (await run('read', source, '--offset', '1M', '--length', '1M')).bytes;
    expectSame(await read('a.img'), patch);
    expectSame(await read(`a.img@${first}`), content.subarray(MEBIBYTE, 2 * MEBIBYTE));
    // What changed: the patch, and more and more of the second half.
    const changed = (await json('diff', 'a.img', first)) as { offset: number; length: number }[];
    expect(changed[0]).toEqual({ offset: MEBIBYTE, length: MEBIBYTE });
    for (const { offset } of changed.slice(1)) expect(offset).toBeGreaterThanOrEqual(SIZE / 2);
    expect((await json('map', 'a.img')).changedBytes).toBeGreaterThan(MEBIBYTE);
    const second = (await json('create', 'a.img')).id;
    expect((await json('diff', 'a.img', first, second))[0]).toEqual({ offset: MEBIBYTE, length: MEBIBYTE });
    // An export is made by who asks for it.
    await run('export', 'a.img', first, '-o', 'first.raw');
    expectSame(readFileSync(bench.path('first.raw')).subarray(0, SIZE / 2), content.subarray(0, SIZE / 2));
    await run('export', 'a.img', first, '-o', 'first.qcow2', '--format', 'qcow2');
    const increment = ['--format', 'qcow2', '--since', first, '--backing', 'first.qcow2'];
    expect(await json('export', 'a.img', second, '-o', 'second.qcow2', ...increment)).toMatchObject({
      id: second,
      since: first,
    });
    await run('export', 'a.img', '--format', 'vss', '-o', 'all.vss');
    expect(statSync(bench.path('all.vss')).size).toBeGreaterThan(SIZE);
    expect(await json('check', 'a.img', '--scrub')).toEqual({ sound: true, problems: [] });
    expect(await json('resize-store', 'a.img', '1G')).toMatchObject({ maximumBytes: 1024 ** 3, deleted: [] });
    expect(await json('delete', 'a.img', '--oldest')).toEqual({ deleted: [first], merged: true });
    expect((await json('list', 'a.img')).map(({ id }: { id: string }) => id)).toEqual([second]);
    const { stderr, status } = await runBeside(bench, ['init', 'a.img']);
    expect(status).toBe(1);
    expect(stderr).toContain(`in use by process ${server.child.pid}`);
    const before = load.writes;
    await sleep(50);
    expect(load.writes).toBeGreaterThan(before);
    await load.stop();
    expect(await server.stop()).toEqual({ status: 0, signal: null });
    expect(bench.json(['check', 'a.img', '--scrub'])).toEqual({ sound: true, problems: [] });
    expectSame(bench.read(`a.img@${second}`, '--offset', '1M', '--length', '1M'), patch);
    expectSame(bench.read('a.img', '--length', '1M'), content.subarray(0, MEBIBYTE));
  });
});

test('what goes wrong is told as of a volume of one’s own', async () => {
  const bench = new Bench();
  await bench.volume('a.img', noise(MEBIBYTE, 1));
  const older = bench.snapshot('a.img');
  const newer = bench.snapshot('a.img');
  const mistakes = [
    ['diff', 'a.img', 'ffff'],
    ['diff', 'a.img', newer, older],
    ['delete', 'a.img', 'ffff'],
    ['delete', 'a.img'],
    ['read', 'a.img', '--offset', '2M'],
    ['read', `a.img@${older}`, '--length', '2M'],
    ['create', 'a.img', '--label', 'x'.repeat(20_000)],
    ['export', 'a.img', 'ffff', '-o', 'x.raw'],
    ['resize-store', 'a.img', 'much'],
    ['write', 'a.img', '--offset', '2M'],
  ];
  const outcomes = () =>
    mistakes.map((args) => {
      const { status, stdout, stderr } = bench.run([...args, '--json']);
      return { command: args.slice(0, 3).join(' ').slice(0, 40), status, stdout, stderr };
    });
  const alone = outcomes();
  await serve(bench, ['a.img']);
  expect(outcomes()).toEqual(alone);
});

test('extents that one answer does not hold come whole, and merged where answers meet', async () => {
  const bench = new Bench();
  const size = 2048 * MEBIBYTE;
  await bench.volume('a.img', size);
  const server = await serve(bench, ['a.img']);
  const id = bench.snapshot('a.img');
  const device = await NbdDevice.open(server.ready.uri, { writable: true });
  // More than 16,384 places with a gap between them, and a long one where an answer ends.
  const byte = Buffer.alloc(1, 1);
  const places = Array.from({ length: 20_000 }, (_, i) => i * 2 * BLOCK);
  for (let i = 0; i < places.length; i += 500)
    await Promise.all(places.slice(i, i + 500).map((offset) => device.write(offset, byte)));
  await device.close();
  const changed = bench.json(['diff', 'a.img', id]) as { offset: number; length: number }[];
  expect(changed).toEqual(places.map((offset) => ({ offset, length: BLOCK })));
});

describe('a command that is interrupted', () => {
  test('ends by the signal, and the server goes on', async () => {
    const { bench, server, run } = await busy();
    const id = (await run('create', 'a.img')).stdout.trim();
    // Nobody reads what it writes, so it stands still in the middle.
    const reader = bench.start(['read', `a.img@${id}`]);
    await new Promise((resolve) => reader.stdout?.once('readable', resolve));
    reader.kill('SIGINT');
    expect(await ended(reader)).toEqual({ status: null, signal: 'SIGINT' });
    await run('list', 'a.img');
    expect(server.child.exitCode).toBe(null);
  });

  test('and an export leaves nothing behind', async () => {
    const bench = new Bench();
    await bench.volume('a.img', noise(64 * MEBIBYTE, 1));
    await serve(bench, ['a.img']);
    const id = bench.snapshot('a.img');
    const exporter = bench.start(['export', 'a.img', id, '-o', 'x.raw']);
    const partial = bench.path(`x.raw.${exporter.pid}.partial`);
    while (!existsSync(partial) && exporter.exitCode === null) await sleep(2);
    exporter.kill('SIGTERM');
    const { signal, status } = await ended(exporter);
    expect(existsSync(partial)).toBe(false);
    // On a fast machine it may have been done.
    expect(existsSync(bench.path('x.raw'))).toBe(status === 0);
    expect(signal === 'SIGTERM' || status === 0).toBe(true);
  });
});

describe('exports', () => {
  test('come and go with the snapshots, by whole and by short ids', async () => {
    const { server, run, load } = await busy();
    const { uri } = server.ready;
    const id = (await run('create', 'a.img')).stdout.trim();
    const size = async (name: string) => {
      await using device = await NbdDevice.open(exportAt(uri, name));
      return device.size;
    };
    for (const name of ['', 'live', `snapshot/${id}`, `snapshot/${id.slice(0, 8)}`]) {
      expect(await size(name)).toBe(SIZE);
    }
    for (const name of ['snapshot/', 'snapshot/ffffffff', 'dead', 'a.img/live']) {
      await expect(size(name)).rejects.toThrow(/export/);
    }
    await using reader = await NbdDevice.open(exportAt(uri, `snapshot/${id}`));
    await expect(NbdDevice.open(exportAt(uri, `snapshot/${id}`), { writable: true })).rejects.toThrow();
    await reader.read(0, Buffer.alloc(BLOCK));
    await run('delete', 'a.img', id);
    await expect(reader.read(0, Buffer.alloc(BLOCK))).rejects.toThrow(/gone|delet/);
    await expect(size(`snapshot/${id}`)).rejects.toThrow(/export/);
    // Nobody else has noticed.
    expect(await size('live')).toBe(SIZE);
    await load.stop();
  });

  test('tell what changed, since a snapshot and between two', async () => {
    const bench = new Bench();
    await bench.volume('a.img', noise(SIZE, 1));
    const server = await serve(bench, ['a.img']);
    const { uri } = server.ready;
    const [a = '', b = ''] = [0, 1].map((i) => {
      const id = bench.snapshot('a.img');
      bench.ok(['write', 'a.img', '--offset', `${i + 1}M`], noise(BLOCK, 7));
      return id;
    });
    const dirty = async (name: string, context: string) => {
      await using device = await NbdDevice.open(exportAt(uri, name), { contexts: [context] });
      const extents = await device.blockStatus(context, 0, device.size);
      expect(extents.reduce((sum, { length }) => sum + length, 0)).toBe(SIZE);
      return extents.filter(({ status }) => status !== 0).map(({ offset, length }) => [offset, length]);
    };
    const [one, two] = [
      [MEBIBYTE, BLOCK],
      [2 * MEBIBYTE, BLOCK],
    ];
    expect(await dirty('live', `qemu:dirty-bitmap:since-${a}`)).toEqual([one, two]);
    expect(await dirty('live', `qemu:dirty-bitmap:since-${b.slice(0, 8)}`)).toEqual([two]);
    expect(await dirty('live', `volsnap:changed:${a}..${b}`)).toEqual([one]);
    expect(await dirty(`snapshot/${b}`, `qemu:dirty-bitmap:since-${a}`)).toEqual([one]);
    for (const context of [
      `qemu:dirty-bitmap:since-${b}`,
      `volsnap:changed:${b}..${a}`,
      'qemu:dirty-bitmap:',
    ]) {
      await expect(dirty(`snapshot/${a}`, context)).rejects.toThrow();
    }
  });
});

test('the line with the URI comes when clients can connect, and the sockets go at the end', async () => {
  const bench = new Bench();
  await bench.volume('a.img', MEBIBYTE);
  const child = bench.start(['serve', 'a.img']);
  const uri = (await new Promise<Buffer>((resolve) => child.stdout?.once('data', resolve))).toString();
  expect(uri).toBe(`nbd+unix:///?socket=${bench.path('a.img.volsnap/nbd.sock')}\n`);
  const device = await NbdDevice.open(uri.trim());
  await device.close();
  const sockets = ['nbd.sock', 'control.sock'].map((name) => bench.path(`a.img.volsnap/${name}`));
  for (const path of sockets) expect(statSync(path).mode & 0o777).toBe(0o600);
  child.kill('SIGINT');
  expect(await ended(child)).toEqual({ status: 0, signal: null });
  for (const path of sockets) expect(existsSync(path)).toBe(false);
  expect(bench.json(['info', 'a.img'])).toMatchObject({ closedCleanly: true, servedBy: null });
});

test('what was written and flushed through NBD is there after the server has ended', async () => {
  const bench = new Bench();
  await bench.volume('a.img', SIZE);
  const server = await serve(bench, ['a.img']);
  const device = await NbdDevice.open(server.ready.uri, { writable: true });
  await device.write(5000, noise(MEBIBYTE, 3));
  await device.close();
  await server.stop();
  expectSame(readFileSync(bench.path('a.img')).subarray(5000, 5000 + MEBIBYTE), noise(MEBIBYTE, 3));
});

test('the library reaches a served volume, too', async () => {
  const bench = new Bench();
  await bench.volume('a.img', noise(MEBIBYTE, 1));
  const place = { volume: bench.path('a.img') };
  expect(await connectToOwner(place)).toBeUndefined();
  await serve(bench, ['a.img']);
  await using volume = await connectToOwner(place);
  const snapshot = await volume?.createSnapshot({ label: 'remote', applicationInfo: noise(100, 1) });
  expect(volume?.snapshots).toEqual([snapshot]);
  await volume?.write(100, Buffer.from('hello'));
  await volume?.flush();
  expect(Buffer.from((await volume?.read(100, 5)) ?? '').toString()).toBe('hello');
  expectSame(Buffer.from((await snapshot?.read(0, MEBIBYTE)) ?? ''), noise(MEBIBYTE, 1));
  expectSame(Buffer.from(snapshot?.applicationInfo ?? ''), noise(100, 1));
  await snapshot?.delete();
  expect(snapshot?.state).toBe('deleted');
  await expect(snapshot?.read(0, 1)).rejects.toMatchObject({ code: 'NOT_FOUND' });
});

test('a second server of the same volume is refused, also where nothing is locked', async () => {
  const bench = new Bench();
  const image = bench.path(await bench.volume('a.img', MEBIBYTE));
  await using volume = await Volume.open(await FileDevice.open(image, { writable: true }));
  await using first = await VolumeServer.start([volume]);
  const second = VolumeServer.start([volume], { socket: bench.path('second.sock') });
  await expect(second).rejects.toMatchObject({ code: 'IN_USE' });
  // The first one has not noticed, and one without a control channel does no harm.
  await using device = await NbdDevice.open(first.uris[0] ?? '');
  expect(device.size).toBe(MEBIBYTE);
  await using _ = await VolumeServer.start([volume], { socket: bench.path('third.sock'), control: false });
  const { stdout } = await runBeside(bench, ['info', 'a.img', '--json']);
  expect(JSON.parse(stdout).servedBy.pid).toBe(process.pid);
});
