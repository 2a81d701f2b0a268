/** What a file device knows of its zeros, and how it makes them. The tools it uses are on every machine that runs tests. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import { chmod, open as openFile, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import fc from 'fast-check';
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import type { AllocationExtent } from '../../../src/device/allocation.js';
import { FileDevice } from '../../../src/device/file-device.js';
import { InUseError } from '../../../src/errors.js';
import { bundled } from '../../bundled.js';
import { pattern } from './contract.js';
import { temporaryDirectory, temporaryFile } from './temporary.js';

const KIB = 1024;
const MIB = 1024 * KIB;

afterEach(() => {
  vi.unstubAllEnvs();
});

const open = async (path: string, options = { writable: true }) => {
  const device = await FileDevice.open(path, options);
  onTestFinished(() => device.close());
  return device;
};

/** A file of `size` bytes that is all hole but for these parts. */
async function sparseFile(size: number, parts: Readonly<Record<number, Uint8Array>> = {}): Promise<string> {
  const path = await temporaryFile(new Uint8Array(0));
  await truncate(path, size);
  const file = await openFile(path, 'r+');
  for (const [offset, bytes] of Object.entries(parts))
    await file.write(bytes, 0, bytes.byteLength, Number(offset));
  await file.close();
  return path;
}

async function extentsOf(
  device: FileDevice,
  offset = 0,
  length = device.size - offset,
): Promise<AllocationExtent[]> {
  const extents: AllocationExtent[] = [];
  for await (const extent of device.allocation(offset, length)) extents.push(extent);
  return extents;
}

const zero = (length: number) => ({ length, zero: true });
const data = (length: number) => ({ length, zero: false });
/** Far faster on long arrays than `every`, or the comparison of `toEqual`. */
const isZero = (bytes: Uint8Array) => Buffer.compare(bytes, new Uint8Array(bytes.byteLength)) === 0;
const spaceOf = async (path: string) => (await stat(path)).blocks * 512;

/** A directory, first in PATH, with a program of that name. */
async function stubProgram(name: string, script: string): Promise<string> {
  const directory = await temporaryDirectory();
  await writeFile(`${directory}/${name}`, `#!/bin/sh\n${script}\n`);
  await chmod(`${directory}/${name}`, 0o755);
  vi.stubEnv('PATH', `${directory}:${process.env.PATH}`);
  return directory;
}

