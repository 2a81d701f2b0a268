/** NbdDevice at the servers that people have: qemu-nbd over images of its formats, nbdkit with what makes life hard. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { DeviceError, InvalidArgumentError, ReadOnlyError } from '../../src/errors.ts';
import { NbdDevice, type NbdDeviceOptions } from '../../src/nbd/client/nbd-device.ts';
import { SeededRandom } from '../../src/testing/seeded-random.ts';
import { blockDeviceSuite, pattern } from '../unit/device/contract.ts';
import {
  image,
  makeCertificates,
  nbdkit,
  qemuNbd,
  type ServerProcess,
  testFolder,
} from './support/nbd-servers.ts';
import { requireTool } from './support/writer-tools.ts';

const MEBIBYTE = 1024 * 1024;
const hasServers = requireTool('qemu-nbd', 'qemu-img', 'nbdkit', 'openssl');

async function open(uri: string, options: NbdDeviceOptions = {}): Promise<NbdDevice> {
  const device = await NbdDevice.open(uri, { writable: true, ...options });
  onTestFinished(() => device.close());
  return device;
}

/** Writes, zeroes and reads at random places, and compares with an array of bytes. */
async function useRandomly(device: NbdDevice, content: Uint8Array, seed: string): Promise<void> {
  const random = new SeededRandom(seed);
  const model = content.slice();
  for (let step = 0; step < 150; step++) {
    const offset = random.below(model.byteLength);
    const length =
      1 + random.below(Math.min(model.byteLength - offset, random.below(4) === 0 ? 600_000 : 9000));
    const kind = random.below(5);
    if (kind <= 1) {
      const bytes = random.fill(new Uint8Array(length));
      await device.write(offset, bytes);
      model.set(bytes, offset);
    } else if (kind === 2) {
      if (device.discard !== undefined && random.chance(0.5)) await device.discard(offset, length);
      else await device.writeZeroes(offset, length);
      model.fill(0, offset, offset + length);
    } else if (kind === 3) {
      await device.flush();
    }
    const target = new Uint8Array(length);
    await device.read(offset, target);
    expect(Buffer.compare(target, model.subarray(offset, offset + length)), `${seed}, step ${step}`).toBe(0);
  }
  const all = new Uint8Array(model.byteLength);
  await device.read(0, all);
  expect(Buffer.compare(all, model), seed).toBe(0);
}

