/** The option haggling of a client that sends what it is told to, and checks every reply's form. */
import { counted, Fields, join, u16, u32, u64 } from './bytes.ts';
import {
  FIXED_NEWSTYLE,
  Info,
  NBD_MAGIC,
  NO_ZEROES,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  Option,
  optionName,
  Rep,
  replyName,
  STRING_LIMIT,
} from './constants.ts';
import type { RawConnection } from './raw-connection.ts';
import { must } from './verdict.ts';

export interface OptionReply {
  readonly type: number;
  readonly data: Buffer;
}

export interface OptionResult {
  /** All but the last. */
  readonly replies: readonly OptionReply[];
  /** `Rep.ACK` or an error. */
  readonly final: number;
  /** What an error says to people. */
  readonly message: string;
}

export interface BlockSizes {
  readonly minimum: number;
  readonly preferred: number;
  readonly maximum: number;
}

export interface ExportInfo extends OptionResult {
  readonly types: readonly number[];
  readonly size?: bigint;
  readonly flags?: number;
  readonly blockSizes?: BlockSizes;
  readonly canonicalName?: string;
  readonly description?: string;
}

export interface MetaContexts extends OptionResult {
  readonly contexts: readonly { readonly id: number; readonly name: string }[];
}

export const isError = (reply: number): boolean => reply >= 0x80000000;
/** What a server did, for messages. */
export const told = ({ final, message }: OptionResult): string =>
  message === '' ? replyName(final) : `${replyName(final)} (${message})`;

export const infoData = (name: string | Buffer, requests: readonly number[]): Buffer =>
  join(counted(name), u16(requests.length), ...requests.map(u16));

export const metaData = (name: string, queries: readonly string[]): Buffer =>
  join(counted(name), u32(queries.length), ...queries.map(counted));

export const optionHeader = (option: number, length: number): Buffer =>
  join(u64(OPTION_MAGIC), u32(option), u32(length));

/** A valid string of the protocol, or a deviation. */
export function stringOf(bytes: Buffer, what: string): string {
  must(bytes.length <= STRING_LIMIT, `${what} is ${bytes.length} bytes long, ${STRING_LIMIT} are allowed`);
  const text = bytes.toString('utf8');
  must(Buffer.from(text).equals(bytes), `${what} is not UTF-8`);
  must(!text.includes('\0'), `${what} contains NUL`);
  return text;
}

export async function readGreeting(connection: RawConnection): Promise<number> {
  const fields = new Fields(await connection.receive(18, 'the greeting'));
  must(fields.u64() === NBD_MAGIC, 'the greeting does not begin with NBDMAGIC');
  must(fields.u64() === OPTION_MAGIC, 'the greeting has no IHAVEOPT');
  return fields.u16();
}

export class Negotiation {
  readonly connection: RawConnection;
  readonly handshakeFlags: number;
  readonly clientFlags: number;

  private constructor(connection: RawConnection, handshakeFlags: number, clientFlags: number) {
    this.connection = connection;
    this.handshakeFlags = handshakeFlags;
    this.clientFlags = clientFlags;
  }

  /** Without flags of its own the client takes both where the server offers them. */
  static async begin(connection: RawConnection, clientFlags?: number): Promise<Negotiation> {
    const flags = await readGreeting(connection);
    const answer = clientFlags ?? flags & (FIXED_NEWSTYLE | NO_ZEROES);
    await connection.send(u32(answer));
    return new Negotiation(connection, flags, answer);
  }

  async send(option: number, data: Uint8Array = Buffer.alloc(0)): Promise<void> {
    await this.connection.send(optionHeader(option, data.length), data);
  }

  async option(option: number, data?: Uint8Array): Promise<OptionResult> {
    await this.send(option, data);
    return this.result(option);
  }

  /** Reads replies to `option` up to the final one. */
  async result(option: number): Promise<OptionResult> {
    const replies: OptionReply[] = [];
    for (;;) {
      const { type, data } = await this.#reply(option);
      if (type === Rep.ACK) {
        must(data.length === 0, `ACK with ${data.length} bytes of data`);
        return { replies, final: type, message: '' };
      }
      if (isError(type)) return { replies, final: type, message: stringOf(data, 'an error message') };
      replies.push({ type, data });
      must(replies.length < 100_000, 'more than 100,000 replies to one option');
    }
  }

