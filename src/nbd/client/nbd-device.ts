/**
 * An export of an NBD server, as a device: what qemu-nbd, nbdkit and others make of images, object stores and clusters.
 *
 * Any byte range may be read and written, whatever the server's block sizes are: partial blocks are read, changed and
 * written back. Long ranges go in several requests at once. What happens when the connection is lost: see session.ts.
 *
 * There is no `modifiedAt`: nobody keeps a time for the content of an export.
 */
import { allDone } from '../../all-done.js';
import type { BlockDevice } from '../../device/block-device.js';
import { Lifetime } from '../../device/lifetime.js';
import { checkRange, checkWritable } from '../../device/range.js';
import { type Clock, systemEnvironment } from '../../environment.js';
import { InvalidArgumentError, ReadOnlyError } from '../../errors.js';
import { type ByteLength, type ByteOffset, roundUp } from '../../units.js';
import {
  BASE_ALLOCATION,
  ErrorValue,
  PAYLOAD_MAX,
  RequestFlag,
  RequestType,
  TransmissionFlag,
} from '../wire/constants.js';
import { BlockLocks } from './block-locks.js';
import { type BlockStatus, BlockStatusQuery } from './block-status.js';
import { deviceError } from './failure.js';
import type { Answer, Command } from './pending.js';
import { partsOf, piecesOf, totalLength } from './pieces.js';
import { Session } from './session.js';
import { parseNbdUri } from './uri.js';

export interface NbdDeviceOptions {
  /** Default: false. */
  readonly writable?: boolean;
  /** How many connections to spread requests over, where the server says that it may be several; 1 to 16. Default: 1. */
  readonly connections?: number;
  /** Milliseconds for connecting, TLS and negotiation together. Default: 10,000. */
  readonly connectTimeoutMs?: number;
  /** Milliseconds that the server has for one request; it gets more time for large ones. Default: 60,000. */
  readonly requestTimeoutMs?: number;
  /** Milliseconds in which a lost connection has to come back; 0: a lost one is the end. Default: 30,000. */
  readonly reconnectTimeoutMs?: number;
  /** Metadata contexts to ask for besides `base:allocation`, such as `qemu:dirty-bitmap:NAME`. Default: none. */
  readonly contexts?: readonly string[];
  /** Ends the opening. */
  readonly signal?: AbortSignal;
  /** Default: the system's. */
  readonly clock?: Clock;
}

/** Most bytes of content in one request of ours: several in flight do better than one long one. */
const PIECE_MAX = 4 * 1024 * 1024;
/** Most bytes to zero in one request, so that a server that writes them out answers in time. */
const ZERO_PIECE_MAX = 256 * 1024 * 1024;
const ZEROES = new Uint8Array(256 * 1024);
const CONNECTIONS_MAX = 16;
/** The longest that a timer can wait, in milliseconds. */
const TIMEOUT_MAX = 2 ** 31 - 1;

export class NbdDevice implements BlockDevice {
  readonly name: string;
  readonly size: ByteLength;
  readonly writable: boolean;
  /** There only if the server can zero a range without being sent the zeros. */
  readonly discard?: NonNullable<BlockDevice['discard']>;
  /** Which parts of a range are known to be zero; there only if the server tells. */
  readonly allocation?: NonNullable<BlockDevice['allocation']>;
  /** The metadata contexts that `blockStatus` knows of this export. */
  readonly contexts: readonly string[];

  readonly #session: Session;
  readonly #lifetime: Lifetime;
  readonly #locks = new BlockLocks();
  readonly #statuses: BlockStatusQuery;
  /** The server's unit: it takes whole ones only. */
  readonly #unit: ByteLength;
  readonly #pieceMax: ByteLength;
  /** The flush under way or the last one; once it has failed it stays, so everything queued behind it fails too. */
  #flushed: Promise<void> = Promise.resolve();
  /** The flush that has not begun yet, shared by all who wait for it. */
  #nextFlush: Promise<void> | undefined;

