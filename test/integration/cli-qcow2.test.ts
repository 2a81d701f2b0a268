/** `volsnap export --format qcow2`: what the command does with files, names and wrong usage. QEMU's view: test/interop. */
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { decodeQcow2Header } from 'volsnap';
import { parseImage, type Qcow2Image } from '../unit/export/qcow2-image.js';
import { Bench, ended, expectSame, MEBIBYTE, noise } from './cli-support.js';

const BLOCK = 16_384;

/** A volume with three snapshots: a block is written before the second, zeros over two blocks before the third. */
async function threeSnapshots(): Promise<{ bench: Bench; ids: readonly [string, string, string] }> {
  const bench = new Bench();
  await bench.volume('a.img', noise(4 * MEBIBYTE, 1));
  const first = bench.snapshot('a.img');
  bench.ok(['write', 'a.img', '--offset', String(3 * BLOCK + 7)], noise(100, 2));
  const second = bench.snapshot('a.img');
  bench.ok(['write', 'a.img', '--offset', String(10 * BLOCK)], Buffer.alloc(2 * BLOCK));
  const third = bench.snapshot('a.img');
  bench.ok(['write', 'a.img'], noise(MEBIBYTE, 3));
  return { bench, ids: [first, second, third] };
}

const image = (bench: Bench, name: string): Qcow2Image => parseImage(readFileSync(bench.path(name)));
const backingOf = (bench: Bench, name: string) => decodeQcow2Header(readFileSync(bench.path(name))).backing;
const qcow2 = (id: string, output: string, ...options: readonly string[]) => [
  ...['export', 'a.img', id, '-o', output, '--format', 'qcow2'],
  ...options,
];

