/**
 * From a greeting to the transmission phase: the newest way that the server knows.
 *
 * Replies: extended headers, else structured, else simple. Choosing the export: `NBD_OPT_GO`, which can be refused with a
 * reason; older servers have `NBD_OPT_EXPORT_NAME` only; the oldest send size and flags and know no names at all.
 */
import { DeviceError, UnsupportedError } from '../../errors.js';
import { readUInt64 } from '../wire/bytes.js';
import {
  HandshakeFlag,
  HeaderSize,
  Info,
  Magic,
  Option,
  OptionReply,
  type ReplyStyle,
} from '../wire/constants.js';
import {
  type BlockSizes,
  decodeBlockSizes,
  decodeExport,
  decodeOptionReplyHeader,
  decodeString,
  encodeContextQuery,
  encodeInfoRequest,
  encodeOption,
} from '../wire/option.js';
import { checkFacts, type ExportFacts } from './facts.js';
import { ConnectionEnd, malformed, OptionRefusal, refusedExport, shown } from './failure.js';

/** Most bytes of data in a reply to an option: two strings and some numbers are less. */
const REPLY_MAX = 16 * 1024;
/** Most replies to one option. */
const REPLIES_MAX = 20_000;
/** Most exports that a message lists. */
const LISTED_MAX = 20;
/** 0x00420281861253, what servers sent before there were names. */
const OLDSTYLE_HIGH = 0x00004202;
const OLDSTYLE_LOW = 0x81861253;
const RESERVED_ZEROES = 124;
const ERROR_BIT = 0x8000_0000;

/** The connection, as the haggling needs it. */
export interface Conversation {
  read(length: number): Promise<Buffer>;
  send(bytes: Uint8Array): void;
  /** Goes on in TLS. */
  startTls(): Promise<void>;
  /** What came without being asked for. */
  readonly unreadBytes: number;
}

export interface Wishes {
  readonly exportName: string;
  readonly tls: boolean;
  /** Metadata contexts to ask for. */
  readonly contexts: readonly string[];
  /** What messages call the server. */
  readonly server: string;
}

/**
 * @throws DeviceError, NotFoundError, UnsupportedError, InvalidArgumentError if the server refuses, with what to do
 * @throws ConnectionEnd if the connection ends, or what comes is not NBD
 */
export async function negotiate(talk: Conversation, wishes: Wishes): Promise<ExportFacts> {
  const facts = await new Negotiation(talk, wishes).run();
  if (talk.unreadBytes > 0) throw malformed('it answers before it was asked');
  return facts;
}

interface OptionAnswer {
  readonly type: number;
  readonly data: Buffer;
}

class Negotiation {
  readonly #talk: Conversation;
  readonly #wishes: Wishes;

  constructor(talk: Conversation, wishes: Wishes) {
    this.#talk = talk;
    this.#wishes = wishes;
  }

