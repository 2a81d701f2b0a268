/** Requests and replies in all three styles. What every reply must be like is checked while it is read. */
import { Fields, join, u16, u32, u64 } from './bytes.ts';
import {
  Chunk,
  Command,
  CommandFlag,
  commandName,
  EXTENDED_REPLY_MAGIC,
  EXTENDED_REQUEST_MAGIC,
  errnoName,
  REPLY_DONE,
  REQUEST_MAGIC,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from './constants.ts';
import type { RawConnection } from './raw-connection.ts';
import { ReplyAssembly } from './reply-assembly.ts';
import { expectThat, must } from './verdict.ts';

export const STYLES = ['simple', 'structured', 'extended'] as const;
export type Style = (typeof STYLES)[number];

export interface Request {
  readonly command: number;
  readonly flags?: number;
  readonly offset?: number | bigint;
  /** As on the wire: of the effect or of the payload. Default: that of the payload, or 0. */
  readonly length?: number | bigint;
  readonly payload?: Uint8Array;
  /** Default: one that is not in use. */
  readonly cookie?: bigint;
}

export interface Extent {
  readonly length: bigint;
  readonly status: bigint;
}

export interface Reply {
  /** 0, or the first error that was told. */
  readonly error: number;
  /** The error's message, where there is one. */
  readonly message: string;
  /** What a successful READ returned. */
  readonly data: Buffer;
  /** Extents by context id. */
  readonly extents: ReadonlyMap<number, readonly Extent[]>;
  /** Types of the chunks in the order they came; empty for a simple reply. */
  readonly chunks: readonly number[];
}

/** What was asked, as far as the reply must fit it. */
export interface Asked {
  readonly command: number;
  readonly flags: number;
  readonly offset: bigint;
  readonly length: bigint;
}

export interface ExportFacts {
  readonly size: bigint;
  readonly flags: number;
  readonly style: Style;
  readonly contexts: readonly { readonly id: number; readonly name: string }[];
}

const MAGICS: Readonly<Record<Style, readonly number[]>> = {
  simple: [SIMPLE_REPLY_MAGIC],
  structured: [STRUCTURED_REPLY_MAGIC, SIMPLE_REPLY_MAGIC],
  extended: [EXTENDED_REPLY_MAGIC],
};

export class Transmission {
  readonly connection: RawConnection;
  readonly facts: ExportFacts;
  readonly #pending = new Map<bigint, { asked: Asked; assembly: ReplyAssembly }>();
  readonly #done = new Map<bigint, Reply>();
  #nextCookie = 0x1234_5678_9abc_def0n;

  constructor(connection: RawConnection, facts: ExportFacts) {
    this.connection = connection;
    this.facts = facts;
  }

  has(flag: number): boolean {
    return (this.facts.flags & flag) !== 0;
  }

  get size(): number {
    return Number(this.facts.size);
  }

  /** The bytes of a request, payload included, that is expected to be answered. */
  encode(request: Request): { readonly bytes: Buffer; readonly cookie: bigint } {
    const payload = request.payload ?? Buffer.alloc(0);
    const extended = this.facts.style === 'extended';
    const cookie = request.cookie ?? this.#nextCookie++;
    let flags = request.flags ?? 0;
    if (extended && request.command === Command.WRITE && payload.length > 0) flags |= CommandFlag.PAYLOAD_LEN;
    const offset = BigInt(request.offset ?? 0);
    const length = BigInt(request.length ?? payload.length);
    if (request.command !== Command.DISC) {
      const asked = { command: request.command, flags, offset, length };
      this.#pending.set(cookie, { asked, assembly: new ReplyAssembly(asked, this.facts) });
    }
    const bytes = join(
      u32(extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC),
      u16(flags),
      u16(request.command),
      u64(cookie),
      u64(offset),
      extended ? u64(length) : u32(Number(length)),
      payload,
    );
    return { bytes, cookie };
  }

  async send(request: Request): Promise<bigint> {
    const { bytes, cookie } = this.encode(request);
    await this.connection.send(bytes);
    return cookie;
  }

  async ask(request: Request): Promise<Reply> {
    return this.reply(await this.send(request));
  }

  /** Waits for the whole reply to this request; replies to others that come first are kept. */
  async reply(cookie: bigint): Promise<Reply> {
    for (;;) {
      const reply = this.#done.get(cookie);
      if (reply !== undefined) {
        this.#done.delete(cookie);
        return reply;
      }
      await this.#message();
    }
  }

  /** READ that must succeed. */
  async read(offset: number | bigint, length: number, flags = 0): Promise<Buffer> {
    const reply = await this.ask({ command: Command.READ, offset, length, flags });
    succeeded(reply, `READ of ${length} bytes at ${offset}`);
    return reply.data;
  }

  /** WRITE that must succeed. */
  async write(offset: number | bigint, payload: Uint8Array, flags = 0): Promise<void> {
    const reply = await this.ask({ command: Command.WRITE, offset, payload, flags });
    succeeded(reply, `WRITE of ${payload.length} bytes at ${offset}`);
  }

  /** The connection is in step: a small read comes back with as many bytes. */
  async goesOn(after: string): Promise<void> {
    const reply = await this.ask({ command: Command.READ, offset: 0, length: 512 });
    must(reply.error === 0 && reply.data.length === 512, `READ fails ${after}: ${describe(reply)}`);
  }

  async disconnect(): Promise<void> {
    await this.send({ command: Command.DISC });
    const rest = await this.connection.untilClosed();
    must(rest.length === 0, `${rest.length} bytes after DISC`);
  }

  async #message(): Promise<void> {
    const magic = (await this.connection.receive(4, 'a reply')).readUInt32BE();
    must(
      MAGICS[this.facts.style].includes(magic),
      `a reply with magic 0x${magic.toString(16)} where replies are ${this.facts.style}`,
    );
    if (magic === SIMPLE_REPLY_MAGIC) await this.#simple();
    else await this.#chunk(magic === EXTENDED_REPLY_MAGIC);
  }

  #request(cookie: bigint): { asked: Asked; assembly: ReplyAssembly } {
    const pending = this.#pending.get(cookie);
    must(pending !== undefined, `a reply with cookie 0x${cookie.toString(16)}, which no request waits with`);
    return pending;
  }

  async #simple(): Promise<void> {
    const fields = new Fields(await this.connection.receive(12, 'a simple reply'));
    const error = fields.u32();
    const cookie = fields.u64();
    const { asked, assembly } = this.#request(cookie);
    const isRead = asked.command === Command.READ;
    must(
      this.facts.style === 'simple' || (!isRead && (error !== 0 || asked.command !== Command.BLOCK_STATUS)),
      `a simple reply to ${commandName(asked.command)} after structured replies were agreed`,
    );
    const data =
      isRead && error === 0
        ? await this.connection.receive(Number(asked.length), `${asked.length} bytes of data`)
        : Buffer.alloc(0);
    this.#finish(cookie, assembly.simple(error, data));
  }

  async #chunk(extended: boolean): Promise<void> {
    const fields = new Fields(await this.connection.receive(extended ? 28 : 16, 'the head of a chunk'));
    const flags = fields.u16();
    const type = fields.u16();
    const cookie = fields.u64();
    const offset = extended ? fields.u64() : undefined;
    const length = extended ? fields.u64() : BigInt(fields.u32());
    const { asked, assembly } = this.#request(cookie);
    must((flags & ~REPLY_DONE) === 0, `a chunk with unknown flags 0x${flags.toString(16)}`);
    if (offset !== undefined)
      must(offset === asked.offset, `an extended reply for offset ${offset}, asked was ${asked.offset}`);
    must(length <= 1n << 28n, `a chunk of ${length} bytes`);
    assembly.add(type, await this.connection.receive(Number(length), 'the payload of a chunk'));
    if ((flags & REPLY_DONE) !== 0) this.#finish(cookie, assembly.finish());
    else must(type !== Chunk.NONE, 'a chunk without content that is not the last');
  }

  #finish(cookie: bigint, reply: Reply): void {
    this.#pending.delete(cookie);
    this.#done.set(cookie, reply);
  }
}

export const describe = ({ error, message }: Reply): string =>
  message === '' ? errnoName(error) : `${errnoName(error)} (${message})`;

export function succeeded(reply: Reply, what: string): void {
  expectThat(reply.error === 0, `${what} fails with ${describe(reply)}`);
}

/** The reply tells one of these errors. */
export function failedWith(reply: Reply, errors: readonly number[], what: string): void {
  expectThat(
    errors.includes(reply.error),
    `${what} ends with ${describe(reply)}, not ${errors.map(errnoName).join(' or ')}`,
  );
}
