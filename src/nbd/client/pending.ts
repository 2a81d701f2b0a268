/** A request that was sent, and what has come of its reply. */
import type { ByteLength, ByteOffset } from '../../units.js';
import type { StatusExtent } from '../wire/block-status.js';
import { RequestType } from '../wire/constants.js';
import { type ConnectionEnd, malformed, type ServerError } from './failure.js';

/** What a connection is asked to do. */
export interface Command {
  readonly type: number;
  readonly flags: number;
  readonly offset: ByteOffset;
  /** Bytes of the range, which is also what is written or read. */
  readonly length: ByteLength;
  /** What to write: buffers that make `length` together. */
  readonly sources?: readonly Uint8Array[];
  /** What to fill: buffers that make `length` together. */
  readonly targets?: readonly Uint8Array[];
}

/** What a server answered. */
export interface Answer {
  readonly error: ServerError | undefined;
  /** By number of the context. */
  readonly statuses: ReadonlyMap<number, readonly StatusExtent[]>;
}

const NO_STATUSES: ReadonlyMap<number, readonly StatusExtent[]> = new Map();
/** What nearly every answer is. */
const DONE: Answer = { error: undefined, statuses: NO_STATUSES };

export const isChange = ({ type }: Command): boolean =>
  type === RequestType.write || type === RequestType.writeZeroes || type === RequestType.trim;

/** Most chunks of one reply; a server that cuts finer makes work without end. */
const CHUNKS_MAX = 65_536;

/** Bytes that have come, as ranges that neither overlap nor touch, ascending. For replies that come out of order. */
class Coverage {
  readonly #starts: number[];
  readonly #ends: number[];

  /** @param end of what has come already, from the beginning on */
  constructor(end: number) {
    this.#starts = end > 0 ? [0] : [];
    this.#ends = end > 0 ? [end] : [];
  }

  /** @returns false if some of it has come already */
  add(start: number, end: number): boolean {
    // From the end, because chunks mostly come in order.
    let at = this.#starts.length;
    while (at > 0 && (this.#starts[at - 1] ?? 0) >= end) at--;
    if (at > 0 && (this.#ends[at - 1] ?? 0) > start) return false;
    const joinsBefore = at > 0 && this.#ends[at - 1] === start;
    const joinsAfter = this.#starts[at] === end;
    if (joinsBefore && joinsAfter) {
      this.#ends[at - 1] = this.#ends[at] ?? end;
      this.#starts.splice(at, 1);
      this.#ends.splice(at, 1);
    } else if (joinsBefore) {
      this.#ends[at - 1] = end;
    } else if (joinsAfter) {
      this.#starts[at] = start;
    } else {
      this.#starts.splice(at, 0, start);
      this.#ends.splice(at, 0, end);
    }
    return true;
  }

  covers(length: number): boolean {
    return length === 0 || (this.#starts[0] === 0 && this.#ends[0] === length);
  }
}

export class Pending {
  readonly command: Command;
  /** On the monotonic clock, in milliseconds. */
  readonly deadline: number;
  readonly done: Promise<Answer>;
  #resolve: (answer: Answer) => void = () => undefined;
  #reject: (end: ConnectionEnd) => void = () => undefined;
  /** Bytes of content that came in order, until some did not. */
  #inOrder = 0;
  #coverage: Coverage | undefined;
  #statuses: Map<number, readonly StatusExtent[]> | undefined;
  #error: ServerError | undefined;
  #chunks = 0;

  constructor(command: Command, deadline: number) {
    this.command = command;
    this.deadline = deadline;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Another chunk of its reply begins. @throws ConnectionEnd if they do not end */
  countChunk(): void {
    this.#chunks += 1;
    if (this.#chunks > CHUNKS_MAX) throw malformed(`a reply has more than ${CHUNKS_MAX} chunks`);
  }

  /** @throws ConnectionEnd unless content of this range is missing yet */
  cover(offset: ByteOffset, length: ByteLength): void {
    const { command } = this;
    if (command.type !== RequestType.read) throw malformed('it sends content that was not asked for');
    const start = offset - command.offset;
    if (length === 0 || start < 0 || start + length > command.length)
      throw malformed(`content of ${length} bytes at ${offset} lies outside what was asked for`);
    if (this.#coverage === undefined && start === this.#inOrder) {
      this.#inOrder += length;
      return;
    }
    this.#coverage ??= new Coverage(this.#inOrder);
    if (!this.#coverage.add(start, start + length))
      throw malformed(`it sends content at ${offset} more than once`);
  }

  /** Where content goes: the rest of the buffer that holds byte `position` of the request. */
  target(position: number): Uint8Array {
    let at = position;
    for (const buffer of this.command.targets ?? []) {
      if (at < buffer.byteLength) return at === 0 ? buffer : buffer.subarray(at);
      at -= buffer.byteLength;
    }
    throw malformed('it sends content beyond what was asked for');
  }

  addStatus(id: number, extents: readonly StatusExtent[]): void {
    this.#statuses ??= new Map();
    if (this.command.type !== RequestType.blockStatus || this.#statuses.has(id))
      throw malformed('it describes blocks without being asked');
    this.#statuses.set(id, extents);
  }

  fail(error: ServerError): void {
    this.#error ??= error;
  }

  /** The last chunk has come. @throws ConnectionEnd if something is missing */
  finish(): void {
    const { type, length } = this.command;
    if (this.#error === undefined && type === RequestType.read && !this.#isCovered(length))
      throw malformed(`its reply leaves out some of the ${length} bytes that were read`);
    if (this.#error === undefined && this.#statuses === undefined) this.#resolve(DONE);
    else this.#resolve({ error: this.#error, statuses: this.#statuses ?? NO_STATUSES });
  }

  end(end: ConnectionEnd): void {
    this.#reject(end);
  }

  #isCovered(length: ByteLength): boolean {
    return this.#coverage?.covers(length) ?? this.#inOrder === length;
  }
}
