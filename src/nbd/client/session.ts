/**
 * An export in use: its connections, and what a lost one means.
 *
 * What is safe after a connection was lost, and why:
 * - Reads are sent again.
 * - A change that was not answered yet is sent again. It says where and what, so twice is as good as once; and whatever
 *   overlaps it and was answered meanwhile was in flight together with it, so either order is right.
 * - Changes that were answered and not yet flushed may be gone: the server may have been restarted, and nothing in the
 *   protocol tells. Then a later read could be wrong, and a later flush would prove nothing. So the session fails, for good,
 *   as a device whose flush has failed. The same before the first flush of all: what a former user wrote may
 *   have been read and be gone.
 * - A connection that we gave up ourselves, because an answer took too long, leaves a server behind that may carry out what it
 *   was asked at any time, also after what it is asked next. With a change among that, the session fails for good.
 * - What does not keep to the protocol is not asked again.
 */

import { codeOf } from '../../device/system-error.js';
import { DeviceError, NotFoundError, type VolsnapError } from '../../errors.js';
import type { ByteLength } from '../../units.js';
import { ErrorValue, RequestFlag, RequestType, TransmissionFlag } from '../wire/constants.js';
import { Connection } from './connection.js';
import { Credit } from './credit.js';
import type { ExportFacts } from './facts.js';
import { ConnectionEnd, lost } from './failure.js';
import { Link, type LinkOwner, type LinkSettings } from './link.js';
import { type Answer, type Command, isChange } from './pending.js';
import { type NbdUri, serverOf } from './uri.js';

export interface SessionSettings extends LinkSettings {
  /** Will there be changes? Then what may be lost matters. */
  readonly writable: boolean;
  /** Used only as far as the server allows several. */
  readonly connections: number;
}

/** Most that is in flight over all connections. */
const IN_FLIGHT_MAX = { requests: 128, bytes: 64 * 1024 * 1024 };
/** How often one request is sent at most. */
const SENDS_MAX = 8;

export class Session implements LinkOwner {
  readonly facts: ExportFacts;
  readonly #address: NbdUri;
  readonly #settings: SessionSettings;
  readonly #links: Link[] = [];
  readonly #credit = new Credit(IN_FLIGHT_MAX);
  /** All of this changes between awaits only. Once set, a failure stays. */
  #failure: VolsnapError | undefined;
  #isClosing = false;
  /** Changes that were answered; how many of them, from the first on, are on stable storage. */
  #answered = 0;
  #durable: number | undefined;

  private constructor(address: NbdUri, settings: SessionSettings, facts: ExportFacts) {
    this.#address = address;
    this.#settings = settings;
    this.facts = facts;
  }

