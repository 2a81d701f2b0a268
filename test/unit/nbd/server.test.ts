/** The server around its connections: who may connect, how many, for how long, and how it ends. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { MemoryDevice } from '../../../src/device/memory-device.ts';
import { SharedMemory } from '../../../src/device/shared-memory.ts';
import { systemEnvironment } from '../../../src/environment.ts';
import { InvalidArgumentError } from '../../../src/errors.ts';
import { DeviceExport, FixedCatalog } from '../../../src/nbd/server/device-export.ts';
import type { NbdLimits } from '../../../src/nbd/server/limits.ts';
import { NbdServer } from '../../../src/nbd/server/server.ts';
import { Option, RequestType } from '../../../src/nbd/wire/constants.ts';
import { encodeInfoRequest, encodeOption } from '../../../src/nbd/wire/option.ts';
import { encodeRequest } from '../../../src/nbd/wire/request.ts';
import { SimulatedClock } from '../../../src/testing/simulated-clock.ts';
import { requireTool } from '../../interop/support/writer-tools.ts';

const SIZE = 1024 * 1024;
const GREETING = 18;
/** The answer to GO without further information: the export, and the acknowledgement. */
const GO_ANSWER = 20 + 12 + 20;

let folder: string;
let path: string;
const toEnd: (() => Promise<unknown> | unknown)[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'volsnap-nbd-'));
  path = join(folder, 's');
});

afterEach(async () => {
  for (const end of toEnd.splice(0).reverse()) await end();
  await rm(folder, { recursive: true });
});

/** A device whose writes wait until they are let go. */
class SlowDevice extends MemoryDevice {
  readonly waiting: (() => void)[] = [];

  override async write(offset: number, source: Uint8Array): Promise<void> {
    await new Promise<void>((go) => this.waiting.push(go));
    await super.write(offset, source);
  }
}

async function serve(
  options: { limits?: Partial<NbdLimits>; clock?: SimulatedClock; device?: MemoryDevice } = {},
) {
  const { limits = {}, clock, device = new MemoryDevice(SIZE) } = options;
  const server = new NbdServer(new FixedCatalog([new DeviceExport('', device)]), {
    limits,
    ...(clock === undefined ? {} : { environment: { ...systemEnvironment, clock } }),
    onError: (error) => {
      throw error;
    },
  });
  await server.listen({ path });
  toEnd.push(() => server.close());
  return server;
}

class Client {
  readonly socket: Socket;
  #received = Buffer.alloc(0);
  #wake: (() => void) | undefined;
  closed = false;

  constructor() {
    this.socket = connect(path);
    this.socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#wake?.();
    });
    this.socket.on('error', () => undefined);
    this.socket.on('close', () => {
      this.closed = true;
      this.#wake?.();
    });
    toEnd.push(() => this.socket.destroy());
  }

  /** @returns fewer bytes if the connection ends before */
  async take(length: number): Promise<Buffer> {
    while (this.#received.byteLength < length && !this.closed) {
      await new Promise<void>((wake) => {
        this.#wake = wake;
      });
    }
    const taken = this.#received.subarray(0, length);
    this.#received = this.#received.subarray(length);
    return taken;
  }

  async untilClosed(): Promise<void> {
    await this.take(Infinity);
  }

  async go(): Promise<void> {
    await this.take(GREETING);
    this.socket.write(Buffer.from([0, 0, 0, 3]));
    this.socket.write(encodeOption(Option.go, encodeInfoRequest({ name: '', kinds: [] })));
    expect((await this.take(GO_ANSWER)).byteLength).toBe(GO_ANSWER);
  }

  request(type: number, offset: number, length: number, payload?: Uint8Array): void {
    this.socket.write(encodeRequest({ flags: 0, type, cookieHigh: 0, cookieLow: 1, offset, length }, false));
    if (payload !== undefined) this.socket.write(payload);
  }
}

