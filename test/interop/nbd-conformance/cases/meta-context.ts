/** Choosing what BLOCK_STATUS tells. */
import { counted, join, u32 } from '../bytes.ts';
import { agreeOn, type Case, type Context } from '../case.ts';
import { Command, Errno, Option, Rep } from '../constants.ts';
import { isError, metaData, type Negotiation, told } from '../negotiation.ts';
import { failedWith, type Style } from '../transmission.ts';
import { expectThat, must, offered } from '../verdict.ts';

const ALLOCATION = 'base:allocation';
const { LIST_META_CONTEXT: LIST, SET_META_CONTEXT: SET } = Option;

/** A negotiation with structured replies agreed, on a server that has contexts. */
async function prepared(context: Context): Promise<{ negotiation: Negotiation; exportName: string }> {
  const negotiation = await context.negotiate();
  await agreeOn(negotiation, 'structured');
  const { exportName } = context.target.writable;
  const list = await negotiation.metaContexts(LIST, exportName, []);
  offered(list.final !== Rep.UNSUP, 'choosing of contexts');
  return { negotiation, exportName };
}

/** Enters transmission and expects BLOCK_STATUS to be refused, the connection in step. */
async function statusIsRefused(context: Context, negotiation: Negotiation): Promise<void> {
  const { exportName } = context.target.writable;
  const transmission = await context.go(negotiation, exportName, 'structured');
  const reply = await transmission.ask({ command: Command.BLOCK_STATUS, offset: 0, length: 65536 });
  must(reply.error !== 0, 'BLOCK_STATUS is answered');
  await transmission.goesOn('after BLOCK_STATUS was refused');
  failedWith(reply, [Errno.EINVAL], 'BLOCK_STATUS');
}

const selects = (
  option: 'LIST' | 'SET',
  what: string,
  queries: readonly string[],
  wanted: readonly string[],
  level: Case['level'] = 'must',
): Case => ({
  name: `${option}_META_CONTEXT with ${what} returns ${wanted.length === 0 ? 'none' : wanted.join(', ')}`,
  section: `NBD_OPT_${option}_META_CONTEXT`,
  level,
  async run(context) {
    const { negotiation, exportName } = await prepared(context);
    const all = await negotiation.metaContexts(LIST, exportName, ['base:']);
    offered(all.contexts.some(({ name }) => name === ALLOCATION) || wanted.length === 0, ALLOCATION);
    const result = await negotiation.metaContexts(option === 'LIST' ? LIST : SET, exportName, queries);
    expectThat(result.final === Rep.ACK, `the answer is ${told(result)}`);
    const names = result.contexts.map(({ name }) => name);
    expectThat(names.join() === wanted.join(), `it returns [${names.join(', ')}]`);
  },
});

const malformed = (
  what: string,
  data: (exportName: string) => Buffer,
  level: Case['level'] = 'must',
): Case[] =>
  ([LIST, SET] as const).map((option) => ({
    name: `refuses ${option === LIST ? 'LIST' : 'SET'}_META_CONTEXT with ${what} by ERR_INVALID, and goes on`,
    section: 'NBD_OPT_LIST_META_CONTEXT',
    level,
    async run(context) {
      const { negotiation, exportName } = await prepared(context);
      const result = await negotiation.option(option, data(exportName));
      expectThat(result.final === Rep.INVALID, `the answer is ${told(result)}`);
      must((await negotiation.list()).final === Rep.ACK, 'LIST fails afterwards');
    },
  }));

const unselected = (style: Style): Case => ({
  name: `refuses BLOCK_STATUS where no context was selected, ${style} replies`,
  section: 'Metadata querying',
  level: 'should',
  async run(context) {
    const transmission = await context.open(style);
    const reply = await transmission.ask({ command: Command.BLOCK_STATUS, offset: 0, length: 65536 });
    await transmission.goesOn('after BLOCK_STATUS');
    failedWith(reply, [Errno.EINVAL], 'BLOCK_STATUS');
  },
});

