/**
 * The haggling over options, from the greeting to the choice of an export; proto.md, "Newstyle negotiation".
 *
 * One negotiation belongs to one connection and handles its options one after the other, so its state needs no protection.
 */
import { setImmediate as otherWork } from 'node:timers/promises';
import type { ByteLength } from '../../units.js';
import { HandshakeFlag, HeaderSize, Info, Option, OptionReply, type ReplyStyle } from '../wire/constants.js';
import {
  decodeContextQuery,
  decodeInfoRequest,
  decodeOptionHeader,
  decodeString,
  encodeBlockSizes,
  encodeExport,
  encodeGreeting,
  encodeInfo,
  encodeMetaContext,
  encodeOptionError,
  encodeOptionReply,
  encodeServer,
} from '../wire/option.js';
import { cutString } from '../wire/reply.js';
import type { ByteReader } from './byte-reader.js';
import { BLOCK_SIZES, transmissionFlags } from './capabilities.js';
import type { ExportCatalog, NbdExport, StatusContext } from './export.js';

/** What the client ended up with. */
export interface Agreement {
  readonly export: NbdExport;
  readonly style: ReplyStyle;
  /** The context's id is its place, from 1 on. */
  readonly contexts: readonly StatusContext[];
}

/** How a negotiation ended: with an agreement, with a wish for TLS (acknowledged), or with a connection to be closed. */
export type Outcome = Agreement | 'tls' | 'close';

export interface NegotiationOptions {
  readonly catalog: ExportCatalog;
  /** Nothing but `STARTTLS` is allowed, as TLS is required and not there yet. */
  readonly needsTls: boolean;
  /** `STARTTLS` can be asked for. */
  readonly offersTls: boolean;
  /** TLS is there: a greeting was sent, and flags received, before. */
  readonly overTls: boolean;
  readonly clientFlags: number;
  readonly optionBytes: ByteLength;
  readonly send: (bytes: Buffer) => void;
  /** Resolves when the client has read enough of what was sent: to false if it is gone. */
  readonly drained: () => Promise<boolean>;
}

/** More than any client asks for, with an export for each of 512 snapshots. */
const OPTIONS_MAX = 20_000;
/** Options after which others have their turn. */
const OPTIONS_A_TURN = 64;
const CONTEXTS_MAX = 64;
/** Data of options up to this is read and thrown away, so that the next one can be understood. */
const SKIPPED_MAX = 1024 * 1024;
const OLD_CLIENT_PADDING = 124;

/** Sends the greeting. @returns the client's flags; `undefined` if the connection is to be closed */
export async function greet(reader: ByteReader, send: (bytes: Buffer) => void): Promise<number | undefined> {
  send(encodeGreeting());
  const answer = await reader.take(4);
  const flags = answer?.readUInt32BE(0);
  const known = HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes;
  // A flag that nobody knows may mean anything; the document says to drop such a client.
  return flags === undefined || (flags & ~known) !== 0 ? undefined : flags;
}

export class Negotiation {
  readonly #reader: ByteReader;
  readonly #options: NegotiationOptions;
  #style: ReplyStyle = 'simple';
  #contexts: { readonly exportName: string; readonly names: readonly string[] } | undefined;

  constructor(reader: ByteReader, options: NegotiationOptions) {
    this.#reader = reader;
    this.#options = options;
  }

