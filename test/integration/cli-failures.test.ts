/** How the program fails: status, one line, nothing broken. */
import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, symlinkSync, truncateSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { createServer } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import { DirectoryStore, FileDevice, Volume } from '../../src/index.js';
import { Bench, ended, feed, MEBIBYTE, noise, PROGRAM } from './cli-support.js';

describe('wrong usage ends with 2', () => {
  // Many more cases are in test/unit/cli/usage.test.ts, without processes.
  test.each([
    ['no such command', ['frobnicate']],
    ['a size that is none', ['init', 'a.img', '--max-size', 'many']],
  ])('%s', (_, args) => {
    const bench = new Bench();
    bench.image('a.img', MEBIBYTE);
    bench.fails(args, 2);
    const { status, stderr } = bench.run([...args, '--json']);
    expect(status).toBe(2);
    expect(JSON.parse(stderr)).toEqual({ error: { code: 'USAGE', message: expect.any(String) } });
  });

  test('no command at all shows the help', () => {
    const { status, stdout, stderr } = new Bench().run([]);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toContain('Usage: volsnap');
  });
});

describe('a failure ends with 1 and says why', () => {
  test('volumes that are none', () => {
    const bench = new Bench();
    bench.image('plain.img', MEBIBYTE);
    expect(bench.fails(['init', 'nowhere.img'], 1)).toContain('nowhere.img');
    expect(bench.fails(['init', '.'], 1)).toContain('neither a file');
    expect(bench.fails(['init', '/dev/null'], 1)).toContain('neither a file');
    expect(bench.fails(['list', 'plain.img'], 1)).toContain('volsnap init plain.img');
    expect(bench.fails(['list', 'plain.img', '--store', 'nowhere'], 1)).toContain(
      'volsnap init VOLUME --store nowhere',
    );
  });

  test('more snapshots than files may be open say nothing of their content', async () => {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    const device = await FileDevice.open(bench.path('a.img'), { writable: true });
    const volume = await Volume.open(device, { store: new DirectoryStore(bench.path('a.img.volsnap')) });
    for (let i = 0; i < 40; i++) await volume.createSnapshot();
    await volume.close();
    await device.close();
    // Of a check 1 would mean that it has found something.
    for (const [command, expected] of [
      ['list', 1],
      ['check', 2],
    ] as const) {
      const limited = ['-c', 'ulimit -n 40; exec "$0" "$@"', process.execPath, PROGRAM, command, 'a.img'];
      const { status, stdout, stderr } = spawnSync('sh', limited, { cwd: bench.folder, encoding: 'utf8' });
      expect({ status, stdout }).toEqual({ status: expected, stdout: '' });
      expect(stderr).toContain('ulimit -n');
      expect(stderr).not.toMatch(/damaged|--repair/);
    }
    bench.ok(['check', 'a.img']);
  });

  test('a second store for one volume', async () => {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    for (const options of [[], ['--store', 'b'], ['--in-volume', '--reserve', '5M']]) {
      expect(bench.fails(['init', 'a.img', ...options], 1)).toContain('store already');
    }
    await bench.volume('b.img', MEBIBYTE, '--in-volume', '--reserve', '5M');
    expect(bench.fails(['init', 'b.img'], 1)).toContain('store already');
  });

  test('ranges that leave the volume', async () => {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    bench.fails(['read', 'a.img', '--length', '1048577'], 1);
    bench.fails(['read', 'a.img', '--offset', '2M'], 1);
    bench.fails(['read', 'a.img', '--offset', '8191T', '--length', '1'], 1);
  });

  test('as JSON on standard error', () => {
    const bench = new Bench();
    const { status, stdout, stderr } = bench.run(['list', 'nowhere.img', '--json']);
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
    expect(JSON.parse(stderr)).toEqual({
      error: { code: 'NOT_FOUND', message: expect.stringContaining('nowhere.img') },
    });
  });

  test('an export into a store, where it would take the place of copies', async () => {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    const id = bench.snapshot('a.img');
    symlinkSync('a.img.volsnap', bench.path('link'));
    for (const name of [...readdirSync(bench.path('a.img.volsnap')), 'new.raw']) {
      expect(bench.fails(['export', 'a.img', id, '-o', `a.img.volsnap/${name}`], 1)).toContain('lies in the');
    }
    bench.fails(['export', 'a.img', id, '-o', 'link/new.raw'], 1);
    bench.ok(['check', 'a.img']);
  });

  test('input that cannot be read', async () => {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    const { status, stderr } = bench.shell('volsnap write a.img < .');
    expect(status).toBe(1);
    expect(stderr).toMatch(/^volsnap: cannot read standard input: EISDIR.*\n$/);
  });

  test('a control file that was cut off is damage, which check tells', async () => {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    const [control = ''] = readdirSync(bench.path('a.img.volsnap'));
    truncateSync(bench.path(`a.img.volsnap/${control}`), 100);
    expect(bench.run(['check', 'a.img'])).toMatchObject({
      status: 1,
      stdout: expect.stringContaining('store-damaged'),
    });
    expect(bench.fails(['list', 'a.img'], 1)).toContain('cut off');
  });

  test('check ends with 2 if it cannot run', () => {
    const bench = new Bench();
    bench.image('plain.img', MEBIBYTE);
    bench.fails(['check', 'nowhere.img'], 2);
    bench.fails(['check', 'plain.img'], 2);
  });

  test('output that cannot be written', async () => {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    for (const command of ['list a.img', 'read a.img', '--help', 'list --help', '--version']) {
      const outcome = bench.shell(`volsnap ${command} > /dev/full`);
      expect(outcome.status).toBe(1);
      expect(outcome.stderr).toMatch(/^volsnap: cannot write to standard output: ENOSPC.*\n$/);
    }
  });
});

