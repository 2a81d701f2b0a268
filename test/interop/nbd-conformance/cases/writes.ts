/** Commands that change the export: WRITE, WRITE_ZEROES, TRIM, with FUA; FLUSH. */
import { type Case, type Context, EXPORT_SIZE, MIB, type OpenOptions } from '../case.ts';
import { Command, CommandFlag, Errno } from '../constants.ts';
import { PeerClosed } from '../raw-connection.ts';
import {
  describe,
  failedWith,
  type Request,
  STYLES,
  type Style,
  type Transmission,
} from '../transmission.ts';
import { expectThat, must } from '../verdict.ts';

const { WRITE, WRITE_ZEROES, TRIM, FLUSH } = Command;
/** Where cases write: behind it lies what cases that only read expect. */
const AT = 13 * MIB;

export const filled = (length: number, seed: number): Buffer =>
  Buffer.from(Uint8Array.from({ length }, (_, index) => 1 + ((index * 7 + seed) % 255)));

async function reads(
  transmission: Transmission,
  offset: number,
  wanted: Buffer,
  what: string,
): Promise<void> {
  const bytes = await transmission.read(offset, wanted.length);
  const at = bytes.findIndex((byte, index) => byte !== wanted[index]);
  expectThat(at === -1, `${what}: byte ${at} is ${bytes[at]}, not ${wanted[at]}`);
}

const writes = (style: Style, what: string, offset: number, length: number, flags = 0): Case => ({
  name: `WRITE of ${what} is read back, ${style} replies`,
  section: 'NBD_CMD_WRITE',
  level: 'must',
  async run(context) {
    const transmission = await context.open(style, flags === 0 ? {} : { needs: { FUA: true } });
    // Its surroundings stay as they are: both neighbours are written before.
    const before = filled(length + 2, 3);
    await transmission.write(offset - 1, before);
    const bytes = filled(length, offset % 251);
    await transmission.write(offset, bytes, flags);
    const wanted = Buffer.concat([before.subarray(0, 1), bytes, before.subarray(length + 1)]);
    await reads(transmission, offset - 1, wanted, 'afterwards');
    await transmission.disconnect();
    const other = await context.open(style);
    await reads(other, offset - 1, wanted, 'by another connection');
  },
});

interface Refusal {
  readonly name: string;
  readonly section?: string;
  readonly open?: (context: Context) => OpenOptions;
  readonly request: Request;
  readonly errors: readonly number[];
}

/** The request fails with one of `errors`, its payload is taken from the stream, and the connection goes on. */
const refuses = (style: Style, { name, section, open, request, errors }: Refusal): Case => ({
  name: `${name}, ${style} replies`,
  section: section ?? 'Error values',
  level: 'should',
  async run(context) {
    const transmission = await context.open(style, open?.(context));
    const reply = await transmission.ask(request);
    must(reply.error !== 0, 'it succeeds');
    await transmission.goesOn('afterwards');
    failedWith(reply, errors, 'it');
  },
});

const beyond: readonly [string, number | bigint, number][] = [
  ['beyond the end', EXPORT_SIZE - 512, 1024],
  ['behind the end', EXPORT_SIZE + 4096, 512],
  ['at 2^64 - 512', 2n ** 64n - 512n, 1024],
];

const outOfBounds = (style: Style): Case[] =>
  beyond.flatMap(([what, offset, length]) => [
    refuses(style, {
      name: `WRITE ${what} fails with ENOSPC`,
      request: { command: WRITE, offset, payload: filled(length, 1) },
      errors: [Errno.ENOSPC],
    }),
    refuses(style, {
      name: `WRITE_ZEROES ${what} fails with ENOSPC`,
      open: () => ({ needs: { WRITE_ZEROES: true } }),
      request: { command: WRITE_ZEROES, offset, length },
      errors: [Errno.ENOSPC],
    }),
    refuses(style, {
      name: `TRIM ${what} fails with EINVAL`,
      open: () => ({ needs: { TRIM: true } }),
      request: { command: TRIM, offset, length },
      errors: [Errno.EINVAL],
    }),
  ]);