describe.skipIf(!hasServers)('NbdDevice', () => {
  const qemu = async (content: Uint8Array, options: NbdDeviceOptions) => {
    const folder = testFolder();
    const server = await qemuNbd(folder, '-f', 'raw', await image(folder, 'raw', content));
    return NbdDevice.open(server.uri(), options);
  };
  blockDeviceSuite('NbdDevice at qemu-nbd', {
    make: (content) => qemu(content, { writable: true }),
    makeReadOnly: (content) => qemu(content, {}),
    runs: 5,
  });

  test.each(['qcow2', 'vmdk', 'vhdx', 'qed'])('uses a %s image through qemu-nbd', async (format) => {
    const folder = testFolder();
    const content = pattern(8 * MEBIBYTE);
    const server = await qemuNbd(folder, '-f', format, await image(folder, format, content));
    await useRandomly(await open(server.uri()), content, format);
  });

  test('sees the holes of a sparse image', async () => {
    const folder = testFolder();
    const content = new Uint8Array(4 * MEBIBYTE);
    content.fill(1, MEBIBYTE, 2 * MEBIBYTE);
    const server = await qemuNbd(folder, '-f', 'qcow2', await image(folder, 'qcow2', content));
    const device = await open(server.uri());
    const statuses = await device.blockStatus('base:allocation', 0, device.size);
    expect(statuses.map(({ offset, length, status }) => [offset, length, status & 2])).toEqual([
      [0, MEBIBYTE, 2],
      [MEBIBYTE, MEBIBYTE, 0],
      [2 * MEBIBYTE, 2 * MEBIBYTE, 2],
    ]);
  });

  test('uses nbdkit over several connections', async () => {
    const server = await nbdkit(testFolder(), 'memory', '16M');
    await useRandomly(await open(server.uri(), { connections: 4 }), new Uint8Array(16 * MEBIBYTE), 'memory');
  });

  test.each([
    ['1', '1M'],
    ['512', '64K'],
    ['4096', '64K'],
    ['65536', '1M'],
  ])('keeps to blocks of at least %s bytes and payloads of at most %s', async (minimum, maximum) => {
    const sizes = ['blocksize-minimum', 'blocksize-preferred', 'blocksize-maximum'];
    const values = [minimum, '65536', maximum];
    const server = await nbdkit(
      testFolder(),
      '--filter=blocksize-policy',
      'memory',
      '4M',
      ...sizes.map((name, at) => `${name}=${values[at]}`),
      'blocksize-error-policy=error',
    );
    await useRandomly(await open(server.uri()), new Uint8Array(4 * MEBIBYTE), `blocks of ${minimum}`);
  });

  test.each([['--mask-handshake=0'], ['--no-sr']])('uses an nbdkit that is older: %s', async (option) => {
    const server = await nbdkit(testFolder(), option, 'memory', '4M');
    await useRandomly(await open(server.uri()), new Uint8Array(4 * MEBIBYTE), option);
  });

  test('reads from an oldstyle nbdkit', async () => {
    // No more than that: nbdkit 1.32 offers flushes there and then refuses them.
    const server = await nbdkit(testFolder(), '-o', '--readonly', 'memory', '4M');
    await useReading(await open(server.uri(), { writable: false }));
  });

  test('does without zeroing where it is not offered', async () => {
    const server = await nbdkit(testFolder(), '--filter=nozero', 'memory', '4M');
    const device = await open(server.uri());
    expect(device.discard).toBeUndefined();
    await device.write(0, pattern(MEBIBYTE));
    await device.writeZeroes(1000, 100_000);
    const expected = pattern(MEBIBYTE);
    expected.fill(0, 1000, 101_000);
    const target = new Uint8Array(MEBIBYTE);
    await device.read(0, target);
    expect(Buffer.compare(target, expected)).toBe(0);
  });

  test('tells errors of the server apart, and goes on after them', async () => {
    const folder = testFolder();
    const trigger = join(folder, 'trigger');
    const server = await nbdkit(
      folder,
      '--filter=error',
      'memory',
      '4M',
      'error-rate=100%',
      `error-file=${trigger}`,
      'error=ENOSPC',
    );
    const device = await open(server.uri());
    await device.write(0, pattern(4096));
    await writeFile(trigger, '');
    await expect(device.write(0, new Uint8Array(512))).rejects.toThrow('ENOSPC');
    await expect(device.read(0, new Uint8Array(512))).rejects.toThrow(DeviceError);
  });

  test('does not wait for ever for a slow server', async () => {
    const server = await nbdkit(testFolder(), '--filter=delay', 'memory', '4M', 'delay-read=3');
    const device = await open(server.uri(), { requestTimeoutMs: 200, writable: false });
    await expect(device.read(0, new Uint8Array(512))).rejects.toThrow('took too long');
  });

  test('honours a read-only server', async () => {
    const server = await nbdkit(testFolder(), '--readonly', 'memory', '4M');
    await expect(NbdDevice.open(server.uri(), { writable: true })).rejects.toThrow(ReadOnlyError);
    await useReading(await open(server.uri(), { writable: false }));
  });

  test('finds a server again that was restarted, and refuses to go on where writes may be lost', async () => {
    const folder = testFolder();
    const path = await image(folder, 'qcow2', pattern(4 * MEBIBYTE));
    const first = await qemuNbd(folder, '-f', 'qcow2', path);
    const reader = await open(first.uri(), { writable: false });
    const flushed = await open(first.uri());
    const unflushed = await open(first.uri());
    await flushed.write(0, pattern(512, 7));
    await flushed.flush();
    await unflushed.flush();
    await unflushed.write(512, pattern(512, 8));
    await first.kill();
    await qemuNbd(folder, '-f', 'qcow2', path);
    await useReading(reader);
    await flushed.write(1024, pattern(512, 9));
    await flushed.flush();
    await expect(unflushed.flush()).rejects.toThrow('may have lost what was written');
    const target = new Uint8Array(512);
    await reader.read(0, target);
    expect(target).toEqual(pattern(512, 7));
  });
});

