/**
 * A small NBD server whose age, abilities and misdeeds a test chooses. It checks what it is sent: a client that breaks the
 * protocol finds `complaints` in it.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { encodeBlockStatus, type StatusExtent } from '../../../src/nbd/wire/block-status.ts';
import {
  BASE_ALLOCATION,
  HeaderSize,
  Info,
  Option,
  OptionReply,
  type ReplyStyle,
  RequestFlag,
  RequestType,
  TransmissionFlag,
} from '../../../src/nbd/wire/constants.ts';
import {
  type BlockSizes,
  decodeContextQuery,
  decodeInfoRequest,
  decodeOptionHeader,
  encodeBlockSizes,
  encodeExport,
  encodeGreeting,
  encodeInfo,
  encodeMetaContext,
  encodeOptionError,
  encodeOptionReply,
  encodeServer,
} from '../../../src/nbd/wire/option.ts';
import {
  encodeDataHeader,
  encodeDone,
  encodeErrorChunk,
  encodeHole,
  encodeSimpleReply,
} from '../../../src/nbd/wire/reply.ts';
import { decodeRequest, type Request, requestSize } from '../../../src/nbd/wire/request.ts';

const ALL =
  TransmissionFlag.hasFlags |
  TransmissionFlag.sendFlush |
  TransmissionFlag.sendFua |
  TransmissionFlag.sendTrim |
  TransmissionFlag.sendWriteZeroes;

export interface FakeOptions {
  /** The newest that it knows. Default: extended. */
  readonly style?: ReplyStyle;
  /** `oldstyle` knows no options; `newstyle` only a name; `fixed` has options but not GO. Default: go. */
  readonly age?: 'oldstyle' | 'newstyle' | 'fixed' | 'go';
  readonly noZeroes?: boolean;
  readonly flags?: number;
  readonly blocks?: BlockSizes;
  /** Cuts replies to reads into chunks of so many bytes, sent from the last to the first. */
  readonly chunk?: number;
  /** Sends ranges of zeros as holes. */
  readonly holes?: boolean;
  readonly exports?: readonly string[];
  /** Those of them that cannot be opened. */
  readonly broken?: readonly string[];
  readonly allocation?: readonly StatusExtent[];
}

/** What to do with a request instead of carrying it out; `undefined`: nothing special. */
export type Misdeed =
  /** Closes the connection, before or after carrying it out. */
  | 'drop'
  | 'carry out and drop'
  /** Does not answer. */
  | 'silence'
  | { readonly error: number; readonly message?: string }
  | undefined;

interface Peer {
  readonly socket: Socket;
  style: ReplyStyle;
  buffer: Buffer;
}

export class FakeServer {
  content: Uint8Array;
  readonly path: string;
  readonly complaints: string[] = [];
  /** Every request, in the order of arrival. */
  readonly requests: Request[] = [];
  connections = 0;
  options: FakeOptions;
  misdeed: (request: Request) => Misdeed = () => undefined;
  readonly #folder = mkdtempSync(join(tmpdir(), 'volsnap-fake-nbd-'));
  #server: Server | undefined;
  readonly #sockets = new Set<Socket>();

