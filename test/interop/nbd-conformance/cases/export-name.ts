/** Clients of the old kind: EXPORT_NAME, then simple replies. */
import type { Case } from '../case.ts';
import { contentAt } from '../case.ts';
import { FIXED_NEWSTYLE, Flag, NO_ZEROES, Option, Rep } from '../constants.ts';
import type { Negotiation } from '../negotiation.ts';
import { type ExportFacts, type Style, Transmission } from '../transmission.ts';
import { expectThat, must, offered } from '../verdict.ts';

async function enter(
  negotiation: Negotiation,
  name: string,
  style: Style = 'simple',
  contexts: ExportFacts['contexts'] = [],
): Promise<Transmission> {
  const { size, flags } = await negotiation.exportName(name);
  return new Transmission(negotiation.connection, { size, flags, style, contexts });
}

async function readsContent(transmission: Transmission): Promise<void> {
  const bytes = await transmission.read(8 << 20, 4096);
  expectThat(bytes.equals(contentAt(8 << 20, 4096)), 'READ returns other bytes than the export has');
}

const closesFor = (what: string, name: string | Buffer, level: Case['level'] = 'must'): Case => ({
  name: `closes when EXPORT_NAME asks for ${what}`,
  section: 'NBD_OPT_EXPORT_NAME',
  level,
  async run(context) {
    const negotiation = await context.negotiate();
    await negotiation.send(Option.EXPORT_NAME, Buffer.from(name));
    const sent = await negotiation.connection.untilClosed();
    expectThat(sent.length === 0, `${sent.length} bytes before it closes`);
  },
});

export const exportNameCases: readonly Case[] = [
  {
    name: 'answers EXPORT_NAME with size, flags and 124 zeroes, then simple replies',
    section: 'Newstyle negotiation',
    level: 'must',
    async run(context) {
      const { readOnly } = context.target;
      const negotiation = await context.negotiate(readOnly, FIXED_NEWSTYLE);
      const transmission = await enter(negotiation, readOnly.exportName);
      await readsContent(transmission);
      await transmission.disconnect();
    },
  },
  {
    name: 'leaves out the 124 zeroes where both sides agreed to',
    section: 'Handshake flags',
    level: 'must',
    async run(context) {
      const { readOnly } = context.target;
      const negotiation = await context.negotiate(readOnly, FIXED_NEWSTYLE | NO_ZEROES);
      offered((negotiation.handshakeFlags & NO_ZEROES) !== 0, 'NO_ZEROES');
      const transmission = await enter(negotiation, readOnly.exportName);
      await readsContent(transmission);
      await transmission.disconnect();
    },
  },
  {
    name: 'serves a client that does not know fixed newstyle',
    section: 'Newstyle negotiation',
    level: 'should',
    async run(context) {
      const { readOnly } = context.target;
      const transmission = await enter(await context.negotiate(readOnly, 0), readOnly.exportName);
      await readsContent(transmission);
    },
  },
  {
    name: 'serves a client that knows no fixed newstyle but leaves out zeroes',
    section: 'Client flags',
    level: 'should',
    async run(context) {
      const { readOnly } = context.target;
      const negotiation = await context.negotiate(readOnly, NO_ZEROES);
      offered((negotiation.handshakeFlags & NO_ZEROES) !== 0, 'NO_ZEROES');
      await readsContent(await enter(negotiation, readOnly.exportName));
    },
  },
  closesFor('an export that does not exist', 'no such export'),
  closesFor('a name of 4097 bytes', 'x'.repeat(4097)),
  closesFor('a name that is not UTF-8', Buffer.from([0x64, 0xff, 0xfe, 0x80])),
  closesFor('a name with NUL', 'disk\0', 'should'),
  {
    name: 'takes the empty name for a default export, or closes',
    section: 'NBD_OPT_EXPORT_NAME',
    level: 'must',
    async run(context) {
      const negotiation = await context.negotiate();
      await negotiation.send(Option.EXPORT_NAME);
      const { connection } = negotiation;
      const answer = await connection.receive(10).catch(() => undefined);
      if (answer === undefined) expectThat(connection.isClosed, 'neither an answer nor an end');
    },
  },
  {
    name: 'uses structured replies after EXPORT_NAME where they were agreed before',
    section: 'NBD_OPT_STRUCTURED_REPLY',
    level: 'must',
    async run(context) {
      const { readOnly } = context.target;
      const negotiation = await context.negotiate(readOnly);
      const { final } = await negotiation.option(Option.STRUCTURED_REPLY);
      offered(final === Rep.ACK, 'structured replies');
      await readsContent(await enter(negotiation, readOnly.exportName, 'structured'));
    },
  },
  {
    name: 'answers BLOCK_STATUS after EXPORT_NAME for contexts selected before',
    section: 'Metadata querying',
    level: 'must',
    async run(context) {
      const { exportName } = context.target.writable;
      const negotiation = await context.negotiate();
      offered((await negotiation.option(Option.STRUCTURED_REPLY)).final === Rep.ACK, 'structured replies');
      const set = await negotiation.metaContexts(Option.SET_META_CONTEXT, exportName, ['base:allocation']);
      offered(set.contexts.length === 1, 'base:allocation');
      const transmission = await enter(negotiation, exportName, 'structured', set.contexts);
      const reply = await transmission.ask({ command: 7, offset: 0, length: 1 << 20 });
      expectThat(reply.error === 0, 'BLOCK_STATUS fails');
    },
  },
  {
    name: 'closes when EXPORT_NAME comes after extended headers were agreed',
    section: 'extension: NBD_OPT_EXPORT_NAME',
    level: 'should',
    async run(context) {
      const negotiation = await context.negotiate();
      offered((await negotiation.option(Option.EXTENDED_HEADERS)).final === Rep.ACK, 'extended headers');
      await negotiation.send(Option.EXPORT_NAME, Buffer.from(context.target.writable.exportName));
      const sent = await negotiation.connection.untilClosed();
      expectThat(sent.length === 0, `${sent.length} bytes before it closes`);
    },
  },
  {
    name: 'gives the same size and flags by EXPORT_NAME as by GO',
    section: 'NBD_INFO_EXPORT',
    level: 'must',
    async run(context) {
      const place = context.target.writable;
      const old = await (await context.negotiate()).exportName(place.exportName);
      const modern = await context.open('simple');
      must(old.size === modern.facts.size, `${old.size} bytes by EXPORT_NAME, ${modern.facts.size} by GO`);
      expectThat(
        old.flags === modern.facts.flags,
        `flags 0x${old.flags.toString(16)} and 0x${modern.facts.flags.toString(16)}`,
      );
    },
  },
  {
    name: 'serves a backup client: EXPORT_NAME, 124 zeroes, 64 reads in flight, DISC',
    section: 'Baseline',
    level: 'must',
    async run(context) {
      const { readOnly } = context.target;
      const negotiation = await context.negotiate(readOnly, FIXED_NEWSTYLE);
      const transmission = await enter(negotiation, readOnly.exportName);
      expectThat((transmission.facts.flags & Flag.HAS_FLAGS) !== 0, 'HAS_FLAGS is not set');
      const cookies: bigint[] = [];
      for (let index = 0; index < 64; index++)
        cookies.push(await transmission.send({ command: 0, offset: index * 65536, length: 65536 }));
      for (const [index, cookie] of cookies.entries()) {
        const { data } = await transmission.reply(cookie);
        expectThat(data.equals(contentAt(index * 65536, 65536)), `read ${index} returns other bytes`);
      }
      await transmission.disconnect();
    },
  },
];
