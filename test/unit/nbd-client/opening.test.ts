/** Opening an export: what can be wrong, and what one is told then. */
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import {
  DeviceError,
  InvalidArgumentError,
  NotFoundError,
  ReadOnlyError,
  UnsupportedError,
  VolsnapError,
} from '../../../src/errors.ts';
import { NbdDevice, type NbdDeviceOptions } from '../../../src/nbd/client/nbd-device.ts';
import { Option, OptionReply, TransmissionFlag } from '../../../src/nbd/wire/constants.ts';
import { encodeGreeting, encodeOptionError } from '../../../src/nbd/wire/option.ts';
import { SimulatedClock } from '../../../src/testing/simulated-clock.ts';
import { temporaryDirectory } from '../device/temporary.ts';
import { type FakeOptions, FakeServer } from './fake-server.ts';

/** Why an export cannot be opened. */
async function refusal(uri: string, options: NbdDeviceOptions = {}): Promise<Error> {
  const opened = await NbdDevice.open(uri, options).catch((error: unknown) => error);
  if (opened instanceof NbdDevice) {
    await opened.close();
    throw new Error(`${uri} was opened`);
  }
  expect(opened).toBeInstanceOf(Error);
  return opened as Error;
}

const fake = (options: FakeOptions) => FakeServer.start(new Uint8Array(1024 * 1024), options);

/** A server that does to each connection what the test says. */
async function socketServer(serve: (socket: Socket) => void): Promise<string> {
  const path = join(await temporaryDirectory(), 'socket');
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket.on('error', () => undefined));
    serve(socket);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  onTestFinished(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return `nbd+unix:///?socket=${path}`;
}

/** What a client sends at first: its flags, and an option without data. */
const FLAGS_AND_OPTION = 4 + 16;
/** Of a server that knows no option but the export's name. */
const OLD_GREETING = Buffer.concat([encodeGreeting().subarray(0, 16), Buffer.alloc(2)]);

/** To the moment of the next timer, which fires. */
function timePasses(clock: SimulatedClock): void {
  clock.jump();
  clock.fireDue();
}