  private constructor(content: Uint8Array, options: FakeOptions) {
    this.content = content;
    this.options = options;
    this.path = join(this.#folder, 'socket');
  }

  /** Gone when the test finishes. */
  static async start(content: Uint8Array, options: FakeOptions = {}): Promise<FakeServer> {
    const server = new FakeServer(content, options);
    await server.listen();
    onTestFinished(async () => {
      server.stop();
      rmSync(server.#folder, { recursive: true, force: true });
    });
    return server;
  }

  get uri(): string {
    return `nbd+unix:///?socket=${this.path}`;
  }

  /** Listens, again after `stop`. */
  async listen(): Promise<void> {
    const server = createServer((socket) => this.#serve(socket));
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.path, resolve));
  }

  /** Dies: all connections break, new ones are refused. */
  stop(): void {
    this.#server?.close();
    this.#server = undefined;
    this.cut();
  }

  /** Breaks all connections. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  typesSeen(): number[] {
    return this.requests.map(({ type }) => type);
  }

  #serve(socket: Socket): void {
    this.connections += 1;
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('error', () => undefined);
    const peer: Peer = { socket, style: 'simple', buffer: Buffer.alloc(0) };
    const steps = this.#talk(peer);
    let wanted = steps.next().value ?? 0;
    socket.on('data', (data) => {
      peer.buffer = Buffer.concat([peer.buffer, data]);
      while (!socket.destroyed && peer.buffer.byteLength >= wanted) {
        const step = steps.next(peer.buffer.subarray(0, wanted));
        peer.buffer = peer.buffer.subarray(wanted);
        if (step.done) return;
        wanted = step.value;
      }
    });
  }

  /** One conversation: says how many bytes it wants next, and gets them. */
  *#talk(peer: Peer): Generator<number, void, Buffer> {
    const { age = 'go', noZeroes = true, flags = ALL } = this.options;
    if (age === 'oldstyle') {
      peer.socket.write(oldstyleGreeting(this.content.byteLength, flags));
    } else {
      const greeting = encodeGreeting();
      greeting.writeUInt16BE((age === 'newstyle' ? 0 : 1) | (noZeroes ? 2 : 0), 16);
      peer.socket.write(greeting);
      const clientFlags = (yield 4).readUInt32BE(0);
      if ((clientFlags & ~greeting.readUInt16BE(16)) !== 0)
        this.complaints.push('flags that were not offered');
      if (!(yield* this.#haggle(peer, (clientFlags & 2) !== 0))) return;
    }
    for (;;) {
      const extended = peer.style === 'extended';
      const request = decodeRequest(yield requestSize(extended), 0, extended);
      if (request === undefined) {
        this.complaints.push('a request without its magic number');
        peer.socket.destroy();
        return;
      }
      if (request.type === RequestType.disconnect) {
        peer.socket.end();
        return;
      }
      const payload = request.type === RequestType.write ? yield request.length : Buffer.alloc(0);
      this.requests.push(request);
      this.#check(request, extended);
      this.#answer(peer, request, payload);
    }
  }

  /** @returns false if the connection ends */
  *#haggle(peer: Peer, noZeroes: boolean): Generator<number, boolean, Buffer> {
    const { age = 'go', flags = ALL, blocks, exports = [''], broken = [] } = this.options;
    const { socket } = peer;
    for (;;) {
      const header = decodeOptionHeader(yield HeaderSize.option);
      if (header === undefined) {
        this.complaints.push('an option without its magic number');
        socket.destroy();
        return false;
      }
      const { option, length } = header;
      const data = yield length;
      const refuse = (type: number) => socket.write(encodeOptionError(option, type, 'the fake refuses'));
      const ack = () => socket.write(encodeOptionReply(option, OptionReply.ack));
      if (option === Option.exportName) {
        if (!exports.includes(data.toString())) {
          socket.destroy();
          return false;
        }
        socket.write(encodeExport(this.content.byteLength, flags));
        if (!noZeroes) socket.write(Buffer.alloc(124));
        return true;
      }
      if (age === 'newstyle') this.complaints.push(`option ${option} to a server that knows none`);
      if (option === Option.abort) {
        ack();
        socket.end();
        return false;
      }
      if (option === Option.list) {
        for (const name of exports) socket.write(encodeServer(option, name, 'an export'));
        ack();
      } else if (option === Option.extendedHeaders && this.#knows('extended')) {
        peer.style = 'extended';
        ack();
      } else if (option === Option.structuredReply && this.#knows('structured')) {
        peer.style = 'structured';
        ack();
      } else if (option === Option.setMetaContext && peer.style !== 'simple') {
        const asked = decodeContextQuery(data);
        if (asked?.queries.includes(BASE_ALLOCATION))
          socket.write(encodeMetaContext(option, 7, BASE_ALLOCATION));
        ack();
      } else if (option === Option.go && age === 'go') {
        const asked = decodeInfoRequest(data);
        if (asked === undefined || !exports.includes(asked.name) || broken.includes(asked.name)) {
          refuse(OptionReply.unknown);
          continue;
        }
        socket.write(encodeInfo(option, Info.description, Buffer.from('for people')));
        socket.write(encodeInfo(option, Info.export, encodeExport(this.content.byteLength, flags)));
        if (blocks !== undefined) socket.write(encodeInfo(option, Info.blockSize, encodeBlockSizes(blocks)));
        ack();
        return true;
      } else {
        refuse(OptionReply.unsupported);
      }
    }
  }

  #knows(style: ReplyStyle): boolean {
    const { style: newest = 'extended' } = this.options;
    return newest === 'extended' || newest === style;
  }

