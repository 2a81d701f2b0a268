/** The contract of devices, kept over every kind of server: old, new, with large blocks, and our own. */
import { randomUUID } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { MemoryDevice } from '../../../src/device/memory-device.js';
import { NbdDevice, type NbdDeviceOptions } from '../../../src/nbd/client/nbd-device.js';
import { DeviceExport, FixedCatalog } from '../../../src/nbd/server/device-export.js';
import { NbdServer } from '../../../src/nbd/server/server.js';
import { ErrorValue, RequestType, TransmissionFlag } from '../../../src/nbd/wire/constants.js';
import { type FakeOptions, FakeServer } from '../nbd-client/fake-server.js';
import { type BlockDeviceFixture, blockDeviceSuite } from './contract.js';

const servers = new WeakMap<object, FakeServer>();

const fixture = (options: FakeOptions, deviceOptions: NbdDeviceOptions = {}): BlockDeviceFixture => {
  const make = async (content: Uint8Array, writable: boolean) => {
    const server = await FakeServer.start(content, options);
    onTestFinished(() => expect(server.complaints).toEqual([]));
    const device = await NbdDevice.open(server.uri, { ...deviceOptions, writable });
    servers.set(device, server);
    return device;
  };
  return {
    make: (content) => make(content, true),
    makeReadOnly: (content) => make(content, false),
    failNextFlush: (device) => {
      const server = servers.get(device);
      if (server === undefined) throw new Error('the device has no server');
      let failed = false;
      server.misdeed = ({ type }) => {
        if (type !== RequestType.flush || failed) return undefined;
        failed = true;
        return { error: ErrorValue.io };
      };
    },
    runs: 10,
  };
};

const BASIC = TransmissionFlag.hasFlags | TransmissionFlag.sendFlush;

blockDeviceSuite('NbdDevice with extended headers', fixture({ style: 'extended', holes: true, chunk: 700 }));
blockDeviceSuite(
  'NbdDevice with structured replies',
  fixture({ style: 'structured', holes: true, chunk: 4096 }),
);
blockDeviceSuite(
  'NbdDevice with simple replies, blocks of 512 bytes and small requests',
  fixture({ style: 'simple', blocks: { minimum: 512, preferred: 4096, maximum: 2048 } }),
);
blockDeviceSuite(
  'NbdDevice at a server without GO, zeroing or block sizes',
  fixture({ style: 'simple', age: 'fixed', noZeroes: false, flags: BASIC }),
);
blockDeviceSuite(
  'NbdDevice on several connections',
  fixture({ flags: BASIC | TransmissionFlag.canMultiConn }, { connections: 3 }),
);
describe('from the oldest on', () => {
  test.each(['oldstyle', 'newstyle'] as const)('a server that is %s is used', async (age) => {
    const server = await FakeServer.start(new Uint8Array(4096).fill(7), { age, noZeroes: false });
    const device = await NbdDevice.open(server.uri, { writable: true });
    onTestFinished(() => device.close());
    await device.write(1, Uint8Array.of(1, 2, 3));
    await device.flush();
    const target = new Uint8Array(5);
    await device.read(0, target);
    expect([...target]).toEqual([7, 1, 2, 3, 7]);
    expect(server.complaints).toEqual([]);
  });
});

const ours = async (content: Uint8Array, writable: boolean) => {
  const path = join(tmpdir(), `volsnap-${randomUUID()}.sock`);
  const server = new NbdServer(new FixedCatalog([new DeviceExport('', new MemoryDevice(content))]));
  await server.listen({ path });
  onTestFinished(() => server.close());
  return NbdDevice.open(`nbd+unix:///?socket=${path}`, { writable, connections: 2 });
};
blockDeviceSuite('NbdDevice at our own server', {
  make: (content) => ours(content, true),
  makeReadOnly: (content) => ours(content, false),
  runs: 10,
});
