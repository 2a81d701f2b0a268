/** FileDevice on block special files. Needs root and loop devices; skipped, and said so, where there are none. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { stat, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Descriptor } from '../../src/device/descriptor.js';
import { FileDevice } from '../../src/device/file-device.js';
import { sizeByReading } from '../../src/device/image-size.js';
import { DeviceError, InUseError, UnsupportedError } from '../../src/errors.js';
import { blockDeviceSuite, pattern } from '../unit/device/contract.js';
import { Bench } from './cli-support.js';

const SECTOR = 512;

/** A loop device over `image`, detached when the test finishes. */
function attach(image: string): string {
  const path = execFileSync('losetup', ['--find', '--show', image], { encoding: 'utf8' }).trim();
  onTestFinished(() => void execFileSync('losetup', ['--detach', path]));
  return path;
}

function temporaryDirectory(): string {
  const path = mkdtempSync(join(tmpdir(), 'volsnap-loop-'));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

function loop(content: Uint8Array): string {
  const image = join(temporaryDirectory(), 'disk.img');
  writeFileSync(image, content);
  return attach(image);
}

const canLoop = (() => {
  try {
    const image = join(tmpdir(), `volsnap-loop-probe-${process.pid}`);
    writeFileSync(image, new Uint8Array(SECTOR));
    try {
      const path = execFileSync('losetup', ['--find', '--show', image], {
        encoding: 'utf8',
        stdio: 'pipe',
      }).trim();
      execFileSync('losetup', ['--detach', path]);
      return true;
    } finally {
      rmSync(image);
    }
  } catch {
    return false;
  }
})();

const open = async (path: string, options?: Parameters<typeof FileDevice.open>[1]) => {
  const device = await FileDevice.open(path, options);
  onTestFinished(() => device.close());
  return device;
};

describe.skipIf(!canLoop)('FileDevice on a loop device', () => {
  // Cleaning up runs backwards: the device of a test is closed before its loop device is detached.
  blockDeviceSuite('a loop device', {
    make: (content) => FileDevice.open(loop(content), { writable: true }),
    makeReadOnly: (content) => FileDevice.open(loop(content)),
    runs: 5,
  });

  test('knows its size, by sysfs and by reading', async () => {
    const size = 1_000_448;
    const path = loop(pattern(size));
    const device = await open(path);
    expect(device.size).toBe(size);
    const descriptor = await Descriptor.open(path, 0);
    onTestFinished(() => descriptor.close());
    expect(await sizeByReading(async (at) => (await descriptor.read(new Uint8Array(1), at)) === 1)).toBe(
      size,
    );
  });

  test('a long range is zeroed though nobody else may touch the disk; it cannot be discarded', async () => {
    const size = 4 << 20;
    const device = await open(loop(pattern(size)), { writable: true });
    expect(device.discard).toBeUndefined();
    const allocation = async () => {
      const extents = [];
      for await (const extent of device.allocation(0, size)) extents.push(extent);
      return extents;
    };
    expect(await allocation()).toEqual([{ length: size, zero: false }]);
    await device.writeZeroes(1000, 3 << 20);
    const expected = pattern(size).fill(0, 1000, 1000 + (3 << 20));
    const content = new Uint8Array(size);
    await device.read(0, content);
    expect(Buffer.compare(content, expected)).toBe(0);
    expect(await allocation()).toEqual([
      { length: 4096, zero: false },
      { length: (3 << 20) - 4096, zero: true },
      { length: size - (3 << 20), zero: false },
    ]);
  });

  test('has no time of change and cannot be resized', async () => {
    const device = await open(loop(pattern(SECTOR)), { writable: true });
    expect(await device.modifiedAt()).toBeUndefined();
    await expect(device.resize(2 * SECTOR)).rejects.toThrow(UnsupportedError);
  });

  test('is read by the program as standard input', async () => {
    const bench = new Bench();
    await bench.volume('a.img', 2048);
    const { status, stderr } = bench.shell(`volsnap write a.img < ${loop(pattern(2048))}`);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(Buffer.compare(bench.read('a.img'), pattern(2048))).toBe(0);
  });

  test('has one owner at a time', async () => {
    const path = loop(pattern(SECTOR));
    const writer = await open(path, { writable: true });
    await expect(FileDevice.open(path, { writable: true })).rejects.toThrow(/in use by this process/);
    await expect(FileDevice.open(path)).rejects.toThrow(InUseError);
    await writer.close();
    const readers = [await open(path), await open(path)];
    await expect(FileDevice.open(path, { writable: true })).rejects.toThrow(InUseError);
    for (const reader of readers) await reader.close();
    await open(path, { writable: true });
  });

  test('a mounted one is not written', async () => {
    const image = join(temporaryDirectory(), 'disk.img');
    writeFileSync(image, '');
    await truncate(image, 4 << 20);
    execFileSync('mkfs.ext4', ['-q', image]);
    const path = attach(image);
    const place = `${image}.mount`;
    mkdirSync(place);
    execFileSync('mount', [path, place]);
    onTestFinished(() => void execFileSync('umount', [place]));
    await expect(FileDevice.open(path, { writable: true })).rejects.toThrow(InUseError);
    await open(path);
  });

  test('a write that is lost later fails this flush and every one after', async () => {
    // The disk under the loop device promises 16 MiB and has room for one.
    const place = temporaryDirectory();
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', place]);
    onTestFinished(() => void execFileSync('umount', [place]));
    const image = join(place, 'disk.img');
    writeFileSync(image, '');
    await truncate(image, 16 << 20);
    const device = await open(attach(image), { writable: true });
    await device.flush();
    await device.write(0, pattern(8 << 20));
    await expect(device.flush()).rejects.toThrow(DeviceError);
    await expect(device.flush()).rejects.toThrow(DeviceError);
    expect((await stat(image)).size).toBe(16 << 20);
  });
});
