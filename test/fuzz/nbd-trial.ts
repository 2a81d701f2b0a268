/**
 * One case of the NBD fuzzer: a client that does what its seed says, against a server in this process, while a second
 * client is served on a connection of its own.
 *
 * A case is right if what the server sent fits the model, everything is given back when the client is gone (connections,
 * requests in flight, memory, exports), the second client got its bytes, and nothing was thrown that nobody handled.
 */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DEFAULT_LIMITS, type NbdLimits } from '../../src/nbd/server/limits.ts';
import { NbdServer } from '../../src/nbd/server/server.ts';
import { SeededRandom } from '../../src/testing/seeded-random.ts';
import { Option } from '../interop/nbd-conformance/constants.ts';
import { Negotiation, optionHeader } from '../interop/nbd-conformance/negotiation.ts';
import { RawConnection } from '../interop/nbd-conformance/raw-connection.ts';
import { Transmission } from '../interop/nbd-conformance/transmission.ts';
import { checkOutput } from './nbd-check.ts';
import { Conversation } from './nbd-conversation.ts';
import { FuzzCatalog, ON_PURPOSE } from './nbd-exports.ts';
import { understand } from './nbd-model.ts';
import { type Mutated, mutate } from './nbd-mutate.ts';

/** From the client's end until everything is given back, milliseconds. */
export const SETTLE_MS = 5000;

/** Small, so that they are reached. */
export const FUZZ_LIMITS: NbdLimits = {
  ...DEFAULT_LIMITS,
  connections: 16,
  requestsEach: 8,
  memoryEach: 512 * 1024,
  memoryTotal: 2 * 1024 * 1024,
  optionBytes: 4096,
  handshakeMs: 500,
  stallMs: 100,
  closeMs: 1000,
};
const MODEL_LIMITS = { optionBytes: 4096, skippedBytes: 1024 * 1024, payloadBytes: 32 * 1024 * 1024 };

/** How the client behaves after it has said what it had to say. */
export type Manner =
  /** Reads everything, closes its half, waits for the end. */
  | 'polite'
  /** Goes away as soon as its bytes are sent. */
  | 'vanishes'
  /** Goes away in the middle. */
  | 'breaks-off'
  /** Reads nothing for a while, then everything. */
  | 'deaf'
  /** Reads nothing, then goes away. */
  | 'deaf-vanishes';

const MANNERS: readonly Manner[] = [
  'polite',
  'polite',
  'polite',
  'polite',
  'vanishes',
  'breaks-off',
  'deaf',
  'deaf-vanishes',
];

export interface Plan extends Mutated {
  readonly manner: Manner;
  /** Ends of the pieces in which the bytes are written. */
  readonly cuts: readonly number[];
  /** Spoken to the server that wants TLS: nothing of it may be answered but STARTTLS and ABORT. */
  readonly toTls: boolean;
}

/** Case `index` of a seed is always the same. */
export function planOf(seed: string, index: number): Plan {
  const random = new SeededRandom(`${seed}/${index}`);
  const mutated = mutate(new Conversation(random), random);
  const toTls = random.chance(0.08);
  const injected = toTls ? behindStartTls(mutated) : mutated;
  return { ...injected, manner: random.pick(MANNERS), cuts: cutsOf(injected, random), toTls };
}

/** Client flags, STARTTLS, and behind it in plain what should only be said under TLS. */
function behindStartTls({ bytes, description, seams }: Mutated): Mutated {
  const start = Buffer.concat([bytes.subarray(0, 4), optionHeader(Option.STARTTLS, 0)]);
  return {
    bytes: Buffer.concat([start, bytes.subarray(4)]),
    description: `STARTTLS, then in plain: ${description}`,
    seams: seams.map((seam) => seam + 16),
  };
}

