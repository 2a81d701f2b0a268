/**
 * Clients that want to do harm: what they can take is bounded, and the others are served meanwhile. What can be asked
 * of any server is in test/interop/nbd-conformance/cases/hostile.ts; here are our own limits.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { systemEnvironment } from '../../src/environment.ts';
import type { ExportCatalog, NbdExport } from '../../src/nbd/server/export.ts';
import type { NbdLimits } from '../../src/nbd/server/limits.ts';
import { NbdServer } from '../../src/nbd/server/server.ts';
import { SimulatedClock } from '../../src/testing/simulated-clock.ts';
import { FuzzExport } from '../fuzz/nbd-exports.ts';
import { Command, Option } from '../interop/nbd-conformance/constants.ts';
import { Negotiation, optionHeader } from '../interop/nbd-conformance/negotiation.ts';
import { RawConnection } from '../interop/nbd-conformance/raw-connection.ts';
import { type Style, Transmission } from '../interop/nbd-conformance/transmission.ts';

const MIB = 1 << 20;
/** What a hostile client may make the process take, beyond what its limits say. */
const SLACK = 96 * MIB;

let folder = '';
let path = '';
const toEnd: (() => unknown)[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'volsnap-hostile-'));
  path = join(folder, 'nbd.sock');
});
afterEach(async () => {
  for (const end of toEnd.splice(0).reverse()) await end();
  await rm(folder, { recursive: true, force: true });
});

interface Serving {
  readonly server: NbdServer;
  readonly clock: SimulatedClock;
}

/** An export of 32 MiB with two contexts that change every 512 bytes, under 500 names. */
async function serve(limits: Partial<NbdLimits> = {}): Promise<Serving> {
  const exported = new FuzzExport({ name: 'disk', size: 32 * MIB, writable: true, turns: 0 });
  const names = Array.from({ length: 500 }, (_, index) => ({ name: `snapshot/${index}`, description: '' }));
  const catalog: ExportCatalog = {
    list: () => names,
    open: async (): Promise<NbdExport> => exported,
  };
  const clock = new SimulatedClock();
  const server = new NbdServer(catalog, { limits, environment: { ...systemEnvironment, clock } });
  await server.listen({ path });
  toEnd.push(() => server.close());
  return { server, clock };
}

async function connect(): Promise<RawConnection> {
  const connection = await RawConnection.open({ path });
  toEnd.push(() => connection.destroy());
  return connection;
}

async function enter(style: Style = 'structured'): Promise<Transmission> {
  const negotiation = await Negotiation.begin(await connect());
  if (style !== 'simple')
    await negotiation.option(style === 'structured' ? Option.STRUCTURED_REPLY : Option.EXTENDED_HEADERS);
  const queries = ['base:allocation', 'x-fuzz:stripes'];
  const set =
    style === 'simple'
      ? { contexts: [] }
      : await negotiation.metaContexts(Option.SET_META_CONTEXT, 'disk', queries);
  const { size = 0n, flags = 0 } = await negotiation.info('disk', [], Option.GO);
  return new Transmission(negotiation.connection, { size, flags, style, contexts: set.contexts });
}

async function isServed(client: Transmission, seed: number): Promise<void> {
  const bytes = Buffer.alloc(4096, seed);
  await client.write(31 * MIB, bytes);
  expect((await client.read(31 * MIB, 4096)).equals(bytes)).toBe(true);
}

function pass(clock: SimulatedClock, milliseconds: number): void {
  clock.advance(milliseconds * 1000);
  while (clock.fireDue());
}

const memory = (): number => {
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
};

/** Others come, negotiate and are served; the most memory that was seen meanwhile. */
async function othersComeAndAreServed(rounds = 10): Promise<number> {
  let most = 0;
  for (let round = 0; round < rounds; round++) {
    const client = await enter();
    await isServed(client, round);
    await client.disconnect();
    most = Math.max(most, memory());
  }
  return most;
}

test.each([
  ['says nothing', () => Buffer.alloc(0)],
  ['stops in its flags', () => Buffer.from([0, 0])],
  ['stops in an option', () => Buffer.concat([Buffer.from([0, 0, 0, 3]), optionHeader(Option.GO, 500)])],
])('a client that %s is cut off when its time is over, others are not', async (_, sent) => {
  const { clock, server } = await serve({ handshakeMs: 5000 });
  const slow = await connect();
  await slow.receive(18);
  await slow.send(sent());
  const client = await enter();
  pass(clock, 5000);
  await slow.untilClosed();
  await isServed(client, 1);
  expect(server.figures.connections).toBe(1);
});

