import { chmod, chown, mkdir, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { HostFolder } from '../../../src/device/host-folder.js';
import { DeviceError, InvalidArgumentError, NotFoundError } from '../../../src/errors.js';
import { blockDeviceSuite, folderSuite, resizableDeviceSuite } from './contract.js';
import { temporaryDirectory, temporaryFile } from './temporary.js';

const makeFolder = async () => HostFolder.create(join(await temporaryDirectory(), 'store'));
const make = async (content: Uint8Array) => {
  const folder = await makeFolder();
  const file = await folder.create('a');
  await file.resize(content.byteLength);
  await file.write(0, content);
  return file;
};

folderSuite('HostFolder', makeFolder);
blockDeviceSuite('a file of HostFolder', { make, runs: 20 });
resizableDeviceSuite('a file of HostFolder', make);

const isRoot = process.geteuid?.() === 0;
const GROUP = 12_345;
const modeOf = async (path: string) => (await stat(path)).mode & 0o7777;

describe('HostFolder', () => {
  test.each([
    { volume: 0o600, directory: 0o700, file: 0o600 },
    { volume: 0o644, directory: 0o750, file: 0o640 },
    { volume: 0o664, directory: 0o770, file: 0o660 },
    { volume: 0o777, directory: 0o770, file: 0o660 },
    { volume: 0o400, directory: 0o700, file: 0o600 },
  ])(
    'a volume of mode $volume gets files of mode $file, whatever the umask',
    async ({ volume, directory, file }) => {
      const path = await temporaryFile(new Uint8Array(1));
      await chmod(path, volume);
      for (const mask of [0o022, 0o077, 0]) {
        const store = `${path}.${mask}`;
        const before = process.umask(mask);
        try {
          const folder = await HostFolder.create(store, { modeLike: path });
          await (await folder.create('a')).close();
          const again = await HostFolder.open(store);
          await (await again.create('b')).close();
        } finally {
          process.umask(before);
        }
        expect(await modeOf(store)).toBe(directory);
        expect(await modeOf(join(store, 'a'))).toBe(file);
        expect(await modeOf(join(store, 'b'))).toBe(file);
      }
    },
  );

  test.skipIf(!isRoot)('files belong to the group of the volume', async () => {
    const path = await temporaryFile(new Uint8Array(1));
    await chmod(path, 0o660);
    await chown(path, 0, GROUP);
    const folder = await HostFolder.create(`${path}.store`, { modeLike: path });
    await (await folder.create('a')).close();
    expect(await stat(`${path}.store`)).toMatchObject({ gid: GROUP });
    expect(await stat(join(`${path}.store`, 'a'))).toMatchObject({ gid: GROUP });
  });

  test('without a volume file, only the owner gets in', async () => {
    const parent = await temporaryDirectory();
    for (const options of [{}, { modeLike: join(parent, 'memory') }]) {
      const path = join(parent, `store${Object.keys(options).length}`);
      const folder = await HostFolder.create(path, options);
      await (await folder.create('a')).close();
      expect(await modeOf(path)).toBe(0o700);
      expect(await modeOf(join(path, 'a'))).toBe(0o600);
    }
  });

  test('takes a directory left by an interrupted attempt', async () => {
    const path = join(await temporaryDirectory(), 'store');
    await (await (await HostFolder.create(path)).create('a')).close();
    expect(await (await HostFolder.create(path)).list()).toEqual(['a']);
  });

  test.each([0o755, 0o750, 0o701])(
    'does not take a directory of mode %o that lets others in',
    async (mode) => {
      const path = join(await temporaryDirectory(), 'store');
      await mkdir(path);
      await chmod(path, mode);
      await expect(HostFolder.create(path)).rejects.toThrow(/who may not read the volume.*chmod 700/);
      expect(await modeOf(path)).toBe(mode);
    },
  );

  test.skipIf(!isRoot)('does not take the directory of another user', async () => {
    const path = join(await temporaryDirectory(), 'store');
    await mkdir(path, { mode: 0o700 });
    await chown(path, GROUP, GROUP);
    await expect(HostFolder.create(path)).rejects.toThrow(/belongs to another user/);
  });

  test('files in a directory that others may enter are for the owner alone', async () => {
    const path = join(await temporaryDirectory(), 'store');
    await mkdir(path);
    await chmod(path, 0o775);
    await (await (await HostFolder.open(path)).create('a')).close();
    expect(await modeOf(join(path, 'a'))).toBe(0o600);
  });

  test('lists files, and neither directories nor links', async () => {
    const path = join(await temporaryDirectory(), 'store');
    const folder = await HostFolder.create(path);
    await mkdir(join(path, 'directory'));
    await symlink('/etc/passwd', join(path, 'link'));
    await writeFile(join(path, 'file'), '');
    expect(await folder.list()).toEqual(['file']);
  });

  test('says what is wrong with the path', async () => {
    const parent = await temporaryDirectory();
    await writeFile(join(parent, 'file'), '');
    await expect(HostFolder.open(join(parent, 'none'))).rejects.toThrow(NotFoundError);
    await expect(HostFolder.open(join(parent, 'file'))).rejects.toThrow(InvalidArgumentError);
    await expect(HostFolder.create(join(parent, 'file'))).rejects.toThrow(DeviceError);
    await expect(HostFolder.create(join(parent, 'none', 'store'))).rejects.toThrow(NotFoundError);
  });
});
