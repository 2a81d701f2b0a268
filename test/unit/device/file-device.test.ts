import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs, { type BigIntStats, readdirSync, readlinkSync } from 'node:fs';
import { chmod, mkdir, readFile, stat, symlink, truncate, utimes } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { Descriptor } from '../../../src/device/descriptor.js';
import { FileDevice } from '../../../src/device/file-device.js';
import { imageSize, sizeByReading } from '../../../src/device/image-size.js';
import {
  ClosedError,
  DeviceError,
  InUseError,
  InvalidArgumentError,
  NotFoundError,
  UnsupportedError,
} from '../../../src/errors.js';
import { bundled } from '../../bundled.js';
import { blockDeviceSuite, pattern, resizableDeviceSuite } from './contract.js';
import { temporaryDirectory, temporaryFile } from './temporary.js';

const open = async (path: string, options?: Parameters<typeof FileDevice.open>[1]) => {
  const device = await FileDevice.open(path, options);
  onTestFinished(() => device.close());
  return device;
};
const HOLDER = bundled(new URL('./hold.ts', import.meta.url));
const make = async (content: Uint8Array) => FileDevice.open(await temporaryFile(content), { writable: true });

blockDeviceSuite('FileDevice', {
  make,
  makeReadOnly: async (content) => FileDevice.open(await temporaryFile(content)),
  failNextFlush: () => {
    const failure = Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO' });
    vi.spyOn(Descriptor.prototype, 'datasync').mockRejectedValueOnce(failure);
  },
  runs: 15,
});
resizableDeviceSuite('FileDevice', make);

afterEach(() => {
  vi.restoreAllMocks();
});

test('what is only read keeps its time of last access', async () => {
  const path = await temporaryFile(pattern(4096));
  await utimes(path, new Date(0), new Date(1000));
  const device = await open(path);
  await device.read(0, new Uint8Array(4096));
  expect((await stat(path)).atimeMs).toBe(0);
});

/** A process that has the file open; killed when the test finishes. */
async function holder(path: string, mode: 'read' | 'write') {
  const child = spawn(process.execPath, [...HOLDER, path, mode], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  await Promise.race([
    once(child.stdout, 'data'),
    once(child, 'exit').then(() => Promise.reject(new Error('the holder did not start'))),
  ]);
  return child;
}

const openPaths = () =>
  readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      return [];
    }
  });