test('options without end do not prolong the time to negotiate', async () => {
  const { clock } = await serve({ handshakeMs: 5000 });
  const negotiation = await Negotiation.begin(await connect());
  for (let second = 0; second < 4; second++) {
    pass(clock, 1000);
    expect((await negotiation.list()).names).toHaveLength(500);
  }
  pass(clock, 1000);
  await negotiation.connection.untilClosed();
});

test('a flood of connections leaves those alone that are served, and lets new ones in', async () => {
  const { server } = await serve({ connections: 8 });
  const client = await enter();
  const idle: RawConnection[] = [];
  for (let count = 0; count < 100; count++) idle.push(await connect());
  await isServed(client, 1);
  await isServed(await enter(), 2);
  expect(server.figures.connections).toBeLessThanOrEqual(8);
});

test('when all places are taken by clients that are served, one more is turned away and they go on', async () => {
  await serve({ connections: 3 });
  const clients = [await enter(), await enter(), await enter()];
  const turnedAway = await connect();
  await turnedAway.untilClosed();
  for (const [index, client] of clients.entries()) await isServed(client, index);
});

test('clients that announce much and send it drop by drop keep nobody from small requests, and not for long from large ones', async () => {
  const { clock, server } = await serve({ memoryTotal: 16 * MIB, memoryEach: 8 * MIB, stallMs: 1000 });
  const drops: Transmission[] = [];
  for (let count = 0; count < 6; count++) {
    const client = await enter('simple');
    const { bytes } = client.encode({ command: Command.WRITE, offset: 0, length: 6 * MIB });
    client.connection.push(bytes);
    drops.push(client);
  }
  const client = await enter();
  await isServed(client, 3);
  const waiting = client.read(0, 8 * MIB);
  for (let round = 0; round < 20; round++) {
    for (const one of drops) one.connection.push(Buffer.alloc(1));
    await isServed(await enter(), round);
    pass(clock, 500);
  }
  expect(await waiting).toHaveLength(8 * MIB);
  expect(server.memoryBytes).toBeLessThanOrEqual(16 * MIB);
});

test.each([
  [
    'asks for the list of exports 20,000 times',
    async () => {
      const negotiation = await Negotiation.begin(await connect());
      negotiation.connection.stopReading();
      const list = optionHeader(Option.LIST, 0);
      negotiation.connection.push(Buffer.concat(Array.from({ length: 20_000 }, () => list)));
    },
  ],
  ['asks for the status of everything 300 times', () => askDeaf('structured', 300, Command.BLOCK_STATUS)],
  [
    'asks for the status of everything 300 times with extended headers',
    () => askDeaf('extended', 300, Command.BLOCK_STATUS),
  ],
  ['reads 16 MiB 100 times', () => askDeaf('simple', 100, Command.READ, 16 * MIB)],
  ['reads 4 KiB 100,000 times', () => askDeaf('structured', 100_000, Command.READ, 4096)],
  ['sends 500,000 unknown commands', () => askDeaf('structured', 500_000, 999, 1)],
] as const)(
  'a client that %s and reads no answer costs bounded memory, and others are served',
  async (_, attack) => {
    const limits = { memoryTotal: 64 * MIB, memoryEach: 32 * MIB };
    const { server } = await serve(limits);
    const before = memory();
    await attack();
    const most = await othersComeAndAreServed();
    expect(most - before).toBeLessThan(limits.memoryEach + SLACK);
    expect(server.memoryBytes).toBeLessThanOrEqual(limits.memoryTotal);
  },
);

async function askDeaf(style: Style, count: number, command: number, length = 32 * MIB): Promise<void> {
  const client = await enter(style);
  client.connection.stopReading();
  const { bytes } = client.encode({ command, offset: 0, length, cookie: 1n });
  client.connection.push(Buffer.concat(Array.from({ length: count }, () => bytes)));
}

test('what clients took is given back when they vanish with requests in flight', async () => {
  const { server } = await serve();
  for (const style of ['simple', 'structured', 'extended'] as const) {
    const client = await enter(style);
    client.connection.stopReading();
    for (let count = 0; count < 100; count++) {
      client.connection.push(client.encode({ command: Command.READ, offset: 0, length: MIB }).bytes);
      client.connection.push(
        client.encode({ command: Command.WRITE, offset: 0, payload: Buffer.alloc(65_536) }).bytes,
      );
    }
    await isServed(await enter(), 5);
    client.connection.destroy();
  }
  for (const end of toEnd.splice(1)) await end();
  await expect.poll(() => server.figures.connections, { timeout: 10_000 }).toBe(0);
  expect(server.figures.inFlight).toBe(0);
  expect(server.memoryBytes).toBe(0);
});
