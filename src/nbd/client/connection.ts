/** One connection in its transmission phase: requests out, replies in, and an end to every wait. */
import type { Clock } from '../../environment.js';
import type { ByteLength } from '../../units.js';
import { RequestFlag, RequestType } from '../wire/constants.js';
import { encodeRequest } from '../wire/request.js';
import { Channel, type Reader } from './channel.js';
import type { ExportFacts } from './facts.js';
import { ConnectionEnd, lost } from './failure.js';
import { Mailbox } from './mailbox.js';
import { negotiate } from './negotiation.js';
import { type Answer, type Command, isChange, Pending } from './pending.js';
import { ReplyReader } from './reply-reader.js';
import { tlsOptions } from './tls.js';
import { type NbdUri, serverOf } from './uri.js';

export interface ConnectionSettings {
  readonly clock: Clock;
  /** Milliseconds for connecting, TLS and negotiation together. */
  readonly connectTimeoutMs: number;
  /** Milliseconds for a request, and as many more as what is before it takes at `SLOWEST`. */
  readonly requestTimeoutMs: number;
  /** Metadata contexts to ask for. */
  readonly contexts: readonly string[];
}

/** A link slower than this looks like a dead one, in bytes a millisecond. */
const SLOWEST = 1024;
/** Milliseconds that a server has for closing its side of the connection. */
const FAREWELL = 2000;

export class Connection implements Reader {
  readonly facts: ExportFacts;
  readonly #settings: ConnectionSettings;
  readonly #channel: Channel;
  readonly #replies: ReplyReader;
  /** Protected by being changed between awaits only; so is everything below. */
  readonly #pending = new Map<number, Pending>();
  #nextCookie = 1;
  #inFlightBytes = 0;
  #stopWatching: (() => void) | undefined;
  #end: ConnectionEnd | undefined;
  #onEnd: ((end: ConnectionEnd, changesInFlight: boolean) => void) | undefined;

