/** BLOCK_STATUS with base:allocation. */
import { agreeOn, type Case, type Context, contentAt, EXPORT_SIZE, LARGE_SIZE, MIB } from '../case.ts';
import { Command, CommandFlag, Errno, Option, STATE_ZERO } from '../constants.ts';
import { describe, type Extent, failedWith, type Style, type Transmission } from '../transmission.ts';
import { expectThat, must, offered } from '../verdict.ts';

const ALLOCATION = 'base:allocation';
const SECTION = 'NBD_CMD_BLOCK_STATUS';

async function open(context: Context, style: Style, place = context.target.readOnly): Promise<Transmission> {
  return context.open(style, { place, contexts: [ALLOCATION] });
}

async function status(
  transmission: Transmission,
  offset: number | bigint,
  length: number | bigint,
  flags = 0,
): Promise<readonly Extent[]> {
  const reply = await transmission.ask({ command: Command.BLOCK_STATUS, offset, length, flags });
  expectThat(reply.error === 0, `BLOCK_STATUS of ${length} at ${offset} fails with ${describe(reply)}`);
  return reply.extents.get(transmission.facts.contexts[0]?.id ?? -1) ?? [];
}

const sum = (extents: readonly Extent[]): number =>
  Number(extents.reduce((total, { length }) => total + length, 0n));

/** Walks over the whole export, each step behind what the last reply covered; at most `steps`. */
async function walk(
  transmission: Transmission,
  from: number,
  flags: number,
  steps = 10_000,
): Promise<Extent[]> {
  const all: Extent[] = [];
  let at = from;
  while (at < transmission.size) {
    must(steps-- > 0, 'too many replies to get over the export');
    const length = Math.min(transmission.size - at, 0xfffff000);
    const extents = await status(transmission, at, length, flags);
    all.push(...extents);
    at += sum(extents);
  }
  return all;
}

/** What is said to be zeros reads as zeros. */
function checkZeros(extents: readonly Extent[]): void {
  let at = 0;
  for (const { length, status: flags } of extents) {
    const end = Math.min(at + Number(length), EXPORT_SIZE);
    if ((Number(flags) & STATE_ZERO) !== 0)
      must(contentAt(at, end - at).equals(Buffer.alloc(end - at)), `data at ${at} to ${end} is called zeros`);
    at += Number(length);
  }
}

const STYLES_WITH_STATUS: readonly Style[] = ['structured', 'extended'];