const readOnly = (style: Style): Case[] =>
  (
    [
      ['WRITE', { command: WRITE, offset: 4096, payload: filled(4096, 1) }],
      ['WRITE_ZEROES', { command: WRITE_ZEROES, offset: 4096, length: 4096 }],
      ['TRIM', { command: TRIM, offset: 4096, length: 4096 }],
    ] as const
  ).map(([name, request]) =>
    refuses(style, {
      name: `${name} to a read-only export fails with EPERM`,
      open: ({ target }) => ({ place: target.readOnly }),
      request,
      errors: [Errno.EPERM],
    }),
  );

const zeroes = (style: Style, what: string, flags: number, needs: OpenOptions['needs'] = {}): Case => ({
  name: `WRITE_ZEROES${what} reads back as zeros, ${style} replies`,
  section: 'NBD_CMD_WRITE_ZEROES',
  level: 'must',
  async run(context) {
    const transmission = await context.open(style, { needs: { WRITE_ZEROES: true, ...needs } });
    const before = filled(65536, 9);
    await transmission.write(AT, before);
    const reply = await transmission.ask({
      command: WRITE_ZEROES,
      offset: AT + 1000,
      length: 40_000,
      flags,
    });
    const fast = (flags & CommandFlag.FAST_ZERO) !== 0;
    const refused = fast && reply.error === Errno.ENOTSUP;
    expectThat(reply.error === 0 || refused, `WRITE_ZEROES fails with ${describe(reply)}`);
    const wanted = Buffer.from(before);
    if (!refused) wanted.fill(0, 1000, 41_000);
    await reads(transmission, AT, wanted, refused ? 'although ENOTSUP was the answer' : 'afterwards');
  },
});

