/** Making a store where there is one, or was to be one. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, expect, onTestFinished, test } from 'vitest';
import { FileDevice } from '../../../src/device/file-device.js';
import { DirectoryStore } from '../../../src/store/directory-store.js';
import { InVolumeStore } from '../../../src/store/in-volume-store.js';
import { BLOCK_SIZE } from '../../../src/units.js';
import { Volume } from '../../../src/volume/volume.js';

const MEBIBYTE = 1024 * 1024;
const CONTROL_FILE = '{3808876b-c176-4e48-b7ae-04046e6cc752}';
const AREA_FILE = `{00112233-4455-4677-8899-aabbccddeeff}${CONTROL_FILE}`;

let image = '';
let beside = '';
beforeEach(() => {
  const folder = mkdtempSync(join(tmpdir(), 'volsnap-initializing-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  image = join(folder, 'disk.img');
  beside = `${image}.volsnap`;
  writeFileSync(image, '');
  truncateSync(image, MEBIBYTE);
});

async function initialize(store: DirectoryStore | InVolumeStore): Promise<void> {
  await using device = await FileDevice.open(image, { writable: true });
  await Volume.initialize(device, { store });
}

const open = async (store?: DirectoryStore): Promise<Volume> =>
  Volume.open(await FileDevice.open(image, { writable: true }), store === undefined ? {} : { store });

const elsewhere = (name: string) => new DirectoryStore(join(image, '..', name));

test.each([
  ['beside it', () => new DirectoryStore(beside), 'disk.img.volsnap'],
  ['inside it', () => new InVolumeStore({ reserve: 2 * MEBIBYTE }), 'inside it'],
])('a volume with a store %s gets no second one, wherever that would be', async (_, first, place) => {
  await initialize(first());
  const others = [elsewhere('other'), new InVolumeStore({ reserve: 2 * MEBIBYTE })];
  for (const store of others) {
    await expect(initialize(store)).rejects.toMatchObject({
      code: 'ALREADY_INITIALIZED',
      message: expect.stringContaining(place),
    });
  }
  expect(existsSync(join(image, '..', 'other'))).toBe(false);
  await (await open()).close();
});

test('of two in folders that only their user knows, one notices what is written through the other', async () => {
  await initialize(elsewhere('one'));
  await initialize(elsewhere('two'));
  const one = await open(elsewhere('one'));
  await one.createSnapshot();
  await one.close();
  const two = await open(elsewhere('two'));
  await two.write(0, new Uint8Array(BLOCK_SIZE).fill(7));
  await two.close();
  await expect(open(elsewhere('one'))).rejects.toMatchObject({ code: 'VOLUME_CHANGED' });
});

test.each([
  ['nothing in its file', 0],
  ['no start block', 10 * BLOCK_SIZE],
])('what was left when making a store was interrupted is none: %s', async (_, size) => {
  mkdirSync(beside, { mode: 0o700 });
  writeFileSync(join(beside, CONTROL_FILE), '');
  truncateSync(join(beside, CONTROL_FILE), size);
  await expect(open()).rejects.toMatchObject({ code: 'NOT_INITIALIZED' });
  await expect(open(new DirectoryStore(beside))).rejects.toMatchObject({ code: 'NOT_INITIALIZED' });
  await initialize(new DirectoryStore(beside));
  await (await open()).close();
});

test('a store that has lost its start block, or a part of its file, is not taken for that', async () => {
  mkdirSync(beside, { mode: 0o700 });
  const control = join(beside, CONTROL_FILE);
  writeFileSync(control, '');
  const expectKept = async () => {
    await expect(initialize(new DirectoryStore(beside))).rejects.toMatchObject({
      code: 'ALREADY_INITIALIZED',
    });
    await expect(open()).rejects.toMatchObject({ code: 'FORMAT' });
    expect(readdirSync(beside)).toContain(CONTROL_FILE);
  };
  truncateSync(control, 100);
  await expectKept();
  truncateSync(control, 10 * BLOCK_SIZE);
  writeFileSync(join(beside, AREA_FILE), '');
  await expectKept();
});