const useReading = async (device: NbdDevice) => {
  const target = new Uint8Array(device.size);
  await device.read(0, target);
};

describe.skipIf(!hasServers)('NbdDevice with TLS', () => {
  const startX509 = async (): Promise<{ server: ServerProcess; pki: string; folder: string }> => {
    const folder = testFolder();
    const pki = join(folder, 'pki');
    await mkdir(pki);
    await makeCertificates(pki);
    const server = await nbdkit(
      folder,
      '--tls=require',
      `--tls-certificates=${pki}`,
      '--tls-verify-peer',
      'memory',
      '4M',
    );
    return { server, pki, folder };
  };
  const uri = (server: ServerProcess, parameters: string) => server.uri('', 'nbds+unix', parameters);

  test('shows its certificate and checks that of the server', async () => {
    const { server, pki } = await startX509();
    const device = await open(uri(server, `&tls-certificates=${pki}`));
    await useRandomly(device, new Uint8Array(4 * MEBIBYTE), 'x509');
    await expect(NbdDevice.open(server.uri())).rejects.toThrow(InvalidArgumentError);
    await expect(NbdDevice.open(uri(server, ''))).rejects.toThrow('check the certificates');
    const elsewhere = uri(server, `&tls-certificates=${pki}&tls-hostname=elsewhere.example`);
    await expect(NbdDevice.open(elsewhere)).rejects.toThrow('elsewhere.example');
  });

  test('is told if the server does not trust its authority, or it has no certificate', async () => {
    const { server, pki, folder } = await startX509();
    const other = join(folder, 'other');
    await mkdir(other);
    await makeCertificates(other);
    await expect(open(uri(server, `&tls-certificates=${other}`))).rejects.toThrow(DeviceError);
    const unchecked = uri(server, `&tls-certificates=${other}&tls-verify-peer=false`);
    await expect(open(unchecked)).rejects.toThrow(DeviceError);
    await expect(open(uri(server, `&tls-certificates=${pki}/nowhere`))).rejects.toThrow('no ca-cert.pem');
  });

  test('shares a key', async () => {
    const folder = testFolder();
    const keys = join(folder, 'keys.psk');
    await writeFile(keys, `bob:${'12'.repeat(32)}\nalice:${'34'.repeat(32)}\n`);
    const server = await nbdkit(folder, '--tls=require', `--tls-psk=${keys}`, 'memory', '4M');
    const of = (user: string, file: string) =>
      `nbds+unix://${user}@/?socket=${server.socket}&tls-psk-file=${file}`;
    await useRandomly(await open(of('alice', keys)), new Uint8Array(4 * MEBIBYTE), 'psk');
    const wrong = join(folder, 'wrong.psk');
    await writeFile(wrong, `alice:${'56'.repeat(32)}\nodd:123\n`);
    await expect(NbdDevice.open(of('alice', wrong))).rejects.toThrow(DeviceError);
    await expect(NbdDevice.open(of('carol', keys))).rejects.toThrow('no key for carol');
    await expect(NbdDevice.open(of('odd', wrong))).rejects.toThrow('hexadecimal');
  });

  test.each(['x509', 'psk'])('at qemu-nbd: %s', async (kind) => {
    const folder = testFolder();
    const pki = join(folder, 'pki');
    await mkdir(pki);
    await makeCertificates(pki);
    await writeFile(join(pki, 'keys.psk'), `alice:${'34'.repeat(32)}\n`);
    const object = `tls-creds-${kind},id=tls,endpoint=server,dir=${pki}${kind === 'x509' ? ',verify-peer=yes' : ''}`;
    const content = pattern(4 * MEBIBYTE);
    const path = await image(folder, 'raw', content);
    const server = await qemuNbd(folder, '--object', object, '--tls-creds', 'tls', '-f', 'raw', path);
    const parameters =
      kind === 'x509'
        ? `&tls-certificates=${pki}`
        : `&tls-username=alice&tls-psk-file=${join(pki, 'keys.psk')}`;
    await useRandomly(await open(uri(server, parameters)), content, `qemu ${kind}`);
  });
});