describe('NbdServer', () => {
  test('listens on a socket that only its owner can use', async () => {
    await serve();
    expect((await stat(path)).mode & 0o777).toBe(0o600);
  });

  describe.skipIf(!requireTool('openssl'))('refuses, before any client comes,', () => {
    const pem = (name: string) => readFileSync(join(folder, `${name}.pem`), 'utf8');
    const made = (ca: string, cert: string, key: string) => () =>
      new NbdServer(new FixedCatalog([]), { tls: { kind: 'certificates', ca, cert, key } });

    test('certificates and keys that cannot be used', () => {
      for (const name of ['own', 'other']) {
        const out = ['-keyout', join(folder, `${name}-key.pem`), '-out', join(folder, `${name}.pem`)];
        const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=x'];
        execFileSync('openssl', ['req', '-x509', ...newKey, ...out], { stdio: 'ignore' });
      }
      const [cert, key] = [pem('own'), pem('own-key')];
      expect(made(cert, cert, key)).not.toThrow();
      expect(made(cert, cert, pem('other-key'))).toThrow(InvalidArgumentError);
      expect(made(cert, cert, 'none')).toThrow(InvalidArgumentError);
      expect(made(cert, 'none', key)).toThrow(InvalidArgumentError);
      expect(made('none', cert, key)).toThrow(InvalidArgumentError);
      // Node.js would take it for none, and let in whoever has a certificate of a public authority.
      expect(made('', cert, key)).toThrow(InvalidArgumentError);
    });
  });

  test('refuses TCP without TLS, but on loopback if told so', async () => {
    const server = new NbdServer(new FixedCatalog([]));
    toEnd.push(() => server.close());
    await expect(server.listen({ host: '127.0.0.1', port: 0 })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    await expect(server.listen({ host: '0.0.0.0', port: 0, insecure: true })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    await expect(server.listen({ host: '127.0.0.1', port: 0, insecure: true })).resolves.toMatchObject({
      port: expect.any(Number),
    });
  });

  test('takes the place of a server that was killed, not of one that lives', async () => {
    const server = await serve();
    const other = new NbdServer(new FixedCatalog([]));
    toEnd.push(() => other.close());
    await expect(other.listen({ path })).rejects.toMatchObject({ code: 'IN_USE' });
    await server.close();
    await expect(other.listen({ path })).resolves.toEqual({ path });
  });

  test('cuts off a client that does not come to the point', async () => {
    const clock = new SimulatedClock();
    const server = await serve({ clock, limits: { handshakeMs: 1000 } });
    const client = new Client();
    await client.take(GREETING);
    client.socket.write(Buffer.from([0, 0]));
    clock.advance(1_000_000);
    while (clock.fireDue());
    await client.untilClosed();
    expect(server.figures.rejected).toBe(1);
  });

  test('lets a new client push out one that has not chosen an export yet', async () => {
    const server = await serve({ limits: { connections: 2 } });
    const [chosen, idle] = [new Client(), new Client()];
    await chosen.go();
    await idle.take(GREETING);
    const late = new Client();
    await late.go();
    await idle.untilClosed();
    expect(chosen.closed).toBe(false);
    const tooLate = new Client();
    await tooLate.untilClosed();
    expect(server.figures.connections).toBe(2);
  });

  test('takes no more requests at once than it may, and all of them in the end', async () => {
    const device = new SlowDevice(SIZE);
    const server = await serve({ device, limits: { requestsEach: 2 } });
    const client = new Client();
    await client.go();
    for (let i = 0; i < 5; i++) client.request(RequestType.write, i * 512, 512, Buffer.alloc(512, i));
    for (let done = 0; done < 5; done++) {
      await expect.poll(() => device.waiting.length).toBe(Math.min(2, 5 - done));
      expect(server.figures.inFlight).toBeLessThanOrEqual(2);
      device.waiting.shift()?.();
      await client.take(16);
    }
    await expect.poll(() => server.memoryBytes).toBe(0);
  });

  test('answers what is under way before it closes', async () => {
    const device = new SlowDevice(SIZE);
    const server = await serve({ device });
    const client = new Client();
    await client.go();
    client.request(RequestType.write, 0, 3, Buffer.from('abc'));
    await expect.poll(() => device.waiting.length).toBe(1);
    const closed = server.close();
    device.waiting.shift()?.();
    expect((await client.take(16)).byteLength).toBe(16);
    await closed;
    await client.untilClosed();
    expect(server.memoryBytes).toBe(0);
  });

  test('gives back the memory of a client that vanishes in the middle of a write', async () => {
    const server = await serve();
    const client = new Client();
    await client.go();
    client.request(RequestType.write, 0, 100_000, Buffer.alloc(50_000));
    await expect.poll(() => server.memoryBytes).toBeGreaterThan(100_000);
    client.socket.destroy();
    await expect.poll(() => server.memoryBytes).toBe(0);
    await expect.poll(() => server.figures.connections).toBe(0);
  });

  test('gives back the shared memory of large answers that nobody reads', async () => {
    const length = 4 * SIZE;
    const server = await serve({ device: new MemoryDevice(8 * length) });
    const client = new Client();
    await client.go();
    client.socket.pause();
    for (let i = 0; i < 8; i++) client.request(RequestType.read, i * length, length);
    const memory = SharedMemory.get();
    const all = () => {
      const parts = Array.from({ length: 64 }, () => memory?.take(SIZE)).filter((part) => part !== undefined);
      for (const part of parts) memory?.give(part);
      return parts.length;
    };
    await vi.waitUntil(() => all() === 32, { timeout: 10_000, interval: 5 });
    client.socket.destroy();
    await vi.waitUntil(() => all() === 64, { timeout: 10_000, interval: 5 });
    expect(server.memoryBytes).toBe(0);
  });

  test('closes while a client sits in its negotiation', async () => {
    const server = await serve();
    const client = new Client();
    await client.take(GREETING);
    await server.close();
    await client.untilClosed();
  });
});
