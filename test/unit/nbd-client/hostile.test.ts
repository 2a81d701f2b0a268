/**
 * Servers that send nonsense: conversations of good servers, damaged in seeded ways. Whatever comes, opening and requests end
 * with an error of this package or with an answer that was really given; nothing is written beside the buffers.
 */
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { VolsnapError } from '../../../src/errors.ts';
import { ConnectionEnd, lost } from '../../../src/nbd/client/failure.ts';
import { NbdDevice } from '../../../src/nbd/client/nbd-device.ts';
import { negotiate } from '../../../src/nbd/client/negotiation.ts';
import { type Command, Pending } from '../../../src/nbd/client/pending.ts';
import { ReplyReader } from '../../../src/nbd/client/reply-reader.ts';
import { encodeBlockStatus } from '../../../src/nbd/wire/block-status.ts';
import {
  BASE_ALLOCATION,
  Info,
  Option,
  OptionReply,
  type ReplyStyle,
  RequestType,
} from '../../../src/nbd/wire/constants.ts';
import {
  encodeBlockSizes,
  encodeExport,
  encodeGreeting,
  encodeInfo,
  encodeMetaContext,
  encodeOptionError,
  encodeOptionReply,
  encodeServer,
} from '../../../src/nbd/wire/option.ts';
import {
  encodeDataHeader,
  encodeDone,
  encodeErrorChunk,
  encodeHole,
  encodeSimpleReply,
} from '../../../src/nbd/wire/reply.ts';
import { SeededRandom } from '../../../src/testing/seeded-random.ts';
import { temporaryDirectory } from '../device/temporary.ts';

const NUMBERS = [0, 1, 7, 8, 9, 12, 0x7fff_ffff, 0x8000_0000, 0xffff_fff8, 0xffff_ffff];

/** The bytes, damaged in one to four places. */
function damaged(good: Buffer, random: SeededRandom): Buffer {
  let bytes = Buffer.from(good);
  for (let count = 1 + random.below(4); count > 0; count--) {
    const at = random.below(bytes.byteLength);
    const kind = random.below(6);
    if (kind === 0) bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8));
    else if (kind === 1) bytes[at] = random.below(256);
    else if (kind === 2) bytes = bytes.subarray(0, Math.max(1, at));
    else if (kind === 3)
      bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + random.below(24))]);
    else if (kind === 4) {
      const piece = bytes.subarray(at, at + 1 + random.below(48));
      bytes = Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at)]);
    } else if (bytes.byteLength >= 4) {
      bytes.writeUInt32BE(NUMBERS[random.below(NUMBERS.length)] ?? 0, Math.min(at, bytes.byteLength - 4));
    }
    if (bytes.byteLength === 0) return bytes;
  }
  return bytes;
}

const ack = (option: number) => encodeOptionReply(option, OptionReply.ack);
const no = (option: number, type: number) => encodeOptionError(option, type, 'no');
const oldstyle = Buffer.alloc(152);
oldstyle.write('NBDMAGIC', 'latin1');
oldstyle.writeBigUInt64BE(0x0000_4202_8186_1253n, 8);
oldstyle.writeBigUInt64BE(65_536n, 16);
oldstyle.writeUInt32BE(0xff, 24);

const goSucceeds = [
  encodeInfo(Option.go, Info.export, encodeExport(65_536, 0xffff)),
  encodeInfo(
    Option.go,
    Info.blockSize,
    encodeBlockSizes({ minimum: 512, preferred: 4096, maximum: 2 ** 25 }),
  ),
  ack(Option.go),
];
const contexts = [encodeMetaContext(Option.setMetaContext, 1, BASE_ALLOCATION), ack(Option.setMetaContext)];
const NEGOTIATIONS: Readonly<Record<string, Buffer>> = {
  extended: Buffer.concat([encodeGreeting(), ack(Option.extendedHeaders), ...contexts, ...goSucceeds]),
  structured: Buffer.concat([
    encodeGreeting(),
    no(Option.extendedHeaders, OptionReply.unsupported),
    ack(Option.structuredReply),
    ...contexts,
    ...goSucceeds,
  ]),
  unknown: Buffer.concat([
    encodeGreeting(),
    ack(Option.extendedHeaders),
    ...contexts,
    no(Option.go, OptionReply.unknown),
    encodeServer(Option.list, 'a', 'b'),
    encodeServer(Option.list, '', ''),
    ack(Option.list),
  ]),
  byName: Buffer.concat([
    encodeGreeting(),
    no(Option.extendedHeaders, OptionReply.unsupported),
    no(Option.structuredReply, OptionReply.unsupported),
    no(Option.go, OptionReply.unsupported),
    encodeExport(65_536, 0xff),
  ]),
  oldstyle,
};

