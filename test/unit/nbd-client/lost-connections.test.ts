/** A connection that breaks: what goes on, and what must not. */
import { describe, expect, onTestFinished, test } from 'vitest';
import { DeviceError } from '../../../src/errors.ts';
import { NbdDevice, type NbdDeviceOptions } from '../../../src/nbd/client/nbd-device.ts';
import { ErrorValue, RequestType, TransmissionFlag } from '../../../src/nbd/wire/constants.ts';
import { SimulatedClock } from '../../../src/testing/simulated-clock.ts';
import { pattern } from '../device/contract.ts';
import { type FakeOptions, FakeServer, type Misdeed } from './fake-server.ts';

async function start(options: FakeOptions = {}, device: NbdDeviceOptions = {}) {
  const server = await FakeServer.start(pattern(65_536), options);
  const nbd = await NbdDevice.open(server.uri, { writable: true, ...device });
  onTestFinished(async () => {
    await nbd.close();
    expect(server.complaints).toEqual([]);
  });
  return { server, nbd };
}

/** Does it to the first request of this type. */
function once(server: FakeServer, type: number, misdeed: Misdeed): void {
  server.misdeed = (request) => {
    if (request.type !== type) return undefined;
    server.misdeed = () => undefined;
    return misdeed;
  };
}

/** Lets simulated time pass until it is settled; real sockets need turns of the real event loop. */
async function passTime(
  clock: SimulatedClock,
  outcome: Promise<unknown>,
  afterTimer: (count: number) => Promise<void> = async () => undefined,
): Promise<void> {
  let isSettled = false;
  const settle = () => {
    isSettled = true;
  };
  outcome.then(settle, settle);
  for (let turn = 0, timers = 0; !isSettled && turn < 100_000; turn++) {
    await new Promise((resolve) => setImmediate(resolve));
    // Only if nothing else can happen before: each turn gives a socket its chance.
    if (isSettled || turn % 50 !== 0 || !clock.jump()) continue;
    clock.fireDue();
    timers++;
    await afterTimer(timers);
  }
}

const bytesAt = async (nbd: NbdDevice, offset: number, length: number) => {
  const target = new Uint8Array(length);
  await nbd.read(offset, target);
  return target;
};

