/** Every command of the program, doing what it is for. */
import { readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { requireTool } from '../interop/support/writer-tools.js';
import { Bench, expectSame, hasProgram, MEBIBYTE, noise } from './cli-support.js';

const BLOCK = 16_384;
const GUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

describe('init', () => {
  test('makes a store beside the volume and leaves the volume alone', () => {
    const bench = new Bench();
    const content = noise(MEBIBYTE, 1);
    bench.ok(['init', bench.image('a.img', content)]);
    expectSame(readFileSync(bench.path('a.img')), content);
    expect(bench.json(['info', 'a.img'])).toMatchObject({
      volumeSize: MEBIBYTE,
      layout: 'directory',
      storeName: 'a.img.volsnap',
      snapshots: 0,
      maximumBytes: 0,
    });
  });

  test('keeps the limit, and says as JSON what it did', () => {
    const bench = new Bench();
    bench.image('a.img', MEBIBYTE);
    expect(bench.json(['init', 'a.img', '--max-size', '1.5G'])).toEqual({
      volume: 'a.img',
      volumeSize: MEBIBYTE,
      layout: 'directory',
      storeName: 'a.img.volsnap',
      maximumBytes: 1.5 * 1024 ** 3,
    });
    expect(bench.json(['info', 'a.img']).maximumBytes).toBe(1.5 * 1024 ** 3);
  });

  test('puts the store where --store says, and every command finds it there', async () => {
    const bench = new Bench();
    await bench.volume('a.img', noise(MEBIBYTE, 1), '--store', 'elsewhere');
    const id = bench.snapshot('a.img', '--store', 'elsewhere');
    bench.ok(['write', 'a.img', '--store', 'elsewhere'], noise(BLOCK, 2));
    expectSame(bench.read(`a.img@${id}`, '--store', 'elsewhere'), noise(MEBIBYTE, 1));
    expect(bench.fails(['list', 'a.img'], 1)).toContain('no snapshot store');
  });

  test('makes the volume longer for a store inside it', async () => {
    const bench = new Bench();
    const content = noise(2 * MEBIBYTE, 3);
    await bench.volume('a.img', content, '--in-volume', '--reserve', '8M');
    expect(statSync(bench.path('a.img')).size).toBe(10 * MEBIBYTE);
    const id = bench.snapshot('a.img');
    bench.ok(['write', 'a.img'], noise(MEBIBYTE, 4));
    expectSame(bench.read(`a.img@${id}`), content);
    expectSame(bench.read('a.img'), Buffer.concat([noise(MEBIBYTE, 4), content.subarray(MEBIBYTE)]));
  });

  test('follows a link to the volume, so there is one store', () => {
    const bench = new Bench();
    bench.image('real.img', MEBIBYTE);
    bench.shell('ln -s real.img link.img');
    bench.ok(['init', 'link.img']);
    expect(bench.json(['info', 'real.img']).storeName).toContain('real.img.volsnap');
  });
});

describe('create and list', () => {
  test('print the id, and the snapshots from the oldest', async () => {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    const before = Date.now();
    const label = 'vor dem Upgrade – 日本語 🎉';
    const first = bench.snapshot('a.img', '--label', label);
    bench.ok(['write', 'a.img', '--offset', '16K'], noise(2 * BLOCK, 1));
    const second = bench.json(['create', 'a.img']);
    expect(first).toMatch(GUID);
    const list = bench.json(['list', 'a.img']);
    expect(list).toEqual([
      {
        id: first,
        storeId: expect.stringMatching(GUID),
        setId: expect.stringMatching(GUID),
        order: 1,
        label,
        createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
        volumeSize: MEBIBYTE,
        usedBytes: expect.any(Number),
        unusedBytes: 0,
        allocatedBytes: expect.any(Number),
        state: 'ok',
        persistent: true,
        hidden: false,
        offline: false,
        writable: false,
        held: false,
        heldUntil: null,
      },
      expect.objectContaining({ id: second.id, order: 2, label: null }),
    ]);
    expect(Date.parse(list[0].createdAt)).toBeGreaterThanOrEqual(before - 1);
    expect(list[0].usedBytes).toBeLessThanOrEqual(list[0].allocatedBytes);
    const lines = bench.ok(['list', 'a.img']).stdout.split('\n');
    expect(lines[0]).toMatch(/^ID +LABEL +TAKEN +AGE +VOLUME +USED +ALLOCATED +STATE$/);
    expect(lines[1]).toContain(first);
    expect(lines[1]).toContain(label);
    expect(lines[1]).toMatch(/just now|second/);
  });

  test('leave out what nothing uses, if that is known', async () => {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    const { status, stderr } = bench.run(['create', 'a.img', '--skip-unused']);
    expect(status).toBe(0);
    expect(stderr).toContain('nothing is left out of the snapshot: no file system was recognized');
    expect(bench.json(['info', 'a.img']).unusedBytes).toBe(0);
    if (!requireTool('mkfs.ext4')) return;
    bench.image('b.img', 8 * MEBIBYTE);
    expect(bench.shell('mkfs.ext4 -q -F b.img').status).toBe(0);
    bench.ok(['init', 'b.img']);
    const { unusedBytes } = bench.json(['create', 'b.img', '--skip-unused']);
    expect(unusedBytes).toBeGreaterThan(4 * MEBIBYTE);
    expect(bench.json(['info', 'b.img']).unusedBytes).toBe(unusedBytes);
    expect(bench.json(['list', 'b.img'])[0].unusedBytes).toBe(unusedBytes);
    expect(bench.json(['map', 'b.img'])).toMatchObject({ changedBytes: 0, unusedBytes });
    expect(bench.ok(['map', 'b.img']).stdout).toContain('left out, because nothing used it');
    expect(bench.ok(['info', 'b.img']).stdout).toMatch(/unused +\d.* that the newest snapshot leaves out/);
  });

  test('of several volumes: one set, of which all are hidden if that is asked for', async () => {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    await bench.volume('b.img', MEBIBYTE);
    const set = bench.json(['create', 'a.img', 'b.img', '--label', 'both', '--hidden']);
    expect(set).toMatchObject([
      { volume: 'a.img', label: 'both', hidden: true, persistent: true, setId: set[0].setId },
      { volume: 'b.img', label: 'both', hidden: true, persistent: true, setId: set[0].setId },
    ]);
    expect(bench.json(['list', 'b.img'])).toEqual([]);
    expect(bench.ok(['list', 'b.img', '--all']).stdout).toContain(set[1].id);
    expect(bench.fails(['create', 'a.img', 'b.img', '--store', 'x'], 2)).toContain('--store');
    expect(bench.fails(['create', 'a.img', '--not-persistent'], 1)).toContain('served');
  });

  test('a label cannot draw on the terminal', async () => {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    bench.snapshot('a.img', '--label', 'evil\u001b[31m\nsecond line\u202e');
    const { stdout } = bench.ok(['list', 'a.img']);
    expect(stdout.split('\n')).toHaveLength(3);
    for (const sign of ['\u001b', '\u202e']) expect(stdout).not.toContain(sign);
    expect(bench.json(['list', 'a.img'])[0].label).toBe('evil\u001b[31m\nsecond line\u202e');
  });

  test('keep application information from a file or a pipe, if it fits', async () => {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    writeFileSync(bench.path('info'), noise(16_000, 5));
    bench.snapshot('a.img', '--app-info', 'info');
    expect(bench.shell('volsnap create a.img --app-info <(printf hello)').status).toBe(0);
    writeFileSync(bench.path('info'), noise(16_257, 5));
    expect(bench.fails(['create', 'a.img', '--app-info', 'info'], 1)).toContain('too large');
    expect(bench.fails(['create', 'a.img', '--app-info', '/dev/zero'], 1)).toContain('too large');
    expect(bench.fails(['create', 'a.img', '--app-info', 'nowhere'], 1)).toContain('cannot read nowhere');
    expect(bench.json(['list', 'a.img'])).toHaveLength(2);
  });
});

describe('read and write', () => {
  test('carry any range, and a snapshot stays as it was', async () => {
    const bench = new Bench();
    const content = noise(3 * MEBIBYTE + 777, 1);
    await bench.volume('a.img', content);
    const id = bench.snapshot('a.img');
    const data = noise(2 * MEBIBYTE + 5, 2);
    expect(bench.ok(['write', 'a.img', '--offset', '12345'], data).stdout).toBe('');
    const expected = Buffer.from(content);
    data.copy(expected, 12_345);
    expectSame(bench.read('a.img'), expected);
    expectSame(bench.read(`a.img@${id}`), content);
    expect(bench.read('a.img', '--offset', '0x3039', '--length', '3')).toEqual(data.subarray(0, 3));
    expect(bench.read('a.img', '--offset', String(content.length))).toHaveLength(0);
    expectSame(readFileSync(bench.path('a.img')), expected);
  });

  test('an input that is too long fills the volume to its end and fails', async () => {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    const data = noise(MEBIBYTE + 1, 2);
    expect(bench.fails(['write', 'a.img'], 1, { input: data })).toContain('longer than the volume');
    expectSame(bench.read('a.img'), data.subarray(0, MEBIBYTE));
    bench.ok(['write', 'a.img', '--offset', '1M'], '');
    bench.fails(['write', 'a.img', '--offset', '2M'], 1, { input: 'x' });
  });

  test('a snapshot that was taken so is written itself, and nothing else changes', async () => {
    const bench = new Bench();
    const content = noise(MEBIBYTE, 1);
    await bench.volume('a.img', content);
    const [kept, id] = [bench.snapshot('a.img'), bench.snapshot('a.img', '--writable')];
    const data = noise(70_000, 2);
    bench.ok(['write', `a.img@${id}`, '--offset', '12345'], data);
    const expected = Buffer.from(content);
    data.copy(expected, 12_345);
    expectSame(bench.read(`a.img@${id}`), expected);
    for (const source of ['a.img', `a.img@${kept}`]) expectSame(bench.read(source), content);
    expect(bench.json(['list', 'a.img']).map(({ writable }: { writable: boolean }) => writable)).toEqual([
      false,
      true,
    ]);
    expect(bench.fails(['write', `a.img@${kept}`], 1, { input: 'x' })).toContain('may only be read');
    bench.ok(['check', 'a.img', '--scrub']);
  });

  test('copy-range moves whole blocks, which map tells', async () => {
    const bench = new Bench();
    const content = noise(MEBIBYTE, 1);
    await bench.volume('a.img', content);
    const id = bench.snapshot('a.img');
    bench.ok(['copy-range', 'a.img', '--from', '32K', '--to', '512K', '--length', '64K']);
    const expected = Buffer.from(content);
    expected.copyWithin(512 * 1024, 32 * 1024, 96 * 1024);
    expectSame(bench.read('a.img'), expected);
    expect(bench.json(['map', 'a.img']).movedBytes).toBe(64 * 1024);
    bench.ok(['write', 'a.img', '--offset', '32K'], noise(64 * 1024, 3));
    expectSame(bench.read(`a.img@${id}`), content);
    bench.fails(['copy-range', 'a.img', '--from', '0', '--to', '1M', '--length', '1'], 1);
  });

  test('a file whose name has an @ is a volume', async () => {
    const bench = new Bench();
    await bench.volume('disk@home.img', noise(BLOCK, 6));
    const id = bench.snapshot('disk@home.img');
    expectSame(bench.read('disk@home.img'), noise(BLOCK, 6));
    expectSame(bench.read(`disk@home.img@${id.slice(0, 6)}`), noise(BLOCK, 6));
  });

  test('a reader that has had enough is no failure', async () => {
    const bench = new Bench();
    await bench.volume('a.img', 64 * MEBIBYTE);
    const outcome = bench.shell('volsnap read a.img | head -c 5 | wc -c');
    expect(outcome).toMatchObject({ status: 0, stdout: '5\n', stderr: '' });
    expect(bench.shell('volsnap --help | head -n 1')).toMatchObject({ status: 0, stderr: '' });
  });
});

describe('diff and map', () => {
  test('show what was written, exact to a block', async () => {
    const bench = new Bench();
    await bench.volume('a.img', 8 * MEBIBYTE);
    const first = bench.snapshot('a.img');
    bench.ok(['write', 'a.img', '--offset', '1M'], noise(100, 1));
    const second = bench.snapshot('a.img');
    bench.ok(['write', 'a.img', '--offset', '4M'], noise(3 * BLOCK, 2));
    const one = { offset: MEBIBYTE, length: BLOCK };
    const other = { offset: 4 * MEBIBYTE, length: 3 * BLOCK };
    expect(bench.json(['diff', 'a.img', first, second])).toEqual([one]);
    expect(bench.json(['diff', 'a.img', first])).toEqual([one, other]);
    expect(bench.json(['diff', 'a.img', second])).toEqual([other]);
    expect(bench.json(['diff', 'a.img', second, second])).toEqual([]);
    expect(bench.ok(['diff', 'a.img', first]).stdout).toBe(
      `${one.offset} ${one.length}\n${other.offset} ${other.length}\n`,
    );
    expect(bench.fails(['diff', 'a.img', second, first], 1)).toContain('newer');
    const map = bench.json(['map', 'a.img']);
    expect(map).toMatchObject({
      volumeSize: 8 * MEBIBYTE,
      since: first,
      changedBytes: 4 * BLOCK,
      cellBytes: BLOCK,
    });
    expect(map.cells).toHaveLength(512);
    expect(map.cells[64]).toBe(BLOCK);
    const picture = bench.ok(['map', 'a.img', second]).stdout.split('\n');
    expect(picture[0]).toBe(`       0 B  ${'·'.repeat(64)}`);
    expect(picture[4]).toBe(`     4 MiB  ███${'·'.repeat(61)}`);
    expect(picture.at(-2)).toMatch(/^48 KiB of 8 MiB \(0\.6 %\) copied since snapshot/);
  });

  test('a part that is half copied shows half', async () => {
    const bench = new Bench();
    await bench.volume('a.img', 64 * MEBIBYTE);
    bench.snapshot('a.img');
    bench.ok(['write', 'a.img'], noise(2 * BLOCK, 1));
    expect(bench.ok(['map', 'a.img']).stdout.split('\n')[0]).toMatch(/^ +0 B {2}▒·{63}$/);
  });
});

describe('export', () => {
  test('makes an image with holes, equal to the snapshot', async () => {
    const bench = new Bench();
    const content = Buffer.alloc(16 * MEBIBYTE + 1000);
    noise(100_000, 1).copy(content, 5 * MEBIBYTE);
    noise(1000, 2).copy(content, 16 * MEBIBYTE);
    await bench.volume('a.img', content);
    const id = bench.snapshot('a.img');
    bench.ok(['write', 'a.img'], noise(8 * MEBIBYTE, 3));
    const said = bench.json(['export', 'a.img', id.slice(0, 8), '-o', 'out.img']);
    expect(said).toMatchObject({ file: 'out.img', format: 'raw', id, size: content.length });
    expectSame(readFileSync(bench.path('out.img')), content);
    expect(statSync(bench.path('out.img')).blocks * 512).toBeLessThan(MEBIBYTE);
    // An older export is replaced as a whole.
    writeFileSync(bench.path('out.img'), noise(20 * MEBIBYTE, 4));
    bench.ok(['export', 'a.img', id, '-o', 'out.img']);
    expectSame(readFileSync(bench.path('out.img')), content);
    expect(bench.shell('ls').stdout.trim().split('\n')).toEqual(['a.img', 'a.img.volsnap', 'out.img']);
  });

  test('goes to standard output where FILE is -, zeros and all; ./- is a file', async () => {
    const bench = new Bench();
    const content = Buffer.alloc(3 * MEBIBYTE + 1000);
    noise(100_000, 1).copy(content, MEBIBYTE);
    await bench.volume('a.img', content);
    const id = bench.snapshot('a.img');
    bench.ok(['write', 'a.img'], noise(2 * MEBIBYTE, 3));
    expectSame(bench.ok(['export', 'a.img', id.slice(0, 8), '-o', '-']).bytes, content);
    expect(bench.shell('ls').stdout.trim().split('\n')).toEqual(['a.img', 'a.img.volsnap']);
    expect(bench.shell(`volsnap export a.img ${id} -o - | head -c 5 | wc -c`)).toMatchObject({
      status: 0,
      stdout: '5\n',
      stderr: '',
    });
    expect(bench.fails(['export', 'a.img', 'feed', '-o', '-'], 1)).toContain('no snapshot feed');
    bench.ok(['export', 'a.img', id, '-o', './-']);
    expectSame(readFileSync(bench.path('-')), content);
  });

  test('never touches the volume itself', async () => {
    const bench = new Bench();
    await bench.volume('a.img', noise(MEBIBYTE, 1));
    const id = bench.snapshot('a.img');
    bench.shell('ln a.img hard.img; ln -s a.img soft.img');
    for (const target of ['a.img', 'hard.img', 'soft.img']) {
      expect(bench.fails(['export', 'a.img', id, '-o', target], 1)).toContain('is the volume itself');
    }
    expectSame(bench.read('a.img'), noise(MEBIBYTE, 1));
  });

  test('needs to know which snapshot, and volumes behind a URI have to wait', async () => {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    expect(bench.fails(['export', 'a.img', '-o', 'x'], 2)).toContain('which snapshot');
  });

  test.skipIf(!hasProgram('vshadowinfo'))('as vss gives an image that libvshadow opens', async () => {
    const bench = new Bench();
    await bench.volume('a.img', noise(4 * MEBIBYTE, 1));
    const ids = [1, 2, 3].map((seed) => {
      const id = bench.snapshot('a.img');
      bench.ok(['write', 'a.img', '--offset', '1M'], noise(MEBIBYTE, 10 + seed));
      return id;
    });
    bench.ok(['export', 'a.img', '--format', 'vss', '-o', 'all.img']);
    const { stdout } = bench.shell('vshadowinfo all.img');
    for (const id of ids) expect(stdout).toContain(id);
    const again = bench.json(['list', 'all.img']);
    expect(again.map(({ id }: { id: string }) => id)).toEqual(ids);
    for (const id of ids) expectSame(bench.read(`all.img@${id}`), bench.read(`a.img@${id}`));
    bench.ok(['export', 'a.img', String(ids[1]), '--format', 'vss', '-o', 'two.img']);
    expect(bench.json(['list', 'two.img'])).toHaveLength(2);
  });
});

describe('delete and resize-store', () => {
  test('remove any, and say whether their space is free', async () => {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    const ids = [1, 2, 3, 4, 5].map(() => bench.snapshot('a.img'));
    const [a = '', b = '', c = '', d = '', e = ''] = ids;
    expect(bench.ok(['delete', 'a.img', '--oldest']).stdout).toBe(`deleted ${a}\n`);
    expect(bench.json(['delete', 'a.img', d, c, d])).toEqual({ deleted: [c, d], merged: true });
    expect(bench.json(['info', 'a.img'])).toMatchObject({ snapshots: 2, deletedSnapshots: 0 });
    expect(bench.json(['delete', 'a.img', e, '--no-wait'])).toEqual({ deleted: [e], merged: false });
    expect(bench.fails(['delete', 'a.img', e], 1)).toContain(e);
    expect(bench.json(['delete', 'a.img', '--all'])).toEqual({ deleted: [b], merged: true });
    expect(bench.json(['delete', 'a.img', '--all'])).toEqual({ deleted: [], merged: true });
    expect(bench.fails(['delete', 'a.img', '--oldest'], 1)).toContain('no snapshots');
  });

  test('change the limit, and say what had to go', async () => {
    const bench = new Bench();
    await bench.volume('a.img', noise(4 * MEBIBYTE, 1));
    const id = bench.snapshot('a.img');
    bench.ok(['write', 'a.img'], noise(4 * MEBIBYTE, 2));
    expect(bench.json(['resize-store', 'a.img', '1T'])).toMatchObject({
      maximumBytes: 1024 ** 4,
      deleted: [],
    });
    expect(bench.json(['resize-store', 'a.img', '1M'])).toMatchObject({
      maximumBytes: MEBIBYTE,
      deleted: [id],
    });
    expect(bench.json(['resize-store', 'a.img', '0'])).toMatchObject({ maximumBytes: 0 });
    expect(bench.json(['info', 'a.img'])).toMatchObject({ maximumBytes: 0, snapshots: 0 });
  });
});

describe('hold, release and policy', () => {
  test('keep a snapshot, and say what happens to writes without room', async () => {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    const id = bench.snapshot('a.img');
    const heldUntil = '2099-01-31T18:00:00.000Z';
    expect(bench.json(['hold', 'a.img', id, '--until', '2099-01-31T18:00Z'])).toMatchObject({
      id,
      heldUntil,
    });
    expect(bench.fails(['delete', 'a.img', '--oldest'], 1)).toContain(`volsnap release VOLUME ${id}`);
    expect(bench.ok(['policy', 'a.img', 'hold-writes', '--wait', '300']).stdout).toContain('for up to 300 s');
    expect(bench.json(['info', 'a.img'])).toMatchObject({
      heldSnapshots: 1,
      space: { policy: 'hold-writes', waitMs: 300_000, afterWait: 'fail-writes', isFull: false },
    });
    expect(bench.fails(['policy', 'a.img', 'fail-writes', '--wait', '3'], 2)).toContain('hold-writes only');
    expect(bench.json(['release', 'a.img', id])).toMatchObject({ id, held: false, heldUntil: null });
    expect(bench.json(['delete', 'a.img', id])).toEqual({ deleted: [id], merged: true });
  });
});

test('set-snapshot and grow change what they are asked to, and say so', async () => {
  const bench = new Bench();
  await bench.volume('disk.img', MEBIBYTE);
  const id = bench.ok(['create', 'disk.img']).stdout.trim();
  expect(bench.fails(['set-snapshot', 'disk.img', id], 2)).toContain('--hide or --show');
  expect(bench.fails(['set-snapshot', 'disk.img', id, '--hide', '--show'], 2)).toContain('cannot be used');
  expect(bench.json(['set-snapshot', 'disk.img', id, '--hide', '--offline', '--writable'])).toMatchObject({
    hidden: true,
    offline: true,
    writable: true,
  });
  expect(bench.json(['list', 'disk.img'])).toEqual([]);
  expect(bench.fails(['read', `disk.img@${id}`, '--offset', '0', '--length', '1'], 1)).toContain('offline');
  expect(bench.ok(['set-snapshot', 'disk.img', id, '--show', '--online']).stdout).toBe(
    `${id} is shown, online, writable\n`,
  );
  expect(bench.ok(['grow', 'disk.img', '2M']).stdout).toContain('has 2 MiB now; it had 1 MiB');
  expect(bench.fails(['grow', 'disk.img', '1M'], 1)).toContain('cannot be cut');
  expect(bench.json(['list', 'disk.img'])).toEqual([expect.objectContaining({ id, volumeSize: MEBIBYTE })]);
  expect(bench.json(['info', 'disk.img'])).toMatchObject({ volumeSize: 2 * MEBIBYTE });
});

test('a store inside the volume is protected from its users', () => {
  const bench = new Bench();
  bench.image('a.img', noise(8 * MEBIBYTE, 1));
  bench.fails(['init', 'a.img', '--in-volume', '--runs', '1M'], 2);
  bench.ok(['init', 'a.img', '--in-volume', '--runs', '1M+2M,5M+1M']);
  const id = bench.snapshot('a.img');
  bench.ok(['write', 'a.img'], noise(MEBIBYTE, 2));
  expect(bench.fails(['write', 'a.img', '--offset', '2M'], 1, { input: noise(MEBIBYTE, 3) })).toContain(
    'store',
  );
  expect(bench.json(['list', 'a.img'])).toMatchObject([{ id }]);
  const dropping = ['write', 'a.img', '--offset', '5M', '--protected-blocks', 'drop'];
  expect(bench.run(dropping, { input: noise(4096, 4) })).toMatchObject({
    status: 0,
    stderr: expect.stringContaining('given up'),
  });
  expect(bench.json(['list', 'a.img'])).toEqual([]);
  const bytes = bench.ok(['read', 'a.img', '--offset', '5M', '--length', '8192']).bytes;
  expect(bytes.equals(Buffer.concat([noise(4096, 4), Buffer.alloc(4096)]))).toBe(true);
});

describe('check', () => {
  test('finds damage, and removes what is damaged if asked', async () => {
    const bench = new Bench();
    await bench.volume('a.img', noise(4 * MEBIBYTE, 1));
    const first = bench.snapshot('a.img');
    bench.ok(['write', 'a.img'], noise(MEBIBYTE, 2));
    const second = bench.snapshot('a.img');
    bench.ok(['write', 'a.img', '--offset', '2M'], noise(MEBIBYTE, 3));
    expect(bench.ok(['check', 'a.img']).stdout).toBe('a.img: sound\n');
    expect(bench.json(['check', 'a.img', '--scrub'])).toEqual({ sound: true, problems: [] });
    expect(bench.json(['check', 'a.img', '--repair'])).toEqual({ sound: true, problems: [] });
    // The name of a diff area is that of its snapshot.
    bench.shell(`dd if=/dev/zero of=$(echo a.img.volsnap/{${first}}*) bs=16K count=1 conv=notrunc`);
    const found = bench.run(['check', 'a.img']);
    expect(found.status).toBe(1);
    expect(found.stdout).toMatch(new RegExp(`^snapshot-damaged ${first}: .+\n$`));
    expect(bench.fails(['create', 'a.img'], 1)).toContain('check --repair');
    const damaged = bench.run(['list', 'a.img', '--json']);
    expect(damaged.status).toBe(0);
    expect(JSON.parse(damaged.stdout)).toMatchObject([
      { state: 'damaged', problem: expect.any(String) },
      { state: 'ok' },
    ]);
    const repaired = bench.run(['check', 'a.img', '--repair', '--json']);
    expect(repaired).toMatchObject({ status: 0, stderr: '' });
    expect(JSON.parse(repaired.stdout)).toMatchObject({ sound: true, problems: [], removed: [first] });
    expect(bench.json(['list', 'a.img']).map(({ id }: { id: string }) => id)).toEqual([second]);
  });

  test('scrubbing finds a copy that went bad', async () => {
    const bench = new Bench();
    const content = noise(MEBIBYTE, 1);
    await bench.volume('a.img', content);
    const id = bench.snapshot('a.img');
    bench.ok(['write', 'a.img'], noise(MEBIBYTE, 2));
    const area = bench.path(
      join(
        'a.img.volsnap',
        bench
          .shell('ls a.img.volsnap')
          .stdout.split('\n')
          .find((name) => name.includes(id)) ?? '',
      ),
    );
    const bytes = readFileSync(area);
    const at = bytes.indexOf(content.subarray(0, 64));
    expect(at).toBeGreaterThan(0);
    bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
    writeFileSync(area, bytes);
    bench.ok(['check', 'a.img']);
    const scrubbed = bench.run(['check', 'a.img', '--scrub']);
    expect(scrubbed.status).toBe(1);
    expect(scrubbed.stdout).toMatch(
      new RegExp(`^checksum ${id}: the copy .+\\. 16384 bytes at 0 cannot be read in ${id};.+\n$`),
    );
    const read = bench.run(['read', `a.img@${id}`]);
    expect(read.status).toBe(1);
    expect(read.stderr).toMatch(/^volsnap: .+\n$/);
    const lost = bench.run(['check', 'a.img', '--scrub', '--repair']);
    expect(lost.status).toBe(1);
    expect(lost.stdout).toMatch(/^checksum .+\nstill there: checksum .+\n$/);
    // The volume has the bytes again.
    bench.ok(['write', 'a.img'], content);
    const repaired = bench.run(['check', 'a.img', '--scrub', '--rate', '64M', '--repair', '--json']);
    expect(repaired).toMatchObject({ status: 0, stderr: '' });
    expect(JSON.parse(repaired.stdout)).toMatchObject({
      sound: true,
      problems: [],
      found: [{ code: 'checksum', snapshot: id, block: 0 }],
      removed: [],
      repaired: [{ block: 0, repaired: true }],
    });
    expect(bench.ok(['read', `a.img@${id}`]).bytes.equals(content)).toBe(true);
    bench.fails(['check', 'a.img', '--rate', '1M'], 2);
  });
});

test('a volume changed behind volsnap is refused until --changed says what to do', async () => {
  for (const how of ['keep', 'invalidate']) {
    const bench = new Bench();
    await bench.volume('a.img', MEBIBYTE);
    const id = bench.snapshot('a.img');
    utimesSync(bench.path('a.img'), 1_000_000, 1_000_000);
    const refusal = bench.fails(['write', 'a.img'], 1, { input: 'x' });
    expect(refusal).toContain('was changed');
    expect(refusal).toContain('--changed keep');
    bench.fails(['write', 'a.img', '--changed', 'drop'], 2);
    const written = bench.run(['write', 'a.img', '--changed', how], { input: 'x' });
    expect(written.status).toBe(0);
    const [change = '', ...rest] = written.stderr.trimEnd().split('\n');
    expect(change).toMatch(/^volsnap: warning: .*was changed/);
    const gone = `volsnap: warning: snapshot ${id} was given up (volume-changed)`;
    expect(rest).toEqual(how === 'keep' ? [] : [gone]);
    const left = bench.json(['list', 'a.img']).map((snapshot: { id: string }) => snapshot.id);
    expect(left).toEqual(how === 'keep' ? [id] : []);
  }
});

test('a file name with line ends and escapes stays on its line', () => {
  const bench = new Bench();
  const name = bench.image('new\nline\u001b[31m.img', MEBIBYTE);
  const told = [bench.ok(['init', name]).stdout];
  const id = bench.snapshot(name);
  told.push(bench.ok(['check', name]).stdout, bench.ok(['export', name, id, '-o', 'b\nc.raw']).stdout);
  for (const text of told) expect(text.trimEnd()).toMatch(/^[^\p{Cc}]+$/u);
  const [title, , store] = bench.ok(['info', name]).stdout.split('\n');
  expect(title).toBe('new line\ufffd[31m.img');
  expect(store).toMatch(/^ {2}store .*new line\ufffd\[31m\.img\.volsnap$/);
});
