/** INFO and GO: information, sizes, malformed requests. */
import { join, u16, u32 } from '../bytes.ts';
import type { Case, Context } from '../case.ts';
import { Command, FIXED_NEWSTYLE, Flag, Info, Option, Rep } from '../constants.ts';
import { type BlockSizes, infoData, isError, told } from '../negotiation.ts';
import { Transmission } from '../transmission.ts';
import { expectThat, must, offered } from '../verdict.ts';

const ALL = [Info.EXPORT, Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE];
const UNKNOWN_NAME = 'no such export';
const OPTIONS = [
  ['INFO', Option.INFO],
  ['GO', Option.GO],
] as const;

const forBoth = (make: (name: string, option: number) => Case): Case[] =>
  OPTIONS.map(([name, option]) => make(name, option));

/** A request that must not be understood: an error, and the negotiation goes on. */
const malformed = (
  what: string,
  data: (exportName: string) => Buffer,
  wanted: readonly number[] = [Rep.INVALID],
): Case[] =>
  forBoth((name, option) => ({
    name: `refuses ${name} with ${what}`,
    section: 'NBD_OPT_INFO and NBD_OPT_GO',
    level: 'should',
    async run(context) {
      const { exportName } = context.target.writable;
      const negotiation = await context.negotiate();
      const result = await negotiation.option(option, data(exportName));
      must(isError(result.final), `it is answered by ${told(result)}`);
      const next = await negotiation.list();
      must(next.final === Rep.ACK, `LIST afterwards: ${told(next)}`);
      expectThat(wanted.includes(result.final), `the error is ${told(result)}`);
    },
  }));

const request = (...requests: number[]) =>
  forBoth((name, option) => ({
    name: `${name} with information requests [${requests.join(', ')}] succeeds, with INFO_EXPORT`,
    section: 'NBD_OPT_INFO and NBD_OPT_GO',
    level: 'must',
    async run(context) {
      const negotiation = await context.negotiate();
      const info = await negotiation.info(context.target.writable.exportName, requests, option);
      expectThat(info.final === Rep.ACK, `the answer is ${told(info)}`);
      const twice = info.types.filter((type, index) => info.types.indexOf(type) !== index);
      expectThat(twice.length === 0, `information ${twice.join(', ')} comes twice`);
    },
  }));

async function sizes(context: Context): Promise<{ size: bigint; sizes: BlockSizes }> {
  const negotiation = await context.negotiate();
  const info = await negotiation.info(context.target.writable.exportName, [Info.BLOCK_SIZE]);
  offered(info.blockSizes !== undefined, 'INFO_BLOCK_SIZE');
  return { size: info.size ?? 0n, sizes: info.blockSizes };
}

const isPowerOfTwo = (value: number) => value > 0 && Number.isInteger(Math.log2(value));

const sizeRule = (
  name: string,
  level: Case['level'],
  rule: (sizes: BlockSizes, size: bigint) => boolean,
): Case => ({
  name,
  section: 'Size constraints',
  level,
  async run(context) {
    const found = await sizes(context);
    const { minimum, preferred, maximum } = found.sizes;
    expectThat(
      rule(found.sizes, found.size),
      `minimum ${minimum}, preferred ${preferred}, maximum ${maximum}, export ${found.size}`,
    );
  },
});