  async run(): Promise<ExportFacts> {
    const { tls, server } = this.#wishes;
    const greeting = await this.#talk.read(16);
    if (greeting.readUInt32BE(0) !== Magic.greetingHigh || greeting.readUInt32BE(4) !== Magic.greetingLow)
      throw malformed('it does not greet as an NBD server does; is there another service at this address?');
    if (greeting.readUInt32BE(8) !== Magic.optionHigh || greeting.readUInt32BE(12) !== Magic.optionLow)
      return this.#oldstyle(greeting);
    const offered = (await this.#talk.read(2)).readUInt16BE(0);
    const accepted = offered & (HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes);
    const answer = Buffer.alloc(4);
    answer.writeUInt32BE(accepted, 0);
    this.#talk.send(answer);
    const noZeroes = (accepted & HandshakeFlag.noZeroes) !== 0;
    if ((accepted & HandshakeFlag.fixedNewstyle) === 0) {
      if (tls) throw new UnsupportedError(`${server} is too old for TLS`);
      return this.#byName('simple', noZeroes, new Map());
    }
    if (tls) await this.#startTls();
    return this.#fixed(noZeroes);
  }

  async #fixed(noZeroes: boolean): Promise<ExportFacts> {
    const style = await this.#chooseStyle();
    const contexts = style === 'simple' ? new Map<string, number>() : await this.#chooseContexts();
    const { exportName, server } = this.#wishes;
    const request = encodeInfoRequest({ name: exportName, kinds: [Info.blockSize] });
    const refusal = await this.#refusable(async () => {
      const infos = await this.#ask(Option.go, request);
      return this.#factsFrom(infos, style, contexts);
    });
    if (!(refusal instanceof OptionRefusal)) return refusal;
    if (refusal.type === OptionReply.unsupported && style !== 'extended')
      return this.#byName(style, noZeroes, contexts);
    const others = refusal.type === OptionReply.unknown ? await this.#exports() : undefined;
    throw refusedExport(exportName, server, refusal, others);
  }

  async #chooseStyle(): Promise<ReplyStyle> {
    if (await this.#allows(Option.extendedHeaders)) return 'extended';
    return (await this.#allows(Option.structuredReply)) ? 'structured' : 'simple';
  }

  async #chooseContexts(): Promise<ReadonlyMap<string, number>> {
    const { exportName, contexts: queries } = this.#wishes;
    const found = new Map<string, number>();
    if (queries.length === 0) return found;
    const query = encodeContextQuery({ exportName, queries });
    const answers = await this.#refusable(() => this.#ask(Option.setMetaContext, query));
    // A server without contexts is as good as one that refuses them; an unknown export is told by what comes next.
    if (answers instanceof OptionRefusal) return found;
    for (const { type, data } of answers) {
      if (type !== OptionReply.metaContext || data.byteLength < 4)
        throw malformed('what it says about metadata contexts makes no sense');
      const name = decodeString(data.subarray(4));
      if (name === undefined) throw malformed('the name of a metadata context is no string');
      if (queries.includes(name)) found.set(name, data.readUInt32BE(0));
    }
    return found;
  }

  #factsFrom(
    answers: readonly OptionAnswer[],
    style: ReplyStyle,
    contexts: ReadonlyMap<string, number>,
  ): ExportFacts {
    let sizeAndFlags: { size: number; flags: number } | undefined;
    let blocks: BlockSizes | undefined;
    for (const { type, data } of answers) {
      if (type !== OptionReply.info || data.byteLength < 2)
        throw malformed('what it says about the export makes no sense');
      const kind = data.readUInt16BE(0);
      if (kind === Info.export) {
        if (data.byteLength !== 12) throw malformed('size and flags of the export have the wrong length');
        sizeAndFlags = decodeExport(data.subarray(2));
      } else if (kind === Info.blockSize) {
        if (data.byteLength !== 14) throw malformed('the block sizes have the wrong length');
        blocks = decodeBlockSizes(data.subarray(2));
      }
    }
    if (sizeAndFlags === undefined) throw malformed('it does not say how large the export is');
    return checkFacts({ ...sizeAndFlags, blocks, style, contexts });
  }

  /** The way of older servers, who refuse by closing the connection. */
  async #byName(
    style: ReplyStyle,
    noZeroes: boolean,
    contexts: ReadonlyMap<string, number>,
  ): Promise<ExportFacts> {
    const { exportName, server } = this.#wishes;
    this.#talk.send(encodeOption(Option.exportName, Buffer.from(exportName)));
    const answer = await this.#talk.read(10).catch((error: unknown) => {
      if (!(error instanceof ConnectionEnd) || error.kind !== 'lost') throw error;
      throw new DeviceError(
        `${server} closed the connection when asked for the export ${JSON.stringify(exportName)}; it may not have it, and is too old to say so`,
        { cause: error },
      );
    });
    if (!noZeroes) await this.#talk.read(RESERVED_ZEROES);
    return checkFacts({ ...decodeExport(answer), blocks: undefined, style, contexts });
  }

  async #oldstyle(greeting: Buffer): Promise<ExportFacts> {
    const { tls, exportName, server } = this.#wishes;
    if (greeting.readUInt32BE(8) !== OLDSTYLE_HIGH || greeting.readUInt32BE(12) !== OLDSTYLE_LOW)
      throw malformed('its second magic number is unknown');
    if (tls) throw new UnsupportedError(`${server} is too old for TLS`);
    if (exportName !== '') {
      throw new UnsupportedError(
        `${server} is too old to know names of exports: leave ${JSON.stringify(exportName)} out`,
      );
    }
    const rest = await this.#talk.read(8 + 4 + RESERVED_ZEROES);
    const size = readUInt64(rest, 0);
    const flags = rest.readUInt16BE(10);
    return checkFacts({ size, flags, blocks: undefined, style: 'simple', contexts: new Map() });
  }

  async #startTls(): Promise<void> {
    const { server } = this.#wishes;
    const refusal = await this.#refusable(() => this.#ask(Option.startTls));
    if (refusal instanceof OptionRefusal) {
      throw new DeviceError(
        `${server} has no TLS (${refusal.message}); nbd:// instead of nbds:// does without, where nobody listens on the way`,
        { cause: refusal },
      );
    }
    // Put there by somebody on the way, it would count as having come through TLS.
    if (this.#talk.unreadBytes > 0) throw malformed('it sends something between its consent to TLS and TLS');
    await this.#talk.startTls();
  }

  /** The names of the exports there are; `undefined` if the server does not tell. */
  async #exports(): Promise<readonly string[] | undefined> {
    const answers = await this.#refusable(() => this.#ask(Option.list, undefined, LISTED_MAX));
    if (answers instanceof OptionRefusal) return undefined;
    return answers.map(({ data }) => {
      const length = data.byteLength >= 4 ? data.readUInt32BE(0) : 0;
      return shown(data.subarray(4, 4 + length), 100);
    });
  }

  /** Asks for something that needs no more than a yes. */
  async #allows(option: number): Promise<boolean> {
    const refusal = await this.#refusable(() => this.#ask(option));
    if (!(refusal instanceof OptionRefusal)) return true;
    const { exportName, server } = this.#wishes;
    if (refusal.type === OptionReply.tlsRequired || refusal.type === OptionReply.shutdown)
      throw refusedExport(exportName, server, refusal, undefined);
    return false;
  }

  async #refusable<T>(action: () => Promise<T>): Promise<T | OptionRefusal> {
    try {
      return await action();
    } catch (error) {
      if (error instanceof OptionRefusal) return error;
      throw error;
    }
  }

  /** @returns the replies before the final yes, at most `keep` of them. @throws OptionRefusal, ConnectionEnd */
  async #ask(option: number, data?: Uint8Array, keep = REPLIES_MAX): Promise<readonly OptionAnswer[]> {
    this.#talk.send(encodeOption(option, data));
    const answers: OptionAnswer[] = [];
    for (let count = 0; count < REPLIES_MAX; count++) {
      const header = decodeOptionReplyHeader(await this.#talk.read(HeaderSize.optionReply));
      if (header === undefined) throw malformed('the reply to an option has a wrong magic number');
      if (header.option !== option) throw malformed(`it answers option ${header.option}, not ${option}`);
      if (header.length > REPLY_MAX) throw malformed(`the reply to an option has ${header.length} bytes`);
      const bytes = await this.#talk.read(header.length);
      if (header.type >= ERROR_BIT) throw new OptionRefusal(option, header.type, shown(bytes));
      if (header.type === OptionReply.ack) return answers;
      if (answers.length < keep) answers.push({ type: header.type, data: bytes });
    }
    throw malformed(`it answers option ${option} without end`);
  }
}
