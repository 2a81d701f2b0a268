/** The program on a volume that Windows wrote. Skipped, and said so, where the image or qemu-img is not there. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';
import { MemoryDevice } from '../../src/index.js';
import { BLOCK_SIZE } from '../../src/units.js';
import { ForeignStore } from '../../src/windows/foreign-store.js';
import { buildWindowsImage, copy, snapshotIdOf } from '../interop/support/windows-image.js';
import { Bench, hasProgram } from './cli-support.js';

const DATA = process.env.VOLSNAP_SHARED_DATA ?? resolve(import.meta.dirname, '../../../shared/data');
const IMAGE = join(DATA, 'windows-vss.qcow2');
const missing = !existsSync(IMAGE) ? `no ${IMAGE}` : !hasProgram('qemu-img') ? 'no qemu-img' : undefined;

test.skipIf(missing !== undefined)(
  `shadow copies of Windows are listed and exported${missing === undefined ? '' : ` (skipped: ${missing})`}`,
  () => {
    const bench = new Bench();
    execFileSync('qemu-img', ['convert', '-O', 'raw', IMAGE, bench.path('windows.img')]);
    const expected: { snapshots: Record<string, string>[]; volumeSha256: string } = JSON.parse(
      readFileSync(join(DATA, 'windows-vss.json'), 'utf8'),
    );
    expect(bench.json(['list', 'windows.img'])).toEqual(
      expected.snapshots.map(({ snapshotId, storeId, setId, createdAt }) =>
        expect.objectContaining({ id: snapshotId, storeId, setId, createdAt, state: 'ok' }),
      ),
    );
    // By the id of the store too, as vshadowinfo shows it.
    for (const { storeId = '', sha256 } of expected.snapshots) {
      bench.ok(['export', 'windows.img', storeId, '-o', 'out.img']);
      expect(hashOfFile(bench.path('out.img'))).toBe(sha256);
    }
    expect(bench.ok(['check', 'windows.img']).stdout).toContain('sound');
    expect(bench.json(['info', 'windows.img'])).toMatchObject({ layout: 'windows', snapshots: 2 });
    expect(bench.fails(['create', 'windows.img'], 1)).toContain('read-only');
    expect(bench.fails(['diff', 'windows.img', '600f0b6'], 1)).toContain('store 600f0b69');
    expect(hashOfFile(bench.path('windows.img'))).toBe(expected.volumeSha256);
  },
);

/** A small volume with two shadow copies, and room in the newer for two copies more. */
function twoShadowCopies(blocks = 60) {
  const createdAt = 130_305_261_097_363_787n;
  return buildWindowsImage({
    size: blocks * BLOCK_SIZE,
    metadataFrom: 30,
    snapshots: [
      { number: 1, createdAt, tables: [[copy(1, 20)]], free: [2] },
      { number: 2, createdAt: createdAt + 1n, tables: [[copy(2, 21)]], free: [2] },
    ],
  });
}

test('a volume of Windows is written when it is said how, and its oldest shadow copy deleted', async () => {
  const bench = new Bench();
  const { bytes } = twoShadowCopies();
  bench.image('windows.img', bytes);
  const at = (block: number) => ['--offset', String(block * BLOCK_SIZE)];
  const keep = ['--shadow-copies', 'keep'];
  const newest = async () => {
    const store = await ForeignStore.open(new MemoryDevice(readFileSync(bench.path('windows.img'))));
    const snapshot = store.snapshots.at(-1);
    return snapshot && Buffer.from(await snapshot.read(0, 20 * BLOCK_SIZE)).toString('latin1');
  };
  const before = await newest();
  expect(bench.fails(['write', 'windows.img', ...at(8)], 1, { input: 'new' })).toContain('--shadow-copies');
  bench.ok(['write', 'windows.img', ...at(8), ...keep], 'new');
  expect((await newest()) === before).toBe(true);
  expect(bench.fails(['create', 'windows.img', ...keep], 1)).toContain('that Windows made');
  bench.ok(['delete', 'windows.img', '--oldest', ...keep]);
  expect(bench.json(['list', 'windows.img'])).toEqual([expect.objectContaining({ order: 2, state: 'ok' })]);
  // The other goes too when there is no room and that is what is wanted.
  const long = 'x'.repeat(2 * BLOCK_SIZE);
  const { status, stderr } = bench.run(['write', 'windows.img', ...at(9), '--shadow-copies', 'drop'], {
    input: long,
  });
  expect(status).toBe(0);
  expect(stderr).toContain('no room to keep it right');
  expect(await newest()).toBeUndefined();
});

test('a store of volsnap takes shadow copies over, and new snapshots are taken', () => {
  const bench = new Bench();
  const { bytes, stores } = twoShadowCopies();
  bench.image('windows.img', bytes);
  const place = ['--in-volume', '--reserve', '8M'];
  expect(bench.fails(['init', 'windows.img', ...place], 1)).toContain('--shadow-copies');
  expect(bench.ok(['init', 'windows.img', ...place, '--shadow-copies', 'keep']).stdout).toContain(
    '2 shadow copies of Windows stay',
  );
  bench.ok(['create', 'windows.img', '--label', 'new']);
  bench.ok(['write', 'windows.img', '--offset', String(8 * BLOCK_SIZE)], 'new');
  const at = String((stores[0]?.[0] ?? 0) * BLOCK_SIZE);
  expect(bench.fails(['write', 'windows.img', '--offset', at], 1, { input: 'x' })).toContain(
    'which are kept',
  );
  const listed = bench.json(['list', 'windows.img']) as { label: string | null; state: string }[];
  expect(listed.map(({ label, state }) => [label, state])).toEqual([
    [null, 'ok'],
    [null, 'ok'],
    ['as volsnap found it', 'ok'],
    ['new', 'ok'],
  ]);
  expect(bench.fails(['revert', 'windows.img', snapshotIdOf(2)], 1)).toContain('volsnap export');
  bench.ok(['delete', 'windows.img', '--oldest']);
  expect(bench.ok(['check', 'windows.img', '--scrub']).stdout).toContain('sound');
});

test('it is told which shadow copies are dropped while they are taken over', () => {
  const bench = new Bench();
  bench.image('windows.img', twoShadowCopies(160).bytes);
  const runs = `${60 * BLOCK_SIZE}+${90 * BLOCK_SIZE}`;
  const args = ['init', 'windows.img', '--in-volume', '--runs', runs, '--shadow-copies', 'drop', '--json'];
  const { status, stdout, stderr } = bench.run(args);
  expect(status, stderr).toBe(0);
  const dropped = [snapshotIdOf(1), snapshotIdOf(2)];
  expect(JSON.parse(stdout)).toMatchObject({ shadowCopies: { kept: [], dropped, base: null } });
  for (const id of dropped) expect(stderr).toContain(`${id} (2013-12-03T06:35:09.736Z)`);
});

const hashOfFile = (path: string): string =>
  execFileSync('sha256sum', [path], { encoding: 'utf8' }).slice(0, 64);