  private constructor(channel: Channel, facts: ExportFacts, settings: ConnectionSettings) {
    this.facts = facts;
    this.#settings = settings;
    this.#channel = channel;
    this.#replies = new ReplyReader(facts.style, {
      find: (high, low) => (high === 0 ? this.#pending.get(low) : undefined),
      finished: (cookie, pending) => {
        this.#pending.delete(cookie);
        this.#inFlightBytes -= pending.command.length;
      },
    });
    channel.reader = this;
  }

  /**
   * @throws ConnectionEnd if there is no connection, or it ends while the export is agreed on
   * @throws VolsnapError if the server refuses; the message says what to do
   */
  static async open(
    address: NbdUri,
    settings: ConnectionSettings,
    signal?: AbortSignal,
  ): Promise<Connection> {
    signal?.throwIfAborted();
    const { clock, connectTimeoutMs, contexts } = settings;
    const mailbox = new Mailbox();
    const giveUp = new AbortController();
    const late = () => {
      const what =
        channel === undefined
          ? 'no connection'
          : 'the server took the connection, but did not come to terms on the export';
      return new ConnectionEnd('abandoned', `${what} within ${connectTimeoutMs} ms`);
    };
    const stop = clock.after(connectTimeoutMs, () => giveUp.abort(late()));
    const abort = () => giveUp.abort(lost('interrupted', signal?.reason));
    signal?.addEventListener('abort', abort);
    let channel: Channel | undefined;
    let connection: Connection | undefined;
    giveUp.signal.addEventListener('abort', () => channel?.destroy(giveUp.signal.reason));
    try {
      const tls = address.tls === undefined ? undefined : await tlsOptions(address.tls);
      const onEnd = (end: ConnectionEnd) =>
        connection === undefined ? mailbox.fail(end) : connection.#finish(end);
      const opened = await Channel.connect(address.place, mailbox, giveUp.signal, onEnd);
      channel = opened;
      const talk = {
        read: (length: number) => mailbox.read(length),
        send: (bytes: Uint8Array) => opened.send([bytes]),
        startTls: () => opened.startTls(tls ?? {}),
        get unreadBytes() {
          return mailbox.unreadBytes;
        },
      };
      const facts = await negotiate(talk, {
        exportName: address.exportName,
        tls: tls !== undefined,
        contexts,
        server: serverOf(address),
      });
      // Nothing may come before the first request, so nothing is lost between one reader and the next.
      connection = new Connection(opened, facts, settings);
      return connection;
    } catch (error) {
      channel?.destroy(lost('the negotiation failed', error));
      signal?.throwIfAborted();
      throw error;
    } finally {
      stop();
      signal?.removeEventListener('abort', abort);
    }
  }

  /** Bytes that are on their way in either direction. */
  get inFlightBytes(): ByteLength {
    return this.#inFlightBytes;
  }

  get isOpen(): boolean {
    return this.#end === undefined;
  }

  /** Called once when the connection ends: why, and whether a change was asked for that was not answered. */
  set onEnd(action: (end: ConnectionEnd, changesInFlight: boolean) => void) {
    this.#onEnd = action;
  }

  /** @throws ConnectionEnd if the connection ends before the reply is complete */
  request(command: Command): Promise<Answer> {
    if (this.#end !== undefined) return Promise.reject(this.#end);
    const { requestTimeoutMs, clock } = this.#settings;
    this.#inFlightBytes += command.length;
    const patience = requestTimeoutMs + this.#inFlightBytes / SLOWEST;
    const pending = new Pending(command, clock.monotonic() + patience);
    const cookie = this.#freeCookie();
    this.#pending.set(cookie, pending);
    this.#stopWatching ??= clock.after(patience, () => this.#watch());
    this.#channel.send([this.#header(command, cookie), ...(command.sources ?? [])]);
    return pending.done;
  }

  room(): Uint8Array {
    return this.#replies.room();
  }

  filled(count: number): void {
    try {
      this.#replies.filled(count);
    } catch (error) {
      if (!(error instanceof ConnectionEnd)) throw error;
      this.giveUp(error);
    }
  }

  /** Ends the connection from our side, at once. */
  giveUp(end: ConnectionEnd): void {
    this.#channel.destroy(end);
  }

  /** Takes leave of the server. Nothing may be in flight. */
  async close(): Promise<void> {
    if (this.#end !== undefined) return;
    this.#channel.send([this.#header({ type: RequestType.disconnect, flags: 0, offset: 0, length: 0 }, 0)]);
    const stop = this.#settings.clock.after(FAREWELL, () => this.giveUp(lost('the server does not let go')));
    await this.#channel.close();
    stop();
  }

  #header({ type, flags, offset, length }: Command, cookie: number): Buffer {
    const extended = this.facts.style === 'extended';
    const payload = extended && type === RequestType.write ? RequestFlag.payloadLength : 0;
    return encodeRequest(
      { type, flags: flags | payload, offset, length, cookieHigh: 0, cookieLow: cookie },
      extended,
    );
  }

  #freeCookie(): number {
    while (this.#pending.has(this.#nextCookie)) this.#advanceCookie();
    const cookie = this.#nextCookie;
    this.#advanceCookie();
    return cookie;
  }

  #advanceCookie(): void {
    this.#nextCookie = this.#nextCookie === 0xffff_ffff ? 1 : this.#nextCookie + 1;
  }

  /** Looks for requests that took too long; sees to it that it is called again in time. */
  #watch(): void {
    this.#stopWatching = undefined;
    if (this.#pending.size === 0) return;
    const { clock } = this.#settings;
    const now = clock.monotonic();
    const deadlines = [...this.#pending.values()].map(({ deadline }) => deadline);
    const next = Math.min(...deadlines);
    if (next > now) {
      this.#stopWatching = clock.after(next - now, () => this.#watch());
      return;
    }
    const message = 'the server took too long to answer';
    for (const pending of this.#pending.values()) {
      if (pending.deadline <= now) pending.end(new ConnectionEnd('late', message));
    }
    this.giveUp(new ConnectionEnd('abandoned', message));
  }

  #finish(end: ConnectionEnd): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    this.#stopWatching?.();
    const cutOff = [...this.#pending.values()];
    this.#pending.clear();
    this.#inFlightBytes = 0;
    this.#onEnd?.(
      end,
      cutOff.some(({ command }) => isChange(command)),
    );
    for (const pending of cutOff) pending.end(end);
  }
}