  async run(): Promise<Outcome> {
    for (let count = 0; count < OPTIONS_MAX; count++) {
      const head = await this.#reader.take(HeaderSize.option);
      const header = head === undefined ? undefined : decodeOptionHeader(head);
      if (header === undefined) return 'close';
      const { option, length } = header;
      if (length > this.#options.optionBytes) {
        if (length > SKIPPED_MAX || (await this.#reader.take(length)) === undefined) return 'close';
        if (option === Option.exportName) return 'close';
        this.#refuse(option, OptionReply.tooBig, `at most ${this.#options.optionBytes} bytes of data`);
        continue;
      }
      const data = await this.#reader.take(length);
      if (data === undefined) return 'close';
      const outcome = await this.#handle(option, data);
      if (outcome !== undefined) return outcome;
      if (!(await this.#options.drained())) return 'close';
      if (count % OPTIONS_A_TURN === OPTIONS_A_TURN - 1) await otherWork();
    }
    return 'close';
  }

  async #handle(option: number, data: Buffer): Promise<Outcome | undefined> {
    if (option === Option.abort) {
      this.#acknowledge(option);
      return 'close';
    }
    if (option === Option.startTls) return this.#startTls(data);
    if (this.#options.needsTls) {
      if (option === Option.exportName) return 'close';
      this.#refuse(option, OptionReply.tlsRequired, 'this server wants TLS first');
      return undefined;
    }
    switch (option) {
      case Option.exportName:
        return this.#exportName(data);
      case Option.list:
        if (this.#takesNoData(option, data)) this.#list();
        return undefined;
      case Option.info:
      case Option.go:
        return this.#info(option, data);
      case Option.structuredReply:
        this.#structured(data);
        return undefined;
      case Option.extendedHeaders:
        if (this.#takesNoData(option, data)) {
          this.#style = 'extended';
          this.#acknowledge(option);
        }
        return undefined;
      case Option.listMetaContext:
      case Option.setMetaContext:
        await this.#metaContext(option, data);
        return undefined;
      default:
        this.#refuse(option, OptionReply.unsupported, `option ${option} is not known here`);
        return undefined;
    }
  }

  #startTls(data: Buffer): Outcome | undefined {
    const option = Option.startTls;
    if (!this.#takesNoData(option, data)) return undefined;
    if (this.#options.overTls) {
      this.#refuse(option, OptionReply.invalid, 'TLS is in use already');
      return undefined;
    }
    if (!this.#options.offersTls) {
      this.#refuse(option, OptionReply.policy, 'this server does not offer TLS');
      return undefined;
    }
    this.#acknowledge(option);
    return 'tls';
  }

  async #exportName(data: Buffer): Promise<Outcome> {
    const name = decodeString(data);
    if (name === undefined || this.#style === 'extended') return 'close';
    const opened = await this.#options.catalog.open(name);
    if (opened === undefined) return 'close';
    const agreement = this.#agree(opened, name);
    if (agreement === undefined) {
      opened.release();
      return 'close';
    }
    const padding = (this.#options.clientFlags & HandshakeFlag.noZeroes) === 0 ? OLD_CLIENT_PADDING : 0;
    this.#options.send(
      Buffer.concat([encodeExport(opened.size, transmissionFlags(agreement)), Buffer.alloc(padding)]),
    );
    return agreement;
  }

  #list(): void {
    const { catalog, send } = this.#options;
    for (const { name, description } of catalog.list()) send(encodeServer(Option.list, name, description));
    this.#acknowledge(Option.list);
  }

  async #info(option: number, data: Buffer): Promise<Outcome | undefined> {
    const request = decodeInfoRequest(data);
    if (request === undefined) {
      this.#refuse(option, OptionReply.invalid, 'the data of the option is malformed');
      return undefined;
    }
    const opened = await this.#openOrRefuse(option, request.name);
    if (opened === undefined) return undefined;
    const agreement = this.#agree(opened, request.name);
    if (agreement === undefined) {
      opened.release();
      this.#refuse(option, OptionReply.unknown, 'a metadata context that was chosen is there no longer');
      return undefined;
    }
    const { send } = this.#options;
    send(encodeInfo(option, Info.export, encodeExport(opened.size, transmissionFlags(agreement))));
    for (const kind of new Set(request.kinds)) {
      if (kind === Info.name) send(encodeInfo(option, kind, cutString(opened.name)));
      if (kind === Info.description && opened.description !== '')
        send(encodeInfo(option, kind, cutString(opened.description)));
      if (kind === Info.blockSize) send(encodeInfo(option, kind, encodeBlockSizes(BLOCK_SIZES)));
    }
    this.#acknowledge(option);
    if (option === Option.go) return agreement;
    opened.release();
    return undefined;
  }

  #structured(data: Buffer): void {
    const option = Option.structuredReply;
    if (!this.#takesNoData(option, data)) return;
    if (this.#style === 'extended') {
      this.#refuse(option, OptionReply.extendedHeadersRequired, 'extended headers are in use already');
      return;
    }
    this.#style = 'structured';
    this.#acknowledge(option);
  }

  async #metaContext(option: number, data: Buffer): Promise<void> {
    const sets = option === Option.setMetaContext;
    // Whatever comes of it, the former choice is over.
    if (sets) this.#contexts = undefined;
    if (this.#style === 'simple') {
      this.#refuse(option, OptionReply.invalid, 'negotiate structured replies or extended headers first');
      return;
    }
    const query = decodeContextQuery(data);
    if (query === undefined) {
      this.#refuse(option, OptionReply.invalid, 'the data of the option is malformed');
      return;
    }
    const opened = await this.#openOrRefuse(option, query.exportName);
    if (opened === undefined) return;
    try {
      const names = sets ? selected(opened, query.queries) : listed(opened, query.queries);
      if (sets && names.length > CONTEXTS_MAX) {
        this.#refuse(option, OptionReply.tooBig, `at most ${CONTEXTS_MAX} contexts can be chosen`);
        return;
      }
      if (sets) this.#contexts = { exportName: query.exportName, names };
      for (const [i, name] of names.entries())
        this.#options.send(encodeMetaContext(option, sets ? i + 1 : 0, name));
      this.#acknowledge(option);
    } finally {
      opened.release();
    }
  }

  async #openOrRefuse(option: number, name: string): Promise<NbdExport | undefined> {
    const opened = await this.#options.catalog.open(name);
    if (opened === undefined) this.#refuse(option, OptionReply.unknown, `there is no export '${name}'`);
    return opened;
  }

  /** @returns `undefined` if a chosen context is gone */
  #agree(opened: NbdExport, name: string): Agreement | undefined {
    const chosen = this.#contexts?.exportName === name ? this.#contexts.names : [];
    const contexts = chosen.flatMap((context) => opened.contexts.select(context)[0] ?? []);
    if (contexts.length !== chosen.length) return undefined;
    return { export: opened, style: this.#style, contexts };
  }

  #takesNoData(option: number, data: Buffer): boolean {
    if (data.byteLength === 0) return true;
    this.#refuse(option, OptionReply.invalid, 'the option takes no data');
    return false;
  }

  #acknowledge(option: number): void {
    this.#options.send(encodeOptionReply(option, OptionReply.ack));
  }

  #refuse(option: number, type: number, message: string): void {
    this.#options.send(encodeOptionError(option, type, message));
  }
}

function listed(opened: NbdExport, queries: readonly string[]): readonly string[] {
  if (queries.length === 0) return opened.contexts.list();
  return [...new Set(queries.flatMap((query) => opened.contexts.list(query)))];
}

function selected(opened: NbdExport, queries: readonly string[]): readonly string[] {
  const names = new Set<string>();
  for (const query of queries) {
    for (const { name } of opened.contexts.select(query)) names.add(name);
    if (names.size > CONTEXTS_MAX) break;
  }
  return [...names];
}