  private constructor(name: string, writable: boolean, session: Session) {
    this.name = name;
    this.writable = writable;
    this.#session = session;
    this.#lifetime = new Lifetime(name);
    const { size, blocks, contexts } = session.facts;
    this.size = size;
    this.contexts = [...contexts.keys()];
    this.#unit = blocks.minimum;
    const most = Math.min(blocks.maximum, PIECE_MAX, PAYLOAD_MAX);
    this.#pieceMax = most - (most % blocks.minimum);
    // Through the lifetime, so that closing waits for the answer.
    this.#statuses = new BlockStatusQuery(name, session.facts, (command) =>
      this.#lifetime.run(() => this.#run(command)),
    );
    if (contexts.has(BASE_ALLOCATION)) this.allocation = (offset, length) => this.#zeros(offset, length);
    if (session.can(TransmissionFlag.sendWriteZeroes))
      // Trimmed ranges need not read as zeros. Zeroed ones do, and the server may give their space back.
      this.discard = (offset, length) => this.#change(offset, length, () => this.#zero(offset, length, 0));
  }

  /**
   * Opens an export.
   * @param uri as `parseNbdUri` describes them
   * @throws InvalidArgumentError, UnsupportedError if the address or an option is wrong, or the server wants TLS
   * @throws NotFoundError if there is no such export, with those there are; or no such socket
   * @throws ReadOnlyError if it is to be written and may not be
   * @throws DeviceError if there is no connection to be had
   */
  static async open(uri: string, options: NbdDeviceOptions = {}): Promise<NbdDevice> {
    const address = parseNbdUri(uri);
    const { writable = false, connections = 1, contexts = [], signal } = options;
    if (!Number.isInteger(connections) || connections < 1 || connections > CONNECTIONS_MAX)
      throw new InvalidArgumentError(`connections must be 1 to ${CONNECTIONS_MAX}, not ${connections}`);
    const settings = {
      writable,
      connections,
      contexts: [BASE_ALLOCATION, ...contexts.filter((name) => name !== BASE_ALLOCATION)],
      clock: options.clock ?? systemEnvironment.clock,
      connectTimeoutMs: timeout('connectTimeoutMs', options.connectTimeoutMs ?? 10_000, 1),
      requestTimeoutMs: timeout('requestTimeoutMs', options.requestTimeoutMs ?? 60_000, 1),
      reconnectTimeoutMs: timeout('reconnectTimeoutMs', options.reconnectTimeoutMs ?? 30_000, 0),
    };
    const session = await Session.open(address, settings, signal);
    if (writable && session.can(TransmissionFlag.readOnly)) {
      await session.close();
      throw new ReadOnlyError(`the server offers ${uri} for reading only`);
    }
    return new NbdDevice(uri, writable, session);
  }

  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    this.#lifetime.enter();
    try {
      const length = target.byteLength;
      checkRange(this, offset, length);
      if (length > 0) await this.#readAll(offset, target);
    } finally {
      this.#lifetime.leave();
    }
  }

  write(offset: ByteOffset, source: Uint8Array): Promise<void> {
    return this.writev(offset, [source]);
  }

  writev(offset: ByteOffset, sources: readonly Uint8Array[]): Promise<void> {
    const length = totalLength(sources);
    return this.#change(offset, length, () => this.#writeAll(offset, length, sources));
  }

  writeZeroes(offset: ByteOffset, length: ByteLength): Promise<void> {
    // The space stays: who writes zeros there counts on being able to write something else later.
    return this.#change(offset, length, () => this.#zero(offset, length, RequestFlag.noHole));
  }

  /** One at a time, because a failed one is final: one that began before it failed must not succeed after it. */
  flush(): Promise<void> {
    return this.#lifetime.run(async () => {
      this.#nextFlush ??= this.#flushed.then(() => {
        this.#nextFlush = undefined;
        this.#flushed = this.#flushOnce();
        return this.#flushed;
      });
      await this.#nextFlush;
    });
  }

  /**
   * The status of every byte of a range, in one of `contexts`; neighbours differ.
   * @throws UnsupportedError if the server does not tell this context
   */
  async blockStatus(context: string, offset: ByteOffset, length: ByteLength): Promise<BlockStatus[]> {
    this.#lifetime.check();
    checkRange(this, offset, length);
    return this.#statuses.all(context, offset, length);
  }

  /** Waits for calls under way, then takes leave of the server. Does not flush. */
  close(): Promise<void> {
    return this.#lifetime.close(() => this.#session.close());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #change(offset: ByteOffset, length: ByteLength, action: () => Promise<void>): Promise<void> {
    this.#lifetime.enter();
    try {
      checkWritable(this);
      checkRange(this, offset, length);
      if (length > 0) await action();
    } finally {
      this.#lifetime.leave();
    }
  }

  async #flushOnce(): Promise<void> {
    if (!this.writable || !this.#session.can(TransmissionFlag.sendFlush)) return;
    const { error } = await this.#session.flush();
    if (error !== undefined)
      throw deviceError(`flush ${this.name}, so what was written since the last flush may be lost`, error);
  }

  async #readAll(offset: ByteOffset, target: Uint8Array): Promise<void> {
    const length = target.byteLength;
    const start = offset - (offset % this.#unit);
    const end = roundUp(offset + length, this.#unit);
    if (start === offset && end === offset + length)
      return this.#transfer(RequestType.read, offset, length, [target]);
    const targets = [new Uint8Array(offset - start), target, new Uint8Array(end - offset - length)];
    await this.#transfer(RequestType.read, start, end - start, targets);
  }

  #writeAll(offset: ByteOffset, length: ByteLength, sources: readonly Uint8Array[]): Promise<void> {
    const unit = this.#unit;
    if (unit === 1) return this.#transfer(RequestType.write, offset, length, sources);
    const start = offset - (offset % unit);
    const end = roundUp(offset + length, unit);
    const isWhole = start === offset && end === offset + length;
    return this.#locks.run(start, end, !isWhole, async () => {
      if (isWhole) return this.#transfer(RequestType.write, offset, length, sources);
      const [first, last] = [new Uint8Array(unit), new Uint8Array(unit)];
      await allDone(
        [
          start === offset ? undefined : this.#transfer(RequestType.read, start, unit, [first]),
          end === offset + length ? undefined : this.#transfer(RequestType.read, end - unit, unit, [last]),
        ].filter((each) => each !== undefined),
      );
      const before = first.subarray(0, offset - start);
      const after = last.subarray(unit - (end - offset - length));
      await this.#transfer(RequestType.write, start, end - start, [before, ...sources, after]);
    });
  }

  /** Reads or writes whole units. */
  async #transfer(
    type: number,
    offset: ByteOffset,
    length: ByteLength,
    buffers: readonly Uint8Array[],
  ): Promise<void> {
    const command = (at: ByteOffset, bytes: ByteLength, parts: readonly Uint8Array[]): Command =>
      type === RequestType.read
        ? { type, flags: 0, offset: at, length: bytes, targets: parts }
        : { type, flags: 0, offset: at, length: bytes, sources: parts };
    if (length <= this.#pieceMax) {
      await this.#run(command(offset, length, buffers));
      return;
    }
    const pieces = piecesOf(offset, length, this.#pieceMax);
    await allDone(
      pieces.map((piece) =>
        this.#run(command(piece.offset, piece.length, partsOf(buffers, piece.offset - offset, piece.length))),
      ),
    );
  }

  /** Makes a range read as zeros. */
  async #zero(offset: ByteOffset, length: ByteLength, flags: number): Promise<void> {
    const unit = this.#unit;
    const end = offset + length;
    const first = Math.min(roundUp(offset, unit), end);
    const last = Math.max(first, end - (end % unit));
    if (first > offset) await this.#writeZeros(offset, first - offset);
    if (end > last) await this.#writeZeros(last, end - last);
    if (last === first) return;
    const able = this.#session.can(TransmissionFlag.sendWriteZeroes);
    for (const piece of piecesOf(first, last - first, able ? ZERO_PIECE_MAX : PIECE_MAX)) {
      if (!able || !(await this.#zeroPiece(piece.offset, piece.length, flags)))
        await this.#writeZeros(piece.offset, piece.length);
    }
  }

  /** @returns false if the server wants to be sent the zeros */
  #zeroPiece(offset: ByteOffset, length: ByteLength, flags: number): Promise<boolean> {
    const zero = async () => {
      const command = { type: RequestType.writeZeroes, flags, offset, length };
      const { error } = await this.#session.run(command);
      if (error === undefined) return true;
      if (error.value === ErrorValue.notsup || error.value === ErrorValue.overflow) return false;
      throw deviceError(doing(command, this.name), error);
    };
    return this.#unit === 1 ? zero() : this.#locks.run(offset, offset + length, false, zero);
  }

  async #writeZeros(offset: ByteOffset, length: ByteLength): Promise<void> {
    for (const piece of piecesOf(offset, length, PIECE_MAX)) {
      const sources = piecesOf(0, piece.length, ZEROES.byteLength).map((part) =>
        ZEROES.subarray(0, part.length),
      );
      await this.#writeAll(piece.offset, piece.length, sources);
    }
  }

  async *#zeros(offset: ByteOffset, length: ByteLength) {
    // Not one call from beginning to end: whoever stops in the middle must not keep the device from being closed.
    this.#lifetime.check();
    checkRange(this, offset, length);
    yield* this.#statuses.zeros(offset, length);
  }

  /** @throws DeviceError also if the server answers with an error */
  async #run(command: Command): Promise<Answer> {
    const answer = await this.#session.run(command);
    if (answer.error !== undefined) throw deviceError(doing(command, this.name), answer.error);
    return answer;
  }
}

/** Completes "cannot …". */
function doing({ type, offset, length }: Command, name: string): string {
  const range = `${length} bytes at offset ${offset} of ${name}`;
  if (type === RequestType.read) return `read ${range}`;
  if (type === RequestType.write) return `write ${range}`;
  return type === RequestType.writeZeroes ? `zero ${range}` : `ask about ${range}`;
}

function timeout(what: string, value: number, least: number): number {
  if (value >= least && value <= TIMEOUT_MAX) return value;
  throw new InvalidArgumentError(`${what} must be ${least} to ${TIMEOUT_MAX} milliseconds, not ${value}`);
}
