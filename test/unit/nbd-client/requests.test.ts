/** What is asked of a server for what is asked of the device. */
import { describe, expect, onTestFinished, test } from 'vitest';
import { DeviceError, isOutOfSpace, UnsupportedError } from '../../../src/errors.ts';
import { NbdDevice, type NbdDeviceOptions } from '../../../src/nbd/client/nbd-device.ts';
import {
  BASE_ALLOCATION,
  ErrorValue,
  RequestFlag,
  RequestType,
  TransmissionFlag,
} from '../../../src/nbd/wire/constants.ts';
import { pattern } from '../device/contract.ts';
import { type FakeOptions, FakeServer } from './fake-server.ts';

const MEBIBYTE = 1024 * 1024;
const BASIC = TransmissionFlag.hasFlags | TransmissionFlag.sendFlush;

async function start(size: number, options: FakeOptions = {}, device: NbdDeviceOptions = {}) {
  const server = await FakeServer.start(pattern(size), options);
  const nbd = await NbdDevice.open(server.uri, { writable: true, ...device });
  onTestFinished(async () => {
    await nbd.close();
    expect(server.complaints).toEqual([]);
  });
  return { server, nbd };
}

describe('requests', () => {
  test('several buffers that follow each other are one', async () => {
    const { server, nbd } = await start(65_536);
    await nbd.writev(1024, [pattern(512, 2), pattern(1024, 3), pattern(512, 4)]);
    expect(server.requests.map(({ type, offset, length }) => ({ type, offset, length }))).toEqual([
      { type: RequestType.write, offset: 1024, length: 2048 },
    ]);
  });

  test.each(['simple', 'structured', 'extended'] as const)(
    'long ones are cut, with %s replies',
    async (style) => {
      const maximum = 65_536;
      const { server, nbd } = await start(MEBIBYTE, {
        style,
        blocks: { minimum: 1, preferred: 512, maximum },
      });
      const bytes = pattern(MEBIBYTE - 1, 9);
      await nbd.writev(1, [bytes.subarray(0, 100_000), bytes.subarray(100_000)]);
      expect(server.requests).toHaveLength(16);
      const target = new Uint8Array(MEBIBYTE - 1);
      await nbd.read(1, target);
      expect(Buffer.compare(target, bytes)).toBe(0);
      expect(Buffer.compare(server.content.subarray(1), bytes)).toBe(0);
    },
  );

  test('many in flight come back in any order', async () => {
    const { server, nbd } = await start(MEBIBYTE, { chunk: 1000 });
    const reads = Array.from({ length: 300 }, async (_, at) => {
      const target = new Uint8Array(3000);
      await nbd.read(at * 3001, target);
      return Buffer.compare(target, server.content.subarray(at * 3001, at * 3001 + 3000)) === 0;
    });
    expect((await Promise.all(reads)).every(Boolean)).toBe(true);
  });

  test('zeros are not sent where the server makes them', async () => {
    const { server, nbd } = await start(MEBIBYTE);
    await nbd.writeZeroes(512, 100_000);
    await nbd.discard?.(200_704, 4096);
    expect(server.requests.map(({ type, flags, length }) => ({ type, flags, length }))).toEqual(
      [
        { type: RequestType.writeZeroes, flags: RequestFlag.noHole, length: 99_840 },
        { type: RequestType.read, flags: 0, length: 512 },
        { type: RequestType.write, flags: expect.any(Number), length: 512 },
        { type: RequestType.writeZeroes, flags: 0, length: 4096 },
      ].sort((a, b) => ORDER.indexOf(a.type) - ORDER.indexOf(b.type)),
    );
    expect(server.content.subarray(512, 100_512).every((byte) => byte === 0)).toBe(true);
    expect(server.content[100_512]).toBe(pattern(MEBIBYTE)[100_512]);
  });
  /** The odd end comes first, then the whole blocks. */
  const ORDER: readonly number[] = [RequestType.read, RequestType.write, RequestType.writeZeroes];

  test('zeros are sent where it does not, and there is no discard', async () => {
    const { server, nbd } = await start(6 * MEBIBYTE, { flags: BASIC });
    expect(nbd.discard).toBeUndefined();
    await nbd.writeZeroes(512, 5 * MEBIBYTE);
    expect(server.typesSeen().every((type) => type === RequestType.write)).toBe(true);
    expect(server.content.subarray(512, 512 + 5 * MEBIBYTE).every((byte) => byte === 0)).toBe(true);
  });

  test('zeros are sent where the server says that it cannot after all', async () => {
    const { server, nbd } = await start(MEBIBYTE);
    server.misdeed = ({ type }) =>
      type === RequestType.writeZeroes ? { error: ErrorValue.notsup } : undefined;
    await nbd.writeZeroes(0, 65_536);
    expect(server.content.subarray(0, 65_536).every((byte) => byte === 0)).toBe(true);
  });

  test('without flush every change is forced through', async () => {
    const flags = TransmissionFlag.hasFlags | TransmissionFlag.sendFua | TransmissionFlag.sendWriteZeroes;
    const { server, nbd } = await start(4096, { flags });
    await nbd.write(0, new Uint8Array(512));
    await nbd.writeZeroes(512, 512);
    await nbd.flush();
    expect(server.requests.map((request) => request.flags & RequestFlag.fua)).toEqual([1, 1]);
  });

  test('a flush is sent even if nothing was written: the server may keep what others wrote', async () => {
    const { server, nbd } = await start(4096);
    await nbd.flush();
    expect(server.typesSeen()).toEqual([RequestType.flush]);
  });
});