describe('after the server closed the connection', () => {
  test('reads are sent again', async () => {
    const { server, nbd } = await start({}, { writable: false });
    once(server, RequestType.read, 'drop');
    expect(await bytesAt(nbd, 512, 1024)).toEqual(pattern(65_536).subarray(512, 1536));
    expect(server.connections).toBe(2);
  });

  test.each(['drop', 'carry out and drop'] as const)(
    'a write that was not answered is sent again (%s)',
    async (misdeed) => {
      const { server, nbd } = await start();
      await nbd.flush();
      once(server, RequestType.write, misdeed);
      await nbd.write(512, pattern(512, 9));
      await nbd.flush();
      expect(server.content.subarray(512, 1024)).toEqual(pattern(512, 9));
      expect(server.connections).toBe(2);
    },
  );

  test('all that is in flight goes on, on a connection that they share', async () => {
    const { server, nbd } = await start();
    await nbd.flush();
    once(server, RequestType.read, 'drop');
    const all = Array.from({ length: 100 }, (_, at) => bytesAt(nbd, at * 512, 512));
    for (const [at, bytes] of (await Promise.all(all)).entries())
      expect(bytes).toEqual(pattern(65_536).subarray(at * 512, at * 512 + 512));
    expect(server.connections).toBe(2);
  });

  test('what was flushed is not in doubt', async () => {
    const { server, nbd } = await start();
    await nbd.write(0, pattern(512, 9));
    await nbd.flush();
    server.cut();
    expect(await bytesAt(nbd, 0, 512)).toEqual(pattern(512, 9));
    await nbd.write(0, pattern(512, 10));
    await nbd.flush();
  });

  test('what was written and not flushed may be lost, so nothing works any more', async () => {
    const { server, nbd } = await start();
    await nbd.flush();
    await nbd.write(0, pattern(512, 9));
    once(server, RequestType.read, 'drop');
    await expect(bytesAt(nbd, 0, 512)).rejects.toThrow('may have lost what was written and not yet flushed');
    await expect(nbd.flush()).rejects.toThrow(DeviceError);
    await expect(nbd.write(0, new Uint8Array(512))).rejects.toThrow(DeviceError);
    await expect(bytesAt(nbd, 0, 512)).rejects.toThrow(DeviceError);
    expect(server.connections).toBe(1);
  });

  test('a write that was answered while a flush was under way is not covered by it', async () => {
    const { server, nbd } = await start();
    await nbd.flush();
    let release: () => void = () => undefined;
    const flushing = new Promise<void>((resolve) => {
      release = resolve;
    });
    // The flush is answered after the write that was sent behind it.
    server.misdeed = ({ type }) => {
      if (type !== RequestType.flush) return undefined;
      release();
      return undefined;
    };
    await Promise.all([nbd.flush(), flushing, nbd.write(0, pattern(512, 9))]);
    server.cut();
    await expect(bytesAt(nbd, 0, 512)).rejects.toThrow('not yet flushed');
  });

  test('before the first flush what others wrote is in doubt, too', async () => {
    const { server, nbd } = await start();
    once(server, RequestType.read, 'drop');
    await expect(bytesAt(nbd, 0, 512)).rejects.toThrow('not yet flushed');
  });

  test('a server without a cache loses nothing', async () => {
    const { server, nbd } = await start({ flags: TransmissionFlag.hasFlags });
    await nbd.write(0, pattern(512, 9));
    server.cut();
    expect(await bytesAt(nbd, 0, 512)).toEqual(pattern(512, 9));
  });

  test('a flush that was under way is final if something was written, and is sent again if not', async () => {
    const { server, nbd } = await start();
    await nbd.flush();
    once(server, RequestType.flush, 'drop');
    await nbd.flush();
    await nbd.write(0, pattern(512, 9));
    once(server, RequestType.flush, 'carry out and drop');
    await expect(nbd.flush()).rejects.toThrow(DeviceError);
    await expect(nbd.flush()).rejects.toThrow(DeviceError);
  });

  test('a server that shuts down is left, and found again', async () => {
    const { server, nbd } = await start({}, { writable: false });
    once(server, RequestType.read, { error: ErrorValue.shutdown });
    expect(await bytesAt(nbd, 0, 512)).toEqual(pattern(512));
    expect(server.connections).toBe(2);
  });

  test.each([
    [
      'its size',
      (server: FakeServer) => {
        server.content = new Uint8Array(4096);
      },
      'it had 65536 bytes and has 4096',
    ],
    [
      'what it may do',
      (server: FakeServer) => {
        server.options = { flags: TransmissionFlag.hasFlags };
      },
      'no longer do what it could',
    ],
    [
      'its block size',
      (server: FakeServer) => {
        server.options = { blocks: { minimum: 4096, preferred: 4096, maximum: 2 ** 25 } };
      },
      'block sizes',
    ],
    [
      'its contexts',
      (server: FakeServer) => {
        server.options = { style: 'simple' };
      },
      'no longer tells base:allocation',
    ],
  ] as const)('an export that changed %s is another one', async (_, change, why) => {
    const { server, nbd } = await start();
    await nbd.flush();
    change(server);
    server.cut();
    await expect(bytesAt(nbd, 0, 512)).rejects.toThrow(why);
    await expect(nbd.flush()).rejects.toThrow('is another one');
  });

  test('it is tried again until the server is back', async () => {
    const clock = new SimulatedClock();
    const { server, nbd } = await start({}, { writable: false, clock });
    server.stop();
    const reading = bytesAt(nbd, 0, 512);
    await passTime(clock, reading, async (timers) => {
      if (timers === 3) await server.listen();
    });
    expect(await reading).toEqual(pattern(512));
  });

  test('and no longer than was allowed; a later call tries again', async () => {
    const clock = new SimulatedClock();
    const { server, nbd } = await start({}, { writable: false, reconnectTimeoutMs: 5000, clock });
    server.stop();
    const reading = bytesAt(nbd, 0, 512).catch((error: unknown) => error);
    await passTime(clock, reading);
    expect(await reading).toMatchObject({
      code: 'DEVICE',
      message: expect.stringContaining('did not come back within 5000 ms'),
    });
    expect(clock.monotonic()).toBeLessThanOrEqual(5000);
    await server.listen();
    expect(await bytesAt(nbd, 0, 512)).toEqual(pattern(512));
  });

  test('not at all if that was forbidden', async () => {
    const { server, nbd } = await start({}, { writable: false, reconnectTimeoutMs: 0 });
    server.cut();
    await expect(bytesAt(nbd, 0, 512)).rejects.toThrow('was lost');
    expect(server.connections).toBe(1);
  });

  test('a server that breaks every time is not asked for ever', async () => {
    const { server, nbd } = await start({}, { writable: false });
    server.misdeed = () => 'drop';
    await expect(bytesAt(nbd, 0, 512)).rejects.toThrow('was lost 8 times');
    expect(server.connections).toBe(8);
  });
});

describe('a server that does not answer', () => {
  const slow = async (type: number) => {
    const clock = new SimulatedClock();
    const { server, nbd } = await start({}, { clock, requestTimeoutMs: 5000 });
    await nbd.flush();
    const asked = new Promise<void>((resolve) => {
      server.misdeed = (request) => {
        if (request.type !== type) return undefined;
        resolve();
        return 'silence';
      };
    });
    return { clock, server, nbd, asked };
  };

  test('fails the read after its time, and the next one goes on', async () => {
    const { clock, server, nbd, asked } = await slow(RequestType.read);
    const reading = bytesAt(nbd, 0, 512).catch((error: unknown) => error);
    await asked;
    await passTime(clock, reading);
    expect(await reading).toMatchObject({
      code: 'DEVICE',
      message: expect.stringContaining('took too long'),
    });
    expect(clock.monotonic()).toBeGreaterThanOrEqual(5000);
    expect(clock.monotonic()).toBeLessThan(5010);
    server.misdeed = () => undefined;
    expect(await bytesAt(nbd, 0, 512)).toEqual(pattern(512));
  });

  test('to a write may yet carry it out, so nothing works any more', async () => {
    const { clock, server, nbd, asked } = await slow(RequestType.write);
    const writing = nbd.write(0, new Uint8Array(512)).catch((error: unknown) => error);
    await asked;
    await passTime(clock, writing);
    expect(await writing).toMatchObject({
      code: 'DEVICE',
      message: expect.stringContaining('may yet carry out'),
    });
    server.misdeed = () => undefined;
    await expect(bytesAt(nbd, 0, 512)).rejects.toThrow('may yet carry out');
  });

  test('in time is not disturbed by the timer', async () => {
    const clock = new SimulatedClock();
    const { nbd } = await start({}, { clock });
    for (let round = 0; round < 5; round++) {
      await bytesAt(nbd, 0, 512);
      clock.jump();
      clock.fireDue();
    }
    expect(await bytesAt(nbd, 0, 512)).toEqual(pattern(512));
  });
});
