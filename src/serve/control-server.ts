/**
 * The control channel of one volume: what other processes ask of the one that owns it.
 *
 * Its end has three steps, so that a command that comes in between loses nothing: `refuse` (who asks is told to wait),
 * `withdraw` (the socket is taken away, then the volume may be closed by its owner), `end` (who waited tries again).
 *
 * Shared state: the set of connections, changed between awaits only.
 */
import type { EventEmitter } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { SocketFile } from '../nbd/server/socket-file.js';
import { ControlAnswers, type ControlOptions } from './control-answers.js';
import { EVENTS } from './control-protocol.js';
import { ClosingError } from './rpc/errors.js';
import { type Call, type Reply, RpcConnection } from './rpc/server.js';

const CONNECTIONS_MAX = 64;
const CLOSING = 'the process that serves the volume is closing it';

export class ControlServer {
  readonly #options: ControlOptions;
  readonly #server = createServer({ allowHalfOpen: true }, (socket) => this.#accept(socket));
  readonly #connections = new Map<Socket, RpcConnection>();
  readonly #listeners: (() => unknown)[] = [];
  readonly #answers: ControlAnswers;
  #file: SocketFile | undefined;
  #refusing = false;

  private constructor(options: ControlOptions) {
    this.#options = options;
    this.#answers = new ControlAnswers(options);
  }

  /** Whoever calls owns the volume. @throws DeviceError */
  static async listen(path: string, options: ControlOptions): Promise<ControlServer> {
    const control = new ControlServer(options);
    for (const name of EVENTS) control.#forward(name);
    control.#file = await SocketFile.publish(control.#server, path, options.onError);
    return control;
  }

  /** Requests are refused from now on; clients wait for the end of their connection. */
  refuse(): void {
    this.#refusing = true;
    for (const connection of this.#connections.values()) connection.giveUp(new ClosingError(CLOSING));
  }

  /** New clients find nothing any more. */
  async withdraw(): Promise<void> {
    this.refuse();
    await this.#file?.remove();
  }

  /** Ends the connections: the volume has no owner any more. */
  async end(): Promise<void> {
    for (const stop of this.#listeners) stop();
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    for (const socket of this.#connections.keys()) socket.destroy();
    await closed;
  }

  #accept(socket: Socket): void {
    if (this.#connections.size >= CONNECTIONS_MAX) {
      socket.on('error', () => undefined);
      socket.destroy();
      return;
    }
    const connection = new RpcConnection(socket, (method, call) => this.#answer(method, call));
    this.#connections.set(socket, connection);
    socket.on('close', () => this.#connections.delete(socket));
  }

  #forward(name: (typeof EVENTS)[number]): void {
    const listener = (event: object) => {
      const told = Object.fromEntries(Object.entries(event).map(([key, value]) => [key, tellable(value)]));
      for (const connection of this.#connections.values()) connection.tell({ name, event: told });
    };
    const volume: EventEmitter = this.#options.volume as EventEmitter;
    volume.on(name, listener);
    this.#listeners.push(() => volume.off(name, listener));
  }

  async #answer(method: string, call: Call): Promise<Reply> {
    if (this.#refusing) throw new ClosingError(CLOSING);
    call.signal.throwIfAborted();
    return this.#answers.answer(method, call);
  }
}

/** A part of an event as JSON: of errors, what they say. */
const tellable = (value: unknown): unknown => (value instanceof Error ? value.message : value);
