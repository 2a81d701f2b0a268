/** A connection that is made again when it was lost, for as long as its session sees sense in that. */
import { DeviceError, VolsnapError } from '../../errors.js';
import { Connection, type ConnectionSettings } from './connection.js';
import { difference, type ExportFacts } from './facts.js';
import { ConnectionEnd } from './failure.js';
import type { NbdUri } from './uri.js';

export interface LinkSettings extends ConnectionSettings {
  /** Milliseconds in which a lost connection has to come back; 0: it is not tried. */
  readonly reconnectTimeoutMs: number;
}

/** What a link asks of those who own it. */
export interface LinkOwner {
  /** What the export has to be like. */
  readonly facts: ExportFacts;
  /** A connection ended. */
  ended(end: ConnectionEnd, changesInFlight: boolean): void;
  /** Ends everything, for good. @returns what callers are told */
  fail(error: VolsnapError): VolsnapError;
}

/** Milliseconds between two attempts: at first, and at most. */
const FIRST_PAUSE = 50;
const LONGEST_PAUSE = 2000;

export class Link {
  readonly #address: NbdUri;
  readonly #settings: LinkSettings;
  readonly #owner: LinkOwner;
  #connection: Connection;
  /** The attempt under way, shared by all who wait for it. */
  #opening: Promise<Connection> | undefined;

  constructor(address: NbdUri, settings: LinkSettings, owner: LinkOwner, connection: Connection) {
    this.#address = address;
    this.#settings = settings;
    this.#owner = owner;
    this.#connection = this.#watched(connection);
  }

  get inFlightBytes(): number {
    return this.#connection.inFlightBytes;
  }

  /** The connection if there is one: without an await, so that requests keep their order and share a system call. */
  get open(): Connection | undefined {
    return this.#connection.isOpen ? this.#connection : undefined;
  }

  /** @throws VolsnapError if there is none to be had in time */
  async ready(): Promise<Connection> {
    if (this.#connection.isOpen) return this.#connection;
    this.#opening ??= this.#reopen().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  async close(): Promise<void> {
    await this.#connection.close();
  }

  #watched(connection: Connection): Connection {
    connection.onEnd = (end, changesInFlight) => this.#owner.ended(end, changesInFlight);
    return connection;
  }

  async #reopen(): Promise<Connection> {
    const { clock, reconnectTimeoutMs } = this.#settings;
    const start = clock.monotonic();
    for (let pause = FIRST_PAUSE; ; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
      const left = start + reconnectTimeoutMs - clock.monotonic();
      const connection = await this.#attempt(left, left > pause);
      if (connection !== undefined) return this.#accepted(connection);
      await new Promise<void>((resolve) => clock.after(pause, resolve));
    }
  }

  /** @returns `undefined` if there may be a connection later. @throws VolsnapError if not */
  async #attempt(left: number, mayGoOn: boolean): Promise<Connection | undefined> {
    const { connectTimeoutMs, reconnectTimeoutMs } = this.#settings;
    const patience = Math.max(1, Math.min(connectTimeoutMs, left));
    try {
      return await Connection.open(this.#address, { ...this.#settings, connectTimeoutMs: patience });
    } catch (error) {
      if (!(error instanceof ConnectionEnd) && !(error instanceof VolsnapError)) throw error;
      const { uri } = this.#address;
      if (error instanceof ConnectionEnd && error.kind === 'malformed')
        throw this.#owner.fail(new DeviceError(`${uri}: ${error.message}`, { cause: error }));
      if (mayGoOn) return undefined;
      throw new DeviceError(
        `the connection to ${uri} was lost and did not come back within ${reconnectTimeoutMs} ms: ${error.message}`,
        { cause: error },
      );
    }
  }

  async #accepted(connection: Connection): Promise<Connection> {
    const change = difference(this.#owner.facts, connection.facts);
    if (change !== undefined) {
      await connection.close();
      throw this.#owner.fail(
        new DeviceError(
          `${this.#address.uri} is another one since the connection was lost: ${change}; open it again`,
        ),
      );
    }
    this.#connection = this.#watched(connection);
    return connection;
  }
}
