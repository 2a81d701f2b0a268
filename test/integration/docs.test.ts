/** What the documentation shows is code that runs. */
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { MemoryDevice } from '../../src/device/memory-device.js';
import { describeLayout } from '../../src/format/layout.js';
import { DirectoryStore, FileDevice, Volume, VolumeServer } from '../../src/index.js';
import { DeviceExport, FixedCatalog } from '../../src/nbd/server/device-export.js';
import { NbdServer } from '../../src/nbd/server/server.js';
import { bundled } from '../bundled.js';

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('../..', import.meta.url));
let folder = '';

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'volsnap-docs-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const example = async (name: string, ...args: string[]) =>
  (
    await run(
      process.execPath,
      [...bundled(new URL(`../../docs/examples/${name}`, import.meta.url), folder), ...args],
      { cwd: ROOT },
    )
  ).stdout;

test('a snapshot set is taken of two volumes', async () => {
  const images = ['data.img', 'log.img'].map((name) => join(folder, name));
  for (const image of images) {
    await writeFile(image, '');
    await truncate(image, 1024 * 1024);
  }
  expect(await example('snapshot-set.ts', ...images)).toBe(
    'the database goes on\n2 snapshots of one moment\n',
  );
});

test('the writable snapshot is written, and nothing else', async () => {
  const image = join(folder, 'writable.img');
  await writeFile(image, '');
  await truncate(image, 1024 * 1024);
  expect(await example('writable-snapshot.ts', image)).toBe('scratch true kept false volume false\n');
});

test('what nothing uses is left out', async () => {
  expect(await example('unused-space.ts')).toBe('left out: 524288 bytes; copies: 0\n');
});

test('the volume behind NBD is protected', async () => {
  const path = join(folder, 'nbd.sock');
  const memory = new MemoryDevice(4 * 1024 * 1024);
  await using server = new NbdServer(new FixedCatalog([new DeviceExport('', memory)]));
  await server.listen({ path });
  const uri = `nbd+unix:///?socket=${path}`;
  expect(await example('nbd-volume.ts', uri, join(folder, 'nbd-store'))).toBe('now 1, before 0\n');
  expect(memory.bytes[1024 * 1024]).toBe(1);
});

test('a served volume gives its clients what was and what is', async () => {
  const image = join(folder, 'served.img');
  await writeFile(image, '');
  await truncate(image, 4 * 1024 * 1024);
  expect(await example('serve-volume.ts', image, join(folder, 'served.sock'))).toBe('now 2, before 1\n');
});

test('a volume goes back to a snapshot, and again to what it was', async () => {
  const image = join(folder, 'reverted.img');
  await writeFile(image, 'good');
  await truncate(image, 4 * 1024 * 1024);
  expect(await example('revert.ts', image)).toBe(
    'now good\nput back 16384 of 16384 bytes\nreverted\nundone spoilt\n',
  );
});

test('a backup asks the process that serves the volume, or opens it', async () => {
  const image = join(folder, 'owned.img');
  await writeFile(image, '');
  await truncate(image, 4 * 1024 * 1024);
  const device = await FileDevice.open(image, { writable: true });
  const store = new DirectoryStore(`${image}.volsnap`);
  await Volume.initialize(device, { store });
  {
    await using volume = await Volume.open(device, { store });
    await using _ = await VolumeServer.start([volume]);
    await volume.createSnapshot({ label: 'evening' });
    await volume.write(0, new Uint8Array(10));
    await volume.write(100_000, new Uint8Array(10).fill(1));
    expect(await example('remote-volume.ts', image)).toBe(
      `served by process ${process.pid}: 32768 bytes changed since evening\n`,
    );
  }
  expect(await example('remote-volume.ts', image)).toBe('opened here: 0 bytes changed since nightly\n');
});

test('the crash test finds nothing lost', async () => {
  expect(await example('crash-test.ts')).toBe(
    'snapshot "before" after the power cut: every byte as it was\n',
  );
});

test('the cache page takes apart the image that the code makes', async () => {
  const text = await readFile(join(ROOT, 'docs/cache-image.md'), 'utf8');
  const [, image] = text.match(/```text image\n([\s\S]*?)```/) ?? [];
  expect(await example('small-cache-image.ts')).toBe(image);
});

test('guides show the examples as they are', async () => {
  for (const name of await readdir(join(ROOT, 'docs'))) {
    if (!name.endsWith('.md')) continue;
    const text = await readFile(join(ROOT, 'docs', name), 'utf8');
    for (const [, path = '', code] of text.matchAll(/```ts file=(\S+)\n([\s\S]*?)```/g)) {
      expect(code, `${name}, ${path}`).toBe(await readFile(join(ROOT, 'docs', path), 'utf8'));
    }
  }
});

test('links between pages lead somewhere', async () => {
  const pages = [
    'README.md',
    ...(await readdir(join(ROOT, 'docs')))
      .filter((name) => name.endsWith('.md'))
      .map((name) => `docs/${name}`),
  ];
  for (const page of pages) {
    const text = await readFile(join(ROOT, page), 'utf8');
    for (const [, target = ''] of text.matchAll(/\]\((?!https?:)([^)#]+)[^)]*\)/g)) {
      await expect(readFile(join(ROOT, page, '..', target)), `${page} → ${target}`).resolves.toBeDefined();
    }
  }
});

test('the format page shows the layout that the code has', async () => {
  const text = await readFile(join(ROOT, 'docs/format.md'), 'utf8');
  const [, layout] = text.match(/```text layout\n([\s\S]*?)```/) ?? [];
  expect(layout?.trim()).toBe(describeLayout().trim());
});