describe('FileDevice content', () => {
  test('is the file, and mtime tells of a change', async () => {
    const path = await temporaryFile(pattern(1000));
    const device = await open(path, { writable: true });
    expect(device.path).toBe(path);
    expect(device.name).toBe(path);
    const before = await device.modifiedAt();
    expect(before).toBe((await stat(path, { bigint: true })).mtimeNs);
    await new Promise((resolve) => setTimeout(resolve, 20));
    await device.write(10, Uint8Array.of(1, 2, 3));
    expect(await device.modifiedAt()).toBeGreaterThan(before ?? 0n);
    expect((await readFile(path)).subarray(10, 13)).toEqual(Buffer.from([1, 2, 3]));
  });

  test('large transfers, and more buffers than one call takes', async () => {
    const size = 3 << 20;
    const path = await temporaryFile(new Uint8Array(size));
    const device = await open(path, { writable: true });
    const content = pattern(size);
    await device.write(0, content);
    const target = new Uint8Array(size);
    await device.read(0, target);
    expect(Buffer.compare(target, content)).toBe(0);
    const pieces = Array.from({ length: 2500 }, (_, at) => pattern(at % 7, at));
    await device.writev(5, pieces);
    const joined = Buffer.concat(pieces);
    expect(Buffer.compare((await readFile(path)).subarray(5, 5 + joined.length), joined)).toBe(0);
    await device.writeZeroes(7, size - 10);
    await device.read(0, target);
    expect(target.subarray(7, size - 3).every((byte) => byte === 0)).toBe(true);
    expect(target.subarray(size - 3)).toEqual(content.subarray(size - 3));
  });

  test('transfers that Linux makes in pieces are completed', async () => {
    const device = await make(new Uint8Array(1 << 20));
    onTestFinished(() => device.close());
    const { readSync, writeSync, writevSync } = fs;
    const calls = [
      vi
        .spyOn(fs, 'readSync')
        .mockImplementation(((fd: number, to: Uint8Array, from: number, length: number, at: number) =>
          readSync(fd, to, from, Math.min(length, 300), at)) as typeof fs.readSync),
      vi
        .spyOn(fs, 'writeSync')
        .mockImplementation(((fd: number, source: Uint8Array, from: number, length: number, at: number) =>
          writeSync(fd, source, from, Math.min(length, 300), at)) as typeof fs.writeSync),
      vi
        .spyOn(fs, 'writevSync')
        .mockImplementation((fd, sources, at) =>
          writevSync(fd, [Buffer.concat(sources as Uint8Array[]).subarray(0, 300)], at),
        ),
    ];
    syncBuiltinESMExports();
    onTestFinished(() => {
      vi.restoreAllMocks();
      syncBuiltinESMExports();
    });
    const pieces = [pattern(100, 1), pattern(200, 2), pattern(1000, 3), pattern(1, 4), pattern(650, 5)];
    await device.writev(11, pieces);
    await device.write(2000, pattern(1000, 6));
    const target = new Uint8Array(3011);
    await device.read(0, target);
    const expected = new Uint8Array(3011);
    expected.set(Buffer.concat(pieces), 11);
    expected.set(pattern(1000, 6), 2000);
    expect(Buffer.compare(target, expected)).toBe(0);
    for (const call of calls) expect(call).toHaveBeenCalled();
  });

  test('a caller that awaits one small write after the other does not stop the event loop', async () => {
    const device = await open(await temporaryFile(new Uint8Array(4096)), { writable: true });
    let stopped = false;
    setImmediate(() => {
      stopped = true;
    });
    for (let calls = 0; !stopped; calls += 1) {
      if (calls > 3000) throw new Error('the event loop never turned');
      await device.write(0, pattern(4096));
    }
  });

  test('a truncated file is an error, not zeros', async () => {
    const path = await temporaryFile(pattern(10_000));
    const device = await open(path);
    await truncate(path, 5000);
    await device.read(4000, new Uint8Array(1000));
    await expect(device.read(4500, new Uint8Array(1000))).rejects.toThrow(/ends at byte 5000.*truncated/);
    await expect(device.read(6000, new Uint8Array(1))).rejects.toThrow(DeviceError);
  });

  test('a failed flush tells the first error again and again', async () => {
    const device = await make(new Uint8Array(10));
    onTestFinished(() => device.close());
    const cause = Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO' });
    vi.spyOn(Descriptor.prototype, 'datasync').mockRejectedValueOnce(cause);
    const first: unknown = await device.flush().catch((error: unknown) => error);
    expect(first).toMatchObject({ code: 'DEVICE', cause });
    expect(await device.flush().catch((error: unknown) => error)).toBe(first);
  });

  test('flushes asked for while one runs share the next', async () => {
    const device = await make(new Uint8Array(10));
    onTestFinished(() => device.close());
    const datasync = vi.spyOn(Descriptor.prototype, 'datasync');
    const first = device.flush();
    await Promise.resolve();
    await Promise.all([first, device.flush(), device.flush(), device.flush()]);
    expect(datasync).toHaveBeenCalledTimes(2);
  });

  test('a failed write says where and why', async () => {
    const device = await make(new Uint8Array(1000));
    onTestFinished(() => device.close());
    const cause = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
    vi.spyOn(Descriptor.prototype, 'write').mockRejectedValueOnce(cause);
    const error: unknown = await device.write(7, new Uint8Array(9)).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'DEVICE', cause });
    expect(String(error)).toMatch(/write 9 bytes at offset 7 of .*disk\.img.*free some space/);
  });
});

describe('FileDevice.open', () => {
  test('says what is wrong with the path', async () => {
    const directory = await temporaryDirectory();
    await expect(FileDevice.open(`${directory}/none`)).rejects.toThrow(NotFoundError);
    await expect(FileDevice.open(directory)).rejects.toThrow(InvalidArgumentError);
    await expect(FileDevice.open('/dev/zero')).rejects.toThrow(InvalidArgumentError);
    await mkdir(`${directory}/nested`);
    await symlink('gone', `${directory}/link`);
    await expect(FileDevice.open(`${directory}/link`)).rejects.toThrow(NotFoundError);
  });

  test.skipIf(process.geteuid?.() === 0)('says that permission is missing', async () => {
    const path = await temporaryFile(new Uint8Array(1));
    await chmod(path, 0o400);
    await expect(FileDevice.open(path, { writable: true })).rejects.toThrow(/run as a user who may/);
  });

  test('leaves nothing open when refused or closed', async () => {
    const path = await temporaryFile(new Uint8Array(1));
    const device = await FileDevice.open(path, { writable: true });
    await expect(FileDevice.open(path)).rejects.toThrow(InUseError);
    expect(openPaths().filter((open) => open === path)).toHaveLength(1);
    await device.close();
    expect(openPaths()).not.toContain(path);
  });
});