describe('opening an export', () => {
  test('that is not there lists those that are', async () => {
    const server = await fake({ exports: ['', 'blue', 'red\u0007'] });
    const error = await refusal(server.uri.replace('///', '///green'));
    expect(error).toBeInstanceOf(NotFoundError);
    expect(error.message).toBe(
      `${server.path} has no export "green"; it has the default one (no name), "blue", "red" (the fake refuses)`,
    );
    expect(server.complaints).toEqual([]);
  });

  test('that is there, but cannot be opened, as nbdkit says it', async () => {
    const server = await fake({ exports: ['blue'], broken: ['blue'] });
    const error = await refusal(server.uri.replace('///', '///blue'));
    expect(error).toBeInstanceOf(DeviceError);
    expect(error.message).toContain('lists the export "blue", but cannot open it');
  });

  test('that is not there, at a server that cannot say so', async () => {
    const server = await fake({ exports: ['blue'], age: 'fixed', style: 'simple' });
    const error = await refusal(server.uri);
    expect(error).toBeInstanceOf(DeviceError);
    expect(error.message).toContain('closed the connection when asked for the export ""');
  });

  test('with a name, at a server that knows no names', async () => {
    const server = await fake({ age: 'oldstyle' });
    expect(await refusal(server.uri.replace('///', '///green'))).toBeInstanceOf(UnsupportedError);
  });

  test('that may only be read, for writing', async () => {
    const flags = TransmissionFlag.hasFlags | TransmissionFlag.readOnly;
    const server = await fake({ flags });
    expect(await refusal(server.uri, { writable: true })).toBeInstanceOf(ReadOnlyError);
    const device = await NbdDevice.open(server.uri);
    await device.close();
    await expect(device.read(0, new Uint8Array(1))).rejects.toMatchObject({ code: 'CLOSED' });
  });

  test('with a size that is no whole number of blocks', async () => {
    const server = await FakeServer.start(new Uint8Array(1000), {
      blocks: { minimum: 512, preferred: 4096, maximum: 65_536 },
    });
    expect((await refusal(server.uri)).message).toContain('its end cannot be reached');
  });

  test.each([
    [{ minimum: 3, preferred: 4096, maximum: 65_536 }, 'no power of 2'],
    [{ minimum: 131_072, preferred: 131_072, maximum: 2 ** 20 }, 'no power of 2'],
    [{ minimum: 0, preferred: 512, maximum: 2 ** 20 }, 'no power of 2'],
    [{ minimum: 512, preferred: 512, maximum: 0 }, 'maximum payload of 0'],
  ])('with block sizes that cannot be: %j', async (blocks, why) => {
    const error = await refusal((await fake({ blocks })).uri);
    expect(error).toBeInstanceOf(DeviceError);
    expect(error.message).toContain(why);
  });

  test('with TLS, at a server that has none', async () => {
    const server = await fake({});
    const error = await refusal(server.uri.replace('nbd+unix', 'nbds+unix'));
    expect(error).toBeInstanceOf(DeviceError);
    expect(error.message).toContain('has no TLS');
    expect(server.requests).toEqual([]);
  });

  test('without TLS, at a server that insists on it', async () => {
    const uri = await socketServer((socket) => {
      socket.write(encodeGreeting());
      socket.on('data', (data) => {
        if (data.byteLength >= 16)
          socket.write(encodeOptionError(Option.extendedHeaders, OptionReply.tlsRequired, 'no'));
      });
    });
    const error = await refusal(uri);
    expect(error).toBeInstanceOf(InvalidArgumentError);
    expect(error.message).toContain('use nbds://');
  });

  test('where nobody listens', async () => {
    const error = await refusal('nbd://127.0.0.1:1/');
    expect(error).toBeInstanceOf(DeviceError);
    expect(error.message).toContain('no server listens at 127.0.0.1:1');
    expect(await refusal('nbd+unix:///?socket=/nowhere/socket')).toBeInstanceOf(NotFoundError);
  });

  test('where something else listens', async () => {
    const uri = await socketServer((socket) => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n'));
    expect((await refusal(uri)).message).toContain('does not greet as an NBD server does');
  });

  test('of a server that hangs up', async () => {
    const error = await refusal(await socketServer((socket) => socket.end(encodeGreeting().subarray(0, 9))));
    expect(error).toBeInstanceOf(DeviceError);
    expect(error.message).toContain('closed');
  });

  test.each([
    ['says nothing', Buffer.alloc(0)],
    ['stops within its greeting', encodeGreeting().subarray(0, 9)],
  ])('of a server that %s takes as long as was allowed, and no longer', async (_, greeting) => {
    const clock = new SimulatedClock();
    const uri = await socketServer((socket) => socket.write(greeting, () => timePasses(clock)));
    const error = await refusal(uri, { clock, connectTimeoutMs: 1234 });
    expect(error).toBeInstanceOf(DeviceError);
    expect(error.message).toContain('within 1234 ms');
    expect(clock.monotonic()).toBe(1234);
    expect(clock.timerCount).toBe(0);
  });

  const refused = encodeOptionError(Option.extendedHeaders, OptionReply.unsupported, 'not known');
  test.each([
    ['after its greeting', encodeGreeting(), Buffer.alloc(0)],
    ['within the reply to an option', encodeGreeting(), refused.subarray(0, 13)],
    ['within the data of a reply', encodeGreeting(), refused.subarray(0, -1)],
    ['when asked for the export by name', OLD_GREETING, Buffer.alloc(3)],
  ])('of a server that stalls %s, too, and says so', async (_, greeting, answer) => {
    const clock = new SimulatedClock();
    const uri = await socketServer((socket) => {
      let received = 0;
      socket.write(greeting);
      socket.on('data', ({ byteLength }) => {
        received += byteLength;
        if (received >= FLAGS_AND_OPTION) socket.write(answer, () => timePasses(clock));
      });
    });
    const error = await refusal(uri, { clock, connectTimeoutMs: 1234 });
    expect(error).toBeInstanceOf(DeviceError);
    expect(error.message).toContain(
      'the server took the connection, but did not come to terms on the export within 1234 ms',
    );
    expect(clock.monotonic()).toBe(1234);
    expect(clock.timerCount).toBe(0);
  });

  test('can be interrupted', async () => {
    const controller = new AbortController();
    const uri = await socketServer(() => controller.abort(new Error('enough')));
    expect((await refusal(uri, { signal: controller.signal })).message).toBe('enough');
    expect((await refusal(uri, { signal: controller.signal })).message).toBe('enough');
  });

  test('of a server that floods it ends', async () => {
    const uri = await socketServer((socket) => {
      const flood = () => void (socket.writable && socket.write(Buffer.alloc(65_536), flood));
      socket.write(encodeGreeting().subarray(0, 16));
      flood();
    });
    expect(await refusal(uri)).toBeInstanceOf(VolsnapError);
  });

  test.each([
    [{ connections: 0 }, 'connections'],
    [{ connections: 1.5 }, 'connections'],
    [{ connectTimeoutMs: 0 }, 'connectTimeoutMs'],
    [{ requestTimeoutMs: Number.NaN }, 'requestTimeoutMs'],
    [{ reconnectTimeoutMs: -1 }, 'reconnectTimeoutMs'],
  ])('with the options %j is refused', async (options, name) => {
    const error = await refusal('nbd://localhost/', options);
    expect(error).toBeInstanceOf(InvalidArgumentError);
    expect(error.message).toContain(name);
  });
});

describe('connections', () => {
  test('are as many as asked for, where the server allows several', async () => {
    const many = await fake({ flags: TransmissionFlag.hasFlags | TransmissionFlag.canMultiConn });
    const one = await fake({ flags: TransmissionFlag.hasFlags });
    for (const [server, count] of [
      [many, 3],
      [one, 1],
    ] as const) {
      const device = await NbdDevice.open(server.uri, { connections: 3 });
      await device.close();
      expect(server.connections).toBe(count);
    }
  });
});