describe('negotiations, damaged', () => {
  test.each(Object.keys(NEGOTIATIONS))('%s: end with facts that can be, or an error', async (name) => {
    const good = NEGOTIATIONS[name] ?? Buffer.alloc(0);
    let accepted = 0;
    for (let seed = 0; seed < 2000; seed++) {
      const bytes = damaged(good, new SeededRandom(`${name} ${seed}`));
      let at = 0;
      const talk = {
        read: async (length: number) => {
          expect(length).toBeLessThanOrEqual(65_536);
          if (at + length > bytes.byteLength) throw lost('the end');
          at += length;
          return bytes.subarray(at - length, at);
        },
        send: () => undefined,
        startTls: async () => undefined,
        unreadBytes: 0,
      };
      try {
        const facts = await negotiate(talk, {
          exportName: '',
          tls: false,
          contexts: [BASE_ALLOCATION],
          server: 'hostile',
        });
        accepted++;
        expect(Number.isSafeInteger(facts.size)).toBe(true);
        expect(facts.blocks.minimum & (facts.blocks.minimum - 1)).toBe(0);
        expect(facts.blocks.minimum).toBeGreaterThan(0);
        expect(facts.blocks.maximum).toBeGreaterThanOrEqual(facts.blocks.minimum);
        expect(facts.size % facts.blocks.minimum).toBe(0);
      } catch (error) {
        if (!(error instanceof ConnectionEnd) && !(error instanceof VolsnapError))
          throw new Error(`seed ${name} ${seed}`, { cause: error });
      }
    }
    expect(accepted).toBeLessThan(2000);
  });
});

const TO_FIRST = { cookieHigh: 0, cookieLow: 1, offsetHigh: 0, offsetLow: 0 };
const CONTENT = 0x11;
const UNTOUCHED = 0xee;
const AROUND = 64;

/** Two reads, a write, a question and a read that fails, in flight together; and the replies of a good server to them. */
function transmission(style: ReplyStyle): { commands: Command[]; targets: Uint8Array[]; replies: Buffer } {
  const targets = Array.from({ length: 3 }, () => new Uint8Array(AROUND + 40_000 + AROUND).fill(UNTOUCHED));
  const inner = targets.map((target) => target.subarray(AROUND, -AROUND));
  const read = (offset: number, target: Uint8Array | undefined): Command => ({
    type: RequestType.read,
    flags: 0,
    offset,
    length: 40_000,
    targets: target === undefined ? [] : [target.subarray(0, 100), target.subarray(100)],
  });
  const commands: Command[] = [
    read(0, inner[0]),
    { type: RequestType.write, flags: 0, offset: 4096, length: 512 },
    read(8192, inner[1]),
    { type: RequestType.blockStatus, flags: 0, offset: 0, length: 65_536 },
    read(16_384, inner[2]),
  ];
  const content = Buffer.alloc(40_000, CONTENT);
  const extended = style === 'extended';
  const to = commands.map(({ offset }, at) => ({
    cookieHigh: 0,
    cookieLow: at + 1,
    offsetHigh: 0,
    offsetLow: offset,
    offset,
  }));
  const [first, second, third, fourth, fifth] = to as [
    (typeof to)[0],
    (typeof to)[0],
    (typeof to)[0],
    (typeof to)[0],
    (typeof to)[0],
  ];
  if (style === 'simple') {
    commands.splice(3, 1);
    const replies = [
      encodeSimpleReply(second, 0),
      encodeSimpleReply(third, 0),
      content,
      encodeSimpleReply({ cookieHigh: 0, cookieLow: 4 }, 5),
      encodeSimpleReply(first, 0),
      content,
    ];
    return { commands, targets, replies: Buffer.concat(replies) };
  }
  const part = (answered: typeof first, from: number, length: number) => [
    encodeDataHeader(answered, extended, { offset: answered.offset + from, length, done: false }),
    content.subarray(0, length),
  ];
  const replies = [
    ...part(third, 20_000, 20_000),
    extended ? encodeDone(second, true) : encodeSimpleReply(second, 0),
    encodeBlockStatus(fourth, extended, {
      id: 1,
      extents: [
        { length: 512, status: 3 },
        { length: 65_024, status: 0 },
      ],
      done: true,
    }),
    ...part(first, 0, 40_000),
    encodeDone(first, extended),
    ...part(fifth, 0, 1000),
    encodeErrorChunk(fifth, extended, 5, 'bad sector'),
    ...part(third, 10_000, 10_000),
    encodeHole(third, extended, { offset: third.offset, length: 10_000, done: true }),
  ];
  return { commands, targets, replies: Buffer.concat(replies) };
}