describe('FileDevice ownership', () => {
  test('a writer excludes everybody in the same process', async () => {
    const path = await temporaryFile(new Uint8Array(1));
    const device = await open(path, { writable: true });
    await expect(FileDevice.open(path, { writable: true })).rejects.toThrow(/in use by this process/);
    await expect(FileDevice.open(path)).rejects.toThrow(InUseError);
    await device.close();
    await open(path, { writable: true });
  });

  test('readers share, and exclude a writer', async () => {
    const path = await temporaryFile(new Uint8Array(1));
    const readers = [await open(path), await open(path)];
    await expect(FileDevice.open(path, { writable: true })).rejects.toThrow(InUseError);
    await readers[0]?.close();
    await expect(FileDevice.open(path, { writable: true })).rejects.toThrow(InUseError);
    await readers[1]?.close();
    await open(path, { writable: true });
  });

  test('another path to the same file is the same file', async () => {
    const path = await temporaryFile(new Uint8Array(1));
    await symlink(path, `${path}.link`);
    await open(path, { writable: true });
    await expect(FileDevice.open(`${path}.link`)).rejects.toThrow(InUseError);
  });

  test('{ exclusive: false } neither asks nor excludes', async () => {
    const path = await temporaryFile(new Uint8Array(1));
    await open(path, { writable: true, exclusive: false });
    await open(path, { writable: true });
    await open(path, { writable: true, exclusive: false });
  });

  test('another process is named, and kill -9 sets the file free', async () => {
    const path = await temporaryFile(new Uint8Array(1));
    const child = await holder(path, 'write');
    const error: unknown = await FileDevice.open(path).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(InUseError);
    expect(String(error)).toContain(`process ${child.pid} (`);
    expect(String(error)).toContain('hold.mjs');
    child.kill('SIGKILL');
    await once(child, 'exit');
    await open(path, { writable: true });
  });

  test('who merely has the file open is not taken for its owner', async () => {
    const path = await temporaryFile(new Uint8Array(1));
    await open(path, { exclusive: false });
    const child = await holder(path, 'write');
    const error: unknown = await FileDevice.open(path).catch((thrown: unknown) => thrown);
    expect(String(error)).toContain(`in use by process ${child.pid} (`);
    expect(String(error)).not.toContain('this process');
  });

  test('a reader in another process shares, and excludes a writer', async () => {
    const path = await temporaryFile(new Uint8Array(1));
    const child = await holder(path, 'read');
    await (await open(path)).close();
    await expect(FileDevice.open(path, { writable: true })).rejects.toThrow(`process ${child.pid}`);
  });

  test('without the flock program, says how to go on', async () => {
    const path = await temporaryFile(new Uint8Array(1));
    vi.stubEnv('PATH', '/nowhere');
    onTestFinished(() => void vi.unstubAllEnvs());
    const error: unknown = await FileDevice.open(path).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(DeviceError);
    expect(String(error)).toMatch(/install util-linux.*exclusive: false/);
    expect(openPaths()).not.toContain(path);
    await open(path, { exclusive: false });
  });
});

test('a file that is longer than offsets can say is refused', async () => {
  const stats = { isBlockDevice: () => false, size: 1n << 60n } as BigIntStats;
  const holdsByte = async () => false;
  await expect(imageSize(stats, holdsByte)).rejects.toThrow(UnsupportedError);
  const longest = { isBlockDevice: () => false, size: (1n << 53n) - 1n } as BigIntStats;
  expect(await imageSize(longest, holdsByte)).toBe(Number.MAX_SAFE_INTEGER);
});

describe('sizeByReading', () => {
  test.each([0, 1, 2, 3, 511, 512, 4096, 2 ** 40 + 512, 2 ** 52 + 1])('finds %d bytes', async (size) => {
    let reads = 0;
    const found = await sizeByReading(async (offset) => {
      reads += 1;
      return offset < size;
    });
    expect(found).toBe(size);
    expect(reads).toBeLessThan(120);
  });
});

test('a range that is lent keeps the file open until the loan ends', async () => {
  const device = await make(pattern(4096));
  expect(() => device.lend(4000, 97, 'read')).toThrow(InvalidArgumentError);
  const loan = device.lend(0, 4096, 'read');
  let isClosed = false;
  const closed = device.close().then(() => {
    isClosed = true;
  });
  await stat(device.path);
  expect(isClosed).toBe(false);
  loan.end();
  await closed;
  expect(() => device.lend(0, 4096, 'read')).toThrow(ClosedError);
});