export const infoGoCases: readonly Case[] = [
  ...request(),
  ...request(...ALL),
  ...request(Info.BLOCK_SIZE),
  ...request(4, 0x7fff, 0xffff),
  ...request(...ALL, ...Array.from({ length: 60 }, (_, index) => 100 + index)),
  {
    name: 'stays in negotiation after INFO',
    section: 'NBD_OPT_INFO and NBD_OPT_GO',
    level: 'must',
    async run(context) {
      const negotiation = await context.negotiate();
      const info = await negotiation.info(context.target.writable.exportName);
      expectThat(info.final === Rep.ACK, `INFO: ${told(info)}`);
      expectThat((await negotiation.list()).final === Rep.ACK, 'LIST fails afterwards');
      await context.enter(negotiation, 'simple');
    },
  },
  {
    name: 'sends no zeroes after GO, even where EXPORT_NAME would',
    section: 'NBD_OPT_INFO and NBD_OPT_GO',
    level: 'must',
    async run(context) {
      const negotiation = await context.negotiate(context.target.writable, FIXED_NEWSTYLE);
      const transmission = await context.enter(negotiation, 'simple');
      await transmission.goesOn('after GO');
    },
  },
  {
    name: 'answers GO after INFO with the same information',
    section: 'NBD_OPT_INFO and NBD_OPT_GO',
    level: 'must',
    async run(context) {
      const { exportName } = context.target.writable;
      const negotiation = await context.negotiate();
      const info = await negotiation.info(exportName, ALL);
      const go = await negotiation.info(exportName, ALL, Option.GO);
      const hex = ({ replies }: typeof info) => replies.map(({ data }) => data.toString('hex')).sort();
      expectThat(hex(info).join() === hex(go).join(), 'INFO and GO differ');
    },
  },
  ...forBoth((name, option) => ({
    name: `answers ${name} of an unknown export by ERR_UNKNOWN without information, and goes on`,
    section: 'NBD_OPT_INFO and NBD_OPT_GO',
    level: 'must',
    async run(context) {
      const negotiation = await context.negotiate();
      const info = await negotiation.info(UNKNOWN_NAME, ALL, option);
      expectThat(info.final === Rep.UNKNOWN, `the answer is ${told(info)}`);
      expectThat(info.types.length === 0, `information ${info.types.join(', ')} comes nevertheless`);
      await context.enter(negotiation, 'simple');
    },
  })),
  {
    name: 'takes the empty name for a default export, or answers ERR_UNKNOWN',
    section: 'NBD_OPT_INFO and NBD_OPT_GO',
    level: 'must',
    async run(context) {
      const info = await (await context.negotiate()).info('', ALL);
      expectThat(info.final === Rep.ACK || info.final === Rep.UNKNOWN, `the answer is ${told(info)}`);
    },
  },
  {
    name: 'gives the name of the export that LIST gives, when asked',
    section: 'NBD_INFO_NAME',
    level: 'must',
    async run(context) {
      const negotiation = await context.negotiate();
      const { names } = await negotiation.list();
      const info = await negotiation.info(context.target.writable.exportName, [Info.NAME]);
      offered(info.canonicalName !== undefined, 'INFO_NAME');
      expectThat(names.includes(info.canonicalName), `${info.canonicalName} is not in the list`);
    },
  },
  {
    name: 'does not ask for block sizes where the client asked for them',
    section: 'NBD_OPT_INFO and NBD_OPT_GO',
    level: 'must',
    async run(context) {
      const negotiation = await context.negotiate();
      const info = await negotiation.info(context.target.writable.exportName, [Info.BLOCK_SIZE], Option.GO);
      expectThat(info.final !== Rep.BLOCK_SIZE_REQD, 'ERR_BLOCK_SIZE_REQD');
    },
  },
  sizeRule(
    'advertises a minimum block size that is a power of two up to 64 KiB',
    'must',
    ({ minimum }) => isPowerOfTwo(minimum) && minimum <= 65536,
  ),
  sizeRule(
    'advertises a preferred block size that is a power of two, at least 512 and the minimum',
    'must',
    ({ minimum, preferred }) => isPowerOfTwo(preferred) && preferred >= Math.max(512, minimum),
  ),
  sizeRule(
    'advertises a maximum payload of at least the preferred block size',
    'must',
    ({ preferred, maximum }) => maximum >= preferred,
  ),
  sizeRule(
    'advertises a maximum payload of at least 1 MiB',
    'should',
    ({ maximum }, size) => maximum >= 1 << 20 || size < 1 << 20,
  ),
  sizeRule(
    'advertises an export size that is a multiple of the minimum block size',
    'should',
    ({ minimum }, size) => size % BigInt(minimum) === 0n,
  ),
  ...malformed('no data at all', () => Buffer.alloc(0)),
  ...malformed('a name that is longer than the option', () => join(u32(100), Buffer.from('disk'), u16(0))),
  ...malformed('a name whose length is 0xffffffff', (name) =>
    join(u32(0xffffffff), Buffer.from(name), u16(0)),
  ),
  ...malformed('a name that leaves no room for the number of requests', (name) =>
    join(u32(name.length + 1), Buffer.from(name), u16(0)),
  ),
  ...malformed('fewer information requests than announced', (name) =>
    join(u32(name.length), Buffer.from(name), u16(3), u16(0)),
  ),
  ...malformed('more information requests than announced', (name) =>
    join(infoData(name, [Info.NAME]), u16(2)),
  ),
  ...malformed('one odd byte at the end', (name) => join(infoData(name, []), Buffer.alloc(1))),
  ...malformed('a name of 5000 bytes', () => infoData('x'.repeat(5000), []), [
    Rep.INVALID,
    Rep.UNKNOWN,
    Rep.TOO_BIG,
  ]),
  ...malformed('a name that is not UTF-8', () => infoData(Buffer.from([0x64, 0xff]), []), [
    Rep.INVALID,
    Rep.UNKNOWN,
  ]),
  ...malformed('a name with NUL', (name) => infoData(`${name}\0`, []), [Rep.INVALID, Rep.UNKNOWN]),
  {
    name: 'sets HAS_FLAGS, and no flag of an extension that was not agreed on',
    section: 'Transmission flags',
    level: 'must',
    async run(context) {
      const { facts } = await context.open('simple');
      expectThat((facts.flags & Flag.HAS_FLAGS) !== 0, 'HAS_FLAGS is not set');
      expectThat((facts.flags & Flag.RESIZE) === 0, 'RESIZE is set');
      expectThat((facts.flags & Flag.STATUS_PAYLOAD) === 0, 'BLOCK_STATUS_PAYLOAD is set');
      expectThat(facts.flags < 1 << 13, `unknown flags 0x${facts.flags.toString(16)}`);
    },
  },
  {
    name: 'does not offer DF without structured replies',
    section: 'Transmission flags',
    level: 'must',
    async run(context) {
      const { facts } = await context.open('simple');
      expectThat((facts.flags & Flag.DF) === 0, 'DF is set');
    },
  },
  {
    name: 'does not offer fast zeroes without zeroes',
    section: 'Transmission flags',
    level: 'must',
    async run(context) {
      for (const place of [context.target.writable, context.target.readOnly]) {
        const { facts } = await context.open('simple', { place });
        const zeroes = (facts.flags & Flag.WRITE_ZEROES) !== 0;
        expectThat(zeroes || (facts.flags & Flag.FAST_ZERO) === 0, 'FAST_ZERO without WRITE_ZEROES');
      }
    },
  },
  {
    name: 'says of a read-only export that it is read-only',
    section: 'Transmission flags',
    level: 'should',
    async run(context) {
      const { facts } = await context.open('simple', { place: context.target.readOnly });
      expectThat((facts.flags & Flag.READ_ONLY) !== 0, 'READ_ONLY is not set');
    },
  },
  {
    name: 'takes a request that comes together with GO only after its answer',
    section: 'NBD_OPT_INFO and NBD_OPT_GO',
    level: 'may',
    async run(context) {
      const { exportName } = context.target.writable;
      const negotiation = await context.negotiate();
      const early = new Transmission(negotiation.connection, {
        size: 0n,
        flags: 0,
        style: 'simple',
        contexts: [],
      });
      const { bytes, cookie } = early.encode({ command: Command.READ, offset: 0, length: 512 });
      await negotiation.send(Option.GO, infoData(exportName, []));
      await negotiation.connection.send(bytes);
      const result = await negotiation.result(Option.GO);
      expectThat(result.final === Rep.ACK, `GO: ${told(result)}`);
      expectThat((await early.reply(cookie)).error === 0, 'the read fails');
    },
  },
];
