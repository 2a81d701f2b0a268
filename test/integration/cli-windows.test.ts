/** The program on a volume that Windows wrote. Skipped, and said so, where the image or qemu-img is not there. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';
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

const hashOfFile = (path: string): string =>
  execFileSync('sha256sum', [path], { encoding: 'utf8' }).slice(0, 64);
