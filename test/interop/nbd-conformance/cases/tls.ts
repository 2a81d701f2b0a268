/** STARTTLS: on a server without, and on one that insists. */
import { agreeOn, type Case, type Context, contentAt, MIB } from '../case.ts';
import { Command, Info, Option, Rep } from '../constants.ts';
import { infoData, type Negotiation, optionHeader, told } from '../negotiation.ts';
import { PeerClosed } from '../raw-connection.ts';
import { failedWith } from '../transmission.ts';
import { expectThat, must, offered } from '../verdict.ts';

type TlsPlace = NonNullable<Context['target']['tls']>;

function tlsPlace(context: Context): TlsPlace {
  const { tls } = context.target;
  offered(tls !== undefined, 'TLS');
  return tls;
}

async function started(context: Context): Promise<{ negotiation: Negotiation; place: TlsPlace }> {
  const place = tlsPlace(context);
  const negotiation = await context.negotiate(place);
  const result = await negotiation.option(Option.STARTTLS);
  expectThat(result.final === Rep.ACK, `STARTTLS: ${told(result)}`);
  await negotiation.connection.startTls(place.psk);
  return { negotiation, place };
}

const FORCED = 'FORCEDTLS mode';

const needsTls = (what: string, option: number, data: (name: string) => Buffer): Case => ({
  name: `answers ${what} before TLS by ERR_TLS_REQD`,
  section: FORCED,
  level: 'must',
  async run(context) {
    const place = tlsPlace(context);
    const negotiation = await context.negotiate(place);
    const result = await negotiation.option(option, data(place.exportName));
    expectThat(result.final === Rep.TLS_REQD, `the answer is ${told(result)}`);
    expectThat(result.replies.length === 0, 'information comes with it');
    const again = await negotiation.option(0x7778);
    must(again.final === Rep.TLS_REQD, `the next option is answered by ${told(again)}`);
  },
});