describe('ids', () => {
  test('may be shortened while they stay clear', async () => {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    const ids = Array.from({ length: 17 }, () => bench.snapshot('a.img'));
    const [first = ''] = ids;
    expect(bench.json(['diff', 'a.img', first.slice(0, 13)])).toEqual([]);
    expect(bench.json(['diff', 'a.img', `{${first.toUpperCase()}}`])).toEqual([]);
    // Of 17 ids two begin with one digit.
    const digits = ids.map((id) => id.slice(0, 1));
    const shared = digits.find((digit, i) => digits.indexOf(digit) !== i) ?? '';
    const candidates = ids.filter((id) => id.startsWith(shared));
    const refusal = bench.fails(['diff', 'a.img', shared], 1);
    for (const id of candidates.slice(0, 8)) expect(refusal).toContain(id);
    expect(bench.fails(['diff', 'a.img', 'zz'], 1)).toContain('has no snapshot zz');
  });
});

describe('owners', () => {
  test('a writer keeps everybody else out, by name', async () => {
    const bench = new Bench();
    await bench.volume('a.img', 8 * MEBIBYTE);
    const writer = bench.start(['write', 'a.img']);
    await feed(writer, noise(MEBIBYTE, 1));
    const refusal = bench.fails(['create', 'a.img'], 1);
    expect(refusal).toContain('in use by process');
    expect(refusal).toContain(String(writer.pid));
    bench.fails(['list', 'a.img'], 1);
    writer.stdin?.end(noise(100, 2));
    expect(await ended(writer)).toEqual({ status: 0, signal: null });
    bench.ok(['create', 'a.img']);
  });

  test('readers share', async () => {
    const bench = new Bench();
    await bench.volume('a.img', 64 * MEBIBYTE);
    const reader = bench.start(['read', 'a.img']);
    await once(reader.stdout ?? reader, 'readable');
    bench.ok(['list', 'a.img']);
    expect(bench.run(['create', 'a.img']).stderr).toContain(String(reader.pid));
  });
});

describe('signals', () => {
  test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('%s closes the volume cleanly', async (signal) => {
    const bench = new Bench();
    await bench.volume('a.img', 8 * MEBIBYTE);
    bench.snapshot('a.img');
    const writer = bench.start(['write', 'a.img']);
    await feed(writer, noise(2 * MEBIBYTE, 1));
    writer.kill(signal);
    expect(await ended(writer)).toEqual({ status: null, signal });
    expect(bench.json(['info', 'a.img']).closedCleanly).toBe(true);
  });

  test('a server that takes connections and says nothing is not waited for', async () => {
    const bench = new Bench();
    const server = createServer();
    const accepted = once(server, 'connection');
    await new Promise<void>((resolve) => server.listen(bench.path('silent.sock'), resolve));
    onTestFinished(() => void server.close());
    const lister = bench.start(['list', `nbd+unix:///?socket=${bench.path('silent.sock')}`]);
    await accepted;
    lister.kill('SIGINT');
    expect(await ended(lister)).toEqual({ status: null, signal: 'SIGINT' });
  });

  test('a reader that hangs does not keep the volume open', async () => {
    const bench = new Bench();
    await bench.volume('a.img', 64 * MEBIBYTE);
    const reader = bench.start(['read', 'a.img']);
    await once(reader.stdout ?? reader, 'readable');
    reader.kill('SIGTERM');
    expect(await ended(reader)).toEqual({ status: null, signal: 'SIGTERM' });
  });

  test('information that never comes is not waited for', async () => {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    execFileSync('mkfifo', [bench.path('pipe')]);
    const creator = bench.start(['create', 'a.img', '--app-info', 'pipe']);
    // Opens when the other side reads.
    await using silent = await open(bench.path('pipe'), 'w');
    creator.kill('SIGTERM');
    expect(await ended(creator)).toEqual({ status: null, signal: 'SIGTERM' });
    expect((await silent.stat()).isFIFO()).toBe(true);
    expect(bench.json(['list', 'a.img'])).toEqual([]);
  });
});