function cutsOf({ bytes, seams }: Mutated, random: SeededRandom): number[] {
  const style = random.below(5);
  if (style === 0 || bytes.length === 0) return [];
  if (style === 1) return seams.filter(() => random.chance(0.7));
  if (style === 2) {
    // Byte by byte somewhere.
    const from = random.below(bytes.length);
    return Array.from({ length: random.below(40) }, (_, index) => from + index + 1).filter(
      (cut) => cut < bytes.length,
    );
  }
  const cuts = Array.from({ length: 1 + random.below(6) }, () => random.below(bytes.length));
  return [...new Set(cuts)].sort((a, b) => a - b);
}

interface Output {
  readonly bytes: Buffer;
  /** The connection ended with an error. */
  readonly cutOff: boolean;
}

export interface Outcome {
  /** What is wrong; empty if nothing is. */
  readonly wrong: string;
  readonly options: number;
  readonly replies: number;
  readonly milliseconds: number;
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** The server, and the client that must be served right all the time. */
export class Arena {
  readonly #folder: string;
  readonly #catalog = new FuzzCatalog();
  readonly #server: NbdServer;
  readonly #tlsServer: NbdServer;
  readonly #errors: unknown[] = [];
  #witness: Transmission | undefined;
  #round = 0;

  private constructor(folder: string) {
    this.#folder = folder;
    const onError = (error: unknown) => {
      const text = error instanceof Error ? error.message : String(error);
      if (text !== ON_PURPOSE && !text.startsWith('TLS failed')) this.#errors.push(error);
    };
    this.#server = new NbdServer(this.#catalog, { limits: FUZZ_LIMITS, onError });
    this.#tlsServer = new NbdServer(this.#catalog, {
      // Who stops in the middle of a TLS handshake is waited for as long as this.
      limits: { ...FUZZ_LIMITS, handshakeMs: 100 },
      onError,
      tls: { kind: 'psk', keys: new Map([['fuzz', Buffer.alloc(32, 7)]]) },
    });
  }

  static async create(): Promise<Arena> {
    const arena = new Arena(await mkdtemp(join(tmpdir(), 'volsnap-nbd-fuzz-')));
    await arena.#server.listen({ path: arena.#path(false) });
    await arena.#tlsServer.listen({ path: arena.#path(true) });
    arena.#witness = await arena.#openWitness();
    return arena;
  }

  async close(): Promise<void> {
    this.#witness?.connection.destroy();
    await Promise.all([this.#server.close(), this.#tlsServer.close()]);
    await rm(this.#folder, { recursive: true, force: true });
  }

  async run(plan: Plan): Promise<Outcome> {
    const started = performance.now();
    const counts = { options: 0, replies: 0 };
    let wrong = '';
    try {
      const [output] = await Promise.all([this.#converse(plan), this.#serveWitness()]);
      if (plan.toTls) checkPlain(output.bytes);
      else Object.assign(counts, checkedCounts(output, plan));
      await this.#settled();
    } catch (error) {
      wrong = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    }
    if (this.#errors.length > 0)
      wrong += `; inside the server: ${this.#errors.splice(0).map(stackOf).join('; ')}`;
    return { wrong, ...counts, milliseconds: performance.now() - started };
  }

  #path(tls: boolean): string {
    return join(this.#folder, tls ? 'tls.sock' : 'plain.sock');
  }

  async #openWitness(): Promise<Transmission> {
    const negotiation = await Negotiation.begin(await RawConnection.open({ path: this.#path(false) }));
    await negotiation.option(Option.STRUCTURED_REPLY);
    const { size = 0n, flags = 0 } = await negotiation.info('witness', [], Option.GO);
    return new Transmission(negotiation.connection, { size, flags, style: 'structured', contexts: [] });
  }

  /** Writes something new and reads it back. */
  async #serveWitness(): Promise<void> {
    const witness = this.#witness;
    if (witness === undefined) throw new Error('the arena has no witness');
    const round = this.#round++;
    const offset = (round * 1531) % 65_024;
    const bytes = Buffer.alloc(512, round % 251);
    bytes.writeUInt32BE(round);
    await witness.write(offset, bytes);
    const read = await witness.read(offset, 512);
    if (!read.equals(bytes))
      throw new Error(`the second client reads other bytes than it wrote at ${offset}`);
  }

  /** Plays the case. */
  async #converse({ bytes, cuts, manner, toTls }: Plan): Promise<Output> {
    const socket = connect({ path: this.#path(toTls), allowHalfOpen: true });
    const received: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => received.push(chunk));
    let cutOff = false;
    // Written to after the server closed: what it had sent and was not read yet is lost.
    socket.on('error', () => {
      cutOff = true;
    });
    await once(socket, 'connect');
    const isDeaf = manner === 'deaf' || manner === 'deaf-vanishes';
    if (isDeaf) socket.pause();
    const ends = [...cuts, bytes.length];
    const last = manner === 'breaks-off' ? Math.floor(ends.length / 2) : ends.length;
    let from = 0;
    for (const end of ends.slice(0, last)) {
      if (end > from) socket.write(bytes.subarray(from, end));
      from = Math.max(from, end);
      await turn();
    }
    if (isDeaf) for (let turns = 0; turns < 20; turns++) await turn();
    if (manner === 'polite' || manner === 'deaf') {
      socket.resume();
      socket.end();
      await this.#closed(socket);
    }
    socket.destroy();
    return { bytes: Buffer.concat(received), cutOff };
  }

  async #closed(socket: Socket): Promise<void> {
    if (socket.readableEnded || socket.destroyed) return;
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`the connection is still open ${SETTLE_MS} ms after the client's end`)),
        SETTLE_MS,
      );
      const done = () => {
        clearTimeout(timer);
        resolve();
      };
      socket.once('end', done);
      socket.once('close', done);
    });
  }

  /** Nothing is left of the client. */
  async #settled(): Promise<void> {
    const until = performance.now() + SETTLE_MS;
    const state = () => ({
      connections: this.#server.figures.connections + this.#tlsServer.figures.connections,
      inFlight: this.#server.figures.inFlight + this.#tlsServer.figures.inFlight,
      memory: this.#server.memoryBytes + this.#tlsServer.memoryBytes,
      users: this.#catalog.users,
    });
    for (;;) {
      const { connections, inFlight, memory, users } = state();
      // The second client and the export that it uses stay.
      if (connections === 1 && inFlight === 0 && memory === 0 && users === 1) return;
      if (performance.now() > until) throw new Error(`left behind: ${JSON.stringify(state())}`);
      await turn();
    }
  }
}

const stackOf = (error: unknown): string =>
  error instanceof Error ? (error.stack ?? error.message) : String(error);

function checkedCounts({ bytes, cutOff }: Output, plan: Plan): { options: number; replies: number } {
  const sent = plan.manner === 'breaks-off' ? plan.bytes.subarray(0, sentBeforeBreak(plan)) : plan.bytes;
  const understood = understand(sent, MODEL_LIMITS);
  const isRead = plan.manner === 'polite' || plan.manner === 'deaf';
  const complete = isRead && !(cutOff && understood.closes);
  const { options, replies } = checkOutput(bytes, understood, complete);
  return { options, replies };
}

function sentBeforeBreak({ cuts, bytes }: Plan): number {
  const ends = [...cuts, bytes.length];
  return ends[Math.floor(ends.length / 2) - 1] ?? 0;
}

/** In plain there is the greeting, at most one answer (to STARTTLS, or ABORT), and then only TLS. */
function checkPlain(output: Buffer): void {
  const magic = Buffer.from('0003e889045565a9', 'hex');
  const first = output.indexOf(magic);
  const second = first === -1 ? -1 : output.indexOf(magic, first + 8);
  if (second !== -1) throw new Error('more than STARTTLS is answered in plain');
}
