/** What holds for all commands: cookies, order, unknown commands and flags, disconnecting, CACHE. */
import { type Case, contentAt, EXPORT_SIZE, MIB } from '../case.ts';
import { Command, CommandFlag, Errno, REQUEST_MAGIC } from '../constants.ts';
import { PeerClosed } from '../raw-connection.ts';
import { describe, failedWith, type Request, STYLES, type Style } from '../transmission.ts';
import { expectThat, must } from '../verdict.ts';
import { filled } from './writes.ts';

const AT = 15 * MIB;

const fails = (style: Style, what: string, request: Request, needs = {}): Case => ({
  name: `${what} fails with EINVAL, and the connection goes on, ${style} replies`,
  section: 'Error values',
  level: 'should',
  async run(context) {
    const transmission = await context.open(style, { needs });
    const reply = await transmission.ask(request);
    await transmission.goesOn('afterwards');
    failedWith(reply, [Errno.EINVAL], what);
  },
});

const drops = (magic: number): Case => ({
  name: `drops a client whose request begins with 0x${magic.toString(16)}`,
  section: 'Terminating the transmission phase',
  level: 'may',
  async run(context) {
    const transmission = await context.open('simple');
    const { bytes, cookie } = transmission.encode({ command: Command.READ, offset: 0, length: 512 });
    bytes.writeUInt32BE(magic);
    await transmission.connection.send(bytes);
    const error = await transmission.reply(cookie).then(
      (reply) => reply,
      (reason: unknown) => reason,
    );
    expectThat(error instanceof PeerClosed, 'the connection goes on');
  },
});

