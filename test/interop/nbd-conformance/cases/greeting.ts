/** The first bytes, client flags, and what holds for options in general. */
import { join, u32, u64 } from '../bytes.ts';
import type { Case } from '../case.ts';
import { FIXED_NEWSTYLE, NO_ZEROES, Option, Rep } from '../constants.ts';
import { optionHeader, readGreeting, told } from '../negotiation.ts';
import { PeerClosed } from '../raw-connection.ts';
import { expectThat, offered } from '../verdict.ts';

const unknownClientFlag = (bit: number): Case => ({
  name: `drops a client that sets the unknown client flag ${bit}`,
  section: 'Client flags',
  level: 'must',
  async run(context) {
    const connection = await context.connect();
    await readGreeting(connection);
    await connection.send(u32((FIXED_NEWSTYLE | (2 ** bit)) >>> 0));
    await connection.send(optionHeader(Option.LIST, 0));
    const sent = await connection.untilClosed();
    expectThat(sent.length === 0, `${sent.length} bytes before it closes`);
  },
});

const unknownOption = (option: number, length: number): Case => ({
  name: `answers unknown option ${option} with ${length} bytes of data by ERR_UNSUP, and goes on`,
  section: 'Baseline',
  level: 'must',
  async run(context) {
    const negotiation = await context.negotiate();
    const result = await negotiation.option(option, Buffer.alloc(length, 0x5a));
    expectThat(result.final === Rep.UNSUP, `the answer is ${told(result)}`);
    const next = await negotiation.list();
    expectThat(next.final === Rep.ACK, `LIST afterwards: ${told(next)}`);
  },
});

const tooLong = (option: number, name: string): Case => ({
  name: `closes, or answers with an error, when ${name} announces 4 GiB of data`,
  section: 'Newstyle negotiation',
  level: 'should',
  async run(context) {
    const negotiation = await context.negotiate();
    await negotiation.connection.send(optionHeader(option, 0xffffffff), Buffer.alloc(64));
    await refused(() => negotiation.result(option));
  },
});

/** An error or the end of the connection; anything else is a deviation. */
async function refused(ask: () => Promise<{ final: number; message: string }>): Promise<void> {
  const result = await ask().catch((error: unknown) => {
    if (error instanceof PeerClosed) return undefined;
    throw error;
  });
  if (result !== undefined) expectThat(result.final !== Rep.ACK, 'it is acknowledged');
}