/** Plays replies to the reader in pieces. @returns what became of each request */
async function play(style: ReplyStyle, random: SeededRandom, damage: boolean) {
  const { commands, targets, replies } = transmission(style);
  const pending = new Map(commands.map((command, at) => [at + 1, new Pending(command, 0)]));
  const outcomes = [...pending.values()].map(({ done }) => done.catch((error: unknown) => error));
  const reader = new ReplyReader(style, {
    find: (high, low) => (high === 0 ? pending.get(low) : undefined),
    finished: (cookie) => pending.delete(cookie),
  });
  const bytes = damage ? damaged(replies, random) : replies;
  let end: unknown = lost('the end');
  try {
    for (let at = 0; at < bytes.byteLength; ) {
      const room = reader.room();
      expect(room.byteLength).toBeGreaterThan(0);
      const piece = bytes.subarray(at, at + Math.min(room.byteLength, 1 + random.below(30_000)));
      room.set(piece);
      reader.filled(piece.byteLength);
      at += piece.byteLength;
    }
  } catch (error) {
    end = error;
  }
  for (const left of pending.values()) if (end instanceof ConnectionEnd) left.end(end);
  return { end, targets, outcomes: await Promise.all(outcomes) };
}

describe('replies, damaged', () => {
  test.each(['simple', 'structured', 'extended'] as const)(
    '%s: undamaged ones are understood',
    async (style) => {
      const { targets, outcomes } = await play(style, new SeededRandom('good'), false);
      expect(outcomes.map((outcome) => (outcome as { error?: { value: number } }).error?.value)).toEqual(
        style === 'simple'
          ? [undefined, undefined, undefined, 5]
          : [undefined, undefined, undefined, undefined, 5],
      );
      expect(targets[0]?.subarray(AROUND, -AROUND).every((byte) => byte === CONTENT)).toBe(true);
      expect(targets[1]?.subarray(AROUND, -AROUND).includes(UNTOUCHED)).toBe(false);
    },
  );

  test.each(['simple', 'structured', 'extended'] as const)(
    '%s: a request ends with an error, or was answered in full',
    async (style) => {
      for (let seed = 0; seed < 1500; seed++) {
        const name = `${style} ${seed}`;
        const { end, targets, outcomes } = await play(style, new SeededRandom(name), true);
        expect(end, name).toBeInstanceOf(ConnectionEnd);
        for (const target of targets) {
          const outside = [...target.subarray(0, AROUND), ...target.subarray(-AROUND)];
          expect(
            outside.every((byte) => byte === UNTOUCHED),
            name,
          ).toBe(true);
        }
        const reads = [outcomes[0], outcomes[2]];
        for (const [index, outcome] of reads.entries()) {
          if (outcome instanceof Error || (outcome as { error?: unknown }).error !== undefined) continue;
          const inner = targets[index]?.subarray(AROUND, -AROUND) ?? new Uint8Array(0);
          // Some of the few damaged bytes may look untouched.
          const untouched = inner.reduce((count, byte) => count + (byte === UNTOUCHED ? 1 : 0), 0);
          expect(untouched, name).toBeLessThan(16);
        }
      }
    },
  );

  test.each([
    ['an unknown magic number', (head: Buffer) => head.writeUInt32BE(0x1234_5678, 0)],
    ['another offset', (head: Buffer) => head.writeUInt32BE(1, 20)],
    ['a length of many gigabytes', (head: Buffer) => head.writeUInt32BE(9, 24)],
    ['a request that was not made', (head: Buffer) => head.writeUInt32BE(77, 12)],
    ['an unknown type', (head: Buffer) => head.writeUInt16BE(99, 6)],
  ])('a reply with %s ends the connection', (_, spoil) => {
    const command = {
      type: RequestType.read,
      flags: 0,
      offset: 0,
      length: 512,
      targets: [new Uint8Array(512)],
    };
    const pending = new Pending(command, 0);
    const reader = new ReplyReader('extended', {
      find: (_high, low) => (low === 1 ? pending : undefined),
      finished: () => undefined,
    });
    const head = encodeDataHeader(TO_FIRST, true, {
      offset: 0,
      length: 512,
      done: true,
    });
    spoil(head);
    reader.room().set(head);
    expect(() => reader.filled(head.byteLength)).toThrow(ConnectionEnd);
  });

  test.each([
    [[0, 100, 50, 100]],
    [[100, 100, 0, 101]],
    [[100, 100, 150, 10]],
    [[0, 50, 100, 50, 40, 70]],
    [[400, 100, 100, 100, 150, 300]],
    [[0, 512, 0, 512]],
  ])('content that comes twice ends the connection: %j', (ranges) => {
    const pending = new Pending({ type: RequestType.read, flags: 0, offset: 0, length: 512 }, 0);
    const coverAll = () => {
      for (let at = 0; at < ranges.length; at += 2) pending.cover(ranges[at] ?? 0, ranges[at + 1] ?? 0);
    };
    expect(coverAll).toThrow('more than once');
  });

  test('a reply in ever smaller chunks ends', () => {
    const length = 200_000;
    const command = {
      type: RequestType.read,
      flags: 0,
      offset: 0,
      length,
      targets: [new Uint8Array(length)],
    };
    const pending = new Pending(command, 0);
    const reader = new ReplyReader('extended', { find: () => pending, finished: () => undefined });
    const sendAll = () => {
      for (let at = 0; at < length; at += 2) {
        const hole = encodeHole(TO_FIRST, true, {
          offset: at,
          length: 1,
          done: false,
        });
        reader.room().set(hole);
        reader.filled(hole.byteLength);
      }
    };
    expect(sendAll).toThrow('more than 65536 chunks');
  });
});