const forStyle = (style: Style): Case[] => [
  fails(style, 'unknown command 9', { command: 9, offset: 0, length: 512 }),
  fails(style, 'unknown command 0xffff', { command: 0xffff, offset: 0, length: 0 }),
  fails(style, 'RESIZE, which was not agreed on,', { command: Command.RESIZE, offset: 0, length: 4096 }),
  fails(style, 'READ with unknown flag 15', {
    command: Command.READ,
    flags: 1 << 15,
    offset: 0,
    length: 512,
  }),
  fails(style, 'READ with NO_HOLE', {
    command: Command.READ,
    flags: CommandFlag.NO_HOLE,
    offset: 0,
    length: 512,
  }),
  fails(style, 'READ with FAST_ZERO', {
    command: Command.READ,
    flags: CommandFlag.FAST_ZERO,
    offset: 0,
    length: 512,
  }),
  fails(style, 'FLUSH with REQ_ONE', { command: Command.FLUSH, flags: CommandFlag.REQ_ONE }, { FLUSH: true }),
  fails(
    style,
    'TRIM with FAST_ZERO',
    { command: Command.TRIM, flags: CommandFlag.FAST_ZERO, offset: AT, length: 512 },
    { TRIM: true },
  ),
  fails(
    style,
    'WRITE_ZEROES with DF',
    { command: Command.WRITE_ZEROES, flags: CommandFlag.DF, offset: AT, length: 512 },
    { WRITE_ZEROES: true },
  ),
  fails(
    style,
    'CACHE with an unknown flag',
    { command: Command.CACHE, flags: 1 << 9, offset: 0, length: 512 },
    { CACHE: true },
  ),
  fails(
    style,
    'CACHE beyond the end',
    { command: Command.CACHE, offset: EXPORT_SIZE - 512, length: 1024 },
    { CACHE: true },
  ),
  {
    name: `CACHE changes nothing, ${style} replies`,
    section: 'NBD_CMD_CACHE',
    level: 'must',
    async run(context) {
      const transmission = await context.open(style, {
        place: context.target.readOnly,
        needs: { CACHE: true },
      });
      const reply = await transmission.ask({ command: Command.CACHE, offset: 0, length: MIB });
      expectThat(
        reply.error === 0 || reply.error === Errno.EINVAL || reply.error === Errno.ENOTSUP,
        `CACHE fails with ${describe(reply)}`,
      );
      expectThat((await transmission.read(0, 4096)).equals(contentAt(0, 4096)), 'other bytes are read');
    },
  },
  {
    name: `CACHE with FUA is not refused for its flag where FUA is offered, ${style} replies`,
    section: 'Command flags',
    level: 'must',
    async run(context) {
      const transmission = await context.open(style, { needs: { CACHE: true, FUA: true } });
      const request = { command: Command.CACHE, offset: 0, length: 65_536 };
      const plain = await transmission.ask(request);
      const fua = await transmission.ask({ ...request, flags: CommandFlag.FUA });
      expectThat(plain.error === fua.error, `${describe(plain)} without FUA, ${describe(fua)} with it`);
    },
  },
  {
    name: `returns every cookie as it came, ${style} replies`,
    section: 'Transmission',
    level: 'must',
    async run(context) {
      const transmission = await context.open(style);
      const cookies = [0n, 1n, 2n ** 64n - 1n, 2n ** 63n, 0x2560_9513_2560_9513n, 0n, 0n];
      for (const cookie of cookies)
        await transmission.ask({ command: Command.READ, offset: 0, length: 512, cookie });
    },
  },
  {
    name: `answers 200 requests in flight, each with its own bytes, ${style} replies`,
    section: 'Transmission',
    level: 'must',
    async run(context) {
      const transmission = await context.open(style, { place: context.target.readOnly });
      const asked: { cookie: bigint; offset: number; length: number }[] = [];
      const parts: Buffer[] = [];
      for (let index = 0; index < 200; index++) {
        const offset = (index * 397 * 512) % (EXPORT_SIZE - 65536);
        const length = 1 + ((index * 7919) % 65536);
        const { bytes, cookie } = transmission.encode({ command: Command.READ, offset, length });
        parts.push(bytes);
        asked.push({ cookie, offset, length });
      }
      await transmission.connection.send(...parts);
      for (const { cookie, offset, length } of asked.reverse()) {
        const { data } = await transmission.reply(cookie);
        expectThat(data.equals(contentAt(offset, length)), `${length} bytes at ${offset} are not right`);
      }
    },
  },
  {
    name: `answers writes, zeroes, reads and flushes in flight together, ${style} replies`,
    section: 'Ordering of messages and writes',
    level: 'must',
    async run(context) {
      const transmission = await context.open(style, { needs: { FLUSH: true, WRITE_ZEROES: true } });
      const cookies: bigint[] = [];
      for (let index = 0; index < 64; index++) {
        const offset = AT + index * 8192;
        cookies.push(
          await transmission.send({ command: Command.WRITE, offset, payload: filled(4096, index) }),
          await transmission.send({ command: Command.WRITE_ZEROES, offset: offset + 4096, length: 4096 }),
          await transmission.send({ command: Command.READ, offset: index * 512, length: 512 }),
          await transmission.send({ command: Command.FLUSH }),
        );
      }
      for (const cookie of cookies) {
        const reply = await transmission.reply(cookie);
        expectThat(reply.error === 0, `a request fails with ${describe(reply)}`);
      }
      for (let index = 0; index < 64; index++) {
        const bytes = await transmission.read(AT + index * 8192, 8192);
        expectThat(bytes.subarray(0, 4096).equals(filled(4096, index)), `write ${index} is not there`);
        expectThat(bytes.subarray(4096).indexOf(0) === 0, `zeroes ${index} are not there`);
      }
    },
  },
  {
    name: `understands requests and payloads that come a byte at a time, ${style} replies`,
    section: 'Request message',
    level: 'must',
    async run(context) {
      const transmission = await context.open(style);
      const write = transmission.encode({ command: Command.WRITE, offset: AT, payload: filled(300, 8) });
      const read = transmission.encode({ command: Command.READ, offset: AT, length: 300 });
      await transmission.connection.drip(write.bytes);
      expectThat((await transmission.reply(write.cookie)).error === 0, 'WRITE fails');
      await transmission.connection.drip(read.bytes);
      const { data } = await transmission.reply(read.cookie);
      expectThat(data.equals(filled(300, 8)), 'other bytes come back');
    },
  },
  {
    name: `carries out what came before DISC, then closes, ${style} replies`,
    section: 'NBD_CMD_DISC',
    level: 'must',
    async run(context) {
      const transmission = await context.open(style);
      const parts: Buffer[] = [];
      for (let index = 0; index < 8; index++) {
        const request = { command: Command.WRITE, offset: AT + index * 4096, payload: filled(4096, index) };
        parts.push(transmission.encode(request).bytes);
      }
      parts.push(transmission.encode({ command: Command.DISC }).bytes);
      await transmission.connection.send(...parts);
      await transmission.connection.untilClosed();
      const other = await context.open(style);
      for (let index = 0; index < 8; index++) {
        const bytes = await other.read(AT + index * 4096, 4096);
        expectThat(bytes.equals(filled(4096, index)), `write ${index} is not there`);
      }
    },
  },
  {
    name: `answers what came before DISC, ${style} replies`,
    section: 'NBD_CMD_DISC',
    level: 'should',
    async run(context) {
      const transmission = await context.open(style);
      const read = transmission.encode({ command: Command.READ, offset: 0, length: 65536 });
      const disconnect = transmission.encode({ command: Command.DISC });
      await transmission.connection.send(read.bytes, disconnect.bytes);
      expectThat((await transmission.reply(read.cookie)).error === 0, 'READ fails');
      expectThat((await transmission.connection.untilClosed()).length === 0, 'more bytes come');
    },
  },
  {
    name: `serves on when a client leaves in the middle of a payload, ${style} replies`,
    section: 'Terminating the transmission phase',
    level: 'must',
    async run(context) {
      const transmission = await context.open(style);
      const { bytes } = transmission.encode({
        command: Command.WRITE,
        offset: AT,
        payload: filled(65536, 1),
      });
      await transmission.connection.send(bytes.subarray(0, 3000));
      transmission.connection.destroy();
    },
  },
];

export const commandCases: readonly Case[] = [
  ...STYLES.flatMap(forStyle),
  fails('simple', 'PAYLOAD_LEN without extended headers', {
    command: Command.READ,
    flags: CommandFlag.PAYLOAD_LEN,
    offset: 0,
    length: 512,
  }),
  drops(REQUEST_MAGIC + 1),
  drops(0),
  drops(0x12560953),
  drops(0x21e41c71),
  {
    name: 'closes after DISC without any reply',
    section: 'NBD_CMD_DISC',
    level: 'must',
    async run(context) {
      const transmission = await context.open('structured');
      await transmission.disconnect();
    },
  },
  {
    name: 'carries out nothing that comes after DISC',
    section: 'NBD_CMD_DISC',
    level: 'should',
    async run(context) {
      const first = await context.open('simple');
      await first.write(AT, filled(512, 1));
      const late = first.encode({ command: Command.WRITE, offset: AT, payload: filled(512, 99) });
      await first.connection.send(first.encode({ command: Command.DISC }).bytes, late.bytes);
      await first.connection.untilClosed();
      const other = await context.open('simple');
      must((await other.read(AT, 512)).equals(filled(512, 1)), 'the late write is there');
    },
  },
];