describe('parts of blocks', () => {
  const blocks = { minimum: 4096, preferred: 4096, maximum: 65_536 };

  test('are read, changed and written back', async () => {
    const { server, nbd } = await start(65_536, { blocks });
    const expected = pattern(65_536);
    await nbd.write(4095, pattern(2, 5));
    expected.set(pattern(2, 5), 4095);
    await nbd.write(10_000, pattern(20_000, 6));
    expected.set(pattern(20_000, 6), 10_000);
    await nbd.writeZeroes(40_000, 100);
    expected.fill(0, 40_000, 40_100);
    expect(Buffer.compare(server.content, expected)).toBe(0);
  });

  test('written at the same time do not undo each other', async () => {
    const { server, nbd } = await start(65_536, { blocks });
    const expected = pattern(65_536);
    const writes: Promise<void>[] = [];
    for (let at = 0; at < 65_536; at += 1000) {
      const bytes = pattern(Math.min(1000, 65_536 - at), at % 250);
      expected.set(bytes, at);
      writes.push(nbd.write(at, bytes));
    }
    await Promise.all(writes);
    expect(Buffer.compare(server.content, expected)).toBe(0);
  });

  test('leave a whole block alone that is written meanwhile', async () => {
    const { server, nbd } = await start(65_536, { blocks });
    const part = nbd.write(4096, pattern(10, 5));
    const whole = nbd.write(4096, pattern(4096, 6));
    await Promise.all([part, whole]);
    const possible = [
      pattern(4096, 6),
      Uint8Array.from([...pattern(10, 5), ...pattern(4096, 6).subarray(10)]),
    ];
    expect(possible.some((bytes) => Buffer.compare(bytes, server.content.subarray(4096, 8192)) === 0)).toBe(
      true,
    );
  });

  test('a failed write lets the next one on', async () => {
    const { server, nbd } = await start(65_536, { blocks });
    server.misdeed = ({ type }) => (type === RequestType.read ? { error: ErrorValue.io } : undefined);
    await expect(nbd.write(1, new Uint8Array(1))).rejects.toThrow(DeviceError);
    server.misdeed = () => undefined;
    await nbd.write(1, Uint8Array.of(77));
    expect(server.content[1]).toBe(77);
  });
});

describe('errors of the server', () => {
  test('say what was asked and what it answered', async () => {
    const { server, nbd } = await start(4096);
    server.misdeed = () => ({ error: ErrorValue.io, message: 'sector\n12 is bad' });
    await expect(nbd.read(512, new Uint8Array(1024))).rejects.toThrow(
      `cannot read 1024 bytes at offset 512 of ${server.uri}: the server answers EIO (input/output error, "sector 12 is bad")`,
    );
    server.misdeed = () => undefined;
    await nbd.read(512, new Uint8Array(1024));
  });

  test('a full disk is known as one', async () => {
    const { server, nbd } = await start(4096, { style: 'simple' });
    server.misdeed = () => ({ error: ErrorValue.nospc });
    const error = await nbd.write(0, new Uint8Array(512)).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(DeviceError);
    expect(isOutOfSpace(error)).toBe(true);
  });

  test('an unknown one is an error all the same', async () => {
    const { server, nbd } = await start(4096);
    server.misdeed = () => ({ error: 4711 });
    await expect(nbd.flush()).rejects.toThrow('NBD 4711');
  });

  test('one piece that fails fails the whole, once all have ended', async () => {
    const blocks = { minimum: 1, preferred: 512, maximum: 4096 };
    const { server, nbd } = await start(65_536, { blocks });
    server.misdeed = ({ offset }) => (offset === 0 ? { error: ErrorValue.io } : undefined);
    await expect(nbd.write(0, pattern(65_536, 3))).rejects.toThrow(DeviceError);
    expect(server.requests).toHaveLength(16);
  });
});

describe('block status', () => {
  const extents = [
    { length: 1000, status: 0 },
    { length: 1000, status: 0 },
    { length: 500, status: 3 },
    { length: 1_000_000, status: 1 },
  ];

  test.each(['structured', 'extended'] as const)('%s: covers the range, neighbours merged', async (style) => {
    const { server, nbd } = await start(65_536, {
      style,
      allocation: extents,
      blocks: { minimum: 1, preferred: 512, maximum: 65_536 },
    });
    expect(nbd.contexts).toEqual([BASE_ALLOCATION]);
    expect(await nbd.blockStatus(BASE_ALLOCATION, 100, 4000)).toEqual([
      { offset: 100, length: 2000, status: 0 },
      { offset: 2100, length: 500, status: 3 },
      { offset: 2600, length: 1500, status: 1 },
    ]);
    expect(server.requests).toHaveLength(1);
  });

  test('tells what is zero', async () => {
    const { nbd } = await start(65_536, {
      allocation: extents,
      blocks: { minimum: 1, preferred: 512, maximum: 65_536 },
    });
    const found: unknown[] = [];
    for await (const extent of nbd.allocation?.(0, 2700) ?? []) found.push(extent);
    expect(found).toEqual([
      { length: 1000, zero: false },
      { length: 1000, zero: false },
      { length: 500, zero: true },
      { length: 200, zero: false },
    ]);
  });

  test('is not there where the server does not tell', async () => {
    const { nbd } = await start(4096, { style: 'simple' });
    expect(nbd.allocation).toBeUndefined();
    await expect(nbd.blockStatus(BASE_ALLOCATION, 0, 512)).rejects.toThrow(UnsupportedError);
  });
});