describe('a device at a damaged server', () => {
  test('opens, reads and closes, or says what is wrong, in bounded time', async () => {
    const path = join(await temporaryDirectory(), 'socket');
    const { replies } = transmission('extended');
    let random = new SeededRandom('none');
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket.on('error', () => undefined).on('close', () => sockets.delete(socket)));
      const greeting = NEGOTIATIONS.extended ?? Buffer.alloc(0);
      const inNegotiation = random.below(2) === 0;
      socket.write(inNegotiation ? damaged(greeting, random) : greeting);
      socket.on('data', (data) => {
        // A request: 32 bytes that begin with its magic number.
        if (data.readUInt32BE(0) === 0x21e4_1c71)
          socket.end(inNegotiation ? replies : damaged(replies, random));
      });
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    onTestFinished(() => {
      server.close();
      for (const socket of sockets) socket.destroy();
    });
    const outcomes = { opened: 0, refused: 0 };
    for (let seed = 0; seed < 200; seed++) {
      random = new SeededRandom(`device ${seed}`);
      const patience = { connectTimeoutMs: 25, requestTimeoutMs: 25, reconnectTimeoutMs: 0 };
      try {
        await using device = await NbdDevice.open(`nbd+unix:///?socket=${path}`, patience);
        outcomes.opened++;
        await device.read(0, new Uint8Array(Math.min(40_000, device.size)));
      } catch (error) {
        if (!(error instanceof VolsnapError)) throw new Error(`seed ${seed}`, { cause: error });
        outcomes.refused++;
      }
    }
    expect(outcomes.opened).toBeGreaterThan(0);
    expect(outcomes.refused).toBeGreaterThan(0);
  });
});
