/** What a case is, what it runs against, and what it may do. */
import { Command, Flag, Option, Rep } from './constants.ts';
import { Negotiation, told } from './negotiation.ts';
import { type Address, type Psk, RawConnection } from './raw-connection.ts';
import { type ExportFacts, type Style, succeeded, Transmission } from './transmission.ts';
import { expectThat, type Level, offered } from './verdict.ts';

/** An export at an address. */
export interface Place {
  readonly address: Address;
  readonly exportName: string;
}

/**
 * A running server with what the cases need. `content` says how the exports begin: `contentAt` in 0..4 MiB and 8..12
 * MiB, zeros in 4..8 MiB and 12..16 MiB, and it ends at 16 MiB.
 */
export interface Target {
  readonly name: string;
  readonly version: string;
  readonly writable: Place;
  /** The same content, not writable. */
  readonly readOnly: Place;
  /** Writable, 8 GiB, nothing but zeros at first. */
  readonly large: Place;
  /** Served with TLS only; the content of `writable`. */
  readonly tls?: Place & { readonly psk: Psk };
  /** A second export at the address of `writable`. */
  readonly otherExport?: string;
  stop(): Promise<void>;
}

export const MIB = 1 << 20;
export const EXPORT_SIZE = 16 * MIB;
export const LARGE_SIZE = 8 * 1024 * MIB;

/** Bytes that tell their own place: each group of 8 holds its offset and a constant. */
export function contentAt(offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let index = 0; index < length; index++) {
    const place = offset + index;
    const isData = place % (8 * MIB) < 4 * MIB && place < EXPORT_SIZE;
    if (isData) bytes[index] = contentByte(place);
  }
  return bytes;
}

const contentByte = (place: number): number => {
  const group = Math.floor(place / 8);
  return place % 8 < 4 ? (group >>> (8 * (place % 4))) & 0xff : 0xa0 + (place % 8);
};

export interface Case {
  /** What the server does, as a sentence about it. */
  readonly name: string;
  /** The heading in doc/proto.md; `extension:` before it for the branch extension-ext-header. */
  readonly section: string;
  readonly level: Level;
  run(context: Context): Promise<void>;
}

export interface OpenOptions {
  readonly place?: Place;
  readonly contexts?: readonly string[];
  /** Transmission flags without which the case has nothing to look at. */
  readonly needs?: Partial<Record<keyof typeof Flag, true>>;
}

/** One run of one case. Connections that it opened are closed when it ends. */
export class Context {
  readonly target: Target;
  readonly #connections: RawConnection[] = [];

  constructor(target: Target) {
    this.target = target;
  }

  async connect(place: Place = this.target.writable): Promise<RawConnection> {
    const connection = await RawConnection.open(place.address);
    this.#connections.push(connection);
    return connection;
  }

  async negotiate(place: Place = this.target.writable, clientFlags?: number): Promise<Negotiation> {
    return Negotiation.begin(await this.connect(place), clientFlags);
  }

  /** Negotiates a style and contexts and enters transmission by GO. */
  async open(style: Style, options: OpenOptions = {}): Promise<Transmission> {
    const place = options.place ?? this.target.writable;
    const negotiation = await this.negotiate(place);
    return this.enter(negotiation, style, options);
  }

  async enter(negotiation: Negotiation, style: Style, options: OpenOptions = {}): Promise<Transmission> {
    const { exportName } = options.place ?? this.target.writable;
    await agreeOn(negotiation, style);
    const contexts = [];
    if (options.contexts !== undefined) {
      const set = await negotiation.metaContexts(Option.SET_META_CONTEXT, exportName, options.contexts);
      offered(set.final === Rep.ACK, 'selecting of contexts');
      offered(
        set.contexts.length === options.contexts.length,
        `one of the contexts ${options.contexts.join(', ')}`,
      );
      contexts.push(...set.contexts);
    }
    const transmission = await this.go(negotiation, exportName, style, contexts);
    for (const flag of Object.keys(options.needs ?? {}) as (keyof typeof Flag)[])
      offered(transmission.has(Flag[flag]), flag);
    return transmission;
  }

  async go(
    negotiation: Negotiation,
    exportName: string,
    style: Style,
    contexts: ExportFacts['contexts'] = [],
  ): Promise<Transmission> {
    const info = await negotiation.info(exportName, [], Option.GO);
    expectThat(info.final === Rep.ACK, `GO is answered by ${told(info)}`);
    const { size = 0n, flags = 0 } = info;
    return new Transmission(negotiation.connection, { size, flags, style, contexts });
  }

  /** The server is there and answers: a connection of its own reads, wherever it is served. */
  async stillServes(): Promise<void> {
    const { writable, readOnly, large } = this.target;
    for (const place of [writable, readOnly, large]) {
      const transmission = await this.open('simple', { place });
      succeeded(await transmission.ask({ command: Command.READ, offset: 0, length: 512 }), 'READ');
      await transmission.disconnect();
    }
  }

  close(): void {
    for (const connection of this.#connections) connection.destroy();
  }
}

/** Structured replies or extended headers; absent where the server has none. */
export async function agreeOn(negotiation: Negotiation, style: Style): Promise<void> {
  if (style === 'simple') return;
  const option = style === 'structured' ? Option.STRUCTURED_REPLY : Option.EXTENDED_HEADERS;
  const { final } = await negotiation.option(option);
  offered(final === Rep.ACK, style === 'structured' ? 'structured replies' : 'extended headers');
}
