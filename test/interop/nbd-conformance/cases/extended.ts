/** Extended headers, as the branch extension-ext-header describes them. */
import { join, u32, u64 } from '../bytes.ts';
import { agreeOn, type Case, type Context, LARGE_SIZE, MIB } from '../case.ts';
import { Command, CommandFlag, Errno, Flag, Option, REQUEST_MAGIC, Rep } from '../constants.ts';
import { told } from '../negotiation.ts';
import { PeerClosed } from '../raw-connection.ts';
import { describe, failedWith, type Request, succeeded, type Transmission } from '../transmission.ts';
import { expectThat, must, offered } from '../verdict.ts';
import { filled } from './writes.ts';

const SECTION = 'extension: NBD_OPT_EXTENDED_HEADERS';
const REQUEST = 'extension: Request message';
const STATUS = 'extension: NBD_CMD_BLOCK_STATUS';
const ALLOCATION = 'base:allocation';
const GIB = 1024 * MIB;
const PAYLOAD = CommandFlag.PAYLOAD_LEN;

const payloadRefused = (what: string, request: Request): Case => ({
  name: `takes the payload of ${what} from the stream and answers EINVAL`,
  section: REQUEST,
  level: 'should',
  async run(context) {
    const transmission = await context.open('extended');
    const reply = await transmission.ask(request);
    await transmission.goesOn('afterwards');
    failedWith(reply, [Errno.EINVAL], what);
  },
});

const largeEffect = (
  what: string,
  request: Request,
  needs: Partial<Record<keyof typeof Flag, true>>,
): Case => ({
  name: `${what} of 6 GiB succeeds, or fails with EOVERFLOW or EINVAL`,
  section: 'extension: Size constraints',
  level: 'should',
  async run(context) {
    const transmission = await context.open('extended', { place: context.target.large, needs });
    await transmission.write(7 * GIB - 512, filled(1024, 3));
    const reply = await transmission.ask({ offset: GIB, length: 6 * GIB, ...request });
    await transmission.goesOn('afterwards');
    expectThat(
      [0, Errno.EOVERFLOW, Errno.EINVAL].includes(reply.error),
      `${what} ends with ${describe(reply)}`,
    );
    const bytes = await transmission.read(7 * GIB - 512, 1024);
    expectThat(bytes.subarray(512).equals(filled(1024, 3).subarray(512)), 'it changed what lies behind');
    if (reply.error === 0 && request.command === Command.WRITE_ZEROES)
      expectThat(bytes.subarray(0, 512).equals(Buffer.alloc(512)), 'the last bytes are not zeros');
  },
});

/** All contexts selected, on a server that takes their ids as a filter. */
async function openFiltered(context: Context): Promise<Transmission> {
  const negotiation = await context.negotiate();
  await agreeOn(negotiation, 'extended');
  const { exportName } = context.target.writable;
  const list = await negotiation.metaContexts(Option.LIST_META_CONTEXT, exportName, []);
  const names = list.contexts.map(({ name }) => name).filter((name) => !name.endsWith(':'));
  const set = await negotiation.metaContexts(Option.SET_META_CONTEXT, exportName, names);
  offered(set.contexts.length > 0, 'a context');
  const transmission = await context.go(negotiation, exportName, 'extended', set.contexts);
  offered(transmission.has(Flag.STATUS_PAYLOAD), 'BLOCK_STATUS_PAYLOAD');
  return transmission;
}

const filter = (length: number | bigint, ...ids: number[]): Buffer => join(u64(length), ...ids.map(u32));

const filterRefused = (what: string, payload: (known: number) => Buffer): Case => ({
  name: `BLOCK_STATUS with ${what} in its payload fails with EINVAL, and the connection goes on`,
  section: STATUS,
  level: 'must',
  async run(context) {
    const transmission = await openFiltered(context);
    const known = transmission.facts.contexts[0]?.id ?? 0;
    const reply = await transmission.ask({
      command: Command.BLOCK_STATUS,
      flags: PAYLOAD,
      payload: payload(known),
    });
    await transmission.goesOn('afterwards');
    failedWith(reply, [Errno.EINVAL], 'BLOCK_STATUS');
  },
});