  /** @throws VolsnapError with what to do about it; the signal's reason if it is aborted */
  static async open(address: NbdUri, settings: SessionSettings, signal?: AbortSignal): Promise<Session> {
    const connect = () =>
      Connection.open(address, settings, signal).catch((error: unknown) => {
        throw error instanceof ConnectionEnd ? notConnected(address, error) : error;
      });
    const first = await connect();
    const session = new Session(address, settings, first.facts);
    session.#add(first);
    try {
      // Without the server's word that they share one cache, a flush on one says nothing of the others.
      const count = session.can(TransmissionFlag.canMultiConn) ? settings.connections : 1;
      while (session.#links.length < count) session.#add(await connect());
    } catch (error) {
      await session.close();
      throw error;
    }
    return session;
  }

  can(flag: number): boolean {
    return (this.facts.flags & flag) !== 0;
  }

  /**
   * Sends a command, again if need be.
   * @returns the server's answer, which may be an error
   * @throws VolsnapError if there is none
   */
  async run(command: Command): Promise<Answer> {
    const payload = payloadOf(command);
    const turn = this.#credit.take(payload);
    if (turn !== undefined) await turn;
    try {
      return await this.#send(command);
    } finally {
      this.#credit.give(payload);
    }
  }

  /** All changes that were answered before are on stable storage when it resolves. */
  async flush(): Promise<Answer> {
    const covered = this.#answered;
    const answer = await this.run({ type: RequestType.flush, flags: 0, offset: 0, length: 0 });
    if (answer.error === undefined) this.#durable = Math.max(this.#durable ?? 0, covered);
    return answer;
  }

  ended(end: ConnectionEnd, changesInFlight: boolean): void {
    if (this.#isClosing || this.#failure !== undefined) return;
    const { uri } = this.#address;
    const failed = (why: string) =>
      void this.fail(new DeviceError(`${uri} cannot be used any more: ${why}`, { cause: end }));
    if (end.kind === 'malformed') failed(end.message);
    else if (this.#settings.writable && this.#isInDoubt())
      failed(
        `the connection was lost (${end.message}), and the server may have lost what was written and not yet flushed; open it again`,
      );
    else if (end.kind !== 'lost' && changesInFlight)
      failed(`${end.message}, and may yet carry out what it was asked to write; open it again`);
  }

  fail(error: VolsnapError): VolsnapError {
    this.#failure ??= error;
    return this.#failure;
  }

  /** Nothing may be in flight. */
  async close(): Promise<void> {
    this.#isClosing = true;
    await Promise.all(this.#links.map((link) => link.close()));
  }

  /** With flushes there is a cache, and what is in it may be lost. Otherwise what was answered counts as durable. */
  #isInDoubt(): boolean {
    return this.can(TransmissionFlag.sendFlush) && (this.#durable ?? -1) < this.#answered;
  }

  #add(connection: Connection): void {
    this.#links.push(new Link(this.#address, this.#settings, this, connection));
  }

  async #send(command: Command): Promise<Answer> {
    for (let sends = 1; ; sends++) {
      const link = this.#leastBusy();
      if (this.#failure !== undefined) throw this.#failure;
      if (link.open === undefined && this.#settings.reconnectTimeoutMs === 0) throw this.#lostForGood();
      const connection = link.open ?? (await link.ready());
      if (this.#failure !== undefined) throw this.#failure;
      try {
        const answer = await connection.request(this.#withFlags(command));
        if (answer.error?.value === ErrorValue.shutdown) {
          // It wants us to go; where it goes on is another connection.
          connection.giveUp(lost('the server is shutting down'));
        } else {
          if (answer.error === undefined && isChange(command)) this.#answered += 1;
          return answer;
        }
      } catch (error) {
        this.#checkAgain(error);
      }
      if (sends >= SENDS_MAX)
        throw new DeviceError(
          `${this.#address.uri}: the connection was lost ${sends} times before the server answered one request`,
        );
    }
  }

  /** @throws VolsnapError unless a request that ended so may be sent again */
  #checkAgain(error: unknown): void {
    if (!(error instanceof ConnectionEnd)) throw error;
    if (this.#failure !== undefined) throw this.#failure;
    if (error.kind === 'late')
      throw new DeviceError(`${this.#address.uri}: ${error.message}`, { cause: error });
  }

  #lostForGood(): VolsnapError {
    return this.fail(new DeviceError(`the connection to ${this.#address.uri} was lost; open it again`));
  }

  /** A server that cannot flush but can force makes every change durable before it answers. */
  #withFlags(command: Command): Command {
    const forces = !this.can(TransmissionFlag.sendFlush) && this.can(TransmissionFlag.sendFua);
    if (!forces || !isChange(command)) return command;
    return { ...command, flags: command.flags | RequestFlag.fua };
  }

  #leastBusy(): Link {
    const [first, ...others] = this.#links;
    if (first === undefined) throw new DeviceError(`${this.#address.uri} has no connection`);
    return others.reduce((best, link) => (link.inFlightBytes < best.inFlightBytes ? link : best), first);
  }
}

/** Bytes that count against what may be in flight. */
const payloadOf = ({ sources, targets, length }: Command): ByteLength =>
  sources === undefined && targets === undefined ? 0 : length;

function notConnected(address: NbdUri, end: ConnectionEnd): VolsnapError {
  const code = codeOf(end.cause);
  const server = serverOf(address);
  const message = `cannot connect to ${address.uri}: ${end.message}`;
  const options = { cause: end };
  if (code === 'ECONNREFUSED')
    return new DeviceError(
      `${message}; no server listens at ${server}: start it, or check the address`,
      options,
    );
  if (code === 'ENOENT')
    return new NotFoundError(
      `${message}; there is no socket ${server}: start the server, or check the path`,
      options,
    );
  if (code === 'EACCES' || code === 'EPERM')
    return new DeviceError(
      `${message}; ${server} is not for this user: run as the one who runs the server`,
      options,
    );
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN')
    return new DeviceError(`${message}; check the name of the host`, options);
  if (code?.startsWith('ERR_TLS') || code?.startsWith('ERR_SSL') || isCertificateError(code))
    return new DeviceError(`${message}; check the certificates or keys on both sides`, options);
  return new DeviceError(message, options);
}

const isCertificateError = (code: string | undefined): boolean =>
  code !== undefined && /CERT|ISSUER|SELF_SIGNED|VERIFY/.test(code);
