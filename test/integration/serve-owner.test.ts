/** One owner at a time, whoever starts, ends or is killed when; and how the others find it. */
import { existsSync, mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { NbdDevice } from '../../src/index.js';
import { Bench, ended, expectSame, feed, MEBIBYTE, noise } from './cli-support.js';
import { exportAt, Load, runBeside, serve } from './serve-support.js';

const SIZE = 4 * MEBIBYTE;

async function prepared(...options: readonly string[]): Promise<Bench> {
  const bench = new Bench();
  await bench.volume('a.img', noise(SIZE, 1), ...options);
  return bench;
}

test('of several servers that start at once one serves, and the others say who', async () => {
  const bench = await prepared();
  const starts = await Promise.allSettled([1, 2, 3].map(() => serve(bench, ['a.img'])));
  const winners = starts.flatMap((start) => (start.status === 'fulfilled' ? [start.value] : []));
  expect(winners).toHaveLength(1);
  for (const start of starts) {
    if (start.status === 'rejected') expect(String(start.reason)).toMatch(/IN_USE.*in use by .*process/);
  }
  expect(bench.json(['info', 'a.img']).servedBy.pid).toBe(winners[0]?.child.pid);
  // And one that comes later.
  expect(bench.fails(['serve', 'a.img'], 1)).toContain(`process ${winners[0]?.child.pid}`);
});

describe.each([
  ['beside the volume', []],
  ['inside the volume', ['--in-volume', '--reserve', '16M']],
])('a server that was killed, its store %s', (_, options) => {
  test('leaves sockets that stop nobody: commands work, and the next server replaces them', async () => {
    const bench = await prepared(...options);
    const env = { XDG_RUNTIME_DIR: bench.folder };
    const first = await serve(bench, ['a.img'], { env });
    const run = (...args: string[]) => {
      const outcome = bench.run(args, { env });
      expect(outcome.stderr).toBe('');
      return outcome.stdout.trim();
    };
    const id = run('create', 'a.img');
    const load = await Load.start(first.ready.uri, MEBIBYTE, MEBIBYTE);
    while (load.writes < 20) await new Promise((resolve) => setImmediate(resolve));
    await first.stop('SIGKILL');
    await expect(load.stop()).rejects.toThrow();
    expect(JSON.parse(run('info', 'a.img', '--json')).servedBy).toBe(null);
    expect(JSON.parse(run('check', 'a.img', '--scrub', '--json')).sound).toBe(true);
    const second = await serve(bench, ['a.img'], { env });
    expect(second.errors()).not.toMatch(/error/i);
    expect(JSON.parse(run('info', 'a.img', '--json')).servedBy.pid).toBe(second.child.pid);
    await using snapshot = await NbdDevice.open(exportAt(second.ready.uri, `snapshot/${id}`));
    const bytes = Buffer.alloc(SIZE);
    await snapshot.read(0, bytes);
    expectSame(bytes, noise(SIZE, 1));
  });
});

test('who has the volume without serving it is named', async () => {
  const bench = await prepared();
  const writer = bench.start(['write', 'a.img']);
  await feed(writer, noise(2 * MEBIBYTE, 2));
  for (const args of [
    ['list', 'a.img'],
    ['create', 'a.img'],
    ['serve', 'a.img'],
  ]) {
    expect(bench.fails(args, 1)).toContain(`process ${writer.pid}`);
  }
  writer.stdin?.end();
  expect((await ended(writer)).status).toBe(0);
  bench.ok(['list', 'a.img']);
});

test('commands that meet a server on its way out, or in, succeed all the same', async () => {
  const bench = await prepared();
  for (let round = 0; round < 3; round++) {
    const server = await serve(bench, ['a.img']);
    await using client = await NbdDevice.open(server.ready.uri, { writable: true, reconnectTimeoutMs: 0 });
    await client.write(0, noise(MEBIBYTE, round));
    const commands = [0, 1, 2, 3].map((i) =>
      runBeside(bench, i === 1 ? ['create', 'a.img'] : ['list', 'a.img']),
    );
    const end = server.stop();
    for (const { status, stderr } of await Promise.all(commands))
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(await end).toEqual({ status: 0, signal: null });
  }
  expect(bench.json(['list', 'a.img'])).toHaveLength(3);
});

test('a path that is too long for a socket works, for commands and for NBD', async () => {
  const bench = new Bench();
  const deep = join(...Array.from({ length: 6 }, () => 'a-folder-with-a-long-name'));
  mkdirSync(bench.path(deep), { recursive: true });
  const image = join(deep, 'disk.img');
  await bench.volume(image, noise(SIZE, 1));
  const env = { XDG_RUNTIME_DIR: bench.folder };
  const server = await serve(bench, [image], { env });
  const socket = bench.path(`${image}.volsnap/control.sock`);
  expect(Buffer.byteLength(socket)).toBeGreaterThan(107);
  expect(statSync(socket).mode & 0o777).toBe(0o600);
  const { stdout, stderr } = bench.run(['create', image], { env });
  expect(stderr).toBe('');
  await using device = await NbdDevice.open(exportAt(server.ready.uri, `snapshot/${stdout.trim()}`));
  expect(device.size).toBe(SIZE);
  expect(bench.json(['info', image]).servedBy.pid).toBe(server.child.pid);
  const long = bench.path(join(deep, 'nbd.sock'));
  expect(bench.fails(['serve', image, '--socket', long], 1)).toMatch(/in use|107/);
});

test('a volume with its store inside is found by any path, through a folder that is the user’s alone', async () => {
  const bench = await prepared('--in-volume', '--reserve', '16M');
  const env = { XDG_RUNTIME_DIR: bench.folder };
  const server = await serve(bench, ['a.img'], { env });
  expect(statSync(bench.path('volsnap')).mode & 0o777).toBe(0o700);
  symlinkSync('a.img', bench.path('link.img'));
  for (const path of ['link.img', bench.path('a.img'), './a.img']) {
    const { stdout } = bench.run(['info', path, '--json'], { env });
    expect(JSON.parse(stdout).servedBy.pid).toBe(server.child.pid);
  }
  await server.stop();
  expect(JSON.parse(bench.run(['info', 'a.img', '--json'], { env }).stdout).servedBy).toBe(null);
});

test('a store named by --store is found, and not taken for that of another volume', async () => {
  const bench = new Bench();
  await bench.volume('a.img', noise(SIZE, 1), '--store', 'shots');
  bench.image('b.img', SIZE);
  const server = await serve(bench, ['a.img', '--store', 'shots']);
  expect(server.ready.uri).toContain('shots/nbd.sock');
  expect(bench.json(['info', 'a.img', '--store', 'shots']).servedBy.pid).toBe(server.child.pid);
  expect(bench.fails(['info', 'b.img', '--store', 'shots'], 1)).toContain('a.img');
});

describe('a server that only reads', () => {
  test('shares the volume with others that read, and offers no control', async () => {
    const bench = await prepared();
    const id = bench.snapshot('a.img');
    const servers = [
      await serve(bench, ['a.img', '--read-only']),
      await serve(bench, ['a.img', '--read-only', '--socket', 'second.sock']),
    ];
    expect(existsSync(bench.path('a.img.volsnap/control.sock'))).toBe(false);
    for (const { ready } of servers) {
      await expect(NbdDevice.open(ready.uri, { writable: true })).rejects.toThrow();
      await using device = await NbdDevice.open(exportAt(ready.uri, `snapshot/${id}`));
      const bytes = Buffer.alloc(SIZE);
      await device.read(0, bytes);
      expectSame(bytes, noise(SIZE, 1));
    }
    expect(bench.json(['list', 'a.img'])).toHaveLength(1);
    expect(bench.fails(['create', 'a.img'], 1)).toContain('in use by process');
  });
});

describe('several volumes', () => {
  test('are served by one process under their names', async () => {
    const bench = await prepared();
    await bench.volume('b.img', noise(MEBIBYTE, 2));
    const id = bench.snapshot('b.img');
    const { ready } = await serve(bench, ['a.img', 'b.img']);
    expect(ready.exports).toEqual(['a.img/live', 'b.img/live', `b.img/snapshot/${id}`]);
    expect(ready.uris.map((uri) => new URL(uri).pathname)).toEqual(['/a.img', '/b.img']);
    const sizes: number[] = [];
    for (const name of ['a.img', 'b.img', 'b.img/live', `b.img/snapshot/${id.slice(0, 8)}`]) {
      await using device = await NbdDevice.open(exportAt(ready.uri, name));
      sizes.push(device.size);
    }
    expect(sizes).toEqual([SIZE, MEBIBYTE, MEBIBYTE, MEBIBYTE]);
    for (const name of ['', 'live', `snapshot/${id}`, `a.img/snapshot/${id}`]) {
      await expect(NbdDevice.open(exportAt(ready.uri, name))).rejects.toThrow(/export/);
    }
    const taken = bench.snapshot('a.img');
    const set = bench.json(['create', 'a.img', 'b.img', '--not-persistent', '--hidden']);
    expect(set).toMatchObject([{ setId: set[1].setId }, { persistent: false, hidden: true }]);
    expect(bench.json(['list', 'a.img']).map((each: { id: string }) => each.id)).toEqual([taken]);
    expect(bench.json(['list', 'b.img']).map((each: { id: string }) => each.id)).toEqual([id]);
  });

  test('must have names that differ, and no common store', async () => {
    const bench = await prepared();
    mkdirSync(bench.path('folder'));
    await bench.volume('folder/a.img', MEBIBYTE);
    expect(bench.fails(['serve', 'a.img', 'folder/a.img'], 2)).toContain('called a.img');
    expect(bench.fails(['serve', 'a.img', 'folder/a.img', '--store', 'x'], 2)).toContain('--store');
    // Neither is left locked.
    bench.ok(['write', 'a.img'], 'x');
  });
});

test('a socket that is somebody’s, or no socket, is left alone', async () => {
  const bench = await prepared();
  writeFileSync(bench.path('file'), 'precious');
  expect(bench.fails(['serve', 'a.img', '--socket', 'file'], 2)).toContain('no socket');
  const other = createServer();
  onTestFinished(() => void other.close());
  await new Promise<void>((resolve) => {
    other.listen(bench.path('theirs'), resolve);
  });
  const { status, stderr } = await runBeside(bench, ['serve', 'a.img', '--socket', 'theirs']);
  expect(status).toBe(1);
  expect(stderr).toContain('another server');
  // Both attempts have let the volume go, and left no control socket.
  expect(existsSync(bench.path('a.img.volsnap/control.sock'))).toBe(false);
  bench.ok(['write', 'a.img'], 'x');
});
