/** Reads a conversation piece by piece: what negotiation needs, where nothing is large and speed does not matter. */
import type { Reader } from './channel.js';
import { type ConnectionEnd, malformed } from './failure.js';

/** Most bytes that may have come without having been asked for. */
const UNREAD_MAX = 256 * 1024;
const PIECE = 4096;

export class Mailbox implements Reader {
  #unread: Buffer[] = [];
  #unreadBytes = 0;
  #room = Buffer.alloc(PIECE);
  #end: ConnectionEnd | undefined;
  #waiting:
    | { length: number; resolve: (bytes: Buffer) => void; reject: (end: ConnectionEnd) => void }
    | undefined;

  get unreadBytes(): number {
    return this.#unreadBytes;
  }

  /** The next `length` bytes. One read at a time. @throws ConnectionEnd */
  read(length: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#waiting = { length, resolve, reject };
      this.#serve();
    });
  }

  room(): Uint8Array {
    return this.#room;
  }

  filled(count: number): void {
    this.#unread.push(this.#room.subarray(0, count));
    this.#unreadBytes += count;
    this.#room = Buffer.alloc(PIECE);
    if (this.#unreadBytes > UNREAD_MAX) this.fail(malformed('it floods the negotiation'));
    this.#serve();
  }

  /** Nothing more will come. */
  fail(end: ConnectionEnd): void {
    this.#end ??= end;
    this.#serve();
  }

  #serve(): void {
    const waiting = this.#waiting;
    if (waiting === undefined) return;
    if (this.#unreadBytes >= waiting.length) {
      const all = Buffer.concat(this.#unread);
      const rest = all.subarray(waiting.length);
      this.#unread = rest.byteLength > 0 ? [rest] : [];
      this.#unreadBytes = rest.byteLength;
      this.#waiting = undefined;
      waiting.resolve(all.subarray(0, waiting.length));
    } else if (this.#end !== undefined) {
      this.#waiting = undefined;
      waiting.reject(this.#end);
    }
  }
}