const forStyle = (style: Style): Case[] => [
  {
    name: `BLOCK_STATUS leads over the whole export and calls nothing zeros that is not, ${style} replies`,
    section: SECTION,
    level: 'must',
    async run(context) {
      const extents = await walk(await open(context, style), 0, 0);
      checkZeros(extents);
    },
  },
  {
    name: `BLOCK_STATUS with REQ_ONE leads over the whole export, ${style} replies`,
    section: SECTION,
    level: 'must',
    async run(context) {
      const extents = await walk(await open(context, style), 0, CommandFlag.REQ_ONE);
      checkZeros(extents);
    },
  },
  {
    name: `BLOCK_STATUS answers every one of several contexts once, with and without REQ_ONE, ${style} replies`,
    section: SECTION,
    level: 'must',
    async run(context) {
      const { exportName } = context.target.writable;
      const negotiation = await context.negotiate();
      await agreeOn(negotiation, style);
      const list = await negotiation.metaContexts(Option.LIST_META_CONTEXT, exportName, []);
      // A name that ends like this is a wildcard, and selects nothing.
      const names = list.contexts.map(({ name }) => name).filter((name) => !name.endsWith(':'));
      offered(names.length > 1, 'a second context');
      const set = await negotiation.metaContexts(Option.SET_META_CONTEXT, exportName, names);
      const transmission = await context.go(negotiation, exportName, style, set.contexts);
      for (const flags of [0, CommandFlag.REQ_ONE]) {
        const reply = await transmission.ask({
          command: Command.BLOCK_STATUS,
          offset: 4096,
          length: MIB,
          flags,
        });
        expectThat(reply.error === 0, `it fails with ${describe(reply)}`);
        expectThat(reply.extents.size === set.contexts.length, `${reply.extents.size} contexts are answered`);
      }
    },
  },
  {
    name: `BLOCK_STATUS does not go beyond the export's end, ${style} replies`,
    section: SECTION,
    level: 'should',
    async run(context) {
      const transmission = await open(context, style);
      for (const at of [0, 4 * MIB, EXPORT_SIZE - 65536, EXPORT_SIZE - 512])
        expectThat(
          sum(await status(transmission, at, EXPORT_SIZE - at)) <= EXPORT_SIZE - at,
          `from ${at} beyond the end`,
        );
    },
  },
  {
    name: `BLOCK_STATUS tells holes from data, ${style} replies`,
    section: 'base:allocation metadata context',
    level: 'should',
    async run(context) {
      const transmission = await open(context, style);
      const [hole] = await status(transmission, 5 * MIB, MIB, CommandFlag.REQ_ONE);
      const [data] = await status(transmission, MIB, MIB, CommandFlag.REQ_ONE);
      expectThat(hole?.status === 3n, `a hole has status ${hole?.status}`);
      expectThat(data?.status === 0n, `data has status ${data?.status}`);
    },
  },
  {
    name: `BLOCK_STATUS of one byte, and of an odd range, is answered, ${style} replies`,
    section: SECTION,
    level: 'must',
    async run(context) {
      const transmission = await open(context, style);
      for (const [offset, length] of [
        [0, 1],
        [4 * MIB - 1, 2],
        [12_345, 54_321],
        [EXPORT_SIZE - 1, 1],
      ] as const)
        for (const flags of [0, CommandFlag.REQ_ONE])
          expectThat((await status(transmission, offset, length, flags)).length > 0, 'no extents');
    },
  },
  {
    name: `BLOCK_STATUS joins extents of the same status, in lengths of 512, ${style} replies`,
    section: SECTION,
    level: 'should',
    async run(context) {
      const extents = await status(await open(context, style), 0, EXPORT_SIZE);
      for (const [index, { length, status: flags }] of extents.entries()) {
        expectThat(length % 512n === 0n, `an extent of ${length} bytes`);
        expectThat(extents[index + 1]?.status !== flags, 'two extents of the same status');
      }
    },
  },
  {
    name: `BLOCK_STATUS of 4 GiB - 4 KiB gets on in few replies, ${style} replies`,
    section: SECTION,
    level: 'should',
    async run(context) {
      const transmission = await open(context, style, context.target.large);
      await walk(transmission, LARGE_SIZE / 2, 0, 20);
    },
  },
  {
    name: `BLOCK_STATUS with FUA is answered where FUA is offered, ${style} replies`,
    section: 'Command flags',
    level: 'must',
    async run(context) {
      const transmission = await context.open(style, { contexts: [ALLOCATION], needs: { FUA: true } });
      await status(transmission, 0, 65536, CommandFlag.FUA);
    },
  },
  {
    name: `BLOCK_STATUS of 0 bytes does not end the connection, ${style} replies`,
    section: SECTION,
    level: 'should',
    async run(context) {
      const transmission = await open(context, style);
      await transmission.ask({ command: Command.BLOCK_STATUS, offset: 4096, length: 0 });
      await transmission.goesOn('after BLOCK_STATUS of 0 bytes');
    },
  },
  ...(
    [
      ['beyond the end', EXPORT_SIZE - 512, 1024, 0],
      ['behind the end', EXPORT_SIZE + 4096, 512, 0],
      ['at 2^64 - 512', 2n ** 64n - 512n, 512, 0],
      ['with an unknown flag', 0, 512, 1 << 10],
      ['with NO_HOLE', 0, 512, CommandFlag.NO_HOLE],
      ['with DF', 0, 512, CommandFlag.DF],
    ] as const
  ).map(
    ([what, offset, length, flags]): Case => ({
      name: `BLOCK_STATUS ${what} fails with EINVAL, ${style} replies`,
      section: SECTION,
      level: 'should',
      async run(context) {
        const transmission = await open(context, style);
        const reply = await transmission.ask({ command: Command.BLOCK_STATUS, offset, length, flags });
        await transmission.goesOn('afterwards');
        failedWith(reply, [Errno.EINVAL], 'BLOCK_STATUS');
      },
    }),
  ),
];

export const blockStatusCases: readonly Case[] = [
  ...STYLES_WITH_STATUS.flatMap(forStyle),
  {
    name: 'BLOCK_STATUS shows what was written since',
    section: 'base:allocation metadata context',
    level: 'must',
    async run(context) {
      const transmission = await open(context, 'structured', context.target.writable);
      const at = 14 * MIB;
      await transmission.write(at, Buffer.alloc(65536, 1));
      const [extent] = await status(transmission, at, 65536, CommandFlag.REQ_ONE);
      expectThat((Number(extent?.status) & STATE_ZERO) === 0, 'data just written is called zeros');
    },
  },
];