describe('what a file device knows to be zero', () => {
  test('the holes of the file, and space set aside but never written', async () => {
    const path = await sparseFile(2 ** 40, { [2 ** 30]: pattern(MIB), [2 ** 35 + 5]: pattern(10) });
    execFileSync('fallocate', ['--offset', '4G', '--length', '1M', path]);
    const device = await open(path);
    expect(await extentsOf(device)).toEqual([
      zero(2 ** 30),
      data(MIB),
      zero(2 ** 35 - 2 ** 30 - MIB),
      data(4096),
      zero(2 ** 40 - 2 ** 35 - 4096),
    ]);
    expect(await extentsOf(device, 2 ** 30 - 1, 2)).toEqual([zero(1), data(1)]);
  });

  test('a file without holes is all data, until something is zeroed', async () => {
    const device = await open(await temporaryFile(pattern(MIB)));
    expect(await extentsOf(device)).toEqual([data(MIB)]);
    await device.writeZeroes(8192, 8192);
    await device.discard?.(64 * KIB, 512 * KIB);
    expect(await extentsOf(device)).toEqual([
      data(8192),
      zero(8192),
      data(48 * KIB),
      zero(512 * KIB),
      data(448 * KIB),
    ]);
  });

  test('writes make data, whether before, while or after it is asked', async () => {
    const device = await open(await sparseFile(16 * MIB));
    await device.write(0, pattern(1));
    const asked = extentsOf(device);
    await device.write(MIB, pattern(4096));
    await asked;
    await device.writev(2 * MIB + 4000, [pattern(50), pattern(50)]);
    expect(await extentsOf(device)).toEqual([
      data(4096),
      zero(MIB - 4096),
      data(4096),
      zero(MIB - 4096),
      data(8192),
      zero(14 * MIB - 8192),
    ]);
  });

  test('a write that overlaps a range being zeroed leaves it as data', async () => {
    const device = await open(await sparseFile(4 * MIB, { 0: pattern(4 * MIB) }));
    await extentsOf(device);
    await Promise.all([
      device.discard?.(0, 2 * MIB),
      device.write(MIB, pattern(10)),
      device.discard?.(2 * MIB, MIB),
    ]);
    expect(await extentsOf(device)).toEqual([data(2 * MIB), zero(MIB), data(MIB)]);
  });

  test('a new size is found out anew', async () => {
    const device = await open(await sparseFile(4 * MIB, { 0: pattern(4096) }));
    expect(await extentsOf(device)).toEqual([data(4096), zero(4 * MIB - 4096)]);
    await device.resize(8 * MIB);
    expect(await extentsOf(device)).toEqual([data(4096), zero(8 * MIB - 4096)]);
    await device.resize(1000);
    expect(await extentsOf(device)).toEqual([data(1000)]);
  });

  test('nothing, where tar is missing', async () => {
    const device = await open(await sparseFile(MIB));
    vi.stubEnv('PATH', '/nowhere');
    expect(await extentsOf(device)).toEqual([data(MIB)]);
  });

  describe('nothing, where tar says something else than expected:', () => {
    const record = (text: string) => Buffer.concat([Buffer.from(text), Buffer.alloc(512 - text.length)]);
    const header = (type: string, length: number) => {
      const bytes = Buffer.alloc(512);
      bytes.write(`${length.toString(8).padStart(11, '0')}\0`, 124);
      bytes.write(type, 156);
      return bytes;
    };
    const attributes = (size: number) => ` GNU.sparse.major=1\n GNU.sparse.realsize=${size}\n`;
    const archive = (map: string, size = MIB) => {
      const text = attributes(size);
      return Buffer.concat([header('x', text.length), record(text), header('0', 512), record(map)]);
    };
    const stated = async (bytes: Uint8Array) => {
      const path = await sparseFile(MIB);
      const device = await open(path);
      const directory = await stubProgram('tar', `cat "$(dirname "$0")/archive"`);
      await writeFile(`${directory}/archive`, bytes);
      return extentsOf(device);
    };

    test('but the archive made here is like those of tar', async () => {
      expect(await stated(archive('2\n4096\n512\n1048576\n0\n'))).toEqual([
        zero(4096),
        data(4096),
        zero(MIB - 8192),
      ]);
    });

    test.each<readonly [string, Uint8Array]>([
      ['nothing at all', Buffer.alloc(0)],
      ['no archive', Buffer.from('hello'.repeat(300))],
      ['half an archive', archive('').subarray(0, 1200)],
      ['another size', archive('1\n1048577\n0\n', MIB + 1)],
      ['parts out of order', archive('3\n8192\n512\n4096\n512\n1048576\n0\n')],
      ['parts behind the end', archive('2\n4096\n512\n1048577\n0\n')],
      ['a map that ends too soon', archive('1\n4096\n512\n')],
      ['a map without its last lines', archive('3\n4096\n512\n')],
      ['numbers that are none', archive('2\n0x10\n512\n1048576\n0\n')],
      ['numbers that are too large', archive('1\n9999999999999999\n0\n')],
    ])('%s', async (_, bytes) => {
      expect(await stated(bytes)).toEqual([data(MIB)]);
    });
  });

  test('agrees with the content, whatever was done to it', async () => {
    const size = 3 * MIB + 100;
    const range = fc
      .tuple(fc.nat(size), fc.oneof(fc.nat(20_000), fc.nat(size)))
      .map(([offset, length]) => ({ offset, length: Math.min(length, size - offset) }));
    const step = fc.record({
      kind: fc.constantFrom('write', 'discard', 'writeZeroes', 'ask', 'reopen'),
      range,
      seed: fc.nat(250),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
        const path = await sparseFile(size, { [MIB]: pattern(10_000) });
        const model = new Uint8Array(size);
        model.set(pattern(10_000), MIB);
        let device = await FileDevice.open(path, { writable: true });
        const check = async () => {
          let at = 0;
          for (const extent of await extentsOf(device)) {
            const bytes = model.subarray(at, at + extent.length);
            expect(!extent.zero || isZero(bytes), `${extent.length} bytes at ${at}`).toBe(true);
            at += extent.length;
          }
          expect(at).toBe(size);
        };
        try {
          for (const {
            kind,
            range: { offset, length },
            seed,
          } of steps) {
            if (kind === 'ask') await check();
            else if (kind === 'write') {
              const bytes = pattern(Math.min(length, 30_000), seed);
              await device.write(offset, bytes);
              model.set(bytes, offset);
            } else if (kind === 'reopen') {
              await device.close();
              device = await FileDevice.open(path, { writable: true });
            } else {
              if (kind === 'discard') await device.discard?.(offset, length);
              else await device.writeZeroes(offset, length);
              model.fill(0, offset, offset + length);
            }
          }
          await check();
          expect(Buffer.compare(await readFile(path), model)).toBe(0);
        } finally {
          await device.close();
        }
      }),
      { numRuns: 25 },
    );
  });
});

