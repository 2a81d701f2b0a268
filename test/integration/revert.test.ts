/** `volsnap revert` on a real file system, killed in the middle, and under a client that writes. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, onTestFinished, test } from 'vitest';
import { connectToOwner } from '../../src/index.js';
import { requireTool } from '../interop/support/writer-tools.js';
import { Bench, ended, expectSame, MEBIBYTE, noise } from './cli-support.js';
import { Load, runBeside, serve } from './serve-support.js';

const SIZE = 48 * MEBIBYTE;

/** An ext4 image with some files. */
function fileSystem(bench: Bench, name: string, seed: number): Buffer {
  mkdirSync(bench.path(`${name}.files`));
  for (let i = 0; i < 60; i++)
    writeFileSync(
      bench.path(`${name}.files/file-${i}`),
      noise(1000 + ((i * 7919 * seed) % 500_000), seed + i),
    );
  const { status, stderr } = spawnSync(
    'mkfs.ext4',
    ['-q', '-F', '-d', `${name}.files`, name, `${SIZE / MEBIBYTE}M`],
    { cwd: bench.folder },
  );
  expect({ status, stderr: stderr.toString() }).toMatchObject({ status: 0 });
  return readFileSync(bench.path(name));
}

function expectSoundFileSystem(bench: Bench, bytes: Buffer): void {
  writeFileSync(bench.path('checked.img'), bytes);
  const { status, stdout } = spawnSync('e2fsck', ['-fn', 'checked.img'], { cwd: bench.folder });
  expect({ status, output: stdout.toString() }).toMatchObject({ status: 0 });
}

describe.skipIf(!requireTool('mkfs.ext4', 'e2fsck'))('an ext4 file system', () => {
  test('is back after a revert that was killed again and again, and gone again by an undo', {
    timeout: 120_000,
  }, async () => {
    const bench = new Bench();
    const before = fileSystem(bench, 'disk.img', 1);
    const after = fileSystem(bench, 'other.img', 2);
    bench.ok(['init', 'disk.img']);
    const id = bench.snapshot('disk.img');
    bench.ok(['write', 'disk.img'], after);
    for (const patience of [250, 320, 400]) {
      const child = bench.start(['revert', 'disk.img', id]);
      const end = ended(child);
      const wait = setTimeout(() => child.kill('SIGKILL'), patience);
      await end;
      clearTimeout(wait);
    }
    if (bench.json(['info', 'disk.img']).revert !== null) {
      const bytes = bench.read('disk.img');
      expectSame(bytes, before);
      expectSoundFileSystem(bench, bytes);
      const roles = bench.json(['list', 'disk.img']).map(({ role }: { role?: string }) => role);
      expect(roles).toEqual(['revert-target', 'before-revert']);
    }
    expect(bench.run(['revert', 'disk.img', id]).status).toBe(0);
    const raw = readFileSync(bench.path('disk.img'));
    expectSame(raw, before);
    expectSoundFileSystem(bench, raw);
    expect(bench.ok(['check', 'disk.img', '--scrub']).status).toBe(0);
    const undo = bench
      .json(['list', 'disk.img'])
      .find(({ label }: { label: string }) => label?.startsWith('before the revert'));
    const done = bench.json(['revert', 'disk.img', undo.id, '--label', 'undone']);
    expect(done).toMatchObject({ outcome: 'reverted', target: undo.id });
    expectSame(readFileSync(bench.path('disk.img')), after);
  });
});

describe('a served volume', () => {
  test('goes back while a client writes, through its owner, and can be cancelled', {
    timeout: 60_000,
  }, async () => {
    const bench = new Bench();
    const before = noise(8 * MEBIBYTE, 5);
    await bench.volume('disk.img', before);
    const id = bench.snapshot('disk.img');
    const after = noise(8 * MEBIBYTE, 6);
    bench.ok(['write', 'disk.img'], after);
    const server = await serve(bench, ['disk.img']);
    const half = 4 * MEBIBYTE;
    const load = await Load.start(server.ready.uri, 0, half);
    const done = await runBeside(bench, ['revert', 'disk.img', id, '--json']);
    expect(done).toMatchObject({ status: 0, stderr: '' });
    expect(JSON.parse(done.stdout)).toMatchObject({ outcome: 'reverted', target: id });
    expectSame(bench.read('disk.img', '--offset', String(half)), before.subarray(half));
    const { previous } = JSON.parse(done.stdout);
    expectSame(bench.read(`disk.img@${previous}`, '--offset', String(half)), after.subarray(half));
    expectSame(bench.read(`disk.img@${id}`), before);
    expect(load.writes).toBeGreaterThan(0);
    await load.stop();
    const volume = await connectToOwner({ volume: bench.path('disk.img') });
    if (volume === undefined) throw new Error('nobody serves the volume');
    onTestFinished(() => volume.close());
    const target = volume.snapshots.find((snapshot) => snapshot.id === previous);
    if (target === undefined) throw new Error('the snapshot of the state before is not there');
    const now = Buffer.from(await volume.read(0, half));
    const again = volume.revert(target);
    await again.begun;
    const cancelled = await again.cancel().then(
      () => true,
      () => false, // It was done sooner.
    );
    expect(await again.completed).toBe(cancelled ? 'cancelled' : 'reverted');
    expectSame(Buffer.from(await volume.read(half, half)), (cancelled ? before : after).subarray(half));
    if (cancelled) expectSame(Buffer.from(await volume.read(0, half)), now);
    bench.fails(['revert', 'disk.img', '--cancel'], 1);
    await server.stop();
    expect(bench.ok(['check', 'disk.img', '--scrub']).status).toBe(0);
  });
});

test('wrong use of `revert` says so', async () => {
  const bench = new Bench();
  await bench.volume('disk.img', 1 * MEBIBYTE);
  bench.fails(['revert', 'disk.img'], 2);
  bench.fails(['revert', 'disk.img', 'abcd', '--cancel'], 2);
  bench.fails(['revert', 'disk.img', '--cancel'], 1);
  bench.fails(['revert', 'disk.img', 'abcd'], 1);
});
