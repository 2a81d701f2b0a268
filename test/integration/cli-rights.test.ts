/**
 * What the program says to users without rights: one line with a code, and nothing is left behind.
 *
 * The user is root without capabilities, so that the program can be run wherever it lies; what it may not use belongs to
 * somebody else. Needs root for that; skipped, and said so, elsewhere.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { describeUnless } from '../interop/support/describe-unless.js';
import { Bench, MEBIBYTE, noise, PROGRAM } from './cli-support.js';

const cannotDrop = process.getuid?.() === 0 ? undefined : 'running without capabilities takes root';
const SOMEBODY = 65_534;

function weak(bench: Bench, args: readonly string[]) {
  const without = ['--inh-caps=-all', '--bounding-set=-all', process.execPath, PROGRAM];
  const { status, stdout, stderr } = spawnSync('setpriv', [...without, ...args], {
    cwd: bench.folder,
    encoding: 'utf8',
    timeout: 30_000,
  });
  return { status, stdout, stderr };
}

/** Runs a command that has to fail with one line. @returns it, and its code */
function denied(bench: Bench, args: readonly string[], expected = 1): string {
  const { status, stdout, stderr } = weak(bench, args);
  expect({ args, status, stdout }).toEqual({ args, status: expected, stdout: '' });
  expect(stderr).toMatch(/^volsnap: .+\n$/);
  expect(stderr).not.toMatch(/internal error|\/proc\/self/);
  return stderr;
}

/** Gives it to somebody else. */
function giveAway(path: string, mode: number): void {
  chownSync(path, SOMEBODY, SOMEBODY);
  chmodSync(path, mode);
}

describeUnless(cannotDrop, 'a user without rights', () => {
  test('on a volume hears that it may not be read, or not written', () => {
    const bench = new Bench();
    bench.image('a.img', MEBIBYTE);
    giveAway(bench.path('a.img'), 0o600);
    for (const args of [
      ['init', 'a.img'],
      ['create', 'a.img'],
      ['serve', 'a.img'],
      ['list', 'a.img'],
    ])
      expect(denied(bench, args)).toContain('EACCES');
    expect(denied(bench, ['check', 'a.img'], 2)).toContain('EACCES');
    giveAway(bench.path('a.img'), 0o644);
    expect(denied(bench, ['init', 'a.img'])).toContain('EACCES');
    expect(readdirSync(bench.folder)).toEqual(['a.img']);
  });

  test('on a store of somebody else changes nothing in it', async () => {
    const bench = new Bench();
    await bench.volume('a.img', noise(MEBIBYTE, 1));
    const id = bench.snapshot('a.img');
    const store = bench.path('a.img.volsnap');
    giveAway(store, 0o755);
    for (const name of readdirSync(store)) giveAway(`${store}/${name}`, 0o644);
    for (const args of [
      ['create', 'a.img'],
      ['delete', 'a.img', id],
      ['revert', 'a.img', id],
    ])
      expect(denied(bench, args)).toContain('EACCES');
    expect(weak(bench, ['check', 'a.img', '--scrub'])).toMatchObject({ status: 0, stderr: '' });
    giveAway(store, 0o700);
    expect(denied(bench, ['list', 'a.img'])).toContain('EACCES');
    expect(denied(bench, ['init', 'a.img', '--store', 'other'])).toContain('EACCES');
    expect(bench.json(['list', 'a.img'])).toMatchObject([{ id, state: 'ok' }]);
    expect(readdirSync(bench.folder).sort()).toEqual(['a.img', 'a.img.volsnap']);
  });

  test('takes snapshots in a volume that it may write, but does not own', async () => {
    const bench = new Bench();
    await bench.volume('a.img', noise(MEBIBYTE, 1), '--in-volume', '--reserve', '5M');
    giveAway(bench.path('a.img'), 0o666);
    for (const count of [1, 2]) {
      expect(weak(bench, ['create', 'a.img'])).toMatchObject({ status: 0, stderr: '' });
      expect(bench.json(['list', 'a.img'])).toHaveLength(count);
    }
    expect(bench.json(['check', 'a.img', '--scrub'])).toMatchObject({ sound: true });
  });

  test('cannot export, serve or keep snapshots where it may not write', async () => {
    const bench = new Bench();
    await bench.volume('a.img', noise(MEBIBYTE, 1));
    const id = bench.snapshot('a.img');
    mkdirSync(bench.path('theirs'));
    giveAway(bench.path('theirs'), 0o755);
    for (const format of ['raw', 'qcow2', 'vss'])
      expect(denied(bench, ['export', 'a.img', id, '-o', 'theirs/b', '--format', format])).toContain(
        'EACCES',
      );
    const socket = bench.path('theirs/disk.sock');
    expect(denied(bench, ['serve', 'a.img', '--socket', socket])).toContain(`cannot listen on ${socket}`);
    bench.image('b.img', MEBIBYTE);
    expect(denied(bench, ['init', 'b.img', '--store', 'theirs/store'])).toContain('EACCES');
    expect(readdirSync(bench.path('theirs'))).toEqual([]);
    bench.ok(['check', 'a.img']);
  });

  test('is told of keys that it may not read, and of sockets that let others in', async () => {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    writeFileSync(bench.path('keys'), 'alice:00112233445566778899aabbccddeeff\n');
    giveAway(bench.path('keys'), 0o600);
    expect(denied(bench, ['serve', 'a.img', '--listen', '0', '--tls-psk', 'keys'])).toContain('EACCES');
    const keys = `nbds://alice@localhost/?tls-psk-file=${bench.path('keys')}`;
    expect(denied(bench, ['list', keys])).toContain('cannot read the keys');
    const socket = bench.path('disk.sock');
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    onTestFinished(() => void server.close());
    giveAway(socket, 0o600);
    expect(denied(bench, ['list', `nbd+unix:///?socket=${socket}`])).toContain('is not for this user');
  });
});