  async #reply(option: number): Promise<OptionReply> {
    const fields = new Fields(await this.connection.receive(20, `the reply to ${optionName(option)}`));
    const magic = fields.u64();
    must(magic === OPTION_REPLY_MAGIC, `reply to ${optionName(option)} with magic 0x${magic.toString(16)}`);
    const about = fields.u32();
    must(about === option, `reply names option ${about}, asked was ${option}`);
    const type = fields.u32();
    const length = fields.u32();
    must(length <= 1 << 25, `reply of ${length} bytes`);
    return { type, data: await this.connection.receive(length, 'the data of a reply') };
  }

  /** INFO, or GO, with a well-formed request. */
  async info(
    name: string,
    requests: readonly number[] = [],
    option: number = Option.INFO,
  ): Promise<ExportInfo> {
    return parseInfo(await this.option(option, infoData(name, requests)));
  }

  /** LIST_META_CONTEXT or SET_META_CONTEXT. */
  async metaContexts(option: number, name: string, queries: readonly string[]): Promise<MetaContexts> {
    const result = await this.option(option, metaData(name, queries));
    const contexts = result.replies.map(({ type, data }) => {
      must(type === Rep.META_CONTEXT, `${replyName(type)} in a list of contexts`);
      must(data.length >= 4, 'a context without an id');
      return { id: data.readUInt32BE(), name: stringOf(data.subarray(4), 'the name of a context') };
    });
    for (const { name: found } of contexts)
      must(/^[^\s:]+:/u.test(found), `context ${JSON.stringify(found)} has no namespace`);
    return { ...result, contexts };
  }

  async list(): Promise<OptionResult & { readonly names: readonly string[] }> {
    const result = await this.option(Option.LIST);
    const names = result.replies.map(({ type, data }) => {
      must(type === Rep.SERVER, `${replyName(type)} in a list of exports`);
      must(data.length >= 4 && data.readUInt32BE() <= data.length - 4, 'a name longer than its reply');
      const end = 4 + data.readUInt32BE();
      stringOf(data.subarray(end), 'the description of an export');
      return stringOf(data.subarray(4, end), 'the name of an export');
    });
    return { ...result, names };
  }

  /** Size and flags; the zeroes, where they are due, must be zeroes. */
  async exportName(name: string): Promise<{ readonly size: bigint; readonly flags: number }> {
    await this.send(Option.EXPORT_NAME, Buffer.from(name));
    const fields = new Fields(await this.connection.receive(10, 'size and flags of the export'));
    const answer = { size: fields.u64(), flags: fields.u16() };
    if ((this.clientFlags & NO_ZEROES) === 0) {
      const zeroes = await this.connection.receive(124, 'the 124 zeroes');
      must(
        zeroes.every((byte) => byte === 0),
        'the 124 reserved bytes are not zeroes',
      );
    }
    return answer;
  }
}

function parseInfo(result: OptionResult): ExportInfo {
  const found: { -readonly [Key in keyof ExportInfo]?: ExportInfo[Key] } = {};
  const types: number[] = [];
  for (const { type, data } of result.replies) {
    must(type === Rep.INFO, `${replyName(type)} in the answer to INFO or GO`);
    must(data.length >= 2, 'an information reply without a type');
    const fields = new Fields(data);
    const information = fields.u16();
    types.push(information);
    if (information === Info.EXPORT) {
      must(data.length === 12, `INFO_EXPORT has ${data.length} bytes, not 12`);
      found.size = fields.u64();
      found.flags = fields.u16();
    } else if (information === Info.BLOCK_SIZE) {
      must(data.length === 14, `INFO_BLOCK_SIZE has ${data.length} bytes, not 14`);
      found.blockSizes = { minimum: fields.u32(), preferred: fields.u32(), maximum: fields.u32() };
    } else if (information === Info.NAME) {
      found.canonicalName = stringOf(fields.rest(), 'the canonical name');
    } else if (information === Info.DESCRIPTION) {
      found.description = stringOf(fields.rest(), 'the description');
    }
  }
  if (result.final === Rep.ACK)
    must(types.includes(Info.EXPORT), 'ACK to INFO or GO without INFO_EXPORT before it');
  return { ...result, ...found, types };
}