export const greetingCases: readonly Case[] = [
  {
    name: 'speaks first: both magic numbers and the handshake flags',
    section: 'Newstyle negotiation',
    level: 'must',
    async run(context) {
      await readGreeting(await context.connect());
    },
  },
  {
    name: 'offers fixed newstyle',
    section: 'Handshake flags',
    level: 'must',
    async run(context) {
      const flags = await readGreeting(await context.connect());
      expectThat((flags & FIXED_NEWSTYLE) !== 0, `flags are 0x${flags.toString(16)}`);
    },
  },
  {
    name: 'sets no handshake flag that is not defined',
    section: 'Handshake flags',
    level: 'must',
    async run(context) {
      const flags = await readGreeting(await context.connect());
      expectThat((flags & ~(FIXED_NEWSTYLE | NO_ZEROES)) === 0, `flags are 0x${flags.toString(16)}`);
    },
  },
  {
    name: 'offers to leave out the 124 zeroes',
    section: 'Handshake flags',
    level: 'may',
    async run(context) {
      const flags = await readGreeting(await context.connect());
      offered((flags & NO_ZEROES) !== 0, 'NO_ZEROES');
    },
  },
  unknownClientFlag(2),
  unknownClientFlag(15),
  unknownClientFlag(16),
  unknownClientFlag(31),
  {
    name: 'drops a client that leaves before its flags, and serves others',
    section: 'Newstyle negotiation',
    level: 'must',
    async run(context) {
      const connection = await context.connect();
      await readGreeting(connection);
      await connection.send(Buffer.alloc(2));
      connection.end();
      await connection.untilClosed();
    },
  },
  {
    name: 'understands a client whose bytes come one at a time',
    section: 'Newstyle negotiation',
    level: 'must',
    async run(context) {
      const connection = await context.connect();
      await readGreeting(connection);
      const data = Buffer.from('conformance');
      await connection.drip(join(u32(FIXED_NEWSTYLE), optionHeader(0x7777, data.length), data));
      const fields = await connection.receive(20);
      expectThat(fields.readUInt32BE(12) === Rep.UNSUP, 'the option is not answered by ERR_UNSUP');
    },
  },
  {
    name: 'understands flags and first option in one piece',
    section: 'Newstyle negotiation',
    level: 'must',
    async run(context) {
      const connection = await context.connect();
      await readGreeting(connection);
      await connection.send(u32(FIXED_NEWSTYLE), optionHeader(0x7777, 0));
      const reply = await connection.receive(20);
      expectThat(reply.readUInt32BE(12) === Rep.UNSUP, 'the option is not answered by ERR_UNSUP');
    },
  },
  {
    name: 'drops a client whose option begins with the wrong magic',
    section: 'Termination of the session during option haggling',
    level: 'may',
    async run(context) {
      const negotiation = await context.negotiate();
      await negotiation.connection.send(u64(0x49484156454f5055n), u32(Option.LIST), u32(0));
      await refused(async () => {
        const result = await negotiation.result(Option.LIST);
        expectThat(result.final !== Rep.ACK, 'the option is executed');
        return negotiation.list();
      });
    },
  },
  {
    name: 'serves on when a client leaves in the middle of an option',
    section: 'Termination of the session during option haggling',
    level: 'must',
    async run(context) {
      const negotiation = await context.negotiate();
      await negotiation.connection.send(optionHeader(Option.GO, 100), Buffer.alloc(50));
      negotiation.connection.end();
      await negotiation.connection.untilClosed();
    },
  },
  unknownOption(0x7777, 0),
  unknownOption(0x7777, 100),
  unknownOption(0, 7),
  unknownOption(Option.PEEK_EXPORT, 4),
  unknownOption(0x80000001, 4096),
  unknownOption(0xffffffff, 0),
  {
    name: 'answers 20 options of one client',
    section: 'Fixed newstyle negotiation',
    level: 'should',
    async run(context) {
      const negotiation = await context.negotiate();
      for (let round = 0; round < 20; round++) {
        const result = await negotiation.option(0x7000 + round);
        expectThat(result.final === Rep.UNSUP, `option ${round}: ${told(result)}`);
      }
    },
  },
  tooLong(Option.GO, 'GO'),
  tooLong(Option.LIST, 'LIST'),
  tooLong(Option.EXPORT_NAME, 'EXPORT_NAME'),
  tooLong(Option.SET_META_CONTEXT, 'SET_META_CONTEXT'),
  tooLong(0x7777, 'an unknown option'),
  {
    name: 'answers ABORT by ACK, then closes',
    section: 'NBD_OPT_ABORT',
    level: 'must',
    async run(context) {
      const negotiation = await context.negotiate();
      const result = await negotiation.option(Option.ABORT);
      expectThat(result.final === Rep.ACK, `the answer is ${told(result)}`);
      const rest = await negotiation.connection.untilClosed();
      expectThat(rest.length === 0, `${rest.length} bytes after the ACK`);
    },
  },
  {
    name: 'ignores data with ABORT',
    section: 'NBD_OPT_ABORT',
    level: 'should',
    async run(context) {
      const negotiation = await context.negotiate();
      const result = await negotiation.option(Option.ABORT, Buffer.from('bye'));
      expectThat(result.final === Rep.ACK, `the answer is ${told(result)}`);
    },
  },
  {
    name: 'bears a client that sends ABORT and closes at once',
    section: 'NBD_OPT_ABORT',
    level: 'should',
    async run(context) {
      const negotiation = await context.negotiate();
      await negotiation.send(Option.ABORT);
      negotiation.connection.destroy();
    },
  },
  {
    name: 'lists its exports',
    section: 'NBD_OPT_LIST',
    level: 'must',
    async run(context) {
      const negotiation = await context.negotiate();
      const list = await negotiation.list();
      expectThat(list.final === Rep.ACK, `the answer is ${told(list)}`);
      const { exportName } = context.target.writable;
      expectThat(list.names.includes(exportName), `${exportName} is not among ${list.names.join(', ')}`);
      expectThat(new Set(list.names).size === list.names.length, 'a name comes twice');
    },
  },
  {
    name: 'refuses LIST with data by ERR_INVALID, and goes on',
    section: 'NBD_OPT_LIST',
    level: 'should',
    async run(context) {
      const negotiation = await context.negotiate();
      const result = await negotiation.option(Option.LIST, Buffer.alloc(4));
      expectThat(result.final === Rep.INVALID, `the answer is ${told(result)}`);
      expectThat((await negotiation.list()).final === Rep.ACK, 'LIST fails afterwards');
    },
  },
];