  #check({ type, flags, offset, length }: Request, extended: boolean): void {
    const minimum = this.options.blocks?.minimum ?? 1;
    const maximum = this.options.blocks?.maximum ?? 32 * 1024 * 1024;
    const hasRange = type !== RequestType.flush;
    if (hasRange && (offset % minimum !== 0 || length % minimum !== 0))
      this.complaints.push(`${length} bytes at ${offset} are not whole blocks of ${minimum}`);
    if (hasRange && (length === 0 || offset + length > this.content.byteLength))
      this.complaints.push(`${length} bytes at ${offset} do not lie within the export`);
    const hasPayload = type === RequestType.read || type === RequestType.write;
    if (hasPayload && length > maximum) this.complaints.push(`${length} bytes are more than ${maximum}`);
    if (((flags & RequestFlag.payloadLength) !== 0) !== (extended && type === RequestType.write))
      this.complaints.push('the flag for payload is wrong');
  }

  #answer(peer: Peer, request: Request, payload: Buffer): void {
    const misdeed = this.misdeed(request);
    if (misdeed === 'silence') return;
    if (misdeed === 'drop') {
      peer.socket.destroy();
      return;
    }
    const extended = peer.style === 'extended';
    if (typeof misdeed === 'object') {
      peer.socket.write(
        peer.style === 'simple'
          ? encodeSimpleReply(request, misdeed.error)
          : encodeErrorChunk(request, extended, misdeed.error, misdeed.message ?? ''),
      );
      return;
    }
    const { type, offset, length } = request;
    if (type === RequestType.write) this.content.set(payload, offset);
    if (type === RequestType.writeZeroes) this.content.fill(0, offset, offset + length);
    if (misdeed === 'carry out and drop') {
      peer.socket.destroy();
      return;
    }
    for (const bytes of this.#reply(peer.style, request)) peer.socket.write(bytes);
  }

  *#reply(style: ReplyStyle, request: Request): Generator<Uint8Array> {
    const extended = style === 'extended';
    const { type, offset, length } = request;
    if (type === RequestType.blockStatus) {
      const extents = this.options.allocation ?? [{ length, status: 0 }];
      yield encodeBlockStatus(request, extended, { id: 7, extents, done: true });
    } else if (type !== RequestType.read) {
      // With structured replies a simple one is allowed where there is no payload.
      yield extended ? encodeDone(request, true) : encodeSimpleReply(request, 0);
    } else if (style === 'simple') {
      yield encodeSimpleReply(request, 0);
      yield this.content.slice(offset, offset + length);
    } else {
      const { chunk = length, holes = false } = this.options;
      for (let at = offset + Math.floor((length - 1) / chunk) * chunk; at >= offset; at -= chunk) {
        const bytes = this.content.slice(at, Math.min(at + chunk, offset + length));
        const part = { offset: at, length: bytes.byteLength, done: false };
        if (holes && bytes.every((byte) => byte === 0)) {
          yield encodeHole(request, extended, part);
        } else {
          yield encodeDataHeader(request, extended, part);
          yield bytes;
        }
      }
      yield encodeDone(request, extended);
    }
  }
}

function oldstyleGreeting(size: number, flags: number): Buffer {
  const bytes = Buffer.alloc(8 + 8 + 8 + 4 + 124);
  bytes.write('NBDMAGIC', 'latin1');
  bytes.writeBigUInt64BE(0x0000_4202_8186_1253n, 8);
  bytes.writeBigUInt64BE(BigInt(size), 16);
  bytes.writeUInt32BE(flags, 24);
  return bytes;
}