export const tlsCases: readonly Case[] = [
  {
    name: 'without TLS, answers STARTTLS by an error, and goes on',
    section: 'NOTLS mode',
    level: 'must',
    async run(context) {
      const negotiation = await context.negotiate();
      const result = await negotiation.option(Option.STARTTLS);
      const errors: number[] = [Rep.UNSUP, Rep.POLICY, Rep.PLATFORM, Rep.INVALID];
      expectThat(errors.includes(result.final), `the answer is ${told(result)}`);
      const transmission = await context.enter(negotiation, 'simple');
      await transmission.goesOn('after STARTTLS');
    },
  },
  needsTls('LIST', Option.LIST, () => Buffer.alloc(0)),
  needsTls('INFO', Option.INFO, (name) => infoData(name, [Info.NAME])),
  needsTls('INFO of an unknown export', Option.INFO, () => infoData('no such export', [])),
  needsTls('GO', Option.GO, (name) => infoData(name, [])),
  needsTls('STRUCTURED_REPLY', Option.STRUCTURED_REPLY, () => Buffer.alloc(0)),
  needsTls('an unknown option', 0x7777, () => Buffer.alloc(9)),
  {
    name: 'acknowledges ABORT before TLS',
    section: FORCED,
    level: 'must',
    async run(context) {
      const negotiation = await context.negotiate(tlsPlace(context));
      const result = await negotiation.option(Option.ABORT);
      expectThat(result.final === Rep.ACK, `the answer is ${told(result)}`);
    },
  },
  {
    name: 'closes when EXPORT_NAME comes before TLS',
    section: FORCED,
    level: 'must',
    async run(context) {
      const place = tlsPlace(context);
      const negotiation = await context.negotiate(place);
      await negotiation.send(Option.EXPORT_NAME, Buffer.from(place.exportName));
      const sent = await negotiation.connection.untilClosed();
      expectThat(sent.length === 0, `${sent.length} bytes before it closes`);
    },
  },
  {
    name: 'acknowledges STARTTLS, serves over TLS, and closes after DISC',
    section: FORCED,
    level: 'must',
    async run(context) {
      const { negotiation, place } = await started(context);
      const transmission = await context.enter(negotiation, 'simple', { place });
      const bytes = await transmission.read(8 * MIB, 65536);
      expectThat(bytes.equals(contentAt(8 * MIB, 65536)), 'other bytes are read');
      await transmission.disconnect();
    },
  },
  {
    name: 'answers ABORT over TLS by ACK, and closes',
    section: 'Termination of the session during option haggling',
    level: 'must',
    async run(context) {
      const { negotiation } = await started(context);
      expectThat((await negotiation.option(Option.ABORT)).final === Rep.ACK, 'no ACK');
      await negotiation.connection.untilClosed();
    },
  },
  {
    name: 'answers a second STARTTLS by ERR_INVALID, and goes on',
    section: FORCED,
    level: 'must',
    async run(context) {
      const { negotiation } = await started(context);
      const result = await negotiation.option(Option.STARTTLS);
      expectThat(result.final === Rep.INVALID, `the answer is ${told(result)}`);
      must((await negotiation.list()).final === Rep.ACK, 'LIST fails afterwards');
    },
  },
  {
    name: 'refuses STARTTLS with data',
    section: 'NBD_OPT_STARTTLS',
    level: 'should',
    async run(context) {
      const negotiation = await context.negotiate(tlsPlace(context));
      const result = await negotiation.option(Option.STARTTLS, Buffer.alloc(5));
      expectThat(result.final === Rep.INVALID, `the answer is ${told(result)}`);
    },
  },
  {
    name: 'carries out nothing that was sent in plain behind STARTTLS',
    section: 'NBD_OPT_STARTTLS',
    level: 'must',
    async run(context) {
      const place = tlsPlace(context);
      const negotiation = await context.negotiate(place);
      const { connection } = negotiation;
      // What somebody in the middle would put in: agreed before TLS, in effect behind it.
      await connection.send(
        optionHeader(Option.STARTTLS, 0),
        optionHeader(Option.STRUCTURED_REPLY, 0),
        optionHeader(Option.LIST, 0),
      );
      const result = await negotiation.result(Option.STARTTLS).catch((error: unknown) => {
        if (error instanceof PeerClosed) return undefined;
        throw error;
      });
      // It may have ended the connection; else no answer comes in plain, and TLS cannot begin in what was injected.
      if (result === undefined || result.final !== Rep.ACK) return;
      const rest = await connection.untilClosed();
      must(!rest.includes(Buffer.from('0003e889045565a9', 'hex')), 'an option is answered in plain');
    },
  },
  {
    name: 'forgets what was agreed before TLS',
    section: 'NBD_OPT_STARTTLS',
    level: 'must',
    async run(context) {
      const { negotiation, place } = await started(context);
      // Nothing can be agreed on before in this mode; so structured replies must be off now.
      const transmission = await context.go(negotiation, place.exportName, 'simple');
      const reply = await transmission.ask({ command: Command.BLOCK_STATUS, offset: 0, length: 512 });
      failedWith(reply, [22], 'BLOCK_STATUS');
      await transmission.goesOn('over TLS');
    },
  },
  {
    name: 'agrees on structured replies over TLS',
    section: 'NBD_OPT_STRUCTURED_REPLY',
    level: 'must',
    async run(context) {
      const { negotiation, place } = await started(context);
      await agreeOn(negotiation, 'structured');
      const transmission = await context.go(negotiation, place.exportName, 'structured');
      const bytes = await transmission.read(3 * MIB, 2 * MIB);
      expectThat(bytes.equals(contentAt(3 * MIB, 2 * MIB)), 'other bytes are read');
    },
  },
  {
    name: 'closes when what follows STARTTLS is no TLS handshake',
    section: FORCED,
    level: 'must',
    async run(context) {
      const negotiation = await context.negotiate(tlsPlace(context));
      expectThat((await negotiation.option(Option.STARTTLS)).final === Rep.ACK, 'no ACK');
      await negotiation.connection.send(optionHeader(Option.LIST, 0), Buffer.alloc(64, 0x41));
      const rest = await negotiation.connection.untilClosed();
      must(!rest.includes(Buffer.from('0003e889045565a9', 'hex')), 'an option is answered in plain');
    },
  },
  {
    name: 'lets nobody in with a wrong key',
    section: FORCED,
    level: 'must',
    async run(context) {
      const place = tlsPlace(context);
      const negotiation = await context.negotiate(place);
      expectThat((await negotiation.option(Option.STARTTLS)).final === Rep.ACK, 'no ACK');
      const wrong = { identity: place.psk.identity, key: Buffer.alloc(32, 1) };
      const failed = await negotiation.connection.startTls(wrong).then(
        () => false,
        () => true,
      );
      must(failed, 'the handshake succeeds');
    },
  },
];