export const extendedCases: readonly Case[] = [
  {
    name: 'acknowledges EXTENDED_HEADERS, without structured replies before',
    section: SECTION,
    level: 'may',
    async run(context) {
      await agreeOn(await context.negotiate(), 'extended');
    },
  },
  {
    name: 'answers EXTENDED_HEADERS with data by an error, and goes on without',
    section: SECTION,
    level: 'should',
    async run(context) {
      const negotiation = await context.negotiate();
      const result = await negotiation.option(Option.EXTENDED_HEADERS, Buffer.alloc(1));
      offered(result.final !== Rep.UNSUP, 'extended headers');
      expectThat(result.final === Rep.INVALID, `the answer is ${told(result)}`);
      const transmission = await context.go(negotiation, context.target.writable.exportName, 'simple');
      await transmission.goesOn('after the refusal');
    },
  },
  {
    name: 'uses extended headers where structured replies were agreed first',
    section: SECTION,
    level: 'must',
    async run(context) {
      const negotiation = await context.negotiate();
      await agreeOn(negotiation, 'structured');
      const transmission = await context.enter(negotiation, 'extended');
      await transmission.goesOn('after both');
    },
  },
  {
    name: 'answers STRUCTURED_REPLY after EXTENDED_HEADERS by ERR_EXT_HEADER_REQD',
    section: 'extension: NBD_OPT_STRUCTURED_REPLY',
    level: 'must',
    async run(context) {
      const negotiation = await context.negotiate();
      await agreeOn(negotiation, 'extended');
      const result = await negotiation.option(Option.STRUCTURED_REPLY);
      expectThat(result.final === Rep.EXT_HEADER_REQD, `the answer is ${told(result)}`);
      const transmission = await context.go(negotiation, context.target.writable.exportName, 'extended');
      await transmission.goesOn('after STRUCTURED_REPLY was refused');
    },
  },
  {
    name: 'answers EXTENDED_HEADERS twice by ACK or ERR_INVALID',
    section: 'Fixed newstyle negotiation',
    level: 'must',
    async run(context) {
      const negotiation = await context.negotiate();
      await agreeOn(negotiation, 'extended');
      const { final } = await negotiation.option(Option.EXTENDED_HEADERS);
      expectThat(final === Rep.ACK || final === Rep.INVALID, 'neither ACK nor ERR_INVALID');
    },
  },
  {
    name: 'offers the payload of BLOCK_STATUS only where contexts were selected',
    section: 'extension: Transmission flags',
    level: 'should',
    async run(context) {
      const without = await context.open('extended');
      expectThat(!without.has(Flag.STATUS_PAYLOAD), 'BLOCK_STATUS_PAYLOAD without contexts');
    },
  },
  {
    name: 'drops a client that sends a compact request',
    section: REQUEST,
    level: 'should',
    async run(context) {
      const transmission = await context.open('extended');
      const { bytes, cookie } = transmission.encode({ command: Command.READ, offset: 0, length: 512 });
      bytes.writeUInt32BE(REQUEST_MAGIC);
      await transmission.connection.send(bytes);
      const outcome = await transmission.reply(cookie).catch((error: unknown) => error);
      expectThat(outcome instanceof PeerClosed, 'the connection goes on');
    },
  },
  {
    name: 'takes the payload of a WRITE without PAYLOAD_LEN, which QEMU 10 sends',
    section: REQUEST,
    level: 'may',
    async run(context) {
      const transmission = await context.open('extended');
      const payload = filled(4096, 99);
      const at = 14 * MIB;
      const { bytes, cookie } = transmission.encode({ command: Command.WRITE, offset: at, payload });
      bytes.writeUInt16BE(0, 4);
      await transmission.connection.send(bytes);
      succeeded(await transmission.reply(cookie), 'WRITE without PAYLOAD_LEN');
      expectThat(payload.equals(await transmission.read(at, 4096)), 'other bytes are there');
      await transmission.goesOn('afterwards');
    },
  },
  payloadRefused('a READ', {
    command: Command.READ,
    flags: PAYLOAD,
    offset: 0,
    payload: filled(512, 1),
  }),
  payloadRefused('a FLUSH', { command: Command.FLUSH, flags: PAYLOAD, payload: filled(5000, 1) }),
  payloadRefused('a TRIM', { command: Command.TRIM, flags: PAYLOAD, payload: filled(8, 1) }),
  payloadRefused('WRITE_ZEROES', {
    command: Command.WRITE_ZEROES,
    flags: PAYLOAD,
    payload: filled(MIB, 1),
  }),
  payloadRefused('an unknown command', { command: 0x4242, flags: PAYLOAD, payload: filled(4096, 1) }),
  payloadRefused('BLOCK_STATUS without contexts', {
    command: Command.BLOCK_STATUS,
    flags: PAYLOAD,
    payload: filter(4096, 0),
  }),
  {
    name: 'drops a client that announces a payload of 8 GiB',
    section: REQUEST,
    level: 'should',
    async run(context) {
      const transmission = await context.open('extended');
      const { bytes, cookie } = transmission.encode({
        command: Command.WRITE,
        flags: PAYLOAD,
        offset: 0,
        length: 8 * GIB,
      });
      await transmission.connection.send(bytes, Buffer.alloc(4096));
      const outcome = await transmission.reply(cookie).catch((error: unknown) => error);
      expectThat(outcome instanceof PeerClosed, 'the connection goes on');
    },
  },
  largeEffect('WRITE_ZEROES', { command: Command.WRITE_ZEROES }, { WRITE_ZEROES: true }),
  largeEffect('TRIM', { command: Command.TRIM }, { TRIM: true }),
  largeEffect('CACHE', { command: Command.CACHE }, { CACHE: true }),
  {
    name: 'READ of 6 GiB fails, or comes in pieces',
    section: 'extension: NBD_CMD_READ',
    level: 'should',
    async run(context) {
      const transmission = await context.open('extended', { place: context.target.large });
      const cookie = await transmission.send({ command: Command.READ, offset: 0, length: 6 * GIB });
      // A server may send it all; more than its first error is not waited for.
      const reply = await transmission.reply(cookie);
      failedWith(reply, [Errno.EINVAL, Errno.EOVERFLOW, Errno.ENOMEM], 'READ');
      await transmission.goesOn('afterwards');
    },
  },
  {
    name: 'BLOCK_STATUS of 8 GiB is answered, with lengths beyond 4 GiB where it knows them',
    section: STATUS,
    level: 'should',
    async run(context) {
      const transmission = await context.open('extended', {
        place: context.target.large,
        contexts: [ALLOCATION],
      });
      const reply = await transmission.ask({
        command: Command.BLOCK_STATUS,
        offset: 0,
        length: LARGE_SIZE,
      });
      expectThat(reply.error === 0, `it fails with ${describe(reply)}`);
    },
  },
  ...(['READ', 'TRIM', 'WRITE_ZEROES', 'CACHE', 'BLOCK_STATUS'] as const).map(
    (name): Case => ({
      name: `${name} of 2^63 bytes fails, and the connection goes on`,
      section: 'extension: Error values',
      level: 'must',
      async run(context) {
        const transmission = await context.open('extended');
        const reply = await transmission.ask({
          command: Command[name],
          offset: 0,
          length: 2n ** 63n,
        });
        must(reply.error !== 0, 'it succeeds');
        await transmission.goesOn('afterwards');
      },
    }),
  ),
  {
    name: 'BLOCK_STATUS with a payload answers the contexts it names, and no others',
    section: STATUS,
    level: 'must',
    async run(context) {
      const transmission = await openFiltered(context);
      for (const { id, name } of transmission.facts.contexts) {
        const reply = await transmission.ask({
          command: Command.BLOCK_STATUS,
          flags: PAYLOAD,
          offset: 0,
          payload: filter(65536, id),
        });
        expectThat(reply.error === 0, `it fails with ${describe(reply)}`);
        expectThat(reply.extents.size === 1 && reply.extents.has(id), `${name} is not the one answered`);
        const lengths = (reply.extents.get(id) ?? []).map(({ length }) => length);
        const before = lengths.slice(0, -1).reduce((sum, length) => sum + length, 0n);
        expectThat(before < 65536n, 'extents begin behind the effect length');
      }
    },
  },
  filterRefused('an unknown id', () => filter(65536, 0x7654_3210)),
  filterRefused('an id twice', (known) => filter(65536, known, known)),
  filterRefused('half an id', (known) => join(filter(65536, known), Buffer.alloc(2))),
  filterRefused('less than the effect length', () => Buffer.alloc(4)),
  filterRefused('a range beyond the end', (known) => filter(2n ** 50n, known)),
];