describe('discarding and zeroing a file', () => {
  test('a long range gives its space back, to the byte', async () => {
    const path = await temporaryFile(pattern(4 * MIB));
    const device = await open(path);
    await device.discard?.(1000, 3 * MIB);
    const expected = pattern(4 * MIB);
    expected.fill(0, 1000, 1000 + 3 * MIB);
    expect(Buffer.compare(await readFile(path), expected)).toBe(0);
    expect(await spaceOf(path)).toBeLessThan(1.2 * MIB);
  });

  test('1 TiB takes no longer than a hole takes to punch', async () => {
    const path = await sparseFile(2 ** 40, { [2 ** 35]: pattern(MIB) });
    const device = await open(path);
    await device.discard?.(0, 2 ** 40);
    expect(await spaceOf(path)).toBe(0);
    await device.writeZeroes(0, 2 ** 40);
    expect(await spaceOf(path)).toBe(0);
  });

  test('a file that has no holes keeps its space when it is zeroed', async () => {
    const path = await temporaryFile(pattern(4 * MIB));
    const before = await spaceOf(path);
    const device = await open(path);
    await device.writeZeroes(0, 4 * MIB);
    expect(isZero(await readFile(path))).toBe(true);
    expect(await spaceOf(path)).toBeGreaterThanOrEqual(before);
  });

  test('without the tool zeros are written', async () => {
    const path = await temporaryFile(pattern(4 * MIB));
    const device = await open(path);
    vi.stubEnv('PATH', '/nowhere');
    await device.discard?.(MIB, MIB);
    await device.writeZeroes(2 * MIB, MIB);
    const content = await readFile(path);
    expect(isZero(content.subarray(MIB, 3 * MIB))).toBe(true);
    expect(Buffer.compare(content.subarray(3 * MIB), pattern(4 * MIB).subarray(3 * MIB))).toBe(0);
    expect(await spaceOf(path)).toBe(4 * MIB);
  });

  test('a tool that fails is not asked again', async () => {
    const path = await temporaryFile(pattern(4 * MIB));
    const device = await open(path);
    const directory = await stubProgram('fallocate', 'echo "$1" >> "$(dirname "$0")/calls"; exit 1');
    await Promise.all([device.discard?.(0, MIB), device.discard?.(MIB, MIB)]);
    await device.discard?.(2 * MIB, MIB);
    expect(isZero((await readFile(path)).subarray(0, 3 * MIB))).toBe(true);
    const calls = (await readFile(`${directory}/calls`, 'utf8')).trim().split('\n');
    expect(calls.length).toBeLessThanOrEqual(2);
  });

  test('a tool that dies leaves the work to be done by writing', async () => {
    const path = await temporaryFile(pattern(4 * MIB));
    const device = await open(path);
    await stubProgram('fallocate', 'kill -9 "$PPID"');
    await device.discard?.(0, 4 * MIB);
    expect(isZero(await readFile(path))).toBe(true);
  });

  test('nothing is left running or open by close, and the file is free', async () => {
    const path = await temporaryFile(pattern(4 * MIB));
    const device = await FileDevice.open(path, { writable: true });
    const discarding = device.discard?.(0, 4 * MIB);
    await device.close();
    await discarding;
    const openPaths = readdirSync('/proc/self/fd').map((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return '';
      }
    });
    expect(openPaths).not.toContain(path);
    await open(path);
  });

  test('killed in the middle, a process leaves its lock until the tool is done', async () => {
    const path = await temporaryFile(pattern(4 * MIB));
    const directory = await stubProgram(
      'fallocate',
      'cd "$(dirname "$0")"; touch started; until [ -e go ]; do sleep 0.01; done',
    );
    const script = bundled(new URL('./discard.ts', import.meta.url), await temporaryDirectory());
    const child = spawn(process.execPath, [...script, path], { stdio: 'inherit' });
    onTestFinished(() => void child.kill('SIGKILL'));
    onTestFinished(() => writeFile(`${directory}/go`, ''));
    await vi.waitUntil(() => stat(`${directory}/started`).catch(() => false), { timeout: 20_000 });
    child.kill('SIGKILL');
    await once(child, 'exit');
    await expect(FileDevice.open(path)).rejects.toThrow(InUseError);
    await writeFile(`${directory}/go`, '');
    const device = await vi.waitUntil(() => FileDevice.open(path).catch(() => undefined), {
      timeout: 20_000,
    });
    await device?.close();
  });
});
