/**
 * One case of the NBD fuzzer: clients that do what their seed says, against a server in this process, while one more
 * client is served on a connection of its own.
 *
 * A case is right if what the server sent fits the model, everything is given back when the clients are gone
 * (connections, requests in flight, memory, exports), the well-behaved client got its bytes, and nothing was thrown that
 * nobody handled.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DEFAULT_LIMITS, type NbdLimits } from '../../src/nbd/server/limits.ts';
import { NbdServer } from '../../src/nbd/server/server.ts';
import { u32 } from '../interop/nbd-conformance/bytes.ts';
import { Option } from '../interop/nbd-conformance/constants.ts';
import { Negotiation } from '../interop/nbd-conformance/negotiation.ts';
import { RawConnection } from '../interop/nbd-conformance/raw-connection.ts';
import { Transmission } from '../interop/nbd-conformance/transmission.ts';
import { checkOutput } from './nbd-check.ts';
import { converse, type Output, SETTLE_MS, TLS_KEY, TLS_USER, turn } from './nbd-client.ts';
import { FuzzCatalog, ON_PURPOSE } from './nbd-exports.ts';
import { understand } from './nbd-model.ts';
import { type Plan, sentBytes } from './nbd-plan.ts';

/** Small, so that they are reached. */
export const FUZZ_LIMITS: NbdLimits = {
  ...DEFAULT_LIMITS,
  connections: 16,
  requestsEach: 8,
  memoryEach: 512 * 1024,
  memoryTotal: 2 * 1024 * 1024,
  optionBytes: 4096,
  handshakeMs: 500,
  // Longer than a busy machine keeps a client of this process from reading.
  stallMs: 2000,
  closeMs: 1000,
};
/** Who stops in the middle of a TLS handshake is waited for as long as this. */
const TLS_HANDSHAKE_MS = 200;
const MODEL_LIMITS = { optionBytes: 4096, skippedBytes: 1024 * 1024, payloadBytes: 32 * 1024 * 1024 };

export interface Outcome {
  /** What is wrong; empty if nothing is. */
  readonly wrong: string;
  readonly options: number;
  readonly replies: number;
  readonly milliseconds: number;
}

/** The servers, and the client that must be served right all the time. */
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
      limits: { ...FUZZ_LIMITS, handshakeMs: TLS_HANDSHAKE_MS },
      onError,
      tls: { kind: 'psk', keys: new Map([[TLS_USER, TLS_KEY]]) },
    });
  }

  static async create(): Promise<Arena> {
    const arena = new Arena(await mkdtemp(join(tmpdir(), 'volsnap-nbd-fuzz-')));
    await arena.#server.listen({ path: arena.#path('plain') });
    await arena.#tlsServer.listen({ path: arena.#path('tls') });
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
      const clients = [plan, ...plan.others].map(async (one) => {
        const output = await converse(one, this.#path(one.channel));
        const { options, replies } = check(output, one);
        counts.options += options;
        counts.replies += replies;
      });
      // All are waited for, also when one is wrong: none may reach into the next case.
      const ends = await Promise.allSettled([...clients, this.#serveWitness()]);
      for (const end of ends) if (end.status === 'rejected') throw end.reason;
      await this.#settled();
    } catch (error) {
      wrong = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    }
    if (this.#errors.length > 0)
      wrong += `; inside the server: ${this.#errors.splice(0).map(stackOf).join('; ')}`;
    return { wrong, ...counts, milliseconds: performance.now() - started };
  }

  #path(channel: Plan['channel']): string {
    return join(this.#folder, channel === 'plain' ? 'plain.sock' : 'tls.sock');
  }

  async #openWitness(): Promise<Transmission> {
    const negotiation = await Negotiation.begin(await RawConnection.open({ path: this.#path('plain') }));
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
      throw new Error(`the well-behaved client reads other bytes than it wrote at ${offset}`);
  }

  /** Nothing is left of the clients. */
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
      // The well-behaved client and the export that it uses stay.
      if (connections === 1 && inFlight === 0 && memory === 0 && users === 1) return;
      if (performance.now() > until) throw new Error(`left behind: ${JSON.stringify(state())}`);
      await turn();
    }
  }
}

const stackOf = (error: unknown): string =>
  error instanceof Error ? (error.stack ?? error.message) : String(error);

/** @throws Deviation */
function check(
  { bytes, cutOff }: Output,
  plan: Plan,
): { readonly options: number; readonly replies: number } {
  const { channel, manner } = plan;
  if (channel === 'injected') {
    checkPlain(bytes);
    return { options: 0, replies: 0 };
  }
  const sent = sentBytes(plan);
  // Flags were sent before TLS, and are right. A connection under TLS has no halves to close.
  const heard = channel === 'tls' ? Buffer.concat([u32(3), sent.subarray(4)]) : sent;
  const understood = understand(heard, MODEL_LIMITS);
  const isRead = channel === 'plain' && (manner === 'polite' || manner === 'deaf');
  return checkOutput(bytes, understood, isRead && !(cutOff && understood.closes));
}

/** In plain there is the greeting, at most one answer (to STARTTLS, or ABORT), and then only TLS. */
function checkPlain(output: Buffer): void {
  const magic = Buffer.from('0003e889045565a9', 'hex');
  const first = output.indexOf(magic);
  const second = first === -1 ? -1 : output.indexOf(magic, first + 8);
  if (second !== -1) throw new Error('more than STARTTLS is answered in plain');
}
