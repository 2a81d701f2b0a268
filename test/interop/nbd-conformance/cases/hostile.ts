/** Peers that mean no good, or are broken: none may disturb the others. The document leaves the means to the server. */
import { u32 } from '../bytes.ts';
import { type Case, type Context, contentAt, MIB } from '../case.ts';
import { Command, CommandFlag, Flag, Option } from '../constants.ts';
import { infoData, optionHeader, readGreeting } from '../negotiation.ts';
import { PeerClosed, type RawConnection } from '../raw-connection.ts';
import type { Transmission } from '../transmission.ts';
import { expectThat, must } from '../verdict.ts';
import { filled } from './writes.ts';

const SECTION = 'none: denial of service';
const AT = 14 * MIB;

/** Somebody else is served right, now. */
async function othersAreServed(context: Context): Promise<void> {
  const transmission = await context.open('structured', { place: context.target.readOnly });
  const bytes = await transmission.read(3 * MIB, 65536);
  must(bytes.equals(contentAt(3 * MIB, 65536)), 'another client is served other bytes');
  const writer = await context.open('simple');
  await writer.write(AT, filled(4096, 77));
  must((await writer.read(AT, 4096)).equals(filled(4096, 77)), 'another client reads other bytes');
  await writer.disconnect();
}

/** Requests that are sent until the server takes no more, without an answer being read. */
function flood(
  transmission: Transmission,
  count: number,
  request: { command: number; length: number },
): void {
  for (let index = 0; index < count; index++)
    transmission.connection.push(transmission.encode({ offset: 0, ...request }).bytes);
}

const hostile = (name: string, level: Case['level'], run: (context: Context) => Promise<void>): Case => ({
  name,
  section: SECTION,
  level,
  run,
});

export const hostileCases: readonly Case[] = [
  hostile('serves others while 100 connections say nothing', 'should', async (context) => {
    const idle: RawConnection[] = [];
    for (let index = 0; index < 100; index++) idle.push(await context.connect());
    await othersAreServed(context);
    for (const connection of idle) connection.destroy();
  }),
  hostile('serves others while 50 connections wait in the middle of an option', 'should', async (context) => {
    for (let index = 0; index < 50; index++) {
      const negotiation = await context.negotiate();
      await negotiation.connection.send(optionHeader(Option.SET_META_CONTEXT, 60_000), Buffer.alloc(1000));
    }
    await othersAreServed(context);
  }),
  hostile('survives 300 connections that come and go', 'must', async (context) => {
    for (let index = 0; index < 300; index++) {
      const connection = await context.connect();
      if (index % 3 === 1) await readGreeting(connection);
      if (index % 3 === 2) connection.push(u32(3));
      connection.destroy();
    }
    await othersAreServed(context);
  }),
  hostile('answers 10,000 options, or ends the connection, and serves others', 'must', async (context) => {
    const negotiation = await context.negotiate();
    const { exportName } = context.target.writable;
    try {
      for (let index = 0; index < 10_000; index++)
        await negotiation.option(index % 2 === 0 ? Option.INFO : 0x4000, infoData(exportName, []));
    } catch (error) {
      if (!(error instanceof PeerClosed)) throw error;
    }
    await othersAreServed(context);
  }),
  hostile('serves others while a client sends options and reads no answers', 'must', async (context) => {
    const negotiation = await context.negotiate();
    negotiation.connection.stopReading();
    for (let index = 0; index < 20_000; index++) negotiation.connection.push(optionHeader(Option.LIST, 0));
    await othersAreServed(context);
  }),
  hostile('serves others while a client asks for 256 MiB and reads nothing', 'must', async (context) => {
    const greedy = await context.open('structured', { place: context.target.readOnly });
    greedy.connection.stopReading();
    flood(greedy, 64, { command: Command.READ, length: 4 * MIB });
    await othersAreServed(context);
    greedy.connection.destroy();
    await othersAreServed(context);
  }),
  hostile('serves others while 20 clients ask for much and vanish', 'must', async (context) => {
    for (let index = 0; index < 20; index++) {
      const transmission = await context.open('simple', { place: context.target.readOnly });
      flood(transmission, 32, { command: Command.READ, length: MIB });
      transmission.connection.destroy();
    }
    await othersAreServed(context);
  }),
  hostile('survives clients that vanish with writes in flight', 'must', async (context) => {
    for (let index = 0; index < 20; index++) {
      const transmission = await context.open('simple');
      for (let write = 0; write < 16; write++) {
        const request = { command: Command.WRITE, offset: 15 * MIB, payload: filled(65536, write) };
        transmission.connection.push(transmission.encode(request).bytes);
      }
      transmission.connection.destroy();
    }
    await othersAreServed(context);
  }),
  hostile(
    'answers the longest unaligned status queries in bounded time, and serves others',
    'must',
    async (context) => {
      const transmission = await context.open('structured', {
        place: context.target.large,
        contexts: ['base:allocation'],
      });
      for (let index = 0; index < 64; index++)
        await transmission.send({
          command: Command.BLOCK_STATUS,
          offset: 3 * MIB + 1 + index,
          length: 0xffffffff,
          flags: index % 2 === 0 ? 0 : CommandFlag.REQ_ONE,
        });
      await othersAreServed(context);
      await transmission.goesOn('after 64 status queries');
    },
  ),
  hostile('survives half a request, and nothing more', 'must', async (context) => {
    const transmission = await context.open('simple');
    transmission.connection.push(
      transmission.encode({ command: Command.READ, length: 512 }).bytes.subarray(0, 13),
    );
    await othersAreServed(context);
  }),
  hostile('bears a write whose payload never comes', 'must', async (context) => {
    const transmission = await context.open('simple');
    const { bytes } = transmission.encode({ command: Command.WRITE, offset: 0, length: 32 * MIB });
    transmission.connection.push(bytes);
    await othersAreServed(context);
  }),
  hostile('bears 50 clients that announce 32 MiB each and send none of it', 'should', async (context) => {
    for (let index = 0; index < 50; index++) {
      const transmission = await context.open('simple', { place: context.target.large });
      const { bytes } = transmission.encode({ command: Command.WRITE, offset: 0, length: 32 * MIB });
      transmission.connection.push(bytes);
    }
    await othersAreServed(context);
  }),
  hostile('ends nothing but the one connection on garbage', 'must', async (context) => {
    const connection = await context.connect();
    connection.push(filled(100_000, 13));
    const transmission = await context.open('simple');
    transmission.connection.push(filled(100_000, 14));
    await othersAreServed(context);
    expectThat((transmission.facts.flags & Flag.HAS_FLAGS) !== 0, 'HAS_FLAGS is not set');
  }),
];