describe('export --format qcow2', () => {
  test('gives the snapshot, and each increment over the one before', async () => {
    const { bench, ids } = await threeSnapshots();
    const [first, second, third] = ids;
    expect(bench.json(qcow2(first, '1.qcow2'))).toEqual({
      file: '1.qcow2',
      format: 'qcow2',
      id: first,
      size: 4 * MEBIBYTE,
      writtenBytes: 4 * MEBIBYTE,
      zeroBytes: 0,
      allocatedBytes: 4 * MEBIBYTE + 5 * 65_536,
      clusterSize: 65_536,
      since: null,
      backing: null,
    });
    expect(bench.json(qcow2(second, '2.qcow2', '--since', first, '--backing', '1.qcow2'))).toEqual({
      file: '2.qcow2',
      format: 'qcow2',
      id: second,
      size: 4 * MEBIBYTE,
      writtenBytes: BLOCK,
      zeroBytes: 0,
      allocatedBytes: 6 * BLOCK,
      clusterSize: BLOCK,
      since: first,
      backing: '1.qcow2',
    });
    const said = bench.json(qcow2(third, '3.qcow2', '--since', second, '--backing', '2.qcow2'));
    expect(said).toMatchObject({ writtenBytes: 0, zeroBytes: 2 * BLOCK, allocatedBytes: 5 * BLOCK });
    let below: Uint8Array = new Uint8Array(0);
    for (const [index, id] of ids.entries()) {
      below = image(bench, `${index + 1}.qcow2`).read(below);
      expectSame(Buffer.from(below), bench.read(`a.img@${id}`));
    }
    expect(backingOf(bench, '3.qcow2')).toEqual({ name: '2.qcow2', format: 'qcow2' });
    expect(bench.ok(qcow2(second, '4.qcow2')).stdout).toBe('4.qcow2: 4 MiB, 4 MiB of it data\n');
  });

  test('finds the older image beside the new one', async () => {
    const { bench, ids } = await threeSnapshots();
    const [first, second] = ids;
    mkdirSync(bench.path('backups'));
    bench.ok(qcow2(first, 'backups/monday.qcow2'));
    bench.ok(qcow2(second, 'backups/other.qcow2'));
    writeFileSync(bench.path('backups/rubbish.qcow2'), 'QFI\xfbrubbish', 'latin1');
    writeFileSync(bench.path('backups/text.qcow2'), 'text');
    const said = bench.json(qcow2(second, 'backups/tuesday.qcow2', '--since', first));
    expect(said).toMatchObject({ backing: 'monday.qcow2' });
    expect(backingOf(bench, 'backups/tuesday.qcow2')).toEqual({ name: 'monday.qcow2', format: 'qcow2' });
    // The new one must not take the place of the only older one: what only that has would be lost.
    bench.ok(qcow2(first, 'alone.qcow2'));
    expect(bench.fails(qcow2(second, 'alone.qcow2', '--since', first), 1)).toContain(
      'alone.qcow2 would be replaced by the image that is read through it',
    );
    expect(backingOf(bench, 'alone.qcow2')).toBeUndefined();
    // Two that would do: the user has to say.
    bench.ok(qcow2(first, 'backups/again.qcow2'));
    const failure = bench.fails(qcow2(second, 'backups/x.qcow2', '--since', first), 1);
    expect(failure).toContain('backups/again.qcow2 and backups/monday.qcow2 hold snapshot');
    bench.ok(qcow2(second, 'backups/x.qcow2', '--since', first, '--backing', 'backups/again.qcow2'));
    expect(backingOf(bench, 'backups/x.qcow2')?.name).toBe('again.qcow2');
  });

  test('without an older image names none, and says so', async () => {
    const { bench, ids } = await threeSnapshots();
    const [first, second] = ids;
    const { status, stderr, stdout } = bench.run([...qcow2(second, '2.qcow2', '--since', first), '--json']);
    expect({ status, said: JSON.parse(stdout) }).toMatchObject({ status: 0, said: { backing: null } });
    expect(JSON.parse(stderr).warning.message).toMatch(/names no image .* qemu-img rebase -u .* 2\.qcow2$/);
    expect(image(bench, '2.qcow2').backing).toBeUndefined();
  });

  test('names an image in another folder by its whole path, in the same one by its name', async () => {
    const { bench, ids } = await threeSnapshots();
    const [first, second] = ids;
    mkdirSync(bench.path('old'));
    mkdirSync(bench.path('new'));
    symlinkSync(bench.path('old'), bench.path('link'));
    bench.ok(qcow2(first, 'old/1.qcow2'));
    bench.ok(qcow2(second, 'new/2.qcow2', '--since', first, '--backing', 'old/1.qcow2'));
    expect(backingOf(bench, 'new/2.qcow2')?.name).toBe(bench.path('old/1.qcow2'));
    bench.ok(qcow2(second, 'link/2.qcow2', '--since', first, '--backing', bench.path('old/1.qcow2')));
    expect(backingOf(bench, 'old/2.qcow2')?.name).toBe('1.qcow2');
    bench.ok(qcow2(first, 'old/12:00.qcow2'));
    bench.ok(qcow2(second, 'old/2.qcow2', '--since', first, '--backing', 'old/12:00.qcow2'));
    expect(backingOf(bench, 'old/2.qcow2')?.name).toBe('./12:00.qcow2');
  });

  test('may be read through a raw export', async () => {
    const { bench, ids } = await threeSnapshots();
    const [first, second] = ids;
    bench.ok(['export', 'a.img', first, '-o', '1.img']);
    const through = [...qcow2(second, '2.qcow2', '--since', first, '--backing', '1.img')];
    expect(bench.fails(through, 2)).toContain('--backing-format raw');
    bench.ok([...through, '--backing-format', 'raw']);
    expect(backingOf(bench, '2.qcow2')).toEqual({ name: '1.img', format: 'raw' });
    const below = readFileSync(bench.path('1.img'));
    expectSame(Buffer.from(image(bench, '2.qcow2').read(below)), bench.read(`a.img@${second}`));
    writeFileSync(bench.path('1.img'), below.subarray(1));
    expect(bench.fails([...through, '--backing-format', 'raw'], 1)).toContain('has 4194303 bytes');
  });

  test('refuses to take the place of an image that it would be read through', async () => {
    const { bench, ids } = await threeSnapshots();
    const [first, second, third] = ids;
    bench.ok(qcow2(first, '1.qcow2'));
    const whole = readFileSync(bench.path('1.qcow2'));
    expect(bench.fails(qcow2(second, '1.qcow2', '--since', first), 1)).toContain('would be replaced');
    bench.ok(qcow2(second, '2.qcow2', '--since', first));
    expect(bench.fails(qcow2(third, '1.qcow2', '--since', second), 1)).toContain('would be replaced');
    expectSame(readFileSync(bench.path('1.qcow2')), whole);
    bench.ok(qcow2(third, '2.qcow2'));
  });

  test('refuses an image that cannot be the older one', async () => {
    const { bench, ids } = await threeSnapshots();
    const [first, second, third] = ids;
    bench.ok(qcow2(first, '1.qcow2'));
    bench.ok(qcow2(second, '2.qcow2'));
    await bench.volume('b.img', MEBIBYTE);
    bench.ok(['export', 'b.img', bench.snapshot('b.img'), '-o', 'b.qcow2', '--format', 'qcow2']);
    const wrong = (backing: string, status = 1) =>
      bench.fails(qcow2(third, '3.qcow2', '--since', second, '--backing', backing), status);
    expect(wrong('1.qcow2')).toContain(`1.qcow2 holds snapshot ${first}, not ${second}`);
    expect(wrong('b.qcow2')).toContain('b.qcow2 holds snapshot');
    expect(wrong('none.qcow2')).toContain('there is no none.qcow2');
    bench.shell('mkfifo pipe');
    for (const name of ['a.img.volsnap', 'pipe'])
      expect(wrong(name)).toContain(`${name} is neither a file nor a block device`);
    expect(wrong('a.img', 2)).toContain('a.img is no qcow2 image');
    // By programs that do not know which snapshot an image holds, the size at least can be told.
    const head = readFileSync(bench.path('1.qcow2'));
    head.writeUInt32BE(0, 104);
    head.writeUInt32BE(512, 28);
    writeFileSync(bench.path('changed.qcow2'), head);
    expect(wrong('changed.qcow2')).toContain('is of a disk of 512 bytes');
    const self = qcow2(third, '2.qcow2', '--since', second, '--backing', './2.qcow2');
    expect(bench.fails(self, 1)).toContain('would be replaced');
    expect(readdirSync(bench.folder).filter((name) => name.includes('3.qcow2'))).toEqual([]);
    expectSame(Buffer.from(image(bench, '2.qcow2').read()), bench.read(`a.img@${second}`));
  });

  test('is told of wrong usage', async () => {
    const { bench, ids } = await threeSnapshots();
    const [first, second] = ids;
    const since = ['--since', first];
    expect(bench.fails(['export', 'a.img', second, '-o', 'x', ...since], 2)).toContain('--format qcow2');
    const vss = ['export', 'a.img', second, '-o', 'x', ...since, '--format', 'vss'];
    expect(bench.fails(vss, 2)).toContain('--format qcow2');
    expect(bench.fails(qcow2(second, 'x', '--backing', 'a.img'), 2)).toContain('goes with --since');
    expect(bench.fails(qcow2(second, 'x', ...since, '--backing-format', 'raw'), 2)).toContain('--backing');
    expect(bench.fails(qcow2(first, 'x', '--since', second), 1)).toContain('is not older than');
    expect(bench.fails(qcow2(first, 'x', '--since', first), 1)).toContain('is not older than');
    // The image of a wrong snapshot may be missing or wrong too: that is not what is to be mended.
    for (const backing of ['no-such.qcow2', 'a.img'])
      expect(bench.fails(qcow2(first, 'x', '--since', second, '--backing', backing), 1)).toContain(
        'is not older than',
      );
    expect(bench.fails(qcow2(first, 'x', '--since', 'feed'), 1)).toContain('has no snapshot feed');
    expect(bench.shell('ls').stdout.trim().split('\n')).toEqual(['a.img', 'a.img.volsnap']);
  });

  test('that is interrupted leaves the older file as it was', async () => {
    const bench = new Bench();
    await bench.volume('a.img', 20 * 1024 * MEBIBYTE);
    const id = bench.snapshot('a.img');
    writeFileSync(bench.path('x.qcow2'), 'older');
    const child = bench.start(qcow2(id, 'x.qcow2'));
    while (!readdirSync(bench.folder).some((name) => name.endsWith('.partial')))
      await new Promise((resolve) => setImmediate(resolve));
    child.kill('SIGINT');
    expect(await ended(child)).toEqual({ status: null, signal: 'SIGINT' });
    expect(readdirSync(bench.folder).toSorted()).toEqual(['a.img', 'a.img.volsnap', 'x.qcow2']);
    expect(readFileSync(bench.path('x.qcow2'), 'utf8')).toBe('older');
  });
});
