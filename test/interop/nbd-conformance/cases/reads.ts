/** READ in all three styles of reply. */
import { type Case, contentAt, EXPORT_SIZE, MIB } from '../case.ts';
import { Chunk, Command, CommandFlag, Errno } from '../constants.ts';
import { describe, failedWith, STYLES, type Style, succeeded } from '../transmission.ts';
import { expectThat, must } from '../verdict.ts';

const SECTION = 'NBD_CMD_READ';

const readsRange = (style: Style, what: string, offset: number, length: number, flags = 0): Case => ({
  name: `READ returns ${what}, ${style} replies`,
  section: SECTION,
  level: 'must',
  async run(context) {
    const place = context.target.readOnly;
    const needs = flags === CommandFlag.DF ? { DF: true as const } : {};
    const transmission = await context.open(style, { place, needs });
    const bytes = await transmission.read(offset, length, flags);
    const wanted = contentAt(offset, length);
    const at = bytes.findIndex((byte, index) => byte !== wanted[index]);
    expectThat(at === -1, `byte ${at} of ${length} is ${bytes[at]}, not ${wanted[at]}`);
    await transmission.goesOn('afterwards');
  },
});

/** A request that must fail, and leave the connection in step. */
const fails = (
  style: Style,
  what: string,
  range: { offset: number | bigint; length: number | bigint; flags?: number },
  errors: readonly number[] = [Errno.EINVAL],
): Case => ({
  name: `READ ${what} fails, and the connection goes on, ${style} replies`,
  section: 'Error values',
  level: 'should',
  async run(context) {
    const transmission = await context.open(style);
    const reply = await transmission.ask({ command: Command.READ, ...range });
    must(reply.error !== 0, 'it succeeds');
    await transmission.goesOn('afterwards');
    failedWith(reply, errors, 'READ');
  },
});

const forStyle = (style: Style): Case[] => [
  readsRange(style, 'a sector', 512, 512),
  readsRange(style, 'a byte', 12_345, 1),
  readsRange(style, 'what is not aligned', 4 * MIB - 777, 1555),
  readsRange(style, 'data and hole together', 3 * MIB, 2 * MIB),
  readsRange(style, 'hole, data and hole', 7 * MIB, 6 * MIB),
  readsRange(style, 'a hole', 5 * MIB, MIB),
  readsRange(style, 'the last byte', EXPORT_SIZE - 1, 1),
  readsRange(style, 'the whole export', 0, EXPORT_SIZE),
  fails(style, 'beyond the end', { offset: EXPORT_SIZE - 512, length: 1024 }),
  fails(style, 'behind the end', { offset: EXPORT_SIZE + 4096, length: 512 }),
  fails(style, 'at the end', { offset: EXPORT_SIZE, length: 1 }),
  fails(style, 'at 2^63', { offset: 2n ** 63n, length: 512 }),
  fails(style, 'where offset and length exceed 64 bits', { offset: 2n ** 64n - 512n, length: 1024 }),
  fails(style, 'of 4 GiB - 512 B', { offset: 0, length: 0xfffffe00 }, [Errno.EINVAL, Errno.EOVERFLOW]),
  ...(style === 'simple'
    ? [
        fails(style, 'with DF, which was not offered,', {
          offset: 0,
          length: 512,
          flags: CommandFlag.DF,
        }),
      ]
    : [
        readsRange(style, '64 KiB in one piece when DF is set', 4 * MIB - 32768, 65536, CommandFlag.DF),
        readsRange(style, 'a hole in one piece when DF is set', 5 * MIB, 65536, CommandFlag.DF),
      ]),
  {
    name: `READ of 0 bytes does not end the connection, ${style} replies`,
    section: SECTION,
    level: 'should',
    async run(context) {
      const transmission = await context.open(style);
      await transmission.ask({ command: Command.READ, offset: 4096, length: 0 });
      await transmission.goesOn('after a read of 0 bytes');
    },
  },
  {
    name: `READ of 32 MiB succeeds, ${style} replies`,
    section: 'Size constraints',
    level: 'should',
    async run(context) {
      const transmission = await context.open(style, { place: context.target.large });
      // The second half of the large export is never written.
      const bytes = await transmission.read(6 * 1024 * MIB, 32 * MIB);
      expectThat(bytes.indexOf(1) === -1 && bytes.length === 32 * MIB, 'not 32 MiB of zeros');
    },
  },
  {
    name: `READ with FUA succeeds where FUA is offered, ${style} replies`,
    section: 'Command flags',
    level: 'must',
    async run(context) {
      const transmission = await context.open(style, { needs: { FUA: true } });
      await transmission.read(0, 4096, CommandFlag.FUA);
    },
  },
];

export const readCases: readonly Case[] = [
  ...STYLES.flatMap(forStyle),
  {
    name: 'describes an error in words',
    section: 'Structured reply chunk message',
    level: 'should',
    async run(context) {
      const transmission = await context.open('structured');
      const reply = await transmission.ask({ command: Command.READ, offset: 2n ** 62n, length: 512 });
      expectThat(reply.error !== 0, 'the read succeeds');
      expectThat(reply.message !== '', `only ${describe(reply)}`);
    },
  },
  {
    name: 'sends a hole as a hole',
    section: SECTION,
    level: 'may',
    async run(context) {
      const transmission = await context.open('structured', { place: context.target.readOnly });
      const reply = await transmission.ask({ command: Command.READ, offset: 5 * MIB, length: MIB });
      succeeded(reply, 'READ');
      expectThat(reply.chunks.includes(Chunk.OFFSET_HOLE), 'zeros are sent as data');
    },
  },
  {
    name: 'with DF, sends 32 MiB in one piece or answers EOVERFLOW',
    section: SECTION,
    level: 'must',
    async run(context) {
      const transmission = await context.open('structured', {
        place: context.target.large,
        needs: { DF: true },
      });
      const reply = await transmission.ask({
        command: Command.READ,
        offset: 0,
        length: 32 * MIB,
        flags: CommandFlag.DF,
      });
      if (reply.error !== 0) failedWith(reply, [Errno.EOVERFLOW], 'READ with DF');
      await transmission.goesOn('afterwards');
    },
  },
];