const forStyle = (style: Style): Case[] => [
  writes(style, 'a sector', AT + 512, 512),
  writes(style, 'a byte', AT + 70_001, 1),
  writes(style, '1 MiB that is not aligned', AT + 33, MIB),
  writes(style, 'a sector with FUA', AT + 8192, 512, CommandFlag.FUA),
  zeroes(style, '', 0),
  zeroes(style, ' with NO_HOLE', CommandFlag.NO_HOLE),
  zeroes(style, ' with FUA', CommandFlag.FUA, { FUA: true }),
  zeroes(style, ' with FAST_ZERO, unless ENOTSUP,', CommandFlag.FAST_ZERO, { FAST_ZERO: true }),
  zeroes(style, ' with all flags, unless ENOTSUP,', 0x13, { FAST_ZERO: true, FUA: true }),
  ...outOfBounds(style),
  ...readOnly(style),
  refuses(style, {
    name: 'WRITE with an unknown flag fails with EINVAL',
    request: { command: WRITE, flags: 1 << 12, offset: AT, payload: filled(4096, 1) },
    errors: [Errno.EINVAL],
  }),
  refuses(style, {
    name: 'WRITE with REQ_ONE fails with EINVAL',
    request: { command: WRITE, flags: CommandFlag.REQ_ONE, offset: AT, payload: filled(4096, 1) },
    errors: [Errno.EINVAL],
  }),
  {
    name: `WRITE of 0 bytes does not end the connection, ${style} replies`,
    section: 'NBD_CMD_WRITE',
    level: 'should',
    async run(context) {
      const transmission = await context.open(style);
      await transmission.ask({ command: WRITE, offset: AT });
      await transmission.goesOn('after a write of 0 bytes');
    },
  },
  {
    name: `WRITE of 32 MiB succeeds, ${style} replies`,
    section: 'Size constraints',
    level: 'should',
    async run(context) {
      const transmission = await context.open(style, { place: context.target.large });
      const bytes = Buffer.alloc(32 * MIB, 0x3c);
      await transmission.write(MIB, bytes);
      expectThat((await transmission.read(MIB, bytes.length)).equals(bytes), 'other bytes come back');
    },
  },
  {
    name: `WRITE above the maximum payload fails or ends the connection, ${style} replies`,
    section: 'Size constraints',
    level: 'may',
    async run(context) {
      const transmission = await context.open(style, { place: context.target.large });
      const { bytes, cookie } = transmission.encode({
        command: WRITE,
        offset: 0,
        length: 0xfffffe00,
        flags: style === 'extended' ? CommandFlag.PAYLOAD_LEN : 0,
      });
      await transmission.connection.send(bytes);
      const reply = await transmission.reply(cookie).catch((error: unknown) => {
        if (error instanceof PeerClosed) return undefined;
        throw error;
      });
      if (reply !== undefined) failedWith(reply, [Errno.EINVAL, Errno.EOVERFLOW, Errno.ENOMEM], 'WRITE');
    },
  },
  {
    name: `TRIM succeeds, with and without FUA, ${style} replies`,
    section: 'NBD_CMD_TRIM',
    level: 'must',
    async run(context) {
      const transmission = await context.open(style, { needs: { TRIM: true } });
      const around = filled(65536, 5);
      await transmission.write(AT, around);
      for (const flags of transmission.has(1 << 3) ? [0, CommandFlag.FUA] : [0]) {
        const reply = await transmission.ask({ command: TRIM, offset: AT + 4096, length: 8192, flags });
        expectThat(reply.error === 0, `TRIM fails with ${describe(reply)}`);
      }
      await reads(transmission, AT, around.subarray(0, 4096), 'what lies before it');
      await reads(transmission, AT + 12_288, around.subarray(12_288), 'what lies behind it');
    },
  },
  ...(['TRIM', 'WRITE_ZEROES'] as const).map(
    (name): Case => ({
      name: `${name} of 0 bytes does not end the connection, ${style} replies`,
      section: `NBD_CMD_${name}`,
      level: 'should',
      async run(context) {
        const transmission = await context.open(style, { needs: { [name]: true } });
        await transmission.ask({ command: Command[name], offset: AT, length: 0 });
        await transmission.goesOn(`after ${name} of 0 bytes`);
      },
    }),
  ),
  {
    name: `FLUSH succeeds, with and without FUA, ${style} replies`,
    section: 'NBD_CMD_FLUSH',
    level: 'must',
    async run(context) {
      const transmission = await context.open(style, { needs: { FLUSH: true } });
      await transmission.write(AT, filled(512, 2));
      for (const flags of transmission.has(1 << 3) ? [0, CommandFlag.FUA] : [0]) {
        const reply = await transmission.ask({ command: FLUSH, flags });
        expectThat(reply.error === 0, `FLUSH fails with ${describe(reply)}`);
      }
    },
  },
];

export const writeCases: readonly Case[] = [
  ...STYLES.flatMap(forStyle),
  {
    name: 'refuses FAST_ZERO where it was not offered',
    section: 'NBD_CMD_WRITE_ZEROES',
    level: 'should',
    async run(context) {
      const transmission = await context.open('simple', { needs: { WRITE_ZEROES: true } });
      if (transmission.has(1 << 11)) return;
      const reply = await transmission.ask({
        command: WRITE_ZEROES,
        flags: CommandFlag.FAST_ZERO,
        offset: AT,
        length: 4096,
      });
      failedWith(reply, [Errno.EINVAL], 'WRITE_ZEROES with FAST_ZERO');
    },
  },
  {
    name: 'shows what one connection wrote and flushed to all where it offers several connections',
    section: 'Transmission flags',
    level: 'must',
    async run(context) {
      const needs = { MULTI_CONN: true, FLUSH: true } as const;
      const [one, other] = [
        await context.open('structured', { needs }),
        await context.open('structured', { needs }),
      ];
      for (let round = 0; round < 20; round++) {
        const bytes = filled(4096, round);
        await one.write(AT + 4096 * round, bytes);
        expectThat((await one.ask({ command: FLUSH })).error === 0, 'FLUSH fails');
        await reads(other, AT + 4096 * round, bytes, 'by the other connection');
      }
    },
  },
];