export const metaContextCases: readonly Case[] = [
  {
    name: 'refuses SET_META_CONTEXT before structured replies',
    section: 'NBD_OPT_SET_META_CONTEXT',
    level: 'should',
    async run(context) {
      const negotiation = await context.negotiate();
      const result = await negotiation.metaContexts(SET, context.target.writable.exportName, [ALLOCATION]);
      offered(result.final !== Rep.UNSUP, 'choosing of contexts');
      expectThat(
        result.final === Rep.INVALID || result.final === Rep.EXT_HEADER_REQD,
        `the answer is ${told(result)}`,
      );
      must((await negotiation.list()).final === Rep.ACK, 'LIST fails afterwards');
    },
  },
  {
    name: 'answers LIST_META_CONTEXT before structured replies, or refuses it, and goes on',
    section: 'NBD_OPT_LIST_META_CONTEXT',
    level: 'must',
    async run(context) {
      const negotiation = await context.negotiate();
      await negotiation.metaContexts(LIST, context.target.writable.exportName, []);
      expectThat((await negotiation.list()).final === Rep.ACK, 'LIST fails afterwards');
    },
  },
  {
    name: 'LIST_META_CONTEXT without queries returns all contexts, base:allocation among them',
    section: 'NBD_OPT_LIST_META_CONTEXT',
    level: 'must',
    async run(context) {
      const { negotiation, exportName } = await prepared(context);
      const base = await negotiation.metaContexts(LIST, exportName, ['base:']);
      const all = await negotiation.metaContexts(LIST, exportName, []);
      expectThat(all.final === Rep.ACK, `the answer is ${told(all)}`);
      for (const { name } of base.contexts)
        expectThat(
          all.contexts.some((found) => found.name === name),
          `${name} is not in it`,
        );
    },
  },
  selects('LIST', '"base:"', ['base:'], [ALLOCATION]),
  selects('LIST', 'its full name', [ALLOCATION], [ALLOCATION]),
  selects('LIST', 'an unknown namespace', ['x-nobody:', 'x-nobody:thing'], []),
  selects('LIST', 'an unknown leaf', ['base:nothing'], []),
  selects('SET', 'its full name', [ALLOCATION], [ALLOCATION]),
  selects('SET', '"base:"', ['base:'], []),
  selects('SET', 'no query', [], []),
  selects('SET', 'unknown namespaces beside a known one', ['x-a:b', ALLOCATION, 'x-c:'], [ALLOCATION]),
  selects('SET', 'an unknown leaf beside a known one', ['base:nothing', ALLOCATION], [ALLOCATION]),
  selects('SET', 'the same query twice', [ALLOCATION, ALLOCATION], [ALLOCATION], 'should'),
  {
    name: 'LIST_META_CONTEXT returns ids of 0',
    section: 'NBD_OPT_LIST_META_CONTEXT',
    level: 'should',
    async run(context) {
      const { negotiation, exportName } = await prepared(context);
      const { contexts } = await negotiation.metaContexts(LIST, exportName, []);
      expectThat(
        contexts.every(({ id }) => id === 0),
        `ids are ${contexts.map(({ id }) => id).join(', ')}`,
      );
    },
  },
  {
    name: 'SET_META_CONTEXT gives every context an id of its own',
    section: 'NBD_OPT_SET_META_CONTEXT',
    level: 'must',
    async run(context) {
      const { negotiation, exportName } = await prepared(context);
      const { contexts } = await negotiation.metaContexts(LIST, exportName, []);
      const names = contexts.map(({ name }) => name).filter((name) => !name.endsWith(':'));
      offered(names.length > 1, 'a second context');
      const set = await negotiation.metaContexts(SET, exportName, names);
      expectThat(set.final === Rep.ACK, `the answer is ${told(set)}`);
      expectThat(new Set(set.contexts.map(({ id }) => id)).size === set.contexts.length, 'ids repeat');
    },
  },
  ...(['LIST', 'SET'] as const).map(
    (option): Case => ({
      name: `${option}_META_CONTEXT of an unknown export fails, and the negotiation goes on`,
      section: `NBD_OPT_${option}_META_CONTEXT`,
      level: 'should',
      async run(context) {
        const { negotiation } = await prepared(context);
        const result = await negotiation.metaContexts(option === 'LIST' ? LIST : SET, 'no such export', [
          ALLOCATION,
        ]);
        must((await negotiation.list()).final === Rep.ACK, 'LIST fails afterwards');
        expectThat(result.final === Rep.UNKNOWN, `the answer is ${told(result)}`);
      },
    }),
  ),
  {
    name: 'a second SET_META_CONTEXT replaces the first',
    section: 'NBD_OPT_SET_META_CONTEXT',
    level: 'must',
    async run(context) {
      const { negotiation, exportName } = await prepared(context);
      const first = await negotiation.metaContexts(SET, exportName, [ALLOCATION]);
      offered(first.contexts.length === 1, ALLOCATION);
      await negotiation.metaContexts(SET, exportName, []);
      await statusIsRefused(context, negotiation);
    },
  },
  {
    name: 'a SET_META_CONTEXT that fails takes away what was selected before',
    section: 'NBD_OPT_SET_META_CONTEXT',
    level: 'must',
    async run(context) {
      const { negotiation, exportName } = await prepared(context);
      const first = await negotiation.metaContexts(SET, exportName, [ALLOCATION]);
      offered(first.contexts.length === 1, ALLOCATION);
      const second = await negotiation.option(SET, join(counted(exportName), u32(5)));
      expectThat(isError(second.final), 'a malformed SET_META_CONTEXT succeeds');
      await statusIsRefused(context, negotiation);
    },
  },
  {
    name: 'a selection for an unknown export takes away what was selected before',
    section: 'NBD_OPT_SET_META_CONTEXT',
    level: 'must',
    async run(context) {
      const { negotiation, exportName } = await prepared(context);
      const first = await negotiation.metaContexts(SET, exportName, [ALLOCATION]);
      offered(first.contexts.length === 1, ALLOCATION);
      // Whether this fails is another case's matter.
      await negotiation.metaContexts(SET, 'no such export', [ALLOCATION]);
      await statusIsRefused(context, negotiation);
    },
  },
  {
    name: 'contexts selected for another export than GO names are not in effect',
    section: 'Metadata querying',
    level: 'must',
    async run(context) {
      const { otherExport } = context.target;
      offered(otherExport !== undefined, 'a second export');
      const { negotiation } = await prepared(context);
      const set = await negotiation.metaContexts(SET, otherExport, [ALLOCATION]);
      offered(set.contexts.length === 1, ALLOCATION);
      await statusIsRefused(context, negotiation);
    },
  },
  {
    name: 'LIST_META_CONTEXT leaves the selection as it is',
    section: 'NBD_OPT_LIST_META_CONTEXT',
    level: 'must',
    async run(context) {
      const { negotiation, exportName } = await prepared(context);
      const set = await negotiation.metaContexts(SET, exportName, [ALLOCATION]);
      offered(set.contexts.length === 1, ALLOCATION);
      await negotiation.metaContexts(LIST, exportName, ['x-nobody:']);
      const transmission = await context.go(negotiation, exportName, 'structured', set.contexts);
      const reply = await transmission.ask({ command: Command.BLOCK_STATUS, offset: 0, length: 65536 });
      expectThat(reply.error === 0, 'BLOCK_STATUS fails');
    },
  },
  ...malformed('a query longer than the option', (name) =>
    join(counted(name), u32(1), u32(100), Buffer.from('base:')),
  ),
  ...malformed('a query whose length is 0xffffffff', (name) =>
    join(counted(name), u32(1), u32(0xffffffff), Buffer.from(ALLOCATION)),
  ),
  ...malformed('fewer queries than announced', (name) => join(counted(name), u32(2), counted(ALLOCATION))),
  ...malformed('0xffffffff queries announced', (name) =>
    join(counted(name), u32(0xffffffff), counted(ALLOCATION)),
  ),
  ...malformed(
    'bytes behind the last query',
    (name) => join(metaData(name, [ALLOCATION]), Buffer.alloc(3)),
    'should',
  ),
  ...malformed('a name longer than the option', () => join(u32(1000), Buffer.from('disk'))),
  ...malformed('no data', () => Buffer.alloc(0)),
  {
    name: 'bears queries without a colon, empty, and with odd bytes',
    section: 'NBD_OPT_LIST_META_CONTEXT',
    level: 'must',
    async run(context) {
      const { negotiation, exportName } = await prepared(context);
      for (const option of [LIST, SET])
        for (const query of ['', 'base', ':', ':allocation', 'BASE:allocation', 'base:allocation\0', 'ä:ö']) {
          const result = await negotiation.metaContexts(option, exportName, [query]);
          expectThat(result.contexts.length === 0, `${JSON.stringify(query)} selects something`);
        }
      expectThat((await negotiation.list()).final === Rep.ACK, 'LIST fails afterwards');
    },
  },
  {
    name: 'answers 1000 queries, or refuses them by ERR_TOO_BIG',
    section: 'NBD_OPT_SET_META_CONTEXT',
    level: 'should',
    async run(context) {
      const { negotiation, exportName } = await prepared(context);
      const queries = Array.from({ length: 1000 }, (_, index) => `x-nobody:${index}`);
      const result = await negotiation.metaContexts(SET, exportName, queries);
      expectThat(result.final === Rep.ACK || result.final === Rep.TOO_BIG, `the answer is ${told(result)}`);
    },
  },
  unselected('simple'),
  unselected('structured'),
  unselected('extended'),
  {
    name: 'acknowledges STRUCTURED_REPLY',
    section: 'NBD_OPT_STRUCTURED_REPLY',
    level: 'may',
    async run(context) {
      await agreeOn(await context.negotiate(), 'structured');
    },
  },
  {
    name: 'bears STRUCTURED_REPLY twice',
    section: 'Fixed newstyle negotiation',
    level: 'must',
    async run(context) {
      const negotiation = await context.negotiate();
      await agreeOn(negotiation, 'structured');
      const { final } = await negotiation.option(Option.STRUCTURED_REPLY);
      expectThat(final === Rep.ACK || final === Rep.INVALID, 'neither ACK nor ERR_INVALID');
      const transmission = await context.go(negotiation, context.target.writable.exportName, 'structured');
      await transmission.goesOn('after both');
    },
  },
  {
    name: 'refuses STRUCTURED_REPLY with data by ERR_INVALID, and goes on without',
    section: 'NBD_OPT_STRUCTURED_REPLY',
    level: 'should',
    async run(context) {
      const negotiation = await context.negotiate();
      const result = await negotiation.option(Option.STRUCTURED_REPLY, Buffer.alloc(2));
      offered(result.final !== Rep.UNSUP, 'structured replies');
      expectThat(result.final === Rep.INVALID, `the answer is ${told(result)}`);
      const transmission = await context.go(negotiation, context.target.writable.exportName, 'simple');
      await transmission.goesOn('after the refusal');
    },
  },
];
